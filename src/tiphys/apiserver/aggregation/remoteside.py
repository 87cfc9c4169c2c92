"""All that reaches other API servers: made by the aggregator when the first remote APIService appears."""

from __future__ import annotations

from tiphys.api.kind import Kind
from tiphys.apiserver.aggregation.apiservices import ApiService, ApiServices
from tiphys.apiserver.aggregation.availability import Availability, ConditionWriter
from tiphys.apiserver.aggregation.documents import RemoteDocuments
from tiphys.apiserver.aggregation.forwarding import OPENAPI_READER, Forwarder
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.endpoints import ServiceResolver
from tiphys.apiserver.frontproxy import FrontProxy
from tiphys.apiserver.registry import Registry
from tiphys.base.metrics import Counter
from tiphys.wire.message import Answer, Request, Response


class RemoteSide:
    """Forwarding, checks and documents of remote API servers. The aggregator runs `availability`."""

    def __init__(
        self,
        apiservices: ApiServices,
        services: ResourceCache,
        slices: ResourceCache,
        nodes: ResourceCache,
        registry: Registry,
        kind: Kind,
        front_proxy: FrontProxy | None,
        losses: Counter,
    ) -> None:
        resolver = ServiceResolver(services, slices, nodes)
        self.forwarder = Forwarder(resolver, front_proxy, lambda count: registry.randomness.integer(0, count - 1))
        self.documents = RemoteDocuments(apiservices, self.forwarder)
        writer = ConditionWriter(registry, kind, losses)
        self.availability = Availability(apiservices, resolver, self.forwarder, self.documents, writer)
        self.availability.watch(services, slices)

    async def describe(self, request: Request, service: ApiService) -> Answer:
        """Answer a request for an OpenAPI document by the server of an APIService: documents are for everybody."""
        converted = self.documents.converted_v3(service)
        if converted is None:
            return await self.forwarder.forward(request, OPENAPI_READER, service)
        return Response(200, converted[0], headers=[("ETag", f'"{converted[1]}"'), ("Vary", "Accept")])

    async def close(self) -> None:
        await self.documents.close()
        await self.forwarder.close()
