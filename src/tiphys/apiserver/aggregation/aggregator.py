"""The aggregation layer in one piece: who answers for a path, and what runs in the background for it.

Made by the assembly of a server; asked by routing (`find`, `forward`), by discovery and by OpenAPI (`documents`).
Without remote APIServices it costs a request one look into an empty table, and what reaches other servers is not even
imported (`RemoteSide`): most clusters have none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiphys.api.kind import Kind
from tiphys.apiserver.aggregation.apiservices import ApiService, ApiServices
from tiphys.apiserver.aggregation.local import LocalApiServices
from tiphys.apiserver.bootstrap import publish_trust
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.frontproxy import FrontProxy
from tiphys.apiserver.registry import Registry
from tiphys.apiserver.user import User
from tiphys.base.errors import ApiError, path_not_found
from tiphys.base.metrics import Counter, Metrics
from tiphys.wire.message import Answer, Request

if TYPE_CHECKING:
    from tiphys.apiserver.aggregation.documents import RemoteDocuments
    from tiphys.apiserver.aggregation.remoteside import RemoteSide

log = logging.getLogger(__name__)

TRUST_EVERY_S = 60.0
"""How often what extension API servers are told is written again, if somebody changed it."""


class Aggregator:
    """See the module's docstring. `run` until cancelled, then `close`."""

    def __init__(self, registry: Registry, front_proxy: FrontProxy | None, metrics: Metrics | None = None) -> None:
        self._registry = registry
        self._losses = _publish_availability(metrics or Metrics(), self)
        self._front_proxy = front_proxy
        self._kind = _kind(registry, "apiregistration.k8s.io", "apiservices")
        self.services = ApiServices(self._cache(self._kind))
        definitions = self._objects("apiextensions.k8s.io", "customresourcedefinitions")
        self._local = LocalApiServices(self.services, definitions, registry, self._kind)
        self._remote: RemoteSide | None = None
        self._wanted = asyncio.Event()
        self.services.listeners.add(self._on_names)
        self._on_names(())

    def find(self, path: str) -> ApiService | None:
        """Return the APIService whose server answers for a path, None if that is this one."""
        return self.services.find(path) if self.services.remote else None

    @property
    def withdrawn(self) -> frozenset[tuple[str, str]]:
        """Return (group, version) of what this server serves and does not tell among all groups."""
        return self._local.withdrawn

    @property
    def documents(self) -> RemoteDocuments | None:
        """What other servers tell of themselves, None if there has never been one."""
        return None if self._remote is None else self._remote.documents

    async def forward(self, request: Request, user: User, service: ApiService) -> Answer:
        """Answer a request by the server of an APIService."""
        if self._remote is None:
            raise path_not_found()
        return await self._remote.forwarder.forward(request, user, service)

    async def describe(self, request: Request) -> Answer | None:
        """Answer a request for an OpenAPI v3 document by the server whose it is, None if it is this one's."""
        service = self.find(request.path.removeprefix("/openapi/v3"))
        if service is None or self._remote is None:
            return None
        return await self._remote.describe(request, service)

    async def run(self) -> None:
        """Keep APIServices as they should be, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._local.run(), name="local-apiservices")
            if self._front_proxy is not None:
                group.create_task(self._publish(self._front_proxy), name="extension-authentication")
            await self._wanted.wait()
            assert self._remote is not None
            await self._remote.availability.run()

    async def close(self) -> None:
        """Close what is open to remote servers."""
        if self._remote is not None:
            await self._remote.close()

    def _on_names(self, names: Sequence[str]) -> None:
        """Make what reaches remote servers as soon as there is one."""
        if self._remote is None and self.services.remote:
            from tiphys.apiserver.aggregation.remoteside import RemoteSide

            services, slices = self._objects("", "services"), self._objects("discovery.k8s.io", "endpointslices")
            nodes, proxy = self._objects("", "nodes"), self._front_proxy
            self._remote = RemoteSide(
                self.services, services, slices, nodes, self._registry, self._kind, proxy, self._losses
            )
            self._wanted.set()

    async def _publish(self, front_proxy: FrontProxy) -> None:
        while True:
            await asyncio.sleep(TRUST_EVERY_S)
            try:
                await publish_trust(self._registry, front_proxy)
            except ApiError as error:
                log.warning("what extension API servers are told is written again later: %s", error)

    def _objects(self, group: str, plural: str) -> ResourceCache:
        return self._cache(_kind(self._registry, group, plural))

    def _cache(self, kind: Kind) -> ResourceCache:
        return self._registry.cache.resource(self._registry.storage_kind(kind).storage_prefix())


def _publish_availability(metrics: Metrics, aggregator: Aggregator) -> Counter:
    """Publish who is unavailable; return the counter of losses."""

    def unavailable() -> list[tuple[tuple[str, ...], float]]:
        return [((each.name,), float(not each.available)) for each in aggregator.services.by_name.values()]

    text = "Gauge of APIServices which are marked as unavailable broken down by APIService name."
    metrics.collect("gauge", "aggregator_unavailable_apiservice", text, ("name",), unavailable)
    text = "Counter of APIServices which are marked as unavailable broken down by APIService name and reason."
    return metrics.counter("aggregator_unavailable_apiservice_total", text, ("name", "reason"))


def _kind(registry: Registry, group: str, plural: str) -> Kind:
    kind = registry.kinds.resource(group, "v1", plural)
    assert kind is not None, f"{plural}.{group} is served by every version"
    return kind
