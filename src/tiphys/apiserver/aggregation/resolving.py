"""Where a remote API server is: a Service's ready endpoints, or the name that it stands for. Pure.

DIFFERS: requests go to endpoints and not to the Service's own address (upstream does so with enable-aggregator-routing):
so they arrive wherever pods can be reached, and the one that is asked is known.

Spec: Kubernetes documentation, "Service"; API reference, APIService v1, ServiceReference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tiphys.api.kind import JsonObject
from tiphys.apiserver.aggregation.apiservices import ServiceReference
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import TiphysError

SERVICE_NAME = "kubernetes.io/service-name"


class Unresolvable(TiphysError):
    """A Service leads nowhere now."""


class Resolver:
    """Looks at Services and EndpointSlices of the watch cache. `choose(n)` returns a number below n."""

    def __init__(self, services: ResourceCache, slices: ResourceCache, choose: Callable[[int], int]) -> None:
        self._services = services
        self._slices = slices
        self._choose = choose

    def service(self, reference: ServiceReference) -> JsonObject | None:
        cached = self._services.get(reference.namespace, reference.name)
        return None if cached is None else cached.decode()

    def slices(self, reference: ServiceReference) -> list[JsonObject]:
        """Return the EndpointSlices of a Service."""
        return [
            cached.decode()
            for cached in self._slices.objects(reference.namespace)
            if cached.labels.get(SERVICE_NAME) == reference.name
        ]

    def all(self, reference: ServiceReference) -> list[tuple[str, int]]:
        """Return every address and port that answers for a Service. Raises Unresolvable."""
        service = self.service(reference)
        if service is None:
            raise Unresolvable(f'services "{reference.name}" not found')
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return [(spec.get("externalName") or "", reference.port)]
        names = [p.get("name") or "" for p in spec.get("ports") or () if p.get("port") == reference.port]
        if not names:
            raise Unresolvable(f'no service port {reference.port} found for service "{reference.name}"')
        found = list(ready_addresses(self.slices(reference), names[0]))
        if not found:
            raise Unresolvable(f'no endpoints available for service "{reference.name}"')
        return found

    def one(self, reference: ServiceReference) -> tuple[str, int]:
        """Return one of them. Raises Unresolvable."""
        found = self.all(reference)
        return found[self._choose(len(found))]


def ready_addresses(slices: Iterable[JsonObject], port_name: str) -> Iterable[tuple[str, int]]:
    """Yield the addresses of ready endpoints with their port of a name."""
    for slice_ in slices:
        ports = [p["port"] for p in slice_.get("ports") or () if (p.get("name") or "") == port_name and p.get("port")]
        for endpoint in slice_.get("endpoints") or () if ports else ():
            ready = (endpoint.get("conditions") or {}).get("ready", True)
            if ready is not False and endpoint.get("addresses"):
                yield endpoint["addresses"][0], int(ports[0])
