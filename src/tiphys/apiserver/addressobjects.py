"""IPAddress and ServiceCIDR objects beside the Services: which further networks there are, and what one write changes.

Read and written by service_addresses.py. An IPAddress names the Service that holds it; it is written in the commit of
that Service, so neither can be without the other. One that a user made keeps its address out of use.

Spec: Kubernetes documentation, "Extend Service IP Ranges"; KEP-1880.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tiphys.api.apply import track_update
from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cache import CachedEvent, ResourceCache
from tiphys.base.clock import Clock, Randomness, format_time
from tiphys.store.interface import Operation

MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
IP_FAMILY = "ipaddress.kubernetes.io/ip-family"
ALLOCATOR = "ipallocator.k8s.io"
MANAGER = "kube-apiserver"


class AddressObjects:
    """`addresses` and `cidrs` are the caches of IPAddresses and ServiceCIDRs, already started."""

    def __init__(
        self, kind: Kind, addresses: ResourceCache, cidrs: ResourceCache, clock: Clock, randomness: Randomness
    ) -> None:
        self._kind = kind
        self._addresses = addresses
        self._cidrs = cidrs
        self._clock = clock
        self._randomness = randomness
        self._networks: list[ipaddress.IPv4Network] | None = None
        cidrs.listeners.add(self._on_events)
        cidrs.on_reset.add(self._forget)

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        self._forget()

    def _forget(self) -> None:
        self._networks = None

    def networks(self) -> list[ipaddress.IPv4Network]:
        """Return the IPv4 networks of ServiceCIDRs that are ready and stay."""
        if self._networks is None:
            found = [cached.decode() for cached in self._cidrs.objects()]
            self._networks = [network for cidr in found if is_ready(cidr) for network in networks_of(cidr)]
        return self._networks

    def has(self, address: str) -> bool:
        """Return whether an IPAddress of that address exists."""
        return self._addresses.get("", address) is not None

    def plan(self, namespace: str, name: str, before: Sequence[str], after: Sequence[str]) -> list[Operation]:
        """Return what a write of a Service changes, whose addresses were `before` and are `after`."""
        operations = [
            Operation(self._kind.storage_key("", address), None)
            for address in before
            if address not in after and self.has(address)
        ]
        operations += [
            Operation(self._kind.storage_key("", address), self._new(address, namespace, name))
            for address in after
            if not self.has(address)
        ]
        return operations

    def _new(self, address: str, namespace: str, name: str) -> bytes:
        from tiphys.apiserver.registry import encode_stored

        now = format_time(self._clock.now_s())
        family = f"IPv{ipaddress.ip_address(address).version}"
        obj: JsonObject = {
            "apiVersion": self._kind.api_version,
            "kind": self._kind.kind,
            "metadata": {
                "name": address,
                "uid": self._randomness.uid(),
                "creationTimestamp": now,
                "generation": 1,
                "labels": {IP_FAMILY: family, MANAGED_BY: ALLOCATOR},
            },
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
        }
        if not self._kind.strategy.generation:
            del obj["metadata"]["generation"]
        track_update(None, obj, MANAGER, "Update", "", self._kind.api_version, now, self._kind.schema)
        return encode_stored(obj)


def is_ready(cidr: JsonObject) -> bool:
    """Return whether addresses may come from a ServiceCIDR."""
    conditions = (cidr.get("status") or {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not cidr["metadata"].get("deletionTimestamp")


def networks_of(cidr: JsonObject) -> list[ipaddress.IPv4Network]:
    """Return the IPv4 networks of a ServiceCIDR."""
    networks = [ipaddress.ip_network(text, strict=False) for text in cidr["spec"].get("cidrs") or ()]
    return [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
