"""Fields of built-in kinds that a field selector may name, beyond metadata.name and metadata.namespace.

A field is a label and a function from an object to the text that the selector compares. Empty text stands for an unset
field, as upstream compares it.

Spec: Kubernetes docs, "Field selectors", "List of supported fields".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiphys.api.kind import JsonObject, Kind

Field = Callable[[JsonObject], str]
Fields = Mapping[str, Field]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def at(path: str, default: str = "") -> Field:
    """Return the function that reads one dotted path; `default` is the text of an unset field."""
    keys = path.split(".")

    def read(obj: JsonObject) -> str:
        value: Any = obj
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                return default
        return _text(value)

    return read


def either(*reads: Field) -> Field:
    """Return the function that gives the first text which is not empty."""

    def read(obj: JsonObject) -> str:
        for one in reads:
            text = one(obj)
            if text:
                return text
        return ""

    return read


_REFERENCE_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _core_event_fields() -> dict[str, Field]:
    fields: dict[str, Field] = {
        f"involvedObject.{name}": either(at(f"involvedObject.{name}"), at(f"regarding.{name}"))
        for name in _REFERENCE_FIELDS
    }
    component = either(at("reportingComponent"), at("reportingController"))
    fields["reason"] = at("reason")
    fields["reportingComponent"] = component
    fields["source"] = either(at("source.component"), at("deprecatedSource.component"), component)
    fields["type"] = at("type")
    return fields


def _new_event_fields() -> dict[str, Field]:
    """Fields of events.k8s.io; they read the stored (core) form too, since both kinds share their objects."""
    core = _core_event_fields()
    fields = {f"regarding.{name}": core[f"involvedObject.{name}"] for name in _REFERENCE_FIELDS}
    fields["reason"] = core["reason"]
    fields["reportingController"] = core["reportingComponent"]
    fields["type"] = core["type"]
    return fields


_POD: dict[str, Field] = {
    "spec.nodeName": at("spec.nodeName"),
    "spec.restartPolicy": at("spec.restartPolicy"),
    "spec.schedulerName": at("spec.schedulerName"),
    "spec.serviceAccountName": at("spec.serviceAccountName"),
    "spec.hostNetwork": at("spec.hostNetwork", "false"),
    "status.phase": at("status.phase"),
    "status.podIP": at("status.podIP"),
    "status.nominatedNodeName": at("status.nominatedNodeName"),
}

SELECTABLE_FIELDS: Mapping[tuple[str, str], Fields] = {
    ("", "events"): _core_event_fields(),
    ("", "namespaces"): {"status.phase": at("status.phase")},
    ("", "nodes"): {"spec.unschedulable": at("spec.unschedulable", "false")},
    ("", "pods"): _POD,
    ("", "replicationcontrollers"): {"status.replicas": at("status.replicas", "0")},
    ("", "secrets"): {"type": at("type")},
    ("", "services"): {"spec.clusterIP": at("spec.clusterIP"), "spec.type": at("spec.type")},
    ("apps", "replicasets"): {"status.replicas": at("status.replicas", "0")},
    ("batch", "jobs"): {"status.successful": at("status.succeeded", "0")},
    ("certificates.k8s.io", "certificatesigningrequests"): {"spec.signerName": at("spec.signerName")},
    ("certificates.k8s.io", "clustertrustbundles"): {"spec.signerName": at("spec.signerName")},
    ("certificates.k8s.io", "podcertificaterequests"): {
        "spec.signerName": at("spec.signerName"),
        "spec.podName": at("spec.podName"),
        "spec.nodeName": at("spec.nodeName"),
    },
    ("events.k8s.io", "events"): _new_event_fields(),
    ("resource.k8s.io", "resourceslices"): {"spec.nodeName": at("spec.nodeName"), "spec.driver": at("spec.driver")},
}
"""(group, plural) -> selectable fields."""

FIELD_ALIASES: Mapping[tuple[str, str], Mapping[str, str]] = {("", "pods"): {"spec.host": "spec.nodeName"}}
"""Old labels that upstream still takes."""


_UNKNOWN: Mapping[tuple[str, str], str] = {
    ("apps", "statefulsets"): "field label not supported for appsv1.StatefulSet: {label}",
    ("batch", "jobs"): 'field label "{label}" not supported for batchv1.Job',
    ("resource.k8s.io", "resourceslices"): "field label not supported for {api_version}, Kind=ResourceSlice: {label}",
}
_WITHOUT_NAMESPACE = frozenset(
    {
        ("", "namespaces"),
        ("", "nodes"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("certificates.k8s.io", "clustertrustbundles"),
        ("resource.k8s.io", "resourceslices"),
    }
)
"""Resources of the cluster whose fields upstream lists without metadata.namespace; it takes that of others."""


def unsupported_field(kind: Kind, label: str) -> str:
    """Return upstream's refusal of a field label, "" for one that may be selected."""
    resource = (kind.group, kind.plural)
    listed = kind.custom or bool(kind.selectable_fields)
    if label == "metadata.name" or label in kind.selectable_fields:
        return ""
    if label == "metadata.namespace" and (kind.namespaced or not (kind.custom or resource in _WITHOUT_NAMESPACE)):
        return ""
    if resource in _UNKNOWN:
        return _UNKNOWN[resource].format(label=label, api_version=kind.api_version)
    if listed:
        return f"field label not supported: {label}"
    return f'"{label}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def selectable_fields(group: str, plural: str, minor: int) -> Fields:
    """Return the selectable fields of a resource in Kubernetes 1.<minor>."""
    fields = dict(SELECTABLE_FIELDS.get((group, plural), {}))
    if minor < 28:
        fields.pop("spec.hostNetwork", None)
    for alias, label in FIELD_ALIASES.get((group, plural), {}).items():
        fields[alias] = fields[label]
    return fields
