"""The status of a Deployment: its numbers and its conditions Available, Progressing and ReplicaFailure.

Pure. In: the Deployment, its ReplicaSets, what this round did. Out: the status patch for deployment.py, and when to look
again for a progress deadline.

Spec: Kubernetes docs, "Deployment status" (progressing, complete, failed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tiphys.api.views.apps import DeploymentCondition
from tiphys.base.clock import format_time, parse_time
from tiphys.controllers.rollout import available_of, bounds, size_of, wanted
from tiphys.controllers.selection import omit_zero
from tiphys.controllers.views import Deployment, ReplicaSet

NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Numbers:
    """The counts of a Deployment's status."""

    replicas: int
    updated: int
    ready: int
    available: int
    unavailable: int
    terminating: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One condition of a Deployment as it will be written."""

    type: str
    status: str
    reason: str
    message: str
    updated: str
    transitioned: str


def has_deadline(deployment: Deployment) -> bool:
    seconds = deployment.spec.progress_deadline_seconds
    return seconds is not None and seconds != NO_DEADLINE


def count(all_sets: Sequence[ReplicaSet], new: ReplicaSet | None) -> Numbers:
    """Return the counts over all ReplicaSets of the Deployment."""
    available = sum(available_of(rs) for rs in all_sets)
    return Numbers(
        replicas=sum(rs.status.replicas or 0 for rs in all_sets),
        updated=(new.status.replicas or 0) if new else 0,
        ready=sum(rs.status.ready_replicas or 0 for rs in all_sets),
        available=available,
        unavailable=max(0, sum(size_of(rs) for rs in all_sets) - available),
        terminating=sum(rs.status.terminating_replicas or 0 for rs in all_sets),
    )


def is_complete(deployment: Deployment, numbers: Numbers) -> bool:
    """Return whether all replicas are of the new template, available, and no old one is left."""
    return numbers.updated == numbers.replicas == numbers.available == wanted(deployment)


def find(conditions: Sequence[DeploymentCondition], type_: str) -> DeploymentCondition | None:
    return next((c for c in conditions if c.type == type_), None)


def plan_status(
    deployment: Deployment,
    all_sets: Sequence[ReplicaSet],
    new: ReplicaSet | None,
    now_s: float,
    *,
    is_rollout: bool,
    first: tuple[str, str, str] | None = None,
    collisions: int = 0,
) -> dict[str, Any] | None:
    """Return the status patch, None if nothing changes.

    `is_rollout`: this round worked on a rollout (not paused, not only a resize), so that progress is judged. `first` is
    (status, reason, message) of a Progressing condition that this round made itself (created, paused, failed).
    """
    numbers = count(all_sets, new)
    now = format_time(now_s)
    conditions = {c.type: _keep(c) for c in deployment.status.conditions}
    surge_unavailable = bounds(deployment)[1]
    if numbers.available >= wanted(deployment) - surge_unavailable:
        _set(conditions, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        text = "Deployment does not have minimum availability."
        _set(conditions, "Available", "False", "MinimumReplicasUnavailable", text, now)
    if not has_deadline(deployment):
        conditions.pop("Progressing", None)
    else:
        if first is not None:
            _set(conditions, "Progressing", *first, now)
        if is_rollout:
            _judge_progress(deployment, numbers, new, conditions, now_s)
    _judge_failure(all_sets, new, conditions)
    status = _status(deployment, numbers, collisions)
    listed = [_dump(c) for c in conditions.values()]
    is_same = _same_numbers(deployment, numbers, collisions) and listed == [
        _dump(_keep(c)) for c in deployment.status.conditions
    ]
    if is_same:
        return None
    status["conditions"] = listed
    return status


def next_deadline_s(deployment: Deployment, status: dict[str, Any] | None, now_s: float) -> float | None:
    """Return after how many seconds the rollout would be past its progress deadline, None if it cannot be."""
    if not has_deadline(deployment) or deployment.spec.paused:
        return None
    conditions = status["conditions"] if status else [_dump(_keep(c)) for c in deployment.status.conditions]
    progressing = next((c for c in conditions if c["type"] == "Progressing"), None)
    if progressing is None or progressing["reason"] in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    since = parse_time(progressing["lastUpdateTime"])
    return max(0.0, since + (deployment.spec.progress_deadline_seconds or 0) - now_s) + 1.0


def _judge_progress(
    deployment: Deployment,
    numbers: Numbers,
    new: ReplicaSet | None,
    conditions: dict[str, Progress],
    now_s: float,
) -> None:
    now = format_time(now_s)
    current = conditions.get("Progressing")
    was_complete = (
        current is not None and current.reason == "NewReplicaSetAvailable" and numbers.replicas == numbers.updated
    )
    if was_complete:
        return
    what = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    if is_complete(deployment, numbers):
        _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", f"{what} has successfully progressed.", now)
    elif _has_progressed(deployment, numbers):
        _set(conditions, "Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.", now, touch=True)
    elif current is not None and _is_timed_out(deployment, current, now_s):
        _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.", now)


def _has_progressed(deployment: Deployment, numbers: Numbers) -> bool:
    old = deployment.status
    old_updated = old.updated_replicas or 0
    return (
        numbers.updated > old_updated
        or numbers.replicas - numbers.updated < (old.replicas or 0) - old_updated
        or numbers.ready > (old.ready_replicas or 0)
        or numbers.available > (old.available_replicas or 0)
    )


def _is_timed_out(deployment: Deployment, current: Progress, now_s: float) -> bool:
    if current.reason == "ProgressDeadlineExceeded":
        return True
    if current.reason == "NewReplicaSetAvailable":
        return False
    return parse_time(current.updated) + (deployment.spec.progress_deadline_seconds or 0) < now_s


def _judge_failure(all_sets: Sequence[ReplicaSet], new: ReplicaSet | None, conditions: dict[str, Progress]) -> None:
    ordered = [new, *[rs for rs in all_sets if rs is not new]] if new else all_sets
    for rs in ordered:
        for c in rs.status.conditions if rs else ():
            if c.type == "ReplicaFailure":
                when = c.last_transition_time or ""
                conditions["ReplicaFailure"] = Progress(c.type, c.status, c.reason, c.message, when, when)
                return
    conditions.pop("ReplicaFailure", None)


def _keep(c: DeploymentCondition) -> Progress:
    return Progress(c.type, c.status, c.reason, c.message, c.last_update_time or "", c.last_transition_time or "")


def _set(
    conditions: dict[str, Progress], type_: str, status: str, reason: str, message: str, now: str, touch: bool = False
) -> None:
    """Set a condition; one of the same status and reason stays as it is (with `touch` its update time moves)."""
    old = conditions.get(type_)
    if old is not None and old.status == status and old.reason == reason and not touch:
        return
    transitioned = old.transitioned if old is not None and old.status == status else now
    new = Progress(type_, status, reason, message, now, transitioned)
    if old is None:
        conditions[type_] = new
    else:
        conditions[type_] = replace(new)


def _dump(c: Progress) -> dict[str, Any]:
    return {
        "type": c.type,
        "status": c.status,
        "lastUpdateTime": c.updated,
        "lastTransitionTime": c.transitioned,
        "reason": c.reason,
        "message": c.message,
    }


def _status(deployment: Deployment, numbers: Numbers, collisions: int) -> dict[str, Any]:
    return {
        "observedGeneration": omit_zero(deployment.metadata.generation or 0),
        "replicas": omit_zero(numbers.replicas),
        "updatedReplicas": omit_zero(numbers.updated),
        "readyReplicas": omit_zero(numbers.ready),
        "availableReplicas": omit_zero(numbers.available),
        "unavailableReplicas": omit_zero(numbers.unavailable),
        "terminatingReplicas": numbers.terminating,
        "collisionCount": omit_zero(collisions),
    }


def _same_numbers(deployment: Deployment, numbers: Numbers, collisions: int) -> bool:
    old = deployment.status
    return (
        old.observed_generation == deployment.metadata.generation
        and (old.replicas or 0) == numbers.replicas
        and (old.updated_replicas or 0) == numbers.updated
        and (old.ready_replicas or 0) == numbers.ready
        and (old.available_replicas or 0) == numbers.available
        and (old.unavailable_replicas or 0) == numbers.unavailable
        and old.terminating_replicas == numbers.terminating
        and (old.collision_count or 0) == collisions
    )
