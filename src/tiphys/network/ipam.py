"""The node's pool of pod addresses and its memory on disk.

Decides which address a sandbox gets: never used ones in order, then those given back, oldest first, so that an address
rests as long as possible before it means another pod. Invariant: no address is given twice. The file is a help, not the
truth: after a crash the links that exist say which addresses are taken (bridge.py), so the file is not flushed to the
disk before an answer.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

from tiphys.base.errors import TiphysError
from tiphys.runtime.podnetwork import PortMapping


class AddressesUsedUp(TiphysError):
    """Every address of the node's pod range belongs to a pod."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What one sandbox holds."""

    address: str
    ports: tuple[PortMapping, ...] = ()


class AddressPool:
    """See the module's docstring. The first host address of the range is the gateway's and is never given out."""

    def __init__(self, cidr: str, path: Path | None = None) -> None:
        self.range = IPv4Network(cidr)
        self._path = path
        self._next = 2
        """Index in the range of the next address never used."""
        self._free: deque[str] = deque()
        self.leases: dict[str, Lease] = {}

    def take(self, sandbox_id: str, ports: tuple[PortMapping, ...] = ()) -> Lease:
        """Give a sandbox an address. Raises AddressesUsedUp."""
        assert sandbox_id not in self.leases, f"{sandbox_id} has an address already"
        if self._next < self.range.num_addresses - 1:
            address = str(self.range[self._next])
            self._next += 1
        elif self._free:
            address = self._free.popleft()
        else:
            raise AddressesUsedUp(
                f"no pod address is left in {self.range}: delete pods on this node or give it a larger pod range"
            )
        lease = self.leases[sandbox_id] = Lease(address, ports)
        return lease

    def give_back(self, sandbox_id: str) -> None:
        lease = self.leases.pop(sandbox_id, None)
        if lease:
            self._free.append(lease.address)

    def load(self, standing: Mapping[str, str]) -> None:
        """Read the file, then believe `standing` (sandbox id -> address of the link that exists) where they differ."""
        saved = self._read()
        ports = saved.get("leases", {})
        self.leases = {
            sandbox_id: Lease(address, _ports(ports.get(sandbox_id, {}).get("ports", [])))
            for sandbox_id, address in standing.items()
        }
        taken = {lease.address for lease in self.leases.values()}
        highest = max((int(IPv4Address(a)) - int(self.range.network_address) for a in taken), default=1)
        self._next = min(max(int(saved.get("next", 2)), highest + 1), self.range.num_addresses - 1)
        given = {str(self.range[i]) for i in range(2, self._next)} - taken
        known = [a for a in saved.get("free", []) if a in given]
        lost = sorted(given.difference(known), key=IPv4Address)
        self._free = deque([*known, *lost])

    def snapshot(self) -> bytes:
        """Return what `write` puts into the file."""
        leases = {
            sandbox_id: {"address": lease.address, "ports": [asdict(port) for port in lease.ports]}
            for sandbox_id, lease in self.leases.items()
        }
        return json.dumps({"next": self._next, "free": [*self._free], "leases": leases}).encode()

    def write(self, data: bytes) -> None:
        """Replace the file. Blocks; raises OSError."""
        if self._path:
            temporary = self._path.with_suffix(".tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(self._path)

    def forget(self) -> None:
        """Give back everything and remove the file."""
        self.leases.clear()
        self._free.clear()
        self._next = 2
        if self._path:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            data = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return cast(dict[str, Any], data) if isinstance(data, dict) else {}


def _ports(saved: list[dict[str, Any]]) -> tuple[PortMapping, ...]:
    return tuple(PortMapping(**port) for port in saved)
