"""Validation of a pod's spec, in a Pod and in a workload's template.

Input is defaulted. A template differs in little (`in_pod`): it may have spaces around images, and its host ports may
be open. Order of the causes is upstream's. Spec: Kubernetes API reference, core/v1 PodSpec.
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject
from tiphys.api.strategies.containers import (
    RESTART_POLICIES,
    PodFacts,
    check_containers,
    check_ephemeral_containers,
    check_image_spaces,
    check_init_containers,
)
from tiphys.api.strategies.fields import check_enum, check_text
from tiphys.api.strategies.placement import check_affinity, check_tolerations, check_topology_spread
from tiphys.api.strategies.resources import check_pod_resources, check_resources
from tiphys.api.strategies.security_context import check_host_users, check_pod_security_context
from tiphys.api.strategies.volumes import check_volumes
from tiphys.base.errors import Cause

DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PREEMPTION_POLICIES = ("PreemptLowerPriority", "Never")
_MAX_INT32 = 2**31 - 1
_NO_VOLUMES: dict[str, JsonObject] = {}
_NO_CLAIMS: set[str] = set()


def check_pod_spec(
    causes: list[Cause], spec: JsonObject, context: Context, path: str, *, in_pod: bool, pod_name: str = ""
) -> None:
    """Append the causes of a defaulted pod spec."""
    get = spec.get
    volumes = get("volumes")
    claims = get("resourceClaims")
    facts = PodFacts(
        volumes=check_volumes(causes, volumes, pod_name, f"{path}.volumes") if volumes else _NO_VOLUMES,
        claims=_check_resource_claims(causes, claims, f"{path}.resourceClaims") if claims else _NO_CLAIMS,
        grace_s=get("terminationGracePeriodSeconds") or 0,
        restart_policy=get("restartPolicy") or "",
        host_users=get("hostUsers") is not False,
        relaxed_env=context.kubernetes_version >= (1, 32),
        own_restart=context.kubernetes_version >= (1, 35),
    )
    containers = get("containers") or []
    check_containers(causes, containers, facts, f"{path}.containers")
    if get("initContainers"):
        check_init_containers(causes, get("initContainers") or [], containers, facts, f"{path}.initContainers")
    if get("ephemeralContainers"):
        check_ephemeral_containers(causes, spec, facts, f"{path}.ephemeralContainers")
    if get("resources"):
        check_pod_resources(causes, spec, f"{path}.resources")
    if get("hostNetwork"):
        _check_host_ports(causes, containers, in_pod, f"{path}.containers")
    if facts.restart_policy not in RESTART_POLICIES:
        check_enum(causes, f"{path}.restartPolicy", facts.restart_policy, RESTART_POLICIES)
    dns_policy = get("dnsPolicy")
    if dns_policy not in DNS_POLICIES:
        check_enum(causes, f"{path}.dnsPolicy", dns_policy, DNS_POLICIES)
    selector = get("nodeSelector")
    if selector:
        _check_node_selector(causes, selector, f"{path}.nodeSelector")
    _check_security(causes, spec, path)
    affinity = get("affinity")
    if affinity:
        check_affinity(causes, affinity, f"{path}.affinity")
    if get("dnsConfig") or dns_policy == "None":
        _check_dns_config(causes, get("dnsConfig"), dns_policy or "", f"{path}.dnsConfig")
    _check_gates(causes, spec, path)
    if get("topologySpreadConstraints"):
        check_topology_spread(causes, spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    check_host_users(causes, spec, path)
    _check_names(causes, spec, path)
    if in_pod:
        _check_images(causes, spec, path)


def _check_resource_claims(causes: list[Cause], claims: list[Any], path: str) -> set[str]:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        at = f"{path}[{index}]"
        name = claim.get("name") or ""
        if not name:
            causes.append(required(f"{at}.name"))
        elif name in seen:
            causes.append(duplicate(f"{at}.name", name))
        else:
            check_text(causes, f"{at}.name", name, names.validate_dns_label)
            seen.add(name)
        sources = [f for f in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(f) is not None]
        if len(sources) == 2:
            causes.append(
                invalid_value(
                    at, claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
                )
            )
        elif not sources:
            causes.append(
                invalid_value(at, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
            )
        for field in sources:
            check_text(causes, f"{at}.{field}", claim[field], names.validate_dns_subdomain)
    return seen


def _check_host_ports(causes: list[Cause], containers: list[Any], in_pod: bool, path: str) -> None:
    for index, container in enumerate(containers):
        for at, port in enumerate(container.get("ports") or ()):
            host_port = port.get("hostPort") or 0
            if host_port != port.get("containerPort") and (in_pod or host_port):
                causes.append(
                    invalid_value(
                        f"{path}[{index}].ports[{at}].hostPort",
                        host_port,
                        "must match `containerPort` when `hostNetwork` is true",
                    )
                )


def _check_node_selector(causes: list[Cause], selector: dict[str, str], path: str) -> None:
    for key, value in selector.items():
        check_text(causes, path, key, names.validate_qualified_name)
        check_text(causes, path, value, names.validate_label_value)


def _check_security(causes: list[Cause], spec: JsonObject, path: str) -> None:
    security = spec.get("securityContext")
    if security or spec.get("shareProcessNamespace"):
        check_pod_security_context(causes, spec, security or {}, f"{path}.securityContext")


def _check_dns_config(causes: list[Cause], config: JsonObject | None, policy: str, path: str) -> None:
    if policy == "None":
        if config is None:
            causes.append(required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not config.get("nameservers"):
            causes.append(
                required(f"{path}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
            )
            return
    if not config:
        return
    servers = config.get("nameservers") or []
    if len(servers) > 3:
        causes.append(invalid_value(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        check_text(causes, f"{path}.nameservers[{index}]", server, names.validate_ip)
    searches = config.get("searches") or []
    if len(searches) > 32:
        causes.append(invalid_value(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        causes.append(
            invalid_value(
                f"{path}.searches",
                searches,
                "must not have more than 2048 characters (including spaces) in the search list",
            )
        )
    for index, search in enumerate(searches):
        if search != ".":
            _check_search(causes, search.removesuffix("."), f"{path}.searches[{index}]")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            causes.append(required(f"{path}.options[{index}]", "must not be empty"))


def _check_search(causes: list[Cause], search: str, path: str) -> None:
    """A search domain is a DNS subdomain whose labels may have underscores."""
    if names.validate_dns_subdomain(search.replace("_", "a")):
        check_text(causes, path, search, names.validate_dns_subdomain)


def _check_gates(causes: list[Cause], spec: JsonObject, path: str) -> None:
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        check_text(
            causes,
            f"{path}.readinessGates[{index}].conditionType",
            gate.get("conditionType") or "",
            names.validate_qualified_name,
        )
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name") or ""
        at = f"{path}.schedulingGates[{index}]"
        check_text(causes, at, name, names.validate_qualified_name)
        if name in seen:
            causes.append(duplicate(at, name))
        seen.add(name)


def _check_names(causes: list[Cause], spec: JsonObject, path: str) -> None:
    """Check the short fields at the end of upstream's list."""
    get = spec.get
    for field in ("serviceAccountName", "nodeName"):
        value = get(field)
        if value:
            check_text(causes, f"{path}.{field}", value, names.validate_dns_subdomain)
    deadline_s = get("activeDeadlineSeconds")
    if deadline_s is not None and not 1 <= deadline_s <= _MAX_INT32:
        causes.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline_s, names.range_message(1, _MAX_INT32)))
    for field in ("hostname", "subdomain"):
        value = get(field)
        if value:
            check_text(causes, f"{path}.{field}", value, names.validate_dns_label)
    if get("hostnameOverride") is not None:
        _check_hostname_override(causes, spec, path)
    tolerations = get("tolerations")
    if tolerations:
        check_tolerations(causes, tolerations, f"{path}.tolerations")
    for index, alias in enumerate(get("hostAliases") or ()):
        check_text(causes, f"{path}.hostAliases[{index}].ip", alias.get("ip") or "", names.validate_ip)
        for at, hostname in enumerate(alias.get("hostnames") or ()):
            check_text(causes, f"{path}.hostAliases[{index}].hostnames[{at}]", hostname, names.validate_dns_subdomain)
    for field in ("priorityClassName", "runtimeClassName"):
        value = get(field)
        if value:
            check_text(causes, f"{path}.{field}", value, names.validate_dns_subdomain)
    preemption = get("preemptionPolicy")
    if preemption is not None and preemption not in PREEMPTION_POLICIES:
        check_enum(causes, f"{path}.preemptionPolicy", preemption, PREEMPTION_POLICIES)
    if get("overhead"):
        check_resources(causes, {"limits": spec["overhead"]}, _NO_CLAIMS, f"{path}.overhead")
    if get("os") is not None:
        _check_os(causes, spec, path)


def _check_hostname_override(causes: list[Cause], spec: JsonObject, path: str) -> None:
    override = spec["hostnameOverride"]
    at = f"{path}.hostnameOverride"
    if override:
        check_text(causes, at, override, names.validate_dns_subdomain)
    if len(override) > 64:
        causes.append(invalid_value(at, override, names.max_length_message(64)))
    if spec.get("hostNetwork"):
        causes.append(forbidden(at, "may not be specified when hostNetwork is true"))
    if spec.get("setHostnameAsFQDN"):
        causes.append(forbidden(at, "setHostnameAsFQDN and hostnameOverride cannot be set together"))


def _check_os(causes: list[Cause], spec: JsonObject, path: str) -> None:
    name = spec["os"].get("name")
    if not name:
        causes.append(required(f"{path}.os.name", "cannot be empty"))
    elif name not in ("linux", "windows"):
        causes.append(not_supported(f"{path}.os.name", name, ("linux", "windows")))
    elif name == "linux" and (spec.get("securityContext") or {}).get("windowsOptions") is not None:
        causes.append(
            forbidden(f"{path}.securityContext.windowsOptions", "windows options cannot be set for a linux pod")
        )


def _check_images(causes: list[Cause], spec: JsonObject, path: str) -> None:
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            image = container.get("image") or ""
            if image[:1].isspace() or image[-1:].isspace():
                check_image_spaces(causes, container, f"{path}.{field}[{index}]")
