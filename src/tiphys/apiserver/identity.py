"""Which object a write means: its body against its URL, the optimistic lock, and metadata that only the server sets.

First step of every create and update of the registry; changes the object in place.

Spec: Kubernetes API concepts, "Updates to existing resources"; API conventions, "Metadata".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.kind import JsonObject, Kind
from tiphys.base.errors import Cause, bad_request, conflict, invalid

AFTER_ADMISSION = " after mutating admission happens"
_SYSTEM_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_REGISTRY_PLACES = {
    "services": "services/specs",
    "endpoints": "services/endpoints",
    "nodes": "minions",
    "ingresses": "ingress",
    "customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
    "apiservices": "apiregistration.k8s.io/apiservices",
}
"""Where upstream keeps kinds that are not at their plural name."""


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


def check_target(kind: Kind, namespace: str, name: str, obj: JsonObject) -> None:
    """Raise ApiError(400) when the body of a PUT is not of the object on its URL, whether that exists or not."""
    metadata = metadata_of(obj)
    _check_namespace(kind, namespace, metadata)
    check_name(name, metadata)


def check_expected_uid(kind: Kind, namespace: str, name: str, expected: str, current: JsonObject | None) -> None:
    """Raise ApiError(409) when the object of a PUT was deleted since, and maybe made anew. Upstream tells it as its
    storage does, with the key there."""
    uid = current["metadata"].get("uid", "") if current is not None else ""
    if expected and expected != uid:
        why = (
            f"StorageError: invalid object, Code: 4, Key: {_registry_key(kind, namespace, name)}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {expected}, UID in object meta: {uid}"
        )
        raise conflict(kind.group, kind.plural, name, why)


def begin_absent(kind: Kind, name: str, obj: JsonObject) -> None:
    """Make a new object of what was to change one that is not there: an apply, or a PUT of a kind that allows it.

    Raises ApiError."""
    metadata = metadata_of(obj)
    check_name(name, metadata)
    if metadata.get("uid"):
        why = f"uid mismatch: the provided object specified uid {metadata['uid']}, and no existing object was found"
        raise conflict(kind.group, kind.plural, name, why)
    metadata.pop("resourceVersion", None)


def _registry_key(kind: Kind, namespace: str, name: str) -> str:
    place = f"{kind.group}/{kind.plural}" if kind.custom else _REGISTRY_PLACES.get(kind.plural, kind.plural)
    return "/".join(("/registry", place, *((namespace,) if kind.namespaced else ()), name))


def begin_update(
    kind: Kind, namespace: str, name: str, new: JsonObject, old: JsonObject, revision: int, *, locked: bool = False
) -> None:
    """Check identity and the optimistic lock, and put back what no client may change in metadata.

    `locked`: the lock was checked before, and the object was changed since by a webhook or policy.
    """
    metadata, old_metadata = metadata_of(new), old["metadata"]
    check_target(kind, namespace, name, new)
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
    metadata["name"] = name
    for key in _SYSTEM_METADATA:
        if key == "uid" and metadata.get(key):
            continue  # a PUT was asked for it; a patch that changes it is invalid
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


def drop_repeated_owners(obj: JsonObject, when: str = "") -> list[str]:
    """Take out owner references that are there twice, and return the warning of it. `when`: what made them, if not the
    client's body alone."""
    references = metadata_of(obj).get("ownerReferences")
    if not isinstance(references, list) or len(references) < 2:
        return []
    kept: list[Any] = []
    repeated: list[str] = []
    for reference in references:
        if reference in kept:
            repeated.append(str(reference.get("uid", "")))
        else:
            kept.append(reference)
    if not repeated:
        return []
    obj["metadata"]["ownerReferences"] = kept
    return [
        f".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and "
        "may reject such requests as early as 1.24; please fix your requests; "
        f"duplicate UID(s) observed: {', '.join(repeated)}"
    ]


def _check_namespace(kind: Kind, namespace: str, metadata: dict[str, Any]) -> None:
    """Raise ApiError(400) for the namespace of another URL; objects of the cluster lose theirs without a word."""
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    if metadata.get("namespace") not in (None, "", namespace):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace
