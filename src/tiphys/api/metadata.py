"""Validation of object metadata, the same for every kind.

Input is the decoded object after defaulting and name generation; output is causes in upstream's words and order. The
registry adds them to the kind's own causes. Label and annotation texts seen before cost a dictionary look-up.

Spec: Kubernetes documentation, "Object names and IDs", "Owners and dependents", "Finalizers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.causes import forbidden, go_quote, immutable, invalid_value, required, too_long
from tiphys.api.kind import JsonObject, Kind
from tiphys.api.names import (
    ANNOTATIONS_MAX_BYTES,
    byte_length,
    validate_dns_label,
    validate_name,
    validate_qualified_name,
)
from tiphys.api.selectors import validate_labels
from tiphys.base.errors import Cause

_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
MANAGER_MAX_BYTES = 128
_STANDARD_FIELD_TYPES = ("FieldsV1",)


def validate_object_meta(obj: JsonObject, kind: Kind, namespaced: bool | None = None) -> list[Cause]:
    """Return the causes of bad metadata of a new object. `namespaced` None means what the kind says."""
    if namespaced is None:
        namespaced = kind.namespaced
    meta: Mapping[str, Any] = obj.get("metadata") or {}
    rule = kind.strategy.name_rule
    causes: list[Cause] = []
    prefix = meta.get("generateName")
    if prefix:
        complaints = validate_name(rule, prefix, prefix=True)
        causes += [invalid_value("metadata.generateName", prefix, complaint) for complaint in complaints]
    name = meta.get("name")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += [invalid_value("metadata.name", name, complaint) for complaint in validate_name(rule, name)]
    causes += _validate_namespace(meta.get("namespace"), namespaced)
    if (meta.get("generation") or 0) < 0:
        causes.append(invalid_value("metadata.generation", meta["generation"], "must be greater than or equal to 0"))
    causes += _validate_texts(meta)
    if finalizers := meta.get("finalizers"):
        causes += _validate_finalizers(finalizers)
    return causes + validate_managed_fields(meta.get("managedFields") or (), "metadata.managedFields")


def validate_object_meta_update(new: JsonObject, old: JsonObject, *, changes_only: bool = False) -> list[Cause]:
    """Return the causes of bad metadata of an update. `new` must carry the fields that the registry keeps from old.

    With `changes_only`, what `validate_object_meta` would find as well is left to it.
    """
    meta: Mapping[str, Any] = new.get("metadata") or {}
    before: Mapping[str, Any] = old.get("metadata") or {}
    causes: list[Cause] = []
    if before.get("deletionTimestamp") is not None:
        added = sorted(set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if added:
            listed = ", ".join(go_quote(finalizer) for finalizer in added)
            detail = (
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{listed}}}"
            )
            causes.append(forbidden("metadata.finalizers", detail))
    if (meta.get("generation") or 0) < 0:
        causes.append(invalid_value("metadata.generation", meta["generation"], "must be greater than or equal to 0"))
    if (meta.get("generation") or 0) < (before.get("generation") or 0):
        causes.append(invalid_value("metadata.generation", meta.get("generation") or 0, "must not be decremented"))
    for name in _IMMUTABLE:
        if meta.get(name) != before.get(name):
            value = meta.get(name, "" if name in ("name", "namespace", "uid") else None)
            causes.append(immutable(f"metadata.{name}", value))
    if changes_only:
        return causes
    causes += _validate_texts(meta)
    if meta.get("finalizers") != before.get("finalizers"):
        causes += _validate_finalizers(meta.get("finalizers") or ())
    return causes + validate_managed_fields(meta.get("managedFields") or (), "metadata.managedFields")


def _validate_namespace(namespace: str | None, namespaced: bool) -> list[Cause]:
    if not namespaced:
        return [forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required("metadata.namespace")]
    return [invalid_value("metadata.namespace", namespace, complaint) for complaint in validate_dns_label(namespace)]


def _validate_texts(meta: Mapping[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    if labels := meta.get("labels"):
        causes += validate_labels(labels, "metadata.labels")
    if annotations := meta.get("annotations"):
        causes += validate_annotations(annotations, "metadata.annotations")
    if owners := meta.get("ownerReferences"):
        causes += validate_owner_references(owners, "metadata.ownerReferences")
    return causes


def validate_annotations(annotations: Mapping[str, str], path: str) -> list[Cause]:
    """Return the causes of bad annotation keys, and of annotations that are too big together."""
    causes = []
    size_bytes = 0
    for key, value in annotations.items():
        causes += [invalid_value(path, key, complaint) for complaint in validate_qualified_name(key.lower())]
        size_bytes += byte_length(key) + byte_length(value)
    if size_bytes > ANNOTATIONS_MAX_BYTES:
        causes.append(too_long(path, ANNOTATIONS_MAX_BYTES))
    return causes


def validate_owner_references(references: Sequence[Mapping[str, Any]], path: str) -> list[Cause]:
    """Return the causes of incomplete owners and of a second controller."""
    causes = []
    controller = ""
    for reference in references:
        causes += _validate_owner(reference, path)
        if reference.get("controller"):
            current = f"{reference.get('kind', '')}/{reference.get('name', '')}"
            if controller:
                detail = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {current}'
                )
                causes.append(invalid_value(path, references, detail))
            else:
                controller = current
    return causes


def _validate_owner(reference: Mapping[str, Any], path: str) -> list[Cause]:
    causes = []
    api_version = reference.get("apiVersion", "")
    if not api_version.rpartition("/")[2] or api_version.count("/") > 1:
        causes.append(invalid_value(f"{path}.apiVersion", api_version, "version must not be empty"))
    causes += [
        invalid_value(f"{path}.{name}", reference.get(name, ""), "must not be empty")
        for name in ("kind", "name", "uid")
        if not reference.get(name)
    ]
    if api_version == "v1" and reference.get("kind") == "Event":
        causes.append(invalid_value(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
    return causes


def _validate_finalizers(finalizers: Sequence[str]) -> list[Cause]:
    path = "metadata.finalizers"
    causes = []
    for finalizer in finalizers:
        causes += [invalid_value(path, finalizer, complaint) for complaint in validate_qualified_name(finalizer)]
    if _ORPHAN in finalizers and _FOREGROUND in finalizers:
        detail = f"finalizer {_ORPHAN} and {_FOREGROUND} cannot be both set"
        causes.append(invalid_value(path, list(finalizers), detail))
    return causes


def validate_managed_fields(entries: Sequence[Mapping[str, Any]], path: str) -> list[Cause]:
    """Return the causes of managedFields entries that a client wrote badly."""
    causes = []
    for index, entry in enumerate(entries):
        manager = entry.get("manager", "")
        plain = entry.get("operation") in ("Apply", "Update") and entry.get("fieldsType") == "FieldsV1"
        if plain and manager.isprintable() and byte_length(manager) <= MANAGER_MAX_BYTES:
            continue
        where = f"{path}[{index}]"
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update"):
            causes.append(invalid_value(f"{where}.operation", operation, "must be `Apply` or `Update`"))
        fields_type = entry.get("fieldsType", "")
        if fields_type and fields_type not in _STANDARD_FIELD_TYPES:
            causes.append(invalid_value(f"{where}.fieldsType", fields_type, "must be `FieldsV1`"))
        causes += validate_field_manager(manager, f"{where}.manager")
    return causes


def validate_field_manager(manager: str, path: str = "fieldManager") -> list[Cause]:
    """Return the causes of a bad field manager name (also that of a request's query)."""
    causes = []
    if byte_length(manager) > MANAGER_MAX_BYTES:
        causes.append(too_long(path, MANAGER_MAX_BYTES))
    if not manager.isprintable():
        causes.append(invalid_value(path, manager, "should only contain printable characters"))
    return causes
