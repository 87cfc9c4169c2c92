"""ClusterIPs and node ports: the admission step that gives Services theirs.

What is taken is counted from the Services themselves (serviceholdings.py), plus what writes under way have reserved,
so nothing can leak and nothing has to be repaired after a crash. Invariant: no two Services of the store share a
ClusterIP, nor a node port of one protocol, as long as one API server process writes them. Where the version serves
them, each ClusterIP has an IPAddress object, written and removed in the commit of its Service.

Spec: Kubernetes documentation, "Service ClusterIP allocation", "Service: type NodePort", "Extend Service IP Ranges";
Service v1 API reference.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from tiphys.api.causes import invalid_value
from tiphys.api.kind import JsonObject
from tiphys.apiserver.addressobjects import AddressObjects
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.serviceholdings import ServiceHoldings, holdings_of
from tiphys.base.clock import Randomness
from tiphys.base.errors import Cause, internal, invalid
from tiphys.store.interface import Operation

NODE_PORTS = range(30000, 32768)
_RANDOM_TRIES = 64
_PROTOCOLS = ("TCP", "UDP", "SCTP")


class ServiceAddresses(Plugin):
    """An admission plugin for Services. `cache` is the services' cache, `cidr` the cluster's first Service network;
    `objects` are the IPAddresses and further networks, None where the version has none."""

    resources = (("", "services"),)

    def __init__(
        self,
        cache: ResourceCache,
        cidr: str,
        randomness: Randomness,
        node_ports: range = NODE_PORTS,
        objects: AddressObjects | None = None,
    ) -> None:
        self.holdings = ServiceHoldings(cache)
        self._network = ipaddress.IPv4Network(cidr)
        self._objects = objects
        self._randomness = randomness
        self._node_ports = node_ports
        self._reserved_ips: set[str] = set()
        self._reserved_ports: set[tuple[int, str]] = set()

    def allocate(self, attributes: Attributes) -> None:
        old = (attributes.old or {}).get("spec") or {}
        before = holdings_of(old)[0]
        if attributes.obj is None or attributes.subresource:
            self._follow(attributes, before, before)
            return
        spec = attributes.obj["spec"]
        causes = self._assign_ips(attributes, spec, old)
        causes += self._assign_ports(attributes, spec, old)
        if causes:
            attributes.finish(False)
            raise invalid("", "Service", attributes.name, causes)
        self._follow(attributes, before, holdings_of(spec)[0])

    def _follow(self, attributes: Attributes, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        """Let the IPAddresses change in the commit of their Service."""
        objects = self._objects
        if objects is None or not (before or after):
            return
        namespace, name = attributes.namespace, attributes.name

        def along(removed: bool) -> list[Operation]:
            return objects.plan(namespace, name, before, () if removed else after)

        attributes.along = along

    # ClusterIPs

    def _networks(self) -> list[ipaddress.IPv4Network]:
        further = self._objects.networks() if self._objects else []
        return [self._network, *(network for network in further if network != self._network)]

    def _assign_ips(self, attributes: Attributes, spec: JsonObject, old: JsonObject) -> list[Cause]:
        if spec.get("type") == "ExternalName":
            if old.get("type", "ExternalName") != "ExternalName":
                _release_unchanged(spec, old)
            return []
        wanted = spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0]
        if not wanted and old.get("clusterIP") and old.get("type") != "ExternalName":
            wanted = old["clusterIP"]
        if wanted == "None":
            spec.update(clusterIP="None", clusterIPs=["None"])
            if not spec.get("selector"):
                spec.setdefault("ipFamilyPolicy", "RequireDualStack")
                spec.setdefault("ipFamilies", ["IPv4", "IPv6"])
        elif wanted != old.get("clusterIP") or not wanted:
            problem = self._reserve_ip(attributes, wanted) if wanted else ""
            if problem:
                return [invalid_value("spec.clusterIPs", [wanted], problem)]
            address = wanted or self._free_ip(attributes)
            spec.update(clusterIP=address, clusterIPs=[address])
        else:
            spec.update(clusterIP=wanted, clusterIPs=old.get("clusterIPs") or [wanted])
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        return []

    def _reserve_ip(self, attributes: Attributes, address: str) -> str:
        """Reserve the address; return what forbids it, "" for nothing."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        networks = [network for network in self._networks() if parsed in network]
        if self._objects and not networks:
            return f"failed to allocate IP {address}: the provided network does not match the current range"
        if not any(parsed not in (network[0], network[-1]) for network in networks):
            return (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {networks[0] if networks else self._network}"
            )
        if self._is_taken_ip(str(parsed)):
            return f"failed to allocate IP {address}: provided IP is already allocated"
        self._hold_ip(attributes, str(parsed))
        return ""

    def _free_ip(self, attributes: Attributes) -> str:
        networks = self._networks()
        for network in networks:
            address = self._free_ip_of(network)
            if address:
                return self._hold_ip(attributes, address)
        full = ", ".join(map(str, networks))
        raise internal(f"failed to allocate a serviceIP: range is full ({full}); delete Services or add a ServiceCIDR")

    def _free_ip_of(self, network: ipaddress.IPv4Network) -> str:
        """Return a free address of a network, "" when there is none."""
        size = network.num_addresses
        # dynamic addresses come from the upper band, so that the lower one stays free for chosen ones
        band = min(max(16, size // 16), 256)
        for low in (band, 1):
            for _ in range(_RANDOM_TRIES if low <= size - 2 else 0):
                address = str(network[self._randomness.integer(low, size - 2)])
                if not self._is_taken_ip(address):
                    return address
        return next((str(host) for host in network.hosts() if not self._is_taken_ip(str(host))), "")

    def _hold_ip(self, attributes: Attributes, address: str) -> str:
        self._reserved_ips.add(address)
        attributes.finished.append(lambda succeeded: self._reserved_ips.discard(address))
        return address

    def _is_taken_ip(self, address: str) -> bool:
        taken = address in self._reserved_ips or address in self.holdings.ips
        return taken or (self._objects is not None and self._objects.has(address))

    # Node ports

    def _assign_ports(self, attributes: Attributes, spec: JsonObject, old: JsonObject) -> list[Cause]:
        kind = spec.get("type", "ClusterIP")
        ports: list[dict[str, Any]] = spec.get("ports") or []
        old_ports = {(p.get("nodePort"), p.get("protocol", "TCP")) for p in old.get("ports") or [] if p.get("nodePort")}
        wants = kind == "NodePort" or (
            kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True) is not False
        )
        if kind not in ("NodePort", "LoadBalancer"):
            for port in ports:
                if (port.get("nodePort"), port.get("protocol", "TCP")) in old_ports:
                    del port["nodePort"]
            spec.pop("healthCheckNodePort", None)
            return []
        if wants:
            _keep_ports(ports, old.get("ports") or [])
        causes: list[Cause] = []
        # one write may use a number for several protocols, so the numbers that it names are held first
        for index, port in enumerate(ports):
            number = port.get("nodePort")
            if number and (number, port.get("protocol", "TCP")) not in old_ports:
                problem = self._reserve_port(attributes, number, port.get("protocol", "TCP"))
                if problem:
                    causes.append(invalid_value(f"spec.ports[{index}].nodePort", number, problem))
        if wants and not causes:
            for port in ports:
                if not port.get("nodePort"):
                    port["nodePort"] = self._free_port(attributes, port, ports)
        if (
            kind == "LoadBalancer"
            and spec.get("externalTrafficPolicy") == "Local"
            and not spec.get("healthCheckNodePort")
        ):
            spec["healthCheckNodePort"] = old.get("healthCheckNodePort") or self._free_port(
                attributes, {"protocol": "TCP"}, ports
            )
        return causes

    def _reserve_port(self, attributes: Attributes, number: int, protocol: str) -> str:
        if number not in self._node_ports:
            return f"provided port is not in the valid range. The range of valid ports is {self._range_text()}"
        if self._is_taken_port(number, protocol):
            return "provided port is already allocated"
        self._hold_port(attributes, number, protocol)
        return ""

    def _free_port(self, attributes: Attributes, port: dict[str, Any], ports: list[dict[str, Any]]) -> int:
        protocol = port.get("protocol", "TCP")
        for other in ports:  # one port number with TCP and UDP gets one node port, as upstream gives it
            number = other.get("nodePort")
            if number and other.get("port") == port.get("port") and not self._is_taken_port(number, protocol):
                return self._hold_port(attributes, number, protocol)
        for _ in range(_RANDOM_TRIES):
            number = self._randomness.integer(self._node_ports[0], self._node_ports[-1])
            if not any(self._is_taken_port(number, other) for other in _PROTOCOLS):
                return self._hold_port(attributes, number, protocol)
        for number in self._node_ports:
            if not self._is_taken_port(number, protocol):
                return self._hold_port(attributes, number, protocol)
        raise internal(f"failed to allocate a nodePort: range is full ({self._range_text()}); delete Services to go on")

    def _hold_port(self, attributes: Attributes, number: int, protocol: str) -> int:
        self._reserved_ports.add((number, protocol))
        attributes.finished.append(lambda succeeded: self._reserved_ports.discard((number, protocol)))
        return number

    def _is_taken_port(self, number: int, protocol: str) -> bool:
        return (number, protocol) in self._reserved_ports or (number, protocol) in self.holdings.ports

    def _range_text(self) -> str:
        return f"{self._node_ports[0]}-{self._node_ports[-1]}"


def _release_unchanged(spec: JsonObject, old: JsonObject) -> None:
    """A Service that becomes an ExternalName loses the address that it did not ask for itself."""
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(key) == old.get(key):
            spec.pop(key, None)


def _keep_ports(ports: list[dict[str, Any]], old_ports: list[dict[str, Any]]) -> None:
    """Give a port that names no node port the one that the same port had before."""
    before = {(p.get("port"), p.get("protocol", "TCP")): p.get("nodePort") for p in old_ports}
    used = {p.get("nodePort") for p in ports}
    for port in ports:
        number = before.get((port.get("port"), port.get("protocol", "TCP")))
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number
