"""Warnings that a pod's spec earns: fields that are deprecated, do nothing or do not what they seem to.

The API server sends them in `Warning` headers; kubectl prints them. For a template the paths begin with where the
template stands. Spec: Kubernetes documentation, "Deprecated API Migration Guide", well-known annotations and labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.kind import JsonObject
from tiphys.api.strategies.fields import find_duplicates, spec_of, warn_of_name
from tiphys.api.strategies.resources import nanos

OLD_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_CRITICAL = "scheduler.alpha.kubernetes.io/critical-pod"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
REMOVED_VOLUMES = {
    "gitRepo": "deprecated in v1.11",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def warn_pod(pod: JsonObject) -> list[str]:
    """Return the warnings of a Pod."""
    warnings = warn_of_name(pod, of_pod=True)
    _warn_metadata(warnings, pod.get("metadata") or {}, pod["spec"], "metadata")
    warn_pod_spec(warnings, pod["spec"], "spec")
    return warnings


def warn_workload(workload: JsonObject) -> list[str]:
    """Return what there is to say of a workload's name and of the pods that it would make."""
    return [*warn_of_name(workload), *warn_template(spec_of(workload).get("template") or {}, "spec.template")]


def warn_template(template: JsonObject, path: str) -> list[str]:
    """Return the warnings of a workload's template that stands at `path`."""
    warnings: list[str] = []
    spec = template.get("spec") or {}
    _warn_metadata(warnings, template.get("metadata") or {}, spec, f"{path}.metadata")
    warn_pod_spec(warnings, spec, f"{path}.spec")
    return warnings


def _warn_metadata(warnings: list[str], metadata: JsonObject, spec: JsonObject, path: str) -> None:
    annotations = metadata.get("annotations")
    if not annotations:
        return
    for key in annotations:
        if key == _SECCOMP or key.startswith(_SECCOMP_CONTAINER):
            warnings.append(
                f'{path}.annotations[{key}]: non-functional in v1.27+; use the "seccompProfile" field instead'
            )
        elif key == _CRITICAL:
            warnings.append(
                f'{path}.annotations[{key}]: non-functional in v1.16+; use the "priorityClassName" field instead'
            )
        elif key.startswith(_APPARMOR):
            warnings.append(
                f'{path}.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'
            )


def warn_pod_spec(warnings: list[str], spec: JsonObject, path: str) -> None:
    get = spec.get
    for key in get("nodeSelector") or ():
        if key in OLD_NODE_LABELS:
            warnings.append(f"{path}.nodeSelector[{key}]: {OLD_NODE_LABELS[key]}")
    _warn_affinity(warnings, get("affinity") or {}, f"{path}.affinity")
    for index, constraint in enumerate(get("topologySpreadConstraints") or ()):
        at = f"{path}.topologySpreadConstraints[{index}]"
        key = constraint.get("topologyKey")
        if key in OLD_NODE_LABELS:
            warnings.append(f"{at}.topologyKey: {key} is {OLD_NODE_LABELS[key]}")
        if constraint.get("labelSelector") is None:
            warnings.append(f"{at}.labelSelector: a null labelSelector results in matching no pod")
    for index, volume in enumerate(get("volumes") or ()):
        _warn_volume(warnings, volume, f"{path}.volumes[{index}]")
    if (get("terminationGracePeriodSeconds") or 0) < 0:
        warnings.append(
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    _warn_repeated(warnings, get("hostAliases") or (), "ip", f"{path}.hostAliases")
    _warn_repeated(warnings, get("imagePullSecrets") or (), "name", f"{path}.imagePullSecrets")
    _warn_secret_references(warnings, get("imagePullSecrets") or (), path)
    for field in ("initContainers", "containers"):
        for index, container in enumerate(get(field) or ()):
            _warn_container(warnings, container, f"{path}.{field}[{index}]")
    _warn_duplicate_ports(warnings, spec, path)


def _warn_affinity(warnings: list[str], affinity: JsonObject, path: str) -> None:
    required, preferred = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))
    node = affinity.get("nodeAffinity") or {}
    terms = (node.get(required) or {}).get("nodeSelectorTerms") or ()
    warn_node_terms(warnings, terms, f"{path}.nodeAffinity.{required}.nodeSelectorTerms")
    for index, term in enumerate(node.get(preferred) or ()):
        at = f"{path}.nodeAffinity.{preferred}[{index}].preference"
        _warn_expressions(warnings, term.get("preference") or {}, at)
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        for index, term in enumerate(rules.get(required) or ()):
            _warn_null_selector(warnings, term, f"{path}.{kind}.{required}[{index}]")
        for index, term in enumerate(rules.get(preferred) or ()):
            at = f"{path}.{kind}.{preferred}[{index}].podAffinityTerm"
            _warn_null_selector(warnings, term.get("podAffinityTerm") or {}, at)


def _warn_null_selector(warnings: list[str], term: JsonObject, path: str) -> None:
    if term.get("labelSelector") is None:
        warnings.append(f"{path}.labelSelector: a null labelSelector results in matching no pod")


def warn_node_terms(warnings: list[str], terms: Iterable[JsonObject], path: str) -> None:
    """Append the warnings about labels of nodes that have newer names."""
    for index, term in enumerate(terms):
        _warn_expressions(warnings, term, f"{path}[{index}]")


def _warn_expressions(warnings: list[str], term: JsonObject, path: str) -> None:
    for at, expression in enumerate(term.get("matchExpressions") or ()):
        key = expression.get("key")
        if key in OLD_NODE_LABELS:
            warnings.append(f"{path}.matchExpressions[{at}].key: {key} is {OLD_NODE_LABELS[key]}")


def _warn_repeated(warnings: list[str], items: Iterable[JsonObject], field: str, path: str) -> None:
    for index, value in find_duplicates(item.get(field) or "" for item in items):
        warnings.append(f'{path}[{index}].{field}: duplicate {field} "{value}"')


def _warn_volume(warnings: list[str], volume: JsonObject, path: str) -> None:
    for field in volume:
        if field in REMOVED_VOLUMES:
            warnings.append(f"{path}.{field}: {REMOVED_VOLUMES[field]}")
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim:
        storage = (((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
        if storage is not None and nanos(storage) % 10**9:
            warnings.append(
                f"{path}.ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: "
                f'fractional byte value "{storage}" is invalid, must be an integer'
            )


def _warn_container(warnings: list[str], container: JsonObject, path: str) -> None:
    resources = container.get("resources")
    if resources:
        for part in ("limits", "requests"):
            for name in ("memory", "ephemeral-storage"):
                amount = (resources.get(part) or {}).get(name)
                if amount is not None and nanos(amount) % 10**9:
                    warnings.append(
                        f"{path}.resources.{part}[{name}]: "
                        f'fractional byte value "{amount}" is invalid, must be an integer'
                    )
    env = container.get("env")
    if env and len(env) > 1:
        _warn_duplicate_env(warnings, env, path)


def _warn_duplicate_env(warnings: list[str], env: list[Any], path: str) -> None:
    """A later variable of the same name hides the earlier one, unless it is built from it."""
    seen: set[str] = set()
    for index, variable in enumerate(env):
        name = variable.get("name") or ""
        if name in seen:
            reference = f"$({name})"
            value = variable.get("value") or ""
            if variable.get("valueFrom") is not None or value == reference or reference not in value:
                warnings.append(
                    f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
                )
        seen.add(name)


def _warn_duplicate_ports(warnings: list[str], spec: JsonObject, path: str) -> None:
    """The same port told twice means the same thing twice, unless the host's side differs."""
    seen: dict[tuple[Any, Any], list[tuple[str, JsonObject]]] = {}
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            for at, port in enumerate(container.get("ports") or ()):
                here = f"{path}.{field}[{index}].ports[{at}]"
                others = seen.setdefault((port.get("containerPort"), port.get("protocol")), [])
                for where, other in others:
                    same_address = (port.get("hostIP") or "") == (other.get("hostIP") or "")
                    host_port, other_port = port.get("hostPort") or 0, other.get("hostPort") or 0
                    if same_address and host_port == other_port:
                        warnings.append(f"{here}: duplicate port definition with {where}")
                    elif not host_port or not other_port:
                        warnings.append(f"{here}: overlapping port definition with {where}")
                others.append((here, port))


def _warn_secret_references(warnings: list[str], references: Iterable[JsonObject], path: str) -> None:
    for index, reference in enumerate(references):
        if not reference.get("name"):
            warnings.append(f'{path}.imagePullSecrets[{index}].name: invalid empty name ""')
