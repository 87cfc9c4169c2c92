"""Where the API server dials for a Service: addresses of ready endpoints behind one of its ports.

Decides from the newest Services, EndpointSlices and Nodes of the watch cache; the name in the certificate is always
`<service>.<namespace>.svc`. Read by the webhook client. Pods of simulated nodes have addresses at which nobody answers: a
service that has no others is told apart at once.

DIFFERS: endpoints are dialled directly, as upstream does with --enable-aggregator-routing, and not the cluster address:
the API server need not stand behind a proxy.
Spec: Kubernetes documentation, "Dynamic Admission Control", service reference; "Configure the Aggregation Layer".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import TiphysError

Address = tuple[str, int]
SERVICE_LABEL = "kubernetes.io/service-name"
REMEMBERED = 256
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
        cached = self._services.get(namespace, name)
        if cached is None:
            raise NotRoutable(f'service "{name}" not found')
        spec = cached.decode().get("spec") or {}
        if spec.get("type") == "ExternalName":
            return [(spec.get("externalName") or "", port)]
        chosen = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
        if chosen is None:
            raise NotRoutable(f'no service port {port} found for service "{name}"')
        found = self._endpoints(namespace, name, chosen.get("name") or "")
        if not found:
            raise NotRoutable(f'no endpoints available for service "{name}"')
        reachable = [address for address, node in found if not self._is_simulated(node)]
        if not reachable:
            raise NotRoutable(
                f'all endpoints of service "{name}" are pods of simulated nodes, where no container answers; run its '
                "server outside of the cluster, or on a real node"
            )
        return reachable

    def _endpoints(self, namespace: str, name: str, port_name: str) -> list[tuple[Address, str]]:
        found: list[tuple[Address, str]] = []
        for cached in self._slices.objects(namespace):
            if cached.labels.get(SERVICE_LABEL) == name:
                found += ready_endpoints(cached.decode(), port_name)
        return found

    def _is_simulated(self, node: str) -> bool:
        cached = self._nodes.get("", node) if node else None
        info = {} if cached is None else (cached.decode().get("status") or {}).get("nodeInfo") or {}
        return str(info.get("containerRuntimeVersion") or "").startswith(SIMULATED_RUNTIME)


def ready_endpoints(endpoint_slice: Mapping[str, Any], port_name: str) -> list[tuple[Address, str]]:
    """Return address, port and node of each ready endpoint of a slice for the port of that name."""
    numbers = [p["port"] for p in endpoint_slice.get("ports") or () if (p.get("name") or "") == port_name]
    if not numbers or numbers[0] is None:
        return []
    endpoints: Sequence[Mapping[str, Any]] = endpoint_slice.get("endpoints") or ()
    return [
        ((endpoint["addresses"][0], int(numbers[0])), endpoint.get("nodeName") or "")
        for endpoint in endpoints
        if (endpoint.get("conditions") or {}).get("ready", True) is not False and endpoint.get("addresses")
    ]
