"""The arithmetic of a Deployment's rollout, as pure functions: which ReplicaSet gets how many replicas.

In: a Deployment and its ReplicaSets. Out: new sizes. Read by deployment.py. Invariants (tests/unit/controllers holds
them by random rollouts): a rolling update never asks for more than replicas + maxSurge pods, and never lets fewer than
replicas - maxUnavailable available ones remain, as far as the ReplicaSets' status tells.

Spec: Kubernetes docs, "Deployment": rolling update, max surge, max unavailable, proportional scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.controllers.selection import created_s, resolve_percent
from tiphys.controllers.views import Deployment, ReplicaSet

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class Scale:
    """A ReplicaSet and the size that it gets."""

    replicaset: ReplicaSet
    replicas: int


def wanted(deployment: Deployment) -> int:
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def size_of(replicaset: ReplicaSet) -> int:
    return 1 if replicaset.spec.replicas is None else replicaset.spec.replicas


def available_of(replicaset: ReplicaSet) -> int:
    return replicaset.status.available_replicas or 0


def lasting_of(replicaset: ReplicaSet) -> int:
    """Return how many available pods a ReplicaSet will keep.

    DIFFERS: a status from before the last step down tells of pods that are about to go; upstream counts them, and two
    quick steps then take more than maxUnavailable allows.
    """
    return min(size_of(replicaset), available_of(replicaset))


def total_size(replicasets: Sequence[ReplicaSet]) -> int:
    return sum(size_of(rs) for rs in replicasets)


def is_rolling(deployment: Deployment) -> bool:
    strategy = deployment.spec.strategy
    return strategy is None or strategy.type in ("", "RollingUpdate")


def bounds(deployment: Deployment) -> tuple[int, int]:
    """Return (max surge, max unavailable) as numbers of pods; both 0 would never move, so then one may be missing."""
    if not is_rolling(deployment):
        return 0, 0
    strategy = deployment.spec.strategy
    rolling = strategy.rolling_update if strategy else None
    replicas = wanted(deployment)
    surge = resolve_percent(rolling.max_surge if rolling else "25%", replicas, round_up=True)
    unavailable = resolve_percent(rolling.max_unavailable if rolling else "25%", replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def size_for_new(deployment: Deployment, all_sets: Sequence[ReplicaSet], new_size: int) -> int:
    """Return the size of the new ReplicaSet, which has `new_size` replicas now."""
    replicas = wanted(deployment)
    if not is_rolling(deployment):
        return replicas
    room = replicas + bounds(deployment)[0] - total_size(all_sets)
    if room <= 0:
        return new_size
    return new_size + min(room, replicas - new_size)


def plan_new(deployment: Deployment, all_sets: Sequence[ReplicaSet], new: ReplicaSet) -> Scale | None:
    """Return the step of the new ReplicaSet in a rolling update, None if it stands."""
    size, replicas = size_of(new), wanted(deployment)
    if size == replicas:
        return None
    target = replicas if size > replicas else size_for_new(deployment, all_sets, size)
    return Scale(new, target) if target != size else None


def plan_old(
    deployment: Deployment, all_sets: Sequence[ReplicaSet], old: Sequence[ReplicaSet], new: ReplicaSet
) -> list[Scale]:
    """Return the steps down of the old ReplicaSets: first pods that are not available anyway, then healthy ones."""
    if total_size(old) == 0:
        return []
    minimum = wanted(deployment) - bounds(deployment)[1]
    missing_in_new = size_of(new) - available_of(new)
    room = total_size(all_sets) - minimum - missing_in_new
    if room <= 0:
        return []
    sizes: dict[str, int] = {}
    ordered = sorted(old, key=lambda rs: (created_s(rs.metadata), rs.metadata.name))
    for rs in ordered:
        if room <= 0:
            break
        size = size_of(rs)
        if size == 0 or size == available_of(rs):
            continue
        step = min(room, size - available_of(rs))
        if step <= 0:
            continue
        sizes[rs.metadata.uid] = size - step
        room -= step
    room = sum(lasting_of(rs) for rs in all_sets) - minimum
    for rs in ordered:
        size = sizes.get(rs.metadata.uid, size_of(rs))
        if room <= 0:
            break
        if size == 0:
            continue
        step = min(room, size)
        sizes[rs.metadata.uid] = size - step
        room -= step
    return [Scale(rs, sizes[rs.metadata.uid]) for rs in ordered if rs.metadata.uid in sizes]


def needs_scaling(deployment: Deployment, all_sets: Sequence[ReplicaSet]) -> bool:
    """Return whether the Deployment was resized since its ReplicaSets were last sized."""
    return any(
        size_of(rs) > 0
        and (text := rs.metadata.annotations.get(DESIRED)) is not None
        and text != str(wanted(deployment))
        for rs in all_sets
    )


def plan_resize(
    deployment: Deployment, all_sets: Sequence[ReplicaSet], old: Sequence[ReplicaSet], new: ReplicaSet | None
) -> list[Scale]:
    """Return the new sizes after a change of `replicas`, in the middle of a rollout in proportion to the sizes."""
    replicas = wanted(deployment)
    active = [rs for rs in all_sets if size_of(rs) > 0]
    if len(active) <= 1:
        only = active[0] if active else _latest(old, new)
        return [Scale(only, replicas)] if only is not None and size_of(only) != replicas else []
    if new is not None and _is_saturated(deployment, new):
        return [Scale(rs, 0) for rs in old if size_of(rs) > 0]
    if not is_rolling(deployment):
        return []
    return _plan_proportional(deployment, active)


def _latest(old: Sequence[ReplicaSet], new: ReplicaSet | None) -> ReplicaSet | None:
    if new is not None:
        return new
    return max(old, key=lambda rs: (created_s(rs.metadata), rs.metadata.name), default=None)


def _is_saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    replicas = wanted(deployment)
    desired = new.metadata.annotations.get(DESIRED, "")
    return size_of(new) == replicas and desired == str(replicas) and available_of(new) == replicas


def _plan_proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> list[Scale]:
    replicas = wanted(deployment)
    allowed = replicas + bounds(deployment)[0] if replicas > 0 else 0
    to_add = allowed - total_size(active)
    # The biggest change first; of equal sizes a growing Deployment favours the newest, a shrinking one the oldest.
    newest_first = sorted(active, key=lambda rs: created_s(rs.metadata), reverse=to_add > 0)
    ordered = sorted(newest_first, key=size_of, reverse=True)
    sizes: list[int] = []
    added = 0
    for rs in ordered:
        share = _share(deployment, rs, to_add, added, allowed) if to_add else 0
        sizes.append(max(0, size_of(rs) + share))
        added += share
    # What rounding left over goes to the biggest; what it cannot give, to the next.
    left = to_add - added
    for index, size in enumerate(sizes):
        sizes[index] = max(0, size + left)
        left += size - sizes[index]
    return [Scale(rs, size) for rs, size in zip(ordered, sizes, strict=True)]


def _share(deployment: Deployment, rs: ReplicaSet, to_add: int, added: int, allowed: int) -> int:
    if size_of(rs) == 0 or to_add == added:
        return 0
    if wanted(deployment) == 0:
        fraction = -size_of(rs)
    else:
        text = rs.metadata.annotations.get(MAXIMUM, "")
        was = int(text) if text.isdigit() and int(text) else deployment.status.replicas or size_of(rs)
        fraction = int(size_of(rs) * allowed / was + 0.5) - size_of(rs)
    left = to_add - added
    return min(fraction, left) if to_add > 0 else max(fraction, left)


def revision_of(annotations: object) -> int:
    """Return the revision annotation as a number, 0 if there is none."""
    text = annotations.get(REVISION, "") if hasattr(annotations, "get") else ""
    return int(text) if text.isdigit() else 0


def plan_cleanup(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Return the old ReplicaSets beyond the revision history limit, oldest revision first."""
    limit = deployment.spec.revision_history_limit
    if limit is None:
        return []
    alive = [rs for rs in old if rs.metadata.deletion_timestamp is None]
    surplus = len(alive) - limit
    if surplus <= 0:
        return []
    alive.sort(key=lambda rs: revision_of(rs.metadata.annotations))
    return [
        rs
        for rs in alive[:surplus]
        if not rs.status.replicas
        and size_of(rs) == 0
        and (rs.metadata.generation or 0) <= (rs.status.observed_generation or 0)
    ]
