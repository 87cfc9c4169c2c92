"""A pod network without packets: addresses come from a counter over a range, in order, and are used again oldest first.

For simulated nodes and tests. Invariant: no two attached sandboxes have the same address.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Mapping, Sequence

from tiphys.base.errors import TiphysError
from tiphys.runtime.podnetwork import PodAddresses, PortMapping


class SimulatedPodNetwork:
    """Hands out the addresses of `cidr` (the node's pod range)."""

    def __init__(self, cidr: str = "10.244.0.0/24") -> None:
        self._range = ipaddress.ip_network(cidr)
        self._next = 2
        """Index in the range of the next address never used: 0 is the network, 1 would be the bridge."""
        self._free: deque[str] = deque()
        self._attached: dict[str, PodAddresses] = {}

    async def start(self) -> None:
        pass

    async def stop(self, *, remove: bool) -> None:
        if remove:
            self._attached.clear()
            self._free.clear()
            self._next = 2

    async def attach(
        self, sandbox_id: str, netns_path: str, *, hostname: str = "", ports: Sequence[PortMapping] = ()
    ) -> PodAddresses:
        """Return the sandbox's addresses, the same ones each time. Raises TiphysError when the range is used up."""
        known = self._attached.get(sandbox_id)
        if known:
            return known
        if self._next < self._range.num_addresses - 1:
            address = str(self._range[self._next])
            self._next += 1
        elif self._free:
            address = self._free.popleft()
        else:
            raise TiphysError(
                f"no pod address is left in {self._range}: delete pods on this node or give it a larger pod range"
            )
        self._attached[sandbox_id] = PodAddresses((address,))
        return self._attached[sandbox_id]

    async def detach(self, sandbox_id: str) -> None:
        gone = self._attached.pop(sandbox_id, None)
        if gone:
            self._free.extend(gone.addresses)

    async def list_attached(self) -> Mapping[str, PodAddresses]:
        return dict(self._attached)
