"""What stored Services hold: ClusterIPs and node ports, counted as they change.

Fed by the events of the watch cache, so that looking an address up costs the same with ten thousand Services as with
ten. Read by service_addresses.py.

Invariant: `ips` and `ports` hold exactly what the Services in the cache name, each with how many of them do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from tiphys.api.kind import JsonObject
from tiphys.apiserver.cache import CachedEvent, CachedObject, ResourceCache

Port = tuple[int, str]
"""(number, protocol)."""
Held = TypeVar("Held")


class ServiceHoldings:
    """See the module's docstring. `cache` is the services' cache, already started."""

    def __init__(self, cache: ResourceCache) -> None:
        self.ips: Counter[str] = Counter()
        self.ports: Counter[Port] = Counter()
        self._of: dict[str, tuple[tuple[str, ...], tuple[Port, ...]]] = {}
        self._cache = cache
        cache.listeners.add(self._on_events)
        cache.on_reset.add(self._load)
        self._load()

    def check(self) -> None:
        """Assert the invariant."""
        fresh = ServiceHoldings(self._cache)
        self._cache.listeners.discard(fresh._on_events)
        self._cache.on_reset.discard(fresh._load)
        assert (self.ips, self.ports) == (fresh.ips, fresh.ports), "holdings differ from the stored Services"

    def _load(self) -> None:
        self.ips.clear()
        self.ports.clear()
        self._of.clear()
        for cached in self._cache.objects():
            self._put(cached)

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        for event in events:
            self._drop(event.object.key)
            if not event.deleted:
                self._put(event.object)

    def _put(self, cached: CachedObject) -> None:
        ips, ports = self._of[cached.key] = holdings_of(cached.decode().get("spec") or {})
        self.ips.update(ips)
        self.ports.update(ports)

    def _drop(self, key: str) -> None:
        ips, ports = self._of.pop(key, ((), ()))
        for ip in ips:
            _less(self.ips, ip)
        for port in ports:
            _less(self.ports, port)


def _less(counter: Counter[Held], item: Held) -> None:
    counter[item] -= 1
    if counter[item] <= 0:
        del counter[item]


def holdings_of(spec: JsonObject) -> tuple[tuple[str, ...], tuple[Port, ...]]:
    """Return the addresses and the node ports that a Service's spec names."""
    ips = tuple(ip for ip in spec.get("clusterIPs") or () if ip != "None")
    ports = [(p["nodePort"], p.get("protocol", "TCP")) for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append((spec["healthCheckNodePort"], "TCP"))
    return ips, tuple(ports)
