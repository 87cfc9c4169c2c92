"""Services: defaults, validation, and what stays when an update does not name it.

Addresses and node ports are allocated elsewhere in the API server, after the hooks here; `ipFamilies` and
`ipFamilyPolicy` are decided with them. Spec: Kubernetes documentation, "Service", "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import (
    check_enum,
    check_port,
    check_port_or_name,
    check_text,
    fill,
    keep_spec,
    spec_of,
)
from tiphys.base.errors import Cause

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES = ("ClientIP", "None")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_MAX_AFFINITY_S = 86400
_TOPOLOGY = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")


def is_external(spec: JsonObject) -> bool:
    """Say whether traffic from outside reaches the service by itself."""
    return spec.get("type") in ("NodePort", "LoadBalancer") or bool(
        spec.get("type") == "ClusterIP" and spec.get("externalIPs")
    )


def default(service: JsonObject) -> None:
    spec = service.setdefault("spec", {})
    fill(spec, "sessionAffinity", "None")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["sessionAffinity"] == "ClientIP":
        client = (spec.setdefault("sessionAffinityConfig", {})).setdefault("clientIP", {})
        fill(client, "timeoutSeconds", 10800)
    fill(spec, "type", "ClusterIP")
    for port in spec.get("ports") or ():
        fill(port, "protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if is_external(spec):
        fill(spec, "externalTrafficPolicy", "Cluster")
    if spec["type"] != "ExternalName":
        fill(spec, "internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        fill(spec, "allocateLoadBalancerNodePorts", True)


def prepare_for_create(service: JsonObject, context: Context) -> None:
    """Clear the status; a single address is the first of the list."""
    service["status"] = {"loadBalancer": {}}
    spec = service["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Keep the status, and the addresses and ports that an update leaves out but a service of its type has."""
    new["status"] = old.get("status") or {}
    spec, before = new["spec"], old.get("spec") or {}
    if spec.get("clusterIP") != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
        # A client that knows the single address only has changed or cleared it.
        spec["clusterIPs"] = [spec["clusterIP"]] if spec.get("clusterIP") else []
    kinds = ("ClusterIP", "NodePort", "LoadBalancer")
    if spec.get("type") in kinds and before.get("type") in kinds:
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
            if not spec.get("clusterIPs") and before.get("clusterIPs"):
                spec["clusterIPs"] = before["clusterIPs"]
        elif not spec.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP"):
            _keep(spec, before, "clusterIPs")
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field):
                _keep(spec, before, field)
    if _has_node_ports(spec) and _has_node_ports(before):
        _keep_node_ports(spec, before)
    if _wants_health_port(spec) and _wants_health_port(before) and not spec.get("healthCheckNodePort"):
        _keep(spec, before, "healthCheckNodePort")
    _drop_unused(spec, before)


def _keep(spec: JsonObject, before: JsonObject, field: str) -> None:
    if before.get(field):
        spec[field] = before[field]


def _has_node_ports(spec: JsonObject) -> bool:
    return spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )


def _wants_health_port(spec: JsonObject) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _keep_node_ports(spec: JsonObject, before: JsonObject) -> None:
    """A port keeps its node port unless another port of the update names that number."""
    used = {port.get("nodePort") for port in spec.get("ports") or ()}
    known = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        number = known.get((port.get("protocol"), port.get("port")))
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number


def _drop_unused(spec: JsonObject, before: JsonObject) -> None:
    """Fields of the old type that the update repeats unchanged go when the new type has no use for them."""
    kind, previous = spec.get("type"), before.get("type")
    if kind == "ExternalName" and previous != "ExternalName":
        for field in ("clusterIP", "clusterIPs"):
            if spec.get(field) == before.get(field):
                spec.pop(field, None)
        for field in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if spec.get(field) == before.get(field):
                spec.pop(field, None)
    if _has_node_ports(before) and not _has_node_ports(spec):
        old_ports = {p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if port.get("nodePort") in old_ports:
                port.pop("nodePort", None)
    if kind != "LoadBalancer" and previous == "LoadBalancer":
        for field in ("healthCheckNodePort", "allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerIP"):
            if spec.get(field) == before.get(field):
                spec.pop(field, None)
    same_policy = spec.get("externalTrafficPolicy") == before.get("externalTrafficPolicy")
    if same_policy and is_external(before) and not is_external(spec):
        spec.pop("externalTrafficPolicy", None)


def validate(service: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(service)
    kind = spec.get("type")
    headless = kind != "ExternalName" and spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind == "LoadBalancer":
        for index, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == 10250:
                causes.append(
                    invalid_value(
                        f"spec.ports[{index}]",
                        port["port"],
                        "may not expose port 10250 externally since it is used by kubelet",
                    )
                )
        if headless:
            causes.append(
                invalid_value("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services")
            )
    if kind == "NodePort" and headless:
        causes.append(invalid_value("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services"))
    if kind == "ExternalName":
        _check_external_name(causes, spec)
    _check_ports(causes, spec, headless)
    for key, value in (spec.get("selector") or {}).items():
        check_text(causes, "spec.selector", key, names.validate_qualified_name)
        check_text(causes, "spec.selector", value, names.validate_label_value)
    check_enum(causes, "spec.sessionAffinity", spec.get("sessionAffinity"), _AFFINITIES)
    _check_affinity_config(causes, spec)
    _check_cluster_ips(causes, spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        if names.validate_ip(address):
            causes.append(invalid_value(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
        else:
            check_ordinary_ip(causes, path, address)
    check_enum(causes, "spec.type", kind, _TYPES)
    _check_node_ports(causes, spec)
    _check_duplicates(causes, spec.get("ports") or [])
    _check_load_balancer(causes, spec)
    _check_traffic(causes, spec)
    return causes


def _check_external_name(causes: list[Cause], spec: JsonObject) -> None:
    if spec.get("clusterIP"):
        causes.append(forbidden("spec.clusterIPs", "may not be set for ExternalName services"))
    name = (spec.get("externalName") or "").removesuffix(".")
    if name:
        check_text(causes, "spec.externalName", name, names.validate_dns_subdomain)
    else:
        causes.append(required("spec.externalName"))


def _check_ports(causes: list[Cause], spec: JsonObject, headless: bool) -> None:
    ports = spec.get("ports") or []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name:
            if len(ports) > 1:
                causes.append(required(f"{path}.name"))
        else:
            check_text(causes, f"{path}.name", name, names.validate_dns_label)
            if name in seen:
                causes.append(duplicate(f"{path}.name", name))
            seen.add(name)
        number = port.get("port") or 0
        check_port(causes, f"{path}.port", number)
        check_enum(causes, f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
        target = port.get("targetPort")
        if target is not None:
            check_port_or_name(causes, f"{path}.targetPort", target)
        if port.get("appProtocol"):
            check_text(causes, f"{path}.appProtocol", port["appProtocol"], names.validate_qualified_name)


def _check_affinity_config(causes: list[Cause], spec: JsonObject) -> None:
    config = spec.get("sessionAffinityConfig")
    path = "spec.sessionAffinityConfig"
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds") or 0
        if not 0 < seconds <= _MAX_AFFINITY_S:
            causes.append(
                invalid_value(
                    f"{path}.clientIP.timeoutSeconds",
                    seconds,
                    f"must be greater than 0 and less than {_MAX_AFFINITY_S}",
                )
            )
    elif config is not None:
        causes.append(forbidden(path, "must not be set when session affinity is None"))


def _check_cluster_ips(causes: list[Cause], spec: JsonObject) -> None:
    if spec.get("type") == "ExternalName":
        return
    first = spec.get("clusterIP") or ""
    addresses = spec.get("clusterIPs") or ([first] if first else [])
    if addresses and first != addresses[0]:
        causes.append(invalid_value("spec.clusterIPs[0]", addresses, "first value must match `clusterIP`"))
    if len(addresses) > 2:
        causes.append(invalid_value("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    for index, address in enumerate(addresses):
        if address == "None":
            if len(addresses) > 1:
                causes.append(invalid_value("spec.clusterIPs", addresses, "'None' must be the first and only value"))
        elif names.validate_ip(address):
            check_text(causes, f"spec.clusterIPs[{index}]", address, names.validate_ip)
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in _FAMILIES:
            causes.append(not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
    policy = spec.get("ipFamilyPolicy")
    if policy and policy not in _FAMILY_POLICIES:
        causes.append(not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES))


def check_ordinary_ip(causes: list[Cause], path: str, text: str) -> None:
    """An address that can be an endpoint: not unspecified, loopback or link-local."""
    import ipaddress

    address = ipaddress.ip_address(text)
    if address.is_unspecified:
        causes.append(invalid_value(path, text, f"may not be unspecified ({text})"))
    if address.is_loopback:
        causes.append(invalid_value(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        causes.append(invalid_value(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if address.is_multicast and text.startswith(("224.0.0.", "ff02:")):
        causes.append(
            invalid_value(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
        )


def _check_node_ports(causes: list[Cause], spec: JsonObject) -> None:
    kind = spec.get("type")
    if kind in ("NodePort", "LoadBalancer"):
        seen: set[tuple[Any, Any]] = set()
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            if number:
                key = (port.get("protocol"), number)
                if key in seen:
                    causes.append(duplicate(f"spec.ports[{index}].nodePort", number))
                seen.add(key)
        return
    for index, port in enumerate(spec.get("ports") or ()):
        if port.get("nodePort"):
            causes.append(forbidden(f"spec.ports[{index}].nodePort", f"may not be used when `type` is '{kind}'"))


def _check_duplicates(causes: list[Cause], ports: list[Any]) -> None:
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            causes.append(
                # The bad value is the server's own record of a port with these two fields set.
                duplicate(
                    f"spec.ports[{index}]",
                    {
                        "Name": "",
                        "Protocol": port.get("protocol"),
                        "AppProtocol": None,
                        "Port": port.get("port"),
                        "TargetPort": 0,
                        "NodePort": 0,
                    },
                )
            )
        seen.add(key)


def _check_load_balancer(causes: list[Cause], spec: JsonObject) -> None:
    ranges = spec.get("loadBalancerSourceRanges")
    balanced = spec.get("type") == "LoadBalancer"
    if ranges:
        if not balanced:
            causes.append(forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"))
        for index, text in enumerate(ranges):
            check_cidr(causes, f"spec.LoadBalancerSourceRanges[{index}]", text.strip())
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        causes.append(forbidden("spec.allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'"))
    if spec.get("loadBalancerClass") is not None:
        if balanced:
            check_text(causes, "spec.loadBalancerClass", spec["loadBalancerClass"], names.validate_qualified_name)
        else:
            causes.append(forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"))


def check_cidr(causes: list[Cause], path: str, text: str) -> None:
    import ipaddress

    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        causes.append(invalid_value(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))


def _check_traffic(causes: list[Cause], spec: JsonObject) -> None:
    policy = spec.get("externalTrafficPolicy")
    if is_external(spec):
        check_enum(causes, "spec.externalTrafficPolicy", policy, _POLICIES)
    elif policy:
        causes.append(
            invalid_value("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
        )
    health = spec.get("healthCheckNodePort") or 0
    if health and not _wants_health_port(spec):
        causes.append(
            invalid_value(
                "spec.healthCheckNodePort",
                health,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            )
        )
    internal = spec.get("internalTrafficPolicy")
    if spec.get("type") != "ExternalName":
        check_enum(causes, "spec.internalTrafficPolicy", internal, _POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        causes.append(not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """A cluster IP that has been given stays, unless the service is or becomes an ExternalName."""
    causes: list[Cause] = []
    spec, before = spec_of(new), spec_of(old)
    if before.get("type") != "ExternalName" and spec.get("type") != "ExternalName":
        given = before.get("clusterIPs") or ([before["clusterIP"]] if before.get("clusterIP") else [])
        asked = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        if given and asked and given[0] != asked[0]:
            # The primary address is told by the list's path, the whole list being the bad value.
            causes.append(invalid_value("spec.clusterIPs[0]", asked, "may not change once set"))
    if before.get("type") == spec.get("type") == "LoadBalancer" and before.get("loadBalancerClass") != spec.get(
        "loadBalancerClass"
    ):
        causes.append(invalid_value("spec.loadBalancerClass", spec.get("loadBalancerClass"), "may not change once set"))
    return causes


def warnings(service: JsonObject) -> list[str]:
    found: list[str] = []
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    if _TOPOLOGY[0] in annotations:
        found.append(f"annotation {_TOPOLOGY[0]} is deprecated, please use {_TOPOLOGY[1]} instead")
    spec = spec_of(service)
    if spec.get("loadBalancerIP"):
        found.append("spec.loadBalancerIP is deprecated")
    if spec.get("externalIPs") and spec.get("type") == "ExternalName":
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if spec.get("sessionAffinity") == "ClientIP" and spec.get("clusterIP") == "None":
        found.append("spec.SessionAffinity is ignored for headless services")
    return found


SERVICE = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    warnings=warnings,
    name_rule="dns-1035-label",
    allow_create_on_update=True,
)
