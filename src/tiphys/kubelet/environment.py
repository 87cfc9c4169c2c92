"""A container's environment variables.

Input: the pod, the container, the ConfigMaps and Secrets that it names, the services of its namespace. Output: the
variables in order, later ones winning, `$(VAR)` expanded. Pure; `references` says what has to be read first.

Spec: Kubernetes docs, "Define Dependent Environment Variables", "Discovering services" (environment variables).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.views.config import ConfigMap, Secret
from tiphys.api.views.pod import ConfigMapKeySelector, EnvVar, EnvVarSource, SecretKeySelector
from tiphys.api.views.service import Service
from tiphys.base.errors import TiphysError
from tiphys.kubelet.downward import FieldMissing, Surroundings, field_value, resource_value
from tiphys.kubelet.pod import BoundPod, Specced

_NAME = re.compile(r"^[ -<>-~]+$")
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")


class EnvironmentFailed(TiphysError):
    """The environment cannot be made: the waiting reason is CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the variables are made from. A missing object maps to None."""

    config_maps: Mapping[str, ConfigMap | None] = field(default_factory=dict)
    secrets: Mapping[str, Secret | None] = field(default_factory=dict)
    services: Sequence[Service] = ()
    """All services of the pod's namespace, and `kubernetes` of the default namespace."""
    around: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, slots=True)
class Environment:
    variables: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """Messages of InvalidEnvironmentVariableNames events."""


def references(container: Specced) -> tuple[set[str], set[str]]:
    """Return the names of the ConfigMaps and of the Secrets that the environment reads."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for source in container.env_from:
        if source.config_map_ref:
            config_maps.add(source.config_map_ref.name)
        if source.secret_ref:
            secrets.add(source.secret_ref.name)
    for variable in container.env:
        if variable.value_from and variable.value_from.config_map_key_ref:
            config_maps.add(variable.value_from.config_map_key_ref.name)
        if variable.value_from and variable.value_from.secret_key_ref:
            secrets.add(variable.value_from.secret_key_ref.name)
    return config_maps, secrets


def environment(pod: BoundPod, container: Specced, sources: Sources) -> Environment:
    """Return the variables. Raises EnvironmentFailed when something required is missing."""
    services = service_variables(pod, sources.services)
    result: dict[str, str] = {}
    warnings: list[str] = []
    for source in container.env_from:
        if source.config_map_ref:
            reference = source.config_map_ref
            data = _config_map_data(pod, sources, reference.name, bool(reference.optional))
            _take_all(result, warnings, data, source.prefix, f"ConfigMap {pod.metadata.namespace}/{reference.name}")
        if source.secret_ref:
            secret = source.secret_ref
            data = _secret_data(pod, sources, secret.name, bool(secret.optional))
            _take_all(result, warnings, data, source.prefix, f"Secret {pod.metadata.namespace}/{secret.name}")
    for variable in container.env:
        value = _value(pod, container, variable, sources, {**services, **result})
        if value is not None:
            result[variable.name] = value
    merged = dict(services)
    merged.update(result)
    return Environment(merged, tuple(warnings))


def _take_all(result: dict[str, str], warnings: list[str], data: Mapping[str, str], prefix: str, source: str) -> None:
    invalid = [prefix + key for key in sorted(data) if not _NAME.match(prefix + key)]
    for key in sorted(data):
        if prefix + key not in invalid:
            result[prefix + key] = data[key]
    if invalid:
        warnings.append(
            f"Keys [{', '.join(invalid)}] from the EnvFrom {source} were skipped since they are considered invalid "
            "environment variable names."
        )


def _config_map_data(pod: BoundPod, sources: Sources, name: str, optional: bool) -> Mapping[str, str]:
    found = sources.config_maps.get(name)
    if found is None:
        if optional:
            return {}
        raise EnvironmentFailed(f'configmap "{name}" not found')
    return found.data


def _secret_data(pod: BoundPod, sources: Sources, name: str, optional: bool) -> Mapping[str, str]:
    found = sources.secrets.get(name)
    if found is None:
        if optional:
            return {}
        raise EnvironmentFailed(f'secret "{name}" not found')
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in found.data.items()}


def _value(
    pod: BoundPod, container: Specced, variable: EnvVar, sources: Sources, known: Mapping[str, str]
) -> str | None:
    if variable.value_from is None:
        return expand(variable.value, known)
    try:
        return _value_from(pod, container, variable.value_from, sources)
    except FieldMissing as error:
        raise EnvironmentFailed(str(error)) from error


def _value_from(pod: BoundPod, container: Specced, source: EnvVarSource, sources: Sources) -> str | None:
    namespace = pod.metadata.namespace
    if source.field_ref:
        return field_value(pod, source.field_ref.field_path, sources.around)
    if source.resource_field_ref:
        return resource_value(pod, source.resource_field_ref, container.name, sources.around)
    if source.config_map_key_ref:
        key: ConfigMapKeySelector | SecretKeySelector = source.config_map_key_ref
        data = _config_map_data(pod, sources, key.name, bool(key.optional))
        kind = "ConfigMap"
    elif source.secret_key_ref:
        key = source.secret_key_ref
        data = _secret_data(pod, sources, key.name, bool(key.optional))
        kind = "Secret"
    else:
        return None
    if key.key not in data:
        if key.optional:
            return None
        raise EnvironmentFailed(f"couldn't find key {key.key} in {kind} {namespace}/{key.name}")
    return data[key.key]


def expand(text: str, known: Mapping[str, str]) -> str:
    """Return the text with `$(NAME)` replaced; `$$` is a dollar sign, unknown names stay as they are."""

    def one(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return known.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def references_in(text: str) -> list[str]:
    """Return the names that `expand` would look up."""
    return [match[1] for match in _REFERENCE.finditer(text) if match[1] is not None]


def service_variables(pod: BoundPod, services: Sequence[Service]) -> dict[str, str]:
    """Return the variables that name the services. The API server's own are always there."""
    linked = pod.spec.enable_service_links is not False
    chosen: dict[str, Service] = {}
    for service in services:
        if service.spec.cluster_ip in ("", "None"):
            continue
        if service.metadata.namespace == "default" and service.metadata.name == "kubernetes":
            chosen.setdefault("kubernetes", service)
        elif linked and service.metadata.namespace == pod.metadata.namespace:
            chosen[service.metadata.name] = service
    result: dict[str, str] = {}
    for name in sorted(chosen):
        result.update(_one_service(name, chosen[name]))
    return result


def _one_service(name: str, service: Service) -> dict[str, str]:
    prefix = name.upper().replace("-", "_")
    address = service.spec.cluster_ip
    host = f"[{address}]" if ":" in address else address
    result = {f"{prefix}_SERVICE_HOST": address}
    for index, port in enumerate(service.spec.ports):
        protocol = (port.protocol or "TCP").lower()
        number = str(port.port or 0)
        url = f"{protocol}://{host}:{number}"
        if index == 0:
            result[f"{prefix}_SERVICE_PORT"] = number
            result[f"{prefix}_PORT"] = url
        if port.name:
            result[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = number
        each = f"{prefix}_PORT_{number}_{protocol.upper()}"
        result[each] = url
        result[f"{each}_PROTO"] = protocol
        result[f"{each}_PORT"] = number
        result[f"{each}_ADDR"] = address
    return result
