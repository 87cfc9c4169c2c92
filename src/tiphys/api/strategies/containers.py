"""Validation of a pod's containers: regular, init and ephemeral.

Input is a defaulted pod spec. Order of the causes is that of the fields in upstream's checks, because a client shows
them in that order. Spec: Kubernetes API reference, core/v1 Container; documentation "Init containers", "Sidecar
containers", "Ephemeral containers".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiphys.api.causes import duplicate, forbidden, invalid_value, not_found, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.names import validate_dns_label, validate_port_name
from tiphys.api.strategies.container_env import check_env, check_env_from
from tiphys.api.strategies.fields import check_enum, check_port, check_required_text
from tiphys.api.strategies.probes import check_lifecycle, check_probes
from tiphys.api.strategies.resources import check_resources
from tiphys.api.strategies.security_context import check_security_context
from tiphys.api.strategies.volume_mounts import check_volume_devices, check_volume_mounts
from tiphys.base.errors import Cause

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("SCTP", "TCP", "UDP")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_RESIZE_RESOURCES = ("cpu", "memory")
_RESIZE_POLICIES = ("NotRequired", "RestartContainer")
_NOT_FOR_EPHEMERAL = (
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
)
_NOT_FOR_INIT = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")


@dataclass(slots=True)
class PodFacts:
    """What the checks of a container need to know of its pod."""

    volumes: dict[str, JsonObject]
    """Valid volumes and claim templates by name."""
    claims: set[str]
    """Names of spec.resourceClaims."""
    grace_s: int
    restart_policy: str
    host_users: bool = True
    relaxed_env: bool = True
    own_restart: bool = True
    """Containers may have a restart policy and rules of their own (Kubernetes 1.35)."""


def check_containers(causes: list[Cause], containers: list[Any], facts: PodFacts, path: str) -> None:
    """Check spec.containers."""
    if not containers:
        causes.append(required(path))
        return
    seen: set[str] = set()
    for index, container in enumerate(containers):
        container_path = f"{path}[{index}]"
        name = _check_common(causes, container, facts, container_path)
        if name in seen:
            causes.append(duplicate(f"{container_path}.name", name))
        seen.add(name)
        lifecycle = container.get("lifecycle")
        if lifecycle:
            check_lifecycle(causes, lifecycle, facts.grace_s, f"{container_path}.lifecycle")
        check_probes(causes, container, facts.grace_s, container_path)
        policy = container.get("restartPolicy")
        if policy is not None and not facts.own_restart:
            causes.append(forbidden(f"{container_path}.restartPolicy", "may not be set for non-init containers"))
        elif policy is not None:
            check_enum(causes, f"{container_path}.restartPolicy", policy, RESTART_POLICIES)
        _check_restart_rules(causes, container, container_path)
    _check_host_ports(causes, containers, path)


def check_init_containers(
    causes: list[Cause], containers: list[Any], regular: list[Any], facts: PodFacts, path: str
) -> None:
    """Check spec.initContainers; names must differ from the regular ones."""
    seen = {container.get("name") for container in regular}
    for index, container in enumerate(containers):
        container_path = f"{path}[{index}]"
        name = _check_common(causes, container, facts, container_path)
        policy = container.get("restartPolicy")
        if policy is not None:
            allowed = RESTART_POLICIES if facts.own_restart else ("Always",)
            check_enum(causes, f"{container_path}.restartPolicy", policy, allowed)
            _check_restart_rules(causes, container, container_path)
        if name in seen:
            causes.append(duplicate(f"{container_path}.name", name))
        elif name:
            seen.add(name)
        _check_host_ports(causes, [container], path)
        if policy == "Always":
            if container.get("lifecycle"):
                check_lifecycle(causes, container["lifecycle"], facts.grace_s, f"{container_path}.lifecycle")
            check_probes(causes, container, facts.grace_s, container_path)
            continue
        for field in _NOT_FOR_INIT:
            if container.get(field) is not None:
                causes.append(
                    forbidden(
                        f"{container_path}.{field}", "may not be set for init containers without restartPolicy=Always"
                    )
                )


def check_ephemeral_containers(causes: list[Cause], spec: JsonObject, facts: PodFacts, path: str) -> None:
    """Check spec.ephemeralContainers."""
    others = {c.get("name") for field in ("containers", "initContainers") for c in spec.get(field) or ()}
    seen = set(others)
    for index, container in enumerate(spec["ephemeralContainers"]):
        container_path = f"{path}[{index}]"
        name = _check_common(causes, container, facts, container_path)
        check_image_spaces(causes, container, container_path)
        if name in seen:
            causes.append(duplicate(f"{container_path}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            causes.append(not_found(f"{container_path}.targetContainerName", target))
        for field in _NOT_FOR_EPHEMERAL:
            if container.get(field):
                causes.append(forbidden(f"{container_path}.{field}", "cannot be set for an Ephemeral Container"))
        for at, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    causes.append(
                        forbidden(
                            f"{container_path}.volumeMounts[{at}].{field}", "cannot be set for an Ephemeral Container"
                        )
                    )


def check_image_spaces(causes: list[Cause], container: JsonObject, path: str) -> None:
    """In pods (not in templates) an image may not have spaces around it."""
    image = container.get("image") or ""
    if image != image.strip():
        causes.append(invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace"))


def _check_common(causes: list[Cause], container: JsonObject, facts: PodFacts, path: str) -> str:
    """Check what all containers have; return the name."""
    get = container.get
    name: str = get("name") or ""
    check_required_text(causes, f"{path}.name", name, validate_dns_label)
    if not get("image"):
        causes.append(required(f"{path}.image"))
    if get("terminationMessagePolicy") not in _MESSAGE_POLICIES:
        check_enum(causes, f"{path}.terminationMessagePolicy", get("terminationMessagePolicy"), _MESSAGE_POLICIES)
    ports = get("ports")
    if ports:
        _check_ports(causes, ports, f"{path}.ports")
    env = get("env")
    if env:
        check_env(causes, env, facts.volumes, facts.relaxed_env, f"{path}.env")
    env_from = get("envFrom")
    if env_from:
        check_env_from(causes, env_from, facts.relaxed_env, f"{path}.envFrom")
    mounts = get("volumeMounts")
    devices = get("volumeDevices")
    if mounts:
        check_volume_mounts(causes, container, facts.volumes, f"{path}.volumeMounts")
    if devices:
        check_volume_devices(causes, devices, mounts or (), facts.volumes, f"{path}.volumeDevices")
    if get("imagePullPolicy") not in PULL_POLICIES:
        check_enum(causes, f"{path}.imagePullPolicy", get("imagePullPolicy"), PULL_POLICIES)
    resources = get("resources")
    if resources:
        check_resources(causes, resources, facts.claims, f"{path}.resources")
    if get("resizePolicy"):
        _check_resize_policy(causes, container["resizePolicy"], facts.restart_policy, f"{path}.resizePolicy")
    context = get("securityContext")
    if context:
        check_security_context(causes, context, facts.host_users, f"{path}.securityContext")
    return name


def _check_ports(causes: list[Cause], ports: list[Any], path: str) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name")
        if name:
            complaints = validate_port_name(name)
            for complaint in complaints:
                causes.append(invalid_value(f"{path}[{index}].name", name, complaint))
            if not complaints:
                if name in seen:
                    causes.append(duplicate(f"{path}[{index}].name", name))
                seen.add(name)
        number = port.get("containerPort") or 0
        if number == 0:
            causes.append(required(f"{path}[{index}].containerPort"))
        elif not 0 < number < 65536:
            check_port(causes, f"{path}[{index}].containerPort", number)
        host_port = port.get("hostPort") or 0
        if host_port and not 0 < host_port < 65536:
            check_port(causes, f"{path}[{index}].hostPort", host_port)
        if port.get("protocol") not in PROTOCOLS:
            check_enum(causes, f"{path}[{index}].protocol", port.get("protocol"), PROTOCOLS)


def _check_host_ports(causes: list[Cause], containers: list[Any], path: str) -> None:
    """Two containers that run at once cannot have one port of the host."""
    seen: set[str] = set()
    for index, container in enumerate(containers):
        for at, port in enumerate(container.get("ports") or ()):
            number = port.get("hostPort")
            if number:
                key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{number}"
                if key in seen:
                    causes.append(duplicate(f"{path}[{index}].ports[{at}].hostPort", key))
                seen.add(key)


def _check_resize_policy(causes: list[Cause], policies: list[Any], restart_policy: str, path: str) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        resource = policy.get("resourceName") or ""
        if resource in seen:
            causes.append(duplicate(f"{path}[{index}]", resource))
        seen.add(resource)
        check_enum(causes, path, resource, _RESIZE_RESOURCES)
        restart = policy.get("restartPolicy") or ""
        check_enum(causes, path, restart, _RESIZE_POLICIES)
        if restart_policy == "Never" and restart != "NotRequired":
            causes.append(invalid_value(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))


def _check_restart_rules(causes: list[Cause], container: JsonObject, path: str) -> None:
    rules = container.get("restartPolicyRules")
    if not rules:
        return
    rules_path = f"{path}.restartPolicyRules"
    if container.get("restartPolicy") is None:
        causes.append(required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used"))
    if len(rules) > 20:
        causes.append(invalid_value(rules_path, len(rules), "must have at most 20 items"))
    for index, rule in enumerate(rules):
        rule_path = f"{rules_path}[{index}]"
        if rule.get("action") not in ("Restart", "RestartAllContainers"):
            causes.append(not_supported(f"{rule_path}.action", rule.get("action") or "", ("Restart",)))
        codes = rule.get("exitCodes")
        if codes is None:
            causes.append(required(f"{rule_path}.exitCodes", "must be specified"))
        elif codes.get("operator") not in ("In", "NotIn"):
            causes.append(
                not_supported(f"{rule_path}.exitCodes.operator", codes.get("operator") or "", ("In", "NotIn"))
            )
