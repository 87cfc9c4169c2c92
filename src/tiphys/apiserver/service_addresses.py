"""ClusterIPs and node ports: the admission step that gives Services theirs.

What is taken is counted from the Services themselves (serviceholdings.py), plus what writes under way have reserved,
so nothing can leak and nothing has to be repaired after a crash. Invariant: no two Services of the store share a
ClusterIP, nor a node port of one protocol, as long as one API server process writes them.

Spec: Kubernetes documentation, "Service ClusterIP allocation", "Service: type NodePort"; Service v1 API reference.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from tiphys.api.causes import invalid_value
from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.serviceholdings import ServiceHoldings
from tiphys.base.clock import Randomness
from tiphys.base.errors import Cause, internal, invalid

NODE_PORTS = range(30000, 32768)
_RANDOM_TRIES = 64
_PROTOCOLS = ("TCP", "UDP", "SCTP")


class ServiceAddresses(Plugin):
    """An admission plugin for Services. `cache` is the services' cache, `cidr` the Service network."""

    resources = (("", "services"),)

    def __init__(self, cache: ResourceCache, cidr: str, randomness: Randomness, node_ports: range = NODE_PORTS) -> None:
        self.holdings = ServiceHoldings(cache)
        self._network = ipaddress.IPv4Network(cidr)
        self._randomness = randomness
        self._node_ports = node_ports
        self._reserved_ips: set[str] = set()
        self._reserved_ports: set[tuple[int, str]] = set()

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is None or attributes.subresource:
            return
        spec, old = attributes.obj["spec"], (attributes.old or {}).get("spec") or {}
        causes = self._assign_ips(attributes, spec, old)
        causes += self._assign_ports(attributes, spec, old)
        if causes:
            attributes.finish(False)
            raise invalid("", "Service", attributes.name, causes)

    # ClusterIPs

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
        if parsed not in self._network or parsed in (self._network[0], self._network[-1]):
            return (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self._network}"
            )
        if self._is_taken_ip(str(parsed)):
            return f"failed to allocate IP {address}: provided IP is already allocated"
        self._hold_ip(attributes, str(parsed))
        return ""

    def _free_ip(self, attributes: Attributes) -> str:
        size = self._network.num_addresses
        # dynamic addresses come from the upper band, so that the lower one stays free for chosen ones
        band = min(max(16, size // 16), 256)
        for low in (band, 1):
            for _ in range(_RANDOM_TRIES):
                address = str(self._network[self._randomness.integer(low, size - 2)])
                if not self._is_taken_ip(address):
                    return self._hold_ip(attributes, address)
        for host in self._network.hosts():
            if not self._is_taken_ip(str(host)):
                return self._hold_ip(attributes, str(host))
        raise internal(f"failed to allocate a serviceIP: range is full ({self._network}); delete Services to go on")

    def _hold_ip(self, attributes: Attributes, address: str) -> str:
        self._reserved_ips.add(address)
        attributes.finished.append(lambda succeeded: self._reserved_ips.discard(address))
        return address

    def _is_taken_ip(self, address: str) -> bool:
        return address in self._reserved_ips or address in self.holdings.ips

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
