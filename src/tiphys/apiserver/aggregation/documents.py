"""What remote API servers tell about themselves: discovery and OpenAPI documents, fetched in the background.

This server's own documents have theirs in them (apiserver/discovery.py, openapi.py read the records here), so that a
client asks one server. They are fetched when a server is looked at (availability.py) and found there, with ETags; what
was known of a server that does not answer any more is told on as stale.

Invariant: `revision` grows whenever something that is told from here changes. A document that is not what it should be
counts as no answer.

Spec: KEP-3352 (aggregated discovery; freshness), KEP-2896 (OpenAPI v3); Kubernetes documentation, "Kubernetes API
Aggregation Layer".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.apiserver.aggregation.apiservices import ApiService, ApiServices
from tiphys.apiserver.aggregation.forwarding import AGGREGATOR, OPENAPI_READER, BadAuthority, Forwarder
from tiphys.apiserver.aggregation.reading import (
    BadDocument,
    Document,
    convert_resource_list,
    find_v3_hash,
    make_v3,
    parse_aggregated,
    parse_document,
    take_v2,
)
from tiphys.apiserver.endpoints import NotRoutable
from tiphys.apiserver.user import User
from tiphys.wire.http_client import WholeAnswer

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList" for form in ("v2", "v2beta1")
)


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """One group version of a remote server, as discovery tells it."""

    group: str
    version: str
    group_priority: int
    version_priority: int
    resources: Sequence[Document]
    fresh: bool


@dataclass(slots=True)
class _Known:
    """What is known of one APIService's server. `etags` by path; `whole` is its aggregated discovery."""

    uid: str
    etags: dict[str, str] = field(default_factory=dict)
    whole: Mapping[tuple[str, str], Sequence[Document]] = field(default_factory=dict)
    resources: Sequence[Document] = ()
    fresh: bool = False
    openapi_v2: Document | None = None
    """`paths` and `definitions` of its group."""
    openapi_v3: str = ""
    """Hash of its document, "" if it has none."""
    converted: bytes = b""
    """The document made of v2, for a server that has no v3."""


class RemoteDocuments:
    """See the module's docstring."""

    def __init__(self, services: ApiServices, forwarder: Forwarder) -> None:
        self._services = services
        self._forwarder = forwarder
        self._known: dict[str, _Known] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._changes = 0

    @property
    def revision(self) -> int:
        return self._changes + self._services.revision

    def versions(self) -> list[RemoteVersion]:
        """Return every group version that another server answers for, whether it is there now or not."""
        told = []
        for service in self._services.remote.values():
            known = self._of(service)
            told.append(
                RemoteVersion(
                    service.group,
                    service.version,
                    service.group_priority,
                    service.version_priority,
                    known.resources,
                    known.fresh,
                )
            )
        return told

    def openapi_v2(self) -> list[Document]:
        """Return the parts of remote OpenAPI v2 documents: `paths` and `definitions` each."""
        parts = (self._of(service).openapi_v2 for service in self._services.remote.values())
        return [part for part in parts if part is not None]

    def openapi_v3(self) -> dict[str, str]:
        """Return path below /openapi/v3 -> hash of its document, for remote group versions that have one."""
        return {
            service.root.lstrip("/"): known.openapi_v3
            for service in self._services.remote.values()
            if (known := self._of(service)).openapi_v3
        }

    def converted_v3(self, service: ApiService) -> tuple[bytes, str] | None:
        """Return the OpenAPI v3 document, with its hash, of a server that has none itself; None if it has."""
        known = self._of(service)
        return (known.converted, known.openapi_v3) if known.converted else None

    def lose(self, name: str) -> None:
        """Tell on what is known of a server as stale: it does not answer."""
        known = self._known.get(name)
        if known is not None and known.fresh:
            known.fresh = False
            self._changes += 1

    async def fetch(self, service: ApiService) -> None:
        """Fetch a server's discovery now, its OpenAPI documents afterwards. Never raises but for cancellation."""
        for name in [name for name in self._known if name not in self._services.by_name]:
            del self._known[name]
        known = self._of(service)
        before = (known.resources, known.fresh)
        try:
            known.resources = await self._discover(service, known)
            known.fresh = True
        except (OSError, TimeoutError, NotRoutable, BadAuthority, BadDocument) as error:
            log.warning("discovery of APIService %s: %s", service.name, error)
            known.fresh = False
        if before != (known.resources, known.fresh):
            self._changes += 1
        if known.fresh and service.name not in self._fetching:
            task = asyncio.create_task(self._fetch_openapi(service, known), name=f"openapi-{service.name}")
            self._fetching[service.name] = task
            task.add_done_callback(lambda _: self._fetching.pop(service.name, None))

    async def close(self) -> None:
        """Stop fetching."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, service: ApiService) -> _Known:
        known = self._known.get(service.name)
        if known is None or known.uid != service.uid:
            known = self._known[service.name] = _Known(service.uid)
        return known

    async def _get(
        self, service: ApiService, known: _Known, path: str, user: User, accept: str = "application/json"
    ) -> WholeAnswer | None:
        """Return an answer, None if what is known is still true."""
        headers = {"Accept": accept}
        etag = known.etags.get(path)
        if etag:
            headers["If-None-Match"] = etag
        target = self._forwarder.target(service)
        answer = await self._forwarder.ask(target, path, user, headers, timeout_s=TIMEOUT_S)
        if answer.status == 304:
            return None
        known.etags.pop(path, None)
        if answer.status == 200 and "etag" in answer.headers:
            known.etags[path] = answer.headers["etag"]
        return answer

    async def _discover(self, service: ApiService, known: _Known) -> Sequence[Document]:
        answer = await self._get(service, known, "/apis", AGGREGATOR, _AGGREGATED)
        aggregated = answer is None or "as=APIGroupDiscoveryList" in answer.headers.get("content-type", "")
        if aggregated:
            if answer is not None and answer.status == 200:
                known.whole = parse_aggregated(parse_document(answer))
            found = known.whole.get((service.group, service.version))
            if found is not None:
                return found
        known.etags.pop("/apis", None)
        answer = await self._get(service, known, service.root, AGGREGATOR)
        if answer is None:
            return known.resources
        if answer.status != 200:
            raise BadDocument(f"{service.root} was answered with {answer.status}")
        return convert_resource_list(parse_document(answer), service.group, service.version)

    async def _fetch_openapi(self, service: ApiService, known: _Known) -> None:
        try:
            before = (known.openapi_v3, known.openapi_v2)
            answer = await self._get(service, known, "/openapi/v3", OPENAPI_READER)
            if answer is not None:
                told = find_v3_hash(parse_document(answer), service) if answer.status == 200 else ""
                if told or not known.converted:
                    known.openapi_v3, known.converted = told, b""
            answer = await self._get(service, known, "/openapi/v2", OPENAPI_READER)
            if answer is not None and answer.status == 200:
                known.openapi_v2 = await asyncio.to_thread(take_v2, answer, service)
                if not known.openapi_v3 or known.converted:
                    known.converted, known.openapi_v3 = await asyncio.to_thread(make_v3, known.openapi_v2)
            elif answer is not None:
                known.openapi_v2 = None
            if before != (known.openapi_v3, known.openapi_v2):
                self._changes += 1
        except (OSError, TimeoutError, NotRoutable, BadAuthority, BadDocument) as error:
            log.warning("OpenAPI of APIService %s: %s", service.name, error)
