"""The seam between the runtime and the pod network: who gives a sandbox its addresses.

Implementations: network/bridge.py (bridge, veth, address pool) and network/simulated.py (addresses from a counter);
the cluster package passes one in. Lives here, below the network package, because the runtime calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

TransportProtocol = Literal["TCP", "UDP", "SCTP"]


@dataclass(frozen=True, slots=True)
class PodAddresses:
    """What a sandbox got. The first address is `status.podIP`."""

    addresses: tuple[str, ...]
    interface: str = "eth0"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A container's hostPort."""

    host_port: int
    container_port: int
    protocol: TransportProtocol = "TCP"
    host_address: str = ""


class PodNetwork(Protocol):
    """Attach and detach are idempotent by sandbox id; after a crash `list_attached` tells what stands."""

    async def start(self) -> None:
        """Make the bridge and what else must stand before the first pod. Adopts what an earlier run left."""
        ...

    async def stop(self, *, remove: bool) -> None:
        """Stop; with `remove`, take away bridge, links, rules and addresses."""
        ...

    async def attach(
        self, sandbox_id: str, netns_path: str, *, hostname: str = "", ports: Sequence[PortMapping] = ()
    ) -> PodAddresses:
        """Give a network namespace its interface, addresses and routes. Raises TiphysError when the pool is empty."""
        ...

    async def detach(self, sandbox_id: str) -> None:
        """Take back what attach gave. Nothing happens for an unknown id."""
        ...

    async def list_attached(self) -> Mapping[str, PodAddresses]: ...
