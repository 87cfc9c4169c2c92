"""What a DELETE does to an object: pure.

Comes from the registry with the stored object and the options; the plan says remove it now, write it back marked as
being deleted, or leave it as it is. Invariant: an object with finalizers, or with grace left, is never removed.

Spec: Kubernetes garbage collection, "Cascading deletion"; Pod lifecycle, "Termination of Pods"; API conventions,
"Deletion".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError, Cause, bad_request, conflict, invalid

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace_period_s` None means the kind's default; `propagation` "" means the kind's default."""

    grace_period_s: int | None = None
    propagation: str = ""
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False
    given: Mapping[str, Any] | None = None
    """The body and the query that these were read from: what admission is told."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """`remove` True: take it out of the store. Otherwise write `update` back, or nothing when it is None."""

    remove: bool
    update: JsonObject | None
    reason: str


def parse_delete_options(body: JsonObject, query: dict[str, list[str]]) -> DeleteOptions:
    """Return the options of a DELETE from its body and query. Raises ApiError(400) for values that cannot be."""

    def first(name: str) -> Any:
        values = query.get(name)
        return values[0] if values else body.get(name)

    grace = first("gracePeriodSeconds")
    try:
        grace_s = None if grace in (None, "") else int(grace)
    except (TypeError, ValueError):
        raise bad_request(f"gracePeriodSeconds must be an integer, not {grace!r}") from None
    propagation = first("propagationPolicy") or ""
    orphan = first("orphanDependents")
    if orphan is not None and propagation:
        text = f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set'
        raise _invalid_option("propagationPolicy", text)
    if orphan is not None:
        propagation = "Orphan" if orphan in (True, "true", "1") else "Background"
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        supported = '"Background", "Foreground", "Orphan", "nil"'
        raise _invalid_option("propagationPolicy", f'Unsupported value: "{propagation}": supported values: {supported}')
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("DeleteOptions: preconditions must be an object with uid and resourceVersion")
    dry_run = query.get("dryRun") or body.get("dryRun") or []
    if dry_run and dry_run != ["All"]:
        shown = dry_run if isinstance(dry_run, list) else [dry_run]
        raise _invalid_option("dryRun", f'Unsupported value: {orjson.dumps(shown).decode()}: supported values: "All"')
    return DeleteOptions(
        grace_s,
        propagation,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
        bool(dry_run),
        {**body, **query},
    )


def _invalid_option(field: str, message: str) -> ApiError:
    kind = "FieldValueNotSupported" if message.startswith("Unsupported") else "FieldValueInvalid"
    return invalid("meta.k8s.io", "DeleteOptions", "", [Cause(kind, field, message)])


def check_preconditions(kind: Kind, name: str, obj: JsonObject, revision: int, options: DeleteOptions) -> None:
    """Raise ApiError(409) when the object is not the one that the caller means."""
    uid = obj["metadata"].get("uid")
    if options.uid is not None and options.uid != uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(kind.group, kind.kind, name, why)
    if options.resource_version is not None and options.resource_version != str(revision):
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({revision}). The object might have been modified"
        )
        raise conflict(kind.group, kind.kind, name, why)


def plan_delete(kind: Kind, obj: JsonObject, options: DeleteOptions, now_s: float) -> DeletePlan:
    """Decide on a DELETE of `obj` (not changed; the plan's update is a new object where it differs)."""
    prepare = kind.strategy.prepare_for_delete
    if prepare is not None and "deletionTimestamp" not in obj["metadata"]:
        obj = prepare(obj, format_time(now_s))
    metadata = obj["metadata"]
    finalizers = _finalizers(kind, metadata.get("finalizers") or [], options.propagation)
    grace_s = _grace_period(kind, obj, options)
    deleting = "deletionTimestamp" in metadata
    if grace_s == 0 and not finalizers and not _held_by_spec(kind, obj):
        return DeletePlan(True, None, "nothing holds it")
    update = dict(obj, metadata=dict(metadata))
    changed = update["metadata"]
    if finalizers != (metadata.get("finalizers") or []):
        changed["finalizers"] = finalizers
        if not finalizers:
            del changed["finalizers"]
    if deleting:
        left = metadata.get("deletionGracePeriodSeconds") or 0
        if grace_s < left and kind.strategy.graceful_delete_s is not None:
            changed["deletionGracePeriodSeconds"] = grace_s
            changed["deletionTimestamp"] = format_time(now_s + grace_s)
        elif changed == metadata:
            return DeletePlan(False, None, "it is already being deleted")
    else:
        changed["deletionTimestamp"] = format_time(now_s + grace_s)
        changed["deletionGracePeriodSeconds"] = grace_s
        if kind.strategy.generation and "generation" in changed:
            changed["generation"] += 1
    if _held_by_spec(kind, obj):
        update["status"] = dict(obj.get("status") or {}, phase="Terminating")
    held = f"finalizers {', '.join(finalizers)}" if finalizers else f"a grace period of {grace_s} s"
    return DeletePlan(False, update, f"it waits for {held}")


def is_removable(kind: Kind, obj: JsonObject) -> bool:
    """Tell whether a write of this object completes its deletion: marked, no grace left, nothing holds it."""
    metadata = obj["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not _held_by_spec(kind, obj)
        and not (kind.strategy.graceful_delete_s is not None and metadata.get("deletionGracePeriodSeconds"))
    )


def _held_by_spec(kind: Kind, obj: JsonObject) -> bool:
    """Namespaces have finalizers of their own in the spec, which the finalize subresource takes away."""
    return kind.kind == "Namespace" and kind.group == "" and bool((obj.get("spec") or {}).get("finalizers"))


def _finalizers(kind: Kind, current: list[str], propagation: str) -> list[str]:
    if not propagation:
        if kind.strategy.default_propagation == "Orphan" and ORPHAN not in current and FOREGROUND not in current:
            return [*current, ORPHAN]
        return current
    kept = [f for f in current if f not in (ORPHAN, FOREGROUND)]
    if propagation == "Orphan":
        return [*kept, ORPHAN]
    if propagation == "Foreground":
        return [*kept, FOREGROUND]
    return kept


def _grace_period(kind: Kind, obj: JsonObject, options: DeleteOptions) -> int:
    default = kind.strategy.graceful_delete_s
    if default is None:
        return 0
    grace_s = default(obj) if options.grace_period_s is None else options.grace_period_s
    if default(obj) == 0:
        return 0  # nothing runs that could leave gracefully
    return 1 if grace_s < 0 else grace_s
