"""PodSecurity: the level that a namespace asks of its pods by its labels is enforced, warned of and recorded.

Which rules a pod breaks is decided in podstandards.py. Namespaces are looked up in the cache, and their labels decoded
once a revision; a namespace without labels costs one dictionary look-up.

Spec: Kubernetes documentation, "Pod Security Admission", "Pod Security Standards".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tiphys.api.causes import invalid_value, not_supported
from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.plugins.podstandards import LEVELS, violations
from tiphys.base.errors import Cause, forbidden, invalid

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
_VERSION = re.compile(r"latest|v1\.(0|[1-9][0-9]*)")
_TEMPLATES = frozenset(
    {
        ("", "replicationcontrollers"),
        ("", "podtemplates"),
        ("apps", "daemonsets"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
        ("batch", "cronjobs"),
        ("batch", "jobs"),
    }
)


class PodSecurity(Plugin):
    """`namespaces` and `pods` are the caches of both."""

    resources = (*_TEMPLATES, ("", "pods"), ("", "namespaces"))

    def __init__(self, namespaces: ResourceCache, pods: ResourceCache) -> None:
        self._namespaces = namespaces
        self._pods = pods

    async def validate(self, attributes: Attributes) -> None:
        obj, plural = attributes.obj, attributes.kind.plural
        if obj is None:
            return
        if plural == "namespaces":
            self._check_namespace(attributes, obj)
            return
        namespace = self._namespaces.get("", attributes.namespace)
        labels = namespace.labels if namespace is not None else {}
        if not any(label.startswith(PREFIX) for label in labels):
            return
        if plural == "pods":
            if attributes.subresource in ("", "ephemeralcontainers") and _is_changed(attributes):
                _check_pod(attributes, obj, labels)
        elif not attributes.subresource:
            template = _template_of(attributes.kind.kind, obj)
            if template is not None:
                _warn(attributes, template, labels)

    def _check_namespace(self, attributes: Attributes, namespace: JsonObject) -> None:
        labels = namespace["metadata"].get("labels") or {}
        old_labels = ((attributes.old or {}).get("metadata") or {}).get("labels") or {}
        if attributes.subresource or labels == old_labels:
            return
        causes = _label_causes(labels)
        if causes:
            raise invalid("", "Namespace", attributes.name, causes)
        level, version = _level_of(labels, "enforce")
        if attributes.operation == "UPDATE" and (level, version) != _level_of(old_labels, "enforce"):
            attributes.warnings.extend(self._existing(attributes.name, level, version))

    def _existing(self, namespace: str, level: str, version: str) -> list[str]:
        """Return the warnings about pods that the new level would not let in."""
        broken: dict[str, list[str]] = {}
        for cached in self._pods.objects(namespace):
            found = violations(cached.decode(), level)
            if found:
                broken.setdefault(", ".join(reason for reason, _ in found), []).append(cached.name)
        if not broken:
            return []
        lines = [
            f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}:{version}"'
        ]
        for reasons, names in sorted(broken.items(), key=lambda item: item[1][0]):
            more = len(names) - 1
            others = f" (and {more} other pod{'s' if more > 1 else ''})" if more else ""
            lines.append(f"{names[0]}{others}: {reasons}")
        return lines


def _check_pod(attributes: Attributes, pod: JsonObject, labels: Mapping[str, str]) -> None:
    level, version = _level_of(labels, "enforce")
    if attributes.audit is not None:
        attributes.annotate(f"{PREFIX}enforce-policy", f"{level}:{version}")
    found = violations(pod, level)
    if found:
        raise forbidden("", "pods", attributes.name, f'violates PodSecurity "{level}:{version}": {_text(found)}')
    _warn(attributes, pod, labels)


def _warn(attributes: Attributes, pod: JsonObject, labels: Mapping[str, str]) -> None:
    level, version = _level_of(labels, "warn")
    found = violations(pod, level)
    if found:
        attributes.warnings.append(f'would violate PodSecurity "{level}:{version}": {_text(found)}')
    if attributes.audit is not None:
        _record(attributes, pod, labels)


def _record(attributes: Attributes, pod: JsonObject, labels: Mapping[str, str]) -> None:
    """Tell the audit log what breaks the level that is only recorded."""
    level, version = _level_of(labels, "audit")
    found = violations(pod, level)
    if found:
        told = f'would violate PodSecurity "{level}:{version}": {_text(found)}'
        attributes.annotate(f"{PREFIX}audit-violations", told)


def _text(found: list[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in found)


def _level_of(labels: Mapping[str, str], mode: str) -> tuple[str, str]:
    level = labels.get(PREFIX + mode) or "privileged"
    # a level that cannot be right asks for the strictest, as upstream
    return (level if level in LEVELS else "restricted"), labels.get(f"{PREFIX}{mode}-version") or "latest"


def _label_causes(labels: Mapping[str, str]) -> list[Cause]:
    causes = []
    for mode in MODES:
        level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            causes.append(not_supported(f"metadata.labels[{PREFIX}{mode}]", level, LEVELS))
        if version is not None and not _VERSION.fullmatch(version):
            detail = 'must be "latest" or "v1.x"'
            causes.append(invalid_value(f"metadata.labels[{PREFIX}{mode}-version]", version, detail))
    return causes


def _is_changed(attributes: Attributes) -> bool:
    """An update that leaves the pod's spec and its AppArmor and seccomp annotations as they were is not looked at."""
    if attributes.old is None or attributes.obj is None:
        return True
    new, old = attributes.obj, attributes.old
    return bool(new["spec"] != old["spec"]) or new["metadata"].get("annotations") != old["metadata"].get("annotations")


def _template_of(kind: str, obj: JsonObject) -> JsonObject | None:
    if kind == "PodTemplate":
        return obj.get("template")
    spec = obj.get("spec") or {}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template: JsonObject | None = spec.get("template")
    return template
