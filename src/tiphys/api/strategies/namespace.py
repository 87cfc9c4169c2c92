"""Namespaces: the phase, the `kubernetes` finalizer and the label with the name.

Spec: Kubernetes documentation, "Namespaces", "Automatic labelling"; API reference, core/v1 Namespace.
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_qualified_name
from tiphys.api.strategies.fields import check_text, keep_spec
from tiphys.base.errors import Cause

NAME_LABEL = "kubernetes.io/metadata.name"
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def default(namespace: JsonObject) -> None:
    """Label the namespace with its name, whatever the label was."""
    metadata = namespace.get("metadata") or {}
    name = metadata.get("name")
    if name:
        labels = metadata.get("labels")
        if labels is None:
            metadata["labels"] = {NAME_LABEL: name}
        else:
            labels[NAME_LABEL] = name


def prepare_for_create(namespace: JsonObject, context: Context) -> None:
    """A new namespace is Active; the namespace controller takes the finalizer off when it is empty."""
    namespace["status"] = {"phase": "Active"}
    default(namespace)
    spec = namespace.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Finalizers change through the finalize subresource only."""
    if context.subresource == "finalize":
        new["status"] = old.get("status") or {}
        return
    new["spec"] = old.get("spec") or {}
    new["status"] = old.get("status") or {}


def validate(namespace: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for finalizer in (namespace.get("spec") or {}).get("finalizers") or ():
        check_text(causes, "spec.finalizers", finalizer, validate_qualified_name)
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            causes.append(
                invalid_value(
                    "spec.finalizers",
                    finalizer,
                    "name is neither a standard finalizer name nor is it fully qualified",
                )
            )
    return causes


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    deleted = bool((new.get("metadata") or {}).get("deletionTimestamp"))
    phase = (new.get("status") or {}).get("phase") or ""
    expected = "Terminating" if deleted else "Active"
    if phase == expected:
        return []
    state = "not empty" if deleted else "empty"
    return [invalid_value("status.Phase", phase, f"may only be '{expected}' if `deletionTimestamp` is {state}")]


NAMESPACE = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_status_update=validate_status_update,
    name_rule="dns-label",
)
