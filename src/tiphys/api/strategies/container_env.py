"""Validation of a container's environment: literal variables, references to fields, ConfigMaps, Secrets and files.

Spec: Kubernetes documentation, "Define Environment Variables for a Container", "Expose Pod Information to Containers".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import invalid_value, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.names import (
    validate_config_key,
    validate_dns_subdomain,
    validate_env_var_name,
    validate_qualified_name,
    validate_relaxed_env_var_name,
)
from tiphys.api.strategies.fields import check_required_text, check_text
from tiphys.base.errors import Cause

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
CONTAINER_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_BYTE_DIVISORS = frozenset(("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"))
_BYTE_DIVISORS_TEXT = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_MAP_FIELDS = ("metadata.annotations", "metadata.labels")


def check_env(causes: list[Cause], env: list[Any], volumes: dict[str, JsonObject], relaxed: bool, path: str) -> None:
    """Check a container's env. `volumes` are the pod's, for variables that are read from a file."""
    rule = validate_relaxed_env_var_name if relaxed else validate_env_var_name
    for index, variable in enumerate(env):
        check_required_text(causes, f"{path}[{index}].name", variable.get("name"), rule)
        source = variable.get("valueFrom")
        if source is not None:
            _check_source(causes, variable, source, volumes, f"{path}[{index}].valueFrom")


def _check_source(
    causes: list[Cause], variable: JsonObject, source: JsonObject, volumes: dict[str, JsonObject], path: str
) -> None:
    kinds = [kind for kind in _SOURCES if source.get(kind) is not None]
    for kind in kinds:
        reference = source[kind]
        if kind == "fieldRef":
            check_field_reference(causes, reference, ENV_FIELDS, f"{path}.fieldRef")
        elif kind == "resourceFieldRef":
            check_resource_reference(causes, reference, f"{path}.resourceFieldRef", in_volume=False)
        elif kind == "fileKeyRef":
            _check_file_reference(causes, reference, volumes, f"{path}.fileKeyRef")
        else:
            _check_key_reference(causes, reference, f"{path}.{kind}")
    if not kinds:
        causes.append(
            invalid_value(
                path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            )
        )
    elif variable.get("value"):
        causes.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif len(kinds) > 1:
        causes.append(invalid_value(path, "", "may not have more than one field specified at a time"))


def check_field_reference(causes: list[Cause], reference: JsonObject, allowed: tuple[str, ...], path: str) -> None:
    """Check a reference to a field of the pod itself (fieldRef)."""
    if not reference.get("apiVersion"):
        causes.append(required(f"{path}.apiVersion"))
        return
    field = reference.get("fieldPath")
    if not field:
        causes.append(required(f"{path}.fieldPath"))
        return
    if field in allowed:
        return
    if reference["apiVersion"] != "v1":
        causes.append(
            invalid_value(
                f"{path}.fieldPath",
                field,
                "error converting fieldPath: unsupported pod version: " + reference["apiVersion"],
            )
        )
        return
    base, bracket, rest = field.partition("['")
    if bracket and rest.endswith("']"):
        _check_subscript(causes, field, base, rest[:-2], path)
    elif field in _MAP_FIELDS or _is_pod_field(field):
        causes.append(not_supported(f"{path}.fieldPath", field, sorted(allowed)))
    else:
        causes.append(
            invalid_value(f"{path}.fieldPath", field, f"error converting fieldPath: field label not supported: {field}")
        )


def _is_pod_field(field: str) -> bool:
    return field in ENV_FIELDS or field in ("spec.restartPolicy", "spec.schedulerName", "spec.host", "status.phase")


def _check_subscript(causes: list[Cause], field: str, base: str, key: str, path: str) -> None:
    if base == "metadata.annotations":
        check_text(causes, path, key.lower(), validate_qualified_name)
    elif base == "metadata.labels":
        check_text(causes, path, key, validate_qualified_name)
    else:
        causes.append(invalid_value(path, base, "does not support subscript"))


def check_resource_reference(causes: list[Cause], reference: JsonObject, path: str, in_volume: bool) -> None:
    """Check a reference to a request or limit (resourceFieldRef); in a volume it must name the container."""
    resource = reference.get("resource")
    if in_volume and not reference.get("containerName"):
        causes.append(required(f"{path}.containerName"))
    elif not resource:
        causes.append(required(f"{path}.resource"))
    elif resource not in CONTAINER_RESOURCES and not resource.startswith(_HUGE_PAGES):
        causes.append(not_supported(f"{path}.resource", resource, CONTAINER_RESOURCES))
    divisor = str(reference.get("divisor") or "0")
    if divisor == "0" or not resource:
        return
    if resource.endswith(".cpu"):
        if divisor not in ("1", "1m"):
            causes.append(
                invalid_value(
                    f"{path}.divisor", resource, "only divisor's values 1m and 1 are supported with the cpu resource"
                )
            )
    elif divisor not in _BYTE_DIVISORS:
        what = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(
            resource.partition(".")[2], "hugepages"
        )
        detail = f"only divisor's values {_BYTE_DIVISORS_TEXT} are supported with the {what} resource"
        causes.append(invalid_value(f"{path}.divisor", resource, detail))


def _check_key_reference(causes: list[Cause], reference: JsonObject, path: str) -> None:
    check_text(causes, f"{path}.name", reference.get("name") or "", validate_dns_subdomain)
    check_required_text(causes, f"{path}.key", reference.get("key"), validate_config_key)


def _check_file_reference(
    causes: list[Cause], reference: JsonObject, volumes: dict[str, JsonObject], path: str
) -> None:
    if not reference.get("key"):
        causes.append(required(f"{path}.key"))
    else:
        check_text(causes, f"{path}.key", reference["key"], validate_relaxed_env_var_name)
    volume = reference.get("volumeName")
    if not volume:
        causes.append(required(f"{path}.volumeName"))
    elif volume in volumes and "emptyDir" not in volumes[volume]:
        causes.append(invalid_value(f"{path}.volumeName", volume, "referenced volume must be of type emptyDir"))
    if not reference.get("path"):
        causes.append(required(f"{path}.path"))


def check_env_from(causes: list[Cause], sources: list[Any], relaxed: bool, path: str) -> None:
    """Check a container's envFrom."""
    rule = validate_relaxed_env_var_name if relaxed else validate_env_var_name
    for index, source in enumerate(sources):
        source_path = f"{path}[{index}]"
        if source.get("prefix"):
            check_text(causes, f"{source_path}.prefix", source["prefix"], rule)
        kinds = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in kinds:
            check_required_text(causes, f"{source_path}.{kind}.name", source[kind].get("name"), validate_dns_subdomain)
        if not kinds:
            causes.append(invalid_value(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            causes.append(invalid_value(path, "", "may not have more than one field specified at a time"))
