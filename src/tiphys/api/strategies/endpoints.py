"""Endpoints and EndpointSlices: where a Service's traffic goes.

Spec: Kubernetes documentation, "EndpointSlices"; API reference, discovery.k8s.io/v1 and core/v1 Endpoints.
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required, too_many
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import check_enum, check_port, check_same, check_text, fill
from tiphys.api.strategies.service import check_ordinary_ip
from tiphys.base.errors import Cause

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_MAX_ENDPOINTS = 1000
_MAX_PORTS = 20000
_MAX_ADDRESSES = 100


def default_endpoints(endpoints: JsonObject) -> None:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            fill(port, "protocol", "TCP")


def validate_endpoints(endpoints: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for index, subset in enumerate(endpoints.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for at, address in enumerate(subset.get(field) or ()):
                _check_address(causes, address, f"{path}.{field}[{at}]")
        ports = subset.get("ports") or []
        for at, port in enumerate(ports):
            _check_endpoint_port(causes, port, len(ports) > 1, f"{path}.ports[{at}]")
    return causes


def _check_address(causes: list[Cause], address: JsonObject, path: str) -> None:
    _check_ip(causes, f"{path}.ip", address.get("ip") or "")
    if address.get("hostname"):
        check_text(causes, f"{path}.hostname", address["hostname"], names.validate_dns_label)
    if address.get("nodeName"):
        check_text(causes, f"{path}.nodeName", address["nodeName"], names.validate_dns_subdomain)


def _check_ip(causes: list[Cause], path: str, text: str) -> None:
    if names.validate_ip(text):
        check_text(causes, path, text, names.validate_ip)
    else:
        check_ordinary_ip(causes, path, text)


def _check_endpoint_port(causes: list[Cause], port: JsonObject, needs_name: bool, path: str) -> None:
    name = port.get("name") or ""
    if name:
        check_text(causes, f"{path}.name", name, names.validate_dns_label)
    elif needs_name:
        causes.append(required(f"{path}.name"))
    check_port(causes, f"{path}.port", port.get("port") or 0)
    check_enum(causes, f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    if port.get("appProtocol"):
        check_text(causes, f"{path}.appProtocol", port["appProtocol"], names.validate_qualified_name)


ENDPOINTS = Strategy(default=default_endpoints, validate=validate_endpoints, allow_create_on_update=True)


def default_slice(endpoint_slice: JsonObject) -> None:
    for port in endpoint_slice.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        fill(port, "protocol", "TCP")


def validate_slice(endpoint_slice: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    kind = endpoint_slice.get("addressType") or ""
    if not kind:
        causes.append(required("addressType"))
    elif kind not in _ADDRESS_TYPES:
        causes.append(not_supported("addressType", kind, _ADDRESS_TYPES))
    endpoints = endpoint_slice.get("endpoints") or []
    if len(endpoints) > _MAX_ENDPOINTS:
        causes.append(too_many("endpoints", len(endpoints), _MAX_ENDPOINTS))
    else:
        for index, endpoint in enumerate(endpoints):
            _check_endpoint(causes, endpoint, kind, f"endpoints[{index}]")
    _check_slice_ports(causes, endpoint_slice.get("ports") or [])
    return causes


def _check_endpoint(causes: list[Cause], endpoint: JsonObject, kind: str, path: str) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        causes.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MAX_ADDRESSES:
        causes.append(too_many(f"{path}.addresses", len(addresses), _MAX_ADDRESSES))
    else:
        for index, address in enumerate(addresses):
            _check_slice_address(causes, address, kind, f"{path}.addresses[{index}]")
    if endpoint.get("nodeName"):
        check_text(causes, f"{path}.nodeName", endpoint["nodeName"], names.validate_dns_subdomain)
    topology = endpoint.get("deprecatedTopology") or {}
    for key, value in topology.items():
        check_text(causes, f"{path}.deprecatedTopology", key, names.validate_qualified_name)
        check_text(causes, f"{path}.deprecatedTopology", value, names.validate_label_value)
    if endpoint.get("hostname"):
        check_text(causes, f"{path}.hostname", endpoint["hostname"], names.validate_dns_label)
    zones = (endpoint.get("hints") or {}).get("forZones") or []
    if len(zones) > 8:
        causes.append(too_many(f"{path}.hints.forZones", len(zones), 8))


def _check_slice_address(causes: list[Cause], address: str, kind: str, path: str) -> None:
    if kind == "FQDN":
        check_text(causes, path, address, names.validate_dns_subdomain)
        return
    if names.validate_ip(address):
        causes.append(invalid_value(path, address, f"must be a valid {kind} address"))
        return
    is_v6 = ":" in address
    if kind in ("IPv4", "IPv6"):
        if is_v6 != (kind == "IPv6"):
            causes.append(invalid_value(path, address, f"must be a valid {kind} address"))
        check_ordinary_ip(causes, path, address)


def _check_slice_ports(causes: list[Cause], ports: list[Any]) -> None:
    if len(ports) > _MAX_PORTS:
        causes.append(too_many("ports", len(ports), _MAX_PORTS))
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path = f"ports[{index}]"
        name = port.get("name") or ""
        if name:
            check_text(causes, f"{path}.name", name, names.validate_dns_label)
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        check_enum(causes, f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
        if port.get("port") is not None:
            check_port(causes, f"{path}.port", port["port"])
        if port.get("appProtocol"):
            check_text(causes, f"{path}.appProtocol", port["appProtocol"], names.validate_qualified_name)


def validate_slice_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "addressType", new.get("addressType"), old.get("addressType"))
    return causes


ENDPOINT_SLICE = Strategy(
    default=default_slice,
    validate=validate_slice,
    validate_update=validate_slice_update,
    generation=True,
)
