"""The seam between the proxy component and the rules of its machine.

`ServiceProxy` makes Services reachable from this machine and its pods. Implementations: nftables.py (real),
simulated.py (rules in a dict). The pods' own network has its seam in runtime/podnetwork.py, one layer below, because
the runtime calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tiphys.runtime.podnetwork import TransportProtocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One ready backend of a service port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service as the data plane needs it. Equal records need no change on the machine."""

    namespace: str
    name: str
    port_name: str
    protocol: TransportProtocol
    port: int
    cluster_ips: tuple[str, ...]
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    """externalIPs and load-balancer ingress addresses."""
    session_affinity_timeout_s: int = 0
    """0: none; otherwise ClientIP affinity."""
    endpoints: tuple[Endpoint, ...] = ()
    """Backends for cluster-internal traffic, sorted."""
    external_endpoints: tuple[Endpoint, ...] | None = None
    """Backends for NodePort and external traffic when externalTrafficPolicy is Local; None: the same as endpoints."""


ServiceKey = tuple[str, str]
"""(namespace, name) of a Service."""


class ServiceProxy(Protocol):
    """Holds the machine's rules equal to the last desired set."""

    async def start(self) -> None: ...

    async def sync(self, ports: Sequence[ServicePort]) -> None:
        """Make the rules equal to `ports` by the smallest change. When it returns, new connections follow them.
        After a failure the next call repairs from a full load."""
        ...

    async def update(self, changes: Mapping[ServiceKey, Sequence[ServicePort]]) -> None:
        """Replace all ports of the named Services (none: the Service is gone); the others stay. Promises what `sync`
        promises, at a cost that depends on the changes alone."""
        ...

    async def stop(self, *, remove: bool) -> None: ...
