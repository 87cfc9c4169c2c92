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
import hashlib
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tiphys.apiserver.aggregation.apiservices import ApiService, ApiServices
from tiphys.apiserver.aggregation.forwarding import AGGREGATOR, OPENAPI_READER, BadAuthority, Forwarder
from tiphys.apiserver.aggregation.resolving import Unresolvable
from tiphys.apiserver.user import User
from tiphys.wire.http_client import WholeAnswer

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList" for form in ("v2", "v2beta1")
)
_PARAMETER = "#/parameters/"
Document = dict[str, Any]


class BadDocument(TypeError):
    """A server told something that is no document of its kind."""


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
        except (OSError, TimeoutError, Unresolvable, BadAuthority, BadDocument) as error:
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
                known.whole = parse_aggregated(_parsed(answer))
            found = known.whole.get((service.group, service.version))
            if found is not None:
                return found
        known.etags.pop("/apis", None)
        answer = await self._get(service, known, service.root, AGGREGATOR)
        if answer is None:
            return known.resources
        if answer.status != 200:
            raise BadDocument(f"{service.root} was answered with {answer.status}")
        return convert_resource_list(_parsed(answer), service.group, service.version)

    async def _fetch_openapi(self, service: ApiService, known: _Known) -> None:
        try:
            before = (known.openapi_v3, known.openapi_v2)
            answer = await self._get(service, known, "/openapi/v3", OPENAPI_READER)
            if answer is not None:
                told = _v3_hash(_parsed(answer), service) if answer.status == 200 else ""
                if told or not known.converted:
                    known.openapi_v3, known.converted = told, b""
            answer = await self._get(service, known, "/openapi/v2", OPENAPI_READER)
            if answer is not None and answer.status == 200:
                known.openapi_v2 = await asyncio.to_thread(_v2_part, answer, service)
                if not known.openapi_v3 or known.converted:
                    known.converted, known.openapi_v3 = await asyncio.to_thread(_as_v3, known.openapi_v2)
            elif answer is not None:
                known.openapi_v2 = None
            if before != (known.openapi_v3, known.openapi_v2):
                self._changes += 1
        except (OSError, TimeoutError, Unresolvable, BadAuthority, BadDocument) as error:
            log.warning("OpenAPI of APIService %s: %s", service.name, error)


def _parsed(answer: WholeAnswer) -> Document:
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise BadDocument(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadDocument("not a JSON object")
    return document


def _list(document: Mapping[str, Any], key: str) -> list[Document]:
    """Return the objects in a list of a document."""
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadDocument(f"{key} is not a list of objects")
    return value


def parse_aggregated(document: Document) -> dict[tuple[str, str], Sequence[Document]]:
    """Return (group, version) -> resources of an APIGroupDiscoveryList. Raises BadDocument."""
    found: dict[tuple[str, str], Sequence[Document]] = {}
    for group in _list(document, "items"):
        name = (group.get("metadata") or {}).get("name") or ""
        for version in _list(group, "versions"):
            found[name, str(version.get("version"))] = _list(version, "resources")
    return found


def convert_resource_list(document: Document, group: str, version: str) -> list[Document]:
    """Return the resources of an APIResourceList as aggregated discovery tells them. Raises BadDocument."""
    found: dict[str, Document] = {}
    parts: list[tuple[str, str, Document]] = []
    for told in _list(document, "resources"):
        name, slash, part = str(told.get("name") or "").partition("/")
        kind = {
            "group": told.get("group") or group,
            "version": told.get("version") or version,
            "kind": told.get("kind") or "",
        }
        if slash:
            parts.append((name, part, {"responseKind": kind, "verbs": told.get("verbs") or []}))
            continue
        resource: Document = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if told.get("namespaced") else "Cluster",
            "singularResource": told.get("singularName") or "",
            "verbs": told.get("verbs") or [],
        }
        resource.update({key: told[key] for key in ("shortNames", "categories") if told.get(key)})
        found[name] = resource
    for name, part, subresource in parts:
        if name in found:
            found[name].setdefault("subresources", []).append({"subresource": part, **subresource})
    return list(found.values())


def _v3_hash(document: Document, service: ApiService) -> str:
    paths = document.get("paths")
    told = paths.get(service.root.lstrip("/")) if isinstance(paths, dict) else None
    url = told.get("serverRelativeURL") if isinstance(told, dict) else None
    return str(url or "").partition("hash=")[2].partition("&")[0] or ("unknown" if url else "")


def _v2_part(answer: WholeAnswer, service: ApiService) -> Document:
    """Return the paths of a service's group and the definitions that they need."""
    document = _parsed(answer)
    paths, definitions = document.get("paths"), document.get("definitions")
    if not isinstance(paths, dict) or not isinstance(definitions, dict):
        raise BadDocument("no paths or no definitions")
    own = {
        path: _with_parameters(item, document.get("parameters") or {})
        for path, item in paths.items()
        if path.startswith(f"/apis/{service.group}/")
    }
    needed: dict[str, Any] = {}
    waiting = list(_references(own))
    while waiting:
        name = waiting.pop()
        if name not in needed and name in definitions:
            needed[name] = definitions[name]
            waiting.extend(_references(definitions[name]))
    kinds = {
        name: each
        for name, each in definitions.items()
        if isinstance(each, dict)
        and any(
            isinstance(gvk, dict) and gvk.get("group") == service.group
            for gvk in each.get("x-kubernetes-group-version-kind") or ()
        )
    }
    part = {"paths": own, "definitions": {**kinds, **needed}}
    from tiphys.apiserver.openapimerge import convert_to_v3
    from tiphys.apiserver.openapiprotobuf import encode_v2

    try:
        encode_v2({"swagger": "2.0", "info": {"title": "", "version": ""}, **part})
        convert_to_v3(part)
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise BadDocument(f"/openapi/v2 is not well formed: {error!r}") from error  # all clients would get it
    return part


def _as_v3(part: Document) -> tuple[bytes, str]:
    """Return the v3 document of a v2 part, and its hash."""
    from tiphys.apiserver.openapimerge import convert_to_v3

    document = orjson.dumps(convert_to_v3(part))
    return document, hashlib.sha256(document).hexdigest().upper()


def _with_parameters(node: Any, parameters: Mapping[str, Any]) -> Any:
    """Return a path with the parameters that it refers to written out: others have none of that name."""
    if isinstance(node, list):
        return [_with_parameters(value, parameters) for value in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith(_PARAMETER):
        return parameters.get(reference.removeprefix(_PARAMETER), node)
    return {key: _with_parameters(value, parameters) for key, value in node.items()}


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix("#/definitions/")
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
