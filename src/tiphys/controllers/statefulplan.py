"""What a StatefulSet needs next: the pure part of the StatefulSet controller.

In: a StatefulSet, its pods, the names of its current and its update revision. Out: `StatefulPlan`: the pods to create and
to delete in this round, and the counts of the status. Read by statefulset.py.

Invariant with OrderedReady: at most one pod is created or deleted a round, none is touched while a lower ordinal (when
growing or replacing) or a higher one (when shrinking) is not available, and no ordinal ever has two pods: a pod is only
created when its name is free.

Spec: Kubernetes docs, "StatefulSets" (deployment and scaling guarantees, update strategies, partitions, start ordinal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tiphys.controllers.history import REVISION_LABEL
from tiphys.controllers.selection import is_available, is_ready, resolve_percent
from tiphys.controllers.views import Pod, StatefulSet


@dataclass(slots=True)
class StatefulPlan:
    """What to do in this round."""

    create: list[tuple[int, str]] = field(default_factory=list)
    """(ordinal, name of the revision that the pod gets)."""
    delete: list[Pod] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    reason: str = "all pods are as wanted"


def ordinal_of(statefulset: StatefulSet, pod: Pod) -> int | None:
    """Return the ordinal in a pod's name, None if the name is not one of the StatefulSet's."""
    base, _, number = pod.metadata.name.rpartition("-")
    return int(number) if base == statefulset.metadata.name and number.isdigit() else None


def wanted_ordinals(statefulset: StatefulSet) -> range:
    start = (statefulset.spec.ordinals.start or 0) if statefulset.spec.ordinals else 0
    replicas = 1 if statefulset.spec.replicas is None else statefulset.spec.replicas
    return range(start, start + replicas)


def is_parallel(statefulset: StatefulSet) -> bool:
    return statefulset.spec.pod_management_policy == "Parallel"


def partition_of(statefulset: StatefulSet) -> int:
    """Return the first ordinal that an update touches."""
    strategy = statefulset.spec.update_strategy
    rolling = strategy.rolling_update if strategy else None
    return (rolling.partition or 0) if rolling else 0


def rolls(statefulset: StatefulSet) -> bool:
    strategy = statefulset.spec.update_strategy
    return strategy is None or strategy.type in ("", "RollingUpdate")


def revision_for(statefulset: StatefulSet, ordinal: int, current: str, update: str) -> str:
    """Return the revision that a new pod gets: below the partition, or while an update is held, the current one."""
    if current == update or not rolls(statefulset):
        return update if current == update else current
    start = wanted_ordinals(statefulset).start
    return current if ordinal - start < partition_of(statefulset) else update


def plan_statefulset(
    statefulset: StatefulSet, pods: Sequence[Pod], current: str, update: str, now_s: float
) -> StatefulPlan:
    """Return what to do in this round."""
    ordinals = wanted_ordinals(statefulset)
    by_ordinal: dict[int, Pod] = {}
    condemned: list[tuple[int, Pod]] = []
    for pod in pods:
        ordinal = ordinal_of(statefulset, pod)
        if ordinal is None:
            continue
        if ordinal in ordinals:
            by_ordinal[ordinal] = pod
        else:
            condemned.append((ordinal, pod))
    plan = StatefulPlan(counts=count(statefulset, pods, current, update, now_s))
    if not statefulset.metadata.deletion_timestamp:
        _plan_pods(plan, statefulset, by_ordinal, condemned, current, update, now_s)
    return plan


def _plan_pods(
    plan: StatefulPlan,
    statefulset: StatefulSet,
    by_ordinal: dict[int, Pod],
    condemned: list[tuple[int, Pod]],
    current: str,
    update: str,
    now_s: float,
) -> None:
    parallel = is_parallel(statefulset)
    min_ready = statefulset.spec.min_ready_seconds or 0
    for ordinal in wanted_ordinals(statefulset):
        pod = by_ordinal.get(ordinal)
        if pod is None:
            plan.create.append((ordinal, revision_for(statefulset, ordinal, current, update)))
            plan.reason = f"pod {ordinal} is missing"
        elif pod.status.phase in ("Failed", "Succeeded") and pod.metadata.deletion_timestamp is None:
            plan.delete.append(pod)
            plan.reason = f"pod {ordinal} has ended and is replaced"
        elif pod.metadata.deletion_timestamp is not None:
            plan.reason = f"pod {ordinal} is ending"
        elif not is_available(pod, min_ready, now_s):
            plan.reason = f"pod {ordinal} is not available yet"
        else:
            continue
        if not parallel:
            return
    condemned.sort(key=lambda item: -item[0])
    for ordinal, pod in condemned:
        if pod.metadata.deletion_timestamp is None:
            plan.delete.append(pod)
            plan.reason = f"pod {ordinal} is not wanted any more"
        else:
            plan.reason = f"pod {ordinal}, not wanted any more, is ending"
        if not parallel:
            return
    if not plan.create and not plan.delete and rolls(statefulset):
        _plan_update(plan, statefulset, by_ordinal, update, now_s)


def _plan_update(
    plan: StatefulPlan, statefulset: StatefulSet, by_ordinal: dict[int, Pod], update: str, now_s: float
) -> None:
    """Replace pods of other revisions from the highest ordinal down to the partition, maxUnavailable at a time."""
    ordinals = wanted_ordinals(statefulset)
    strategy = statefulset.spec.update_strategy
    rolling = strategy.rolling_update if strategy else None
    limit = resolve_percent(rolling.max_unavailable if rolling else None, len(ordinals), round_up=True) or 1
    min_ready = statefulset.spec.min_ready_seconds or 0
    unavailable = [
        o
        for o, pod in by_ordinal.items()
        if pod.metadata.deletion_timestamp is not None or not is_available(pod, min_ready, now_s)
    ]
    room = limit - len(unavailable)
    for ordinal in reversed(ordinals[partition_of(statefulset) :]):
        pod = by_ordinal.get(ordinal)
        if pod is None or pod.metadata.labels.get(REVISION_LABEL) == update:
            continue
        if pod.metadata.deletion_timestamp is not None:
            continue
        if ordinal in unavailable:
            # Broken already: replacing it costs nothing.
            plan.delete.append(pod)
        elif room > 0:
            plan.delete.append(pod)
            room -= 1
        if plan.delete and limit == 1:
            break
    if plan.delete:
        plan.reason = f"{len(plan.delete)} pods are of an older revision"


def count(statefulset: StatefulSet, pods: Sequence[Pod], current: str, update: str, now_s: float) -> dict[str, int]:
    """Return the numbers of the status."""
    counts = dict.fromkeys(("replicas", "ready", "available", "current", "updated"), 0)
    for pod in pods:
        if ordinal_of(statefulset, pod) is None:
            continue
        counts["replicas"] += pod.status.phase != ""
        if is_ready(pod) and pod.status.phase == "Running":
            counts["ready"] += 1
            counts["available"] += is_available(pod, statefulset.spec.min_ready_seconds or 0, now_s)
        if pod.metadata.deletion_timestamp is None and pod.status.phase != "":
            revision = pod.metadata.labels.get(REVISION_LABEL)
            counts["current"] += revision == current
            counts["updated"] += revision == update
    return counts


def is_update_complete(statefulset: StatefulSet, counts: dict[str, int]) -> bool:
    """Return whether every pod has the update revision and is ready, so that it becomes the current one."""
    wanted = len(wanted_ordinals(statefulset))
    return rolls(statefulset) and counts["updated"] == counts["replicas"] == counts["ready"] == wanted
