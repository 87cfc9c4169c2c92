"""Which object a write means: its body against its URL, the optimistic lock, and metadata that only the server sets.

First step of every create and update of the registry; changes the object in place.

Spec: Kubernetes API concepts, "Updates to existing resources"; API conventions, "Metadata".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.kind import JsonObject, Kind
from tiphys.base.errors import Cause, bad_request, conflict, invalid

_SYSTEM_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


def begin_create(kind: Kind, namespace: str, obj: JsonObject) -> None:
    """Check a new object against its URL, and take out what only the server sets. Raises ApiError."""
    metadata = metadata_of(obj)
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    _check_namespace(kind, namespace, metadata)
    if not metadata.get("name") and not metadata.get("generateName"):
        cause = Cause("FieldValueRequired", "metadata.name", "Required value: name or generateName is required")
        raise invalid(kind.group, kind.kind, "", [cause])
    for key in _SYSTEM_METADATA:
        metadata.pop(key, None)


def settle_create(kind: Kind, namespace: str, obj: JsonObject) -> str:
    """Return the name of a new object that a webhook or policy changed; its namespace is still that of the URL."""
    metadata = metadata_of(obj)
    _check_namespace(kind, namespace, metadata)
    return str(metadata.get("name") or "")


def begin_update(
    kind: Kind, namespace: str, name: str, new: JsonObject, old: JsonObject, revision: int, *, locked: bool = False
) -> None:
    """Check identity and the optimistic lock, and put back what no client may change in metadata.

    `locked`: the lock was checked before, and the object was changed since by a webhook or policy.
    """
    metadata, old_metadata = metadata_of(new), old["metadata"]
    check_name(name, metadata)
    _check_namespace(kind, namespace, metadata, updating=True)
    wanted = metadata.pop("resourceVersion", None)
    if locked:
        pass
    elif wanted and wanted != "0":
        if wanted != str(revision):
            raise conflict(kind.group, kind.plural, name)
    elif not kind.strategy.allow_unconditional_update:
        cause = Cause(
            "FieldValueInvalid", "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update"
        )
        raise invalid(kind.group, kind.kind, name, [cause])
    if metadata.get("uid") and metadata["uid"] != old_metadata.get("uid"):
        why = (
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {old_metadata.get('uid')}"
        )
        raise conflict(kind.group, kind.plural, name, why)
    metadata["name"] = name
    for key in _SYSTEM_METADATA:
        if key in old_metadata:
            metadata[key] = old_metadata[key]
        else:
            metadata.pop(key, None)
    for key in ("generation", "generateName"):
        if key in old_metadata:
            metadata[key] = old_metadata[key]
        elif key == "generation":
            metadata.pop(key, None)


def metadata_of(obj: JsonObject) -> dict[str, Any]:
    metadata: dict[str, Any] | None = obj.get("metadata")
    if metadata is None:
        metadata = obj["metadata"] = {}
    return metadata


def check_name(name: str, metadata: dict[str, Any]) -> None:
    """Raise ApiError(400) when the object of an update is not the one on the URL."""
    given = metadata.get("name")
    if not given:
        raise bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")


def _check_namespace(kind: Kind, namespace: str, metadata: dict[str, Any], *, updating: bool = False) -> None:
    given = metadata.get("namespace") or ""
    if not kind.namespaced:
        if given:
            cause = Cause("FieldValueForbidden", "metadata.namespace", "Forbidden: not allowed on this type")
            raise invalid(kind.group, kind.kind, metadata.get("name", ""), [cause])
        metadata.pop("namespace", None)
        return
    if given and given != namespace:
        if updating:
            raise bad_request(
                f"the namespace of the object ({given}) does not match the namespace on the URL ({namespace})"
            )
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace
