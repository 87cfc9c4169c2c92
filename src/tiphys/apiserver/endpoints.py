"""Where the API server dials for a Service: addresses of ready endpoints behind one of its ports.

Decides from the newest Services, EndpointSlices and Nodes of the watch cache, for webhooks, extension API servers and
the proxy paths of services. Pods of simulated nodes have addresses at which nobody answers: a service that has no others
is told apart at once.

DIFFERS: endpoints are dialled directly, as upstream does with --enable-aggregator-routing, and not the cluster address:
the API server need not stand behind a proxy, and the one that is asked is known.
Spec: Kubernetes documentation, "Dynamic Admission Control", service reference; "Configure the Aggregation Layer"; API
reference, EndpointSlice v1 (conditions).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

from tiphys.api.kind import JsonObject
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import TiphysError

Address = tuple[str, int]
SERVICE_NAME = "kubernetes.io/service-name"
"""Label of an EndpointSlice: the Service whose endpoints it has."""
REMEMBERED = 256
"""Service ports whose addresses are kept; all are forgotten when there are more."""
NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""What dialling a pod that is gone comes to: it refuses, or its address leads nowhere. Nothing was sent to it."""
SIMULATED_RUNTIME = "tiphys-simulated://"


class NotRoutable(TiphysError):
    """A service has nothing to dial; the message is upstream's."""


class ServiceResolver:
    """The arguments are the caches of Services, EndpointSlices and Nodes."""

    def __init__(self, services: ResourceCache, slices: ResourceCache, nodes: ResourceCache) -> None:
        self._services = services
        self._slices = slices
        self._nodes = nodes
        self._known: dict[tuple[str, str, int], tuple[int, int, list[Address]]] = {}

    def service(self, namespace: str, name: str) -> JsonObject | None:
        """Return a Service, None if there is none."""
        cached = self._services.get(namespace, name)
        return None if cached is None else cached.decode()

    def slices(self, namespace: str, name: str) -> list[JsonObject]:
        """Return the EndpointSlices of a Service."""
        return list(slices_of(self._slices, namespace, name))

    def addresses(self, namespace: str, name: str, port: int) -> list[Address]:
        """Return the addresses behind a service port, ready ones of its slices. Raises NotRoutable."""
        key = (namespace, name, port)
        state = self._services.changed_at, self._slices.changed_at
        known = self._known.get(key)
        if known is not None and known[:2] == state:
            return known[2]
        found = self._resolve(namespace, name, port)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = (*state, found)
        return found

    def _resolve(self, namespace: str, name: str, port: int) -> list[Address]:
        service = self.service(namespace, name)
        if service is None:
            raise NotRoutable(f'service "{name}" not found')
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return [(spec.get("externalName") or "", port)]
        chosen = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
        if chosen is None:
            raise NotRoutable(f'no service port {port} found for service "{name}"')
        found = [
            one for part in self.slices(namespace, name) for one in ready_endpoints(part, chosen.get("name") or "")
        ]
        if not found:
            raise NotRoutable(f'no endpoints available for service "{name}"')
        reachable = [address for address, endpoint in found if not self._is_simulated(endpoint.get("nodeName") or "")]
        if not reachable:
            raise NotRoutable(
                f'all endpoints of service "{name}" are pods of simulated nodes, where no container answers; run its '
                "server outside of the cluster, or on a real node"
            )
        return reachable

    def _is_simulated(self, node: str) -> bool:
        cached = self._nodes.get("", node) if node else None
        info = {} if cached is None else (cached.decode().get("status") or {}).get("nodeInfo") or {}
        return str(info.get("containerRuntimeVersion") or "").startswith(SIMULATED_RUNTIME)


def slices_of(slices: ResourceCache, namespace: str, service: str) -> Iterator[JsonObject]:
    """Yield the EndpointSlices of a Service."""
    for cached in slices.objects(namespace):
        if cached.labels.get(SERVICE_NAME) == service:
            yield cached.decode()


def ready_endpoints(part: Mapping[str, Any], port_name: str) -> Iterator[tuple[Address, JsonObject]]:
    """Yield the address, with the slice's port of that name, and the rest of each ready endpoint of a slice."""
    number = next((p.get("port") for p in part.get("ports") or () if (p.get("name") or "") == port_name), None)
    if not number:
        return
    for endpoint in part.get("endpoints") or ():
        ready = (endpoint.get("conditions") or {}).get("ready")  # nobody knows: then it is taken as ready
        if ready is not False and endpoint.get("addresses"):
            yield (endpoint["addresses"][0], int(number)), endpoint
