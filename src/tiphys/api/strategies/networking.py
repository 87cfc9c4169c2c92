"""Ingresses, IngressClasses, NetworkPolicies, ServiceCIDRs and IPAddresses.

Spec: Kubernetes documentation, "Ingress", "Network Policies"; KEP-1880 (multiple Service CIDRs).
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import (
    check_enum,
    check_port,
    check_port_or_name,
    check_same,
    check_text,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_SUFFIXES = ("/..", "/.")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def validate_ingress(ingress: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(ingress)
    rules = spec.get("rules") or []
    backend = spec.get("defaultBackend")
    if not rules and backend is None:
        detail = "Invalid value: null: either `defaultBackend` or `rules` must be specified"
        causes.append(Cause("FieldValueInvalid", "spec", detail))
    if backend is not None:
        _check_backend(causes, backend, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        _check_ingress_rule(causes, rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for at, host in enumerate(tls.get("hosts") or ()):
            _check_host(causes, host, f"spec.tls[{index}].hosts[{at}]")
        if tls.get("secretName"):
            check_text(causes, f"spec.tls[{index}].secretName", tls["secretName"], names.validate_dns_subdomain)
    name = spec.get("ingressClassName")
    if name is not None:
        check_text(causes, "spec.ingressClassName", name, names.validate_dns_subdomain)
    annotation = ((ingress.get("metadata") or {}).get("annotations") or {}).get(_CLASS_ANNOTATION)
    if context.creating and annotation is not None and name is not None:
        causes.append(
            invalid_value(
                f"annotations.{_CLASS_ANNOTATION}", annotation, "can not be set when the class field is also set"
            )
        )
    return causes


def _check_host(causes: list[Cause], host: str, path: str) -> None:
    rule = names.validate_wildcard_subdomain if "*" in host else names.validate_dns_subdomain
    check_text(causes, path, host, rule)


def _check_ingress_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    host = rule.get("host")
    if host:
        if not names.validate_ip(host):
            causes.append(invalid_value(f"{path}.host", host, "must be a DNS name, not an IP address"))
        else:
            _check_host(causes, host, f"{path}.host")
    http = rule.get("http")
    if http is None:
        return
    paths = http.get("paths") or []
    if not paths:
        causes.append(required(f"{path}.http.paths"))
    for index, entry in enumerate(paths):
        at = f"{path}.http.paths[{index}]"
        _check_http_path(causes, entry, at)
        _check_backend(causes, entry.get("backend") or {}, f"{at}.backend")


def _check_http_path(causes: list[Cause], entry: JsonObject, path: str) -> None:
    kind = entry.get("pathType")
    where = entry.get("path") or ""
    if not kind:
        causes.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind not in _PATH_TYPES:
        causes.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
        return
    if kind == "ImplementationSpecific":
        if where and not where.startswith("/"):
            causes.append(invalid_value(f"{path}.path", where, "must be an absolute path"))
        return
    if not where.startswith("/"):
        causes.append(invalid_value(f"{path}.path", where, "must be an absolute path"))
    if where:
        for sequence in _BAD_SEQUENCES:
            if sequence in where:
                causes.append(invalid_value(f"{path}.path", where, f"must not contain '{sequence}'"))
        for suffix in _BAD_SUFFIXES:
            if where.endswith(suffix):
                causes.append(invalid_value(f"{path}.path", where, f"cannot end with '{suffix}'"))


def _check_backend(causes: list[Cause], backend: JsonObject, path: str) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        causes.append(invalid_value(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        for field in ("kind", "name"):
            if not resource.get(field):
                causes.append(required(f"{path}.resource.{field}"))
    elif service is not None:
        _check_service_backend(causes, service, f"{path}.service")
    else:
        causes.append(required(path, "resource or service backend is required"))


def _check_service_backend(causes: list[Cause], service: JsonObject, path: str) -> None:
    name = service.get("name") or ""
    if not name:
        causes.append(required(f"{path}.name"))
    else:
        check_text(causes, f"{path}.name", name, names.validate_dns_1035_label)
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        causes.append(invalid_value(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        check_text(causes, f"{path}.port.name", port["name"], names.validate_port_name)
    elif port.get("number"):
        check_port(causes, f"{path}.port.number", port["number"])
    else:
        causes.append(required(path, "port name or number is required"))


def warn_ingress(ingress: JsonObject) -> list[str]:
    annotations = (ingress.get("metadata") or {}).get("annotations") or {}
    if _CLASS_ANNOTATION in annotations:
        return [f"annotation \"{_CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"]
    return []


INGRESS = Strategy(
    prepare_for_create=clear_status(loadBalancer={}),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_ingress,
    warnings=warn_ingress,
    generation=True,
)


def default_ingress_class(ingress_class: JsonObject) -> None:
    parameters = spec_of(ingress_class).get("parameters")
    if parameters is not None:
        fill(parameters, "scope", "Cluster")


def validate_ingress_class(ingress_class: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(ingress_class)
    controller = spec.get("controller") or ""
    if len(controller) > 250:
        from tiphys.api.causes import too_long

        causes.append(too_long("spec.controller", 250))
    domain, slash, rest = controller.partition("/")
    if not slash or not rest:
        causes.append(
            invalid_value("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")')
        )
    else:
        check_text(causes, "spec.controller", domain, names.validate_dns_subdomain)
    parameters = spec.get("parameters")
    if parameters is not None:
        for field in ("kind", "name"):
            if not parameters.get(field):
                causes.append(required(f"spec.parameters.{field}"))
        scope = parameters.get("scope")
        check_enum(causes, "spec.parameters.scope", scope, ("Cluster", "Namespace"))
        if scope == "Namespace" and not parameters.get("namespace"):
            causes.append(required("spec.parameters.namespace", "`parameters.scope` is set to 'Namespace'"))
        if scope == "Cluster" and parameters.get("namespace") is not None:
            causes.append(forbidden("spec.parameters.namespace", "`parameters.scope` is set to 'Cluster'"))
    return causes


def validate_ingress_class_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "spec.controller", spec_of(new).get("controller"), spec_of(old).get("controller"))
    return causes


INGRESS_CLASS = Strategy(
    default=default_ingress_class,
    validate=validate_ingress_class,
    validate_update=validate_ingress_class_update,
    generation=True,
)


def default_network_policy(policy: JsonObject) -> None:
    """A policy is about ingress, and about egress too if it has such rules."""
    spec = policy.setdefault("spec", {})
    for field in ("ingress", "egress"):
        for rule in spec.get(field) or ():
            for port in rule.get("ports") or ():
                fill(port, "protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    spec.setdefault("podSelector", {})


def validate_network_policy(policy: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(policy)
    causes += validate_label_selector(spec.get("podSelector"), "spec.podSelector")
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            for at, port in enumerate(rule.get("ports") or ()):
                _check_policy_port(causes, port, f"{path}.ports[{at}]")
            for at, peer in enumerate(rule.get(peers) or ()):
                _check_peer(causes, peer, f"{path}.{peers}[{at}]")
    kinds = spec.get("policyTypes") or []
    if len(kinds) > 2:
        causes.append(invalid_value("spec.policyTypes", kinds, "may not specify more than two policyTypes"))
        return causes
    for index, kind in enumerate(kinds):
        if kind not in ("Ingress", "Egress"):
            causes.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    return causes


def _check_policy_port(causes: list[Cause], port: JsonObject, path: str) -> None:
    protocol = port.get("protocol")
    if protocol is not None and protocol not in _PROTOCOLS:
        causes.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            causes.append(required(f"{path}.port", "must be specified when `endPort` is specified"))
        return
    check_port_or_name(causes, f"{path}.port", number)
    if isinstance(number, str):
        if end is not None:
            causes.append(invalid_value(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
    elif end is not None:
        if end < number:
            causes.append(invalid_value(f"{path}.endPort", end, "must be greater than or equal to `port`"))
        check_port(causes, f"{path}.endPort", end)


def _check_peer(causes: list[Cause], peer: JsonObject, path: str) -> None:
    found = 0
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field) is not None:
            found += 1
            causes += validate_label_selector(peer[field], f"{path}.{field}")
    block = peer.get("ipBlock")
    if block is not None:
        found += 1
        _check_block(causes, block, f"{path}.ipBlock")
    if not found:
        causes.append(required(path, "must specify a peer"))
    elif found > 1 and block is not None:
        causes.append(forbidden(path, "may not specify both ipBlock and another peer"))


def _check_block(causes: list[Cause], block: JsonObject, path: str) -> None:
    from ipaddress import ip_network

    from tiphys.api.strategies.service import check_cidr

    text = block.get("cidr") or ""
    if not text:
        causes.append(required(f"{path}.cidr"))
        return
    before = len(causes)
    check_cidr(causes, f"{path}.cidr", text)
    if len(causes) > before:
        return
    whole = ip_network(text, strict=False)
    for index, excluded in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        before = len(causes)
        check_cidr(causes, at, excluded)
        if len(causes) > before:
            continue
        part: Any = ip_network(excluded, strict=False)
        if part.version != whole.version or not part.subnet_of(whole) or part == whole:
            causes.append(invalid_value(at, excluded, "must be a strict subset of `cidr`"))


NETWORK_POLICY = Strategy(default=default_network_policy, validate=validate_network_policy, generation=True)


def validate_service_cidr(service_cidr: JsonObject, context: Context) -> list[Cause]:
    from tiphys.api.strategies.service import check_cidr

    causes: list[Cause] = []
    ranges = spec_of(service_cidr).get("cidrs") or []
    if not ranges:
        causes.append(required("spec.cidrs", "at least one CIDR required"))
    elif len(ranges) > 2:
        causes.append(invalid_value("spec", spec_of(service_cidr), "may only hold up to 2 values"))
    for index, text in enumerate(ranges):
        check_cidr(causes, f"spec.cidrs[{index}]", text)
    return causes


def validate_service_cidr_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    now, before = spec_of(new).get("cidrs"), spec_of(old).get("cidrs")
    if now != before and (now or [])[: len(before or [])] != before:
        check_same(causes, "spec.cidrs", now, before)
    return causes


SERVICE_CIDR = Strategy(
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_service_cidr,
    validate_update=validate_service_cidr_update,
)


def validate_ip_address(address: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    name = (address.get("metadata") or {}).get("name") or ""
    for complaint in names.validate_ip(name):
        causes.append(invalid_value("metadata.name", name, complaint))
    parent = spec_of(address).get("parentRef")
    if parent is None:
        causes.append(required("spec.parentRef"))
        return causes
    for field in ("resource", "name"):
        if not parent.get(field):
            causes.append(required(f"spec.parentRef.{field}"))
    return causes


def validate_ip_address_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "spec.parentRef", spec_of(new).get("parentRef"), spec_of(old).get("parentRef"))
    return causes


IP_ADDRESS = Strategy(
    validate=validate_ip_address, validate_update=validate_ip_address_update, name_rule="path-segment"
)
