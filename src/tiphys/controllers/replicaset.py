"""The ReplicaSet controller, which also drives ReplicationControllers: as many pods as the spec says.

In: a key of a ReplicaSet (or ReplicationController). Decides: which pods to adopt, release, create and delete, and the
status. Out: pods, the status, SuccessfulCreate/FailedCreate/SuccessfulDelete events. Own creates and deletes count
from their answer (mirror.py), so a stale watch never doubles a pod. A crash after any write is mended by the next run:
it counts the pods that exist.

Spec: Kubernetes docs, "ReplicaSet" (scaling down, pod deletion cost), API reference of ReplicaSetStatus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.api.views.meta import Condition, LabelSelector, View, metadata_of
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.creation import PodNames, create_pod, is_namespace_ending, make_pod, run_slow_start
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.pace import Pace
from tiphys.controllers.selection import (
    controller_of,
    created_s,
    is_active,
    is_available,
    is_ready,
    key_of,
    matches_selector,
    omit_zero,
    owner_reference,
    ready_since_s,
)
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod, ReplicaSet, ReplicationController, view_template

BURST = 500
"""At most so many creates or deletes in one round."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
PHASE_RANK = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}

Workload = ReplicaSet | ReplicationController


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for one ReplicaSet now."""

    create: int
    delete: tuple[Pod, ...]
    reason: str


def selector_of(workload: Workload) -> LabelSelector | None:
    """Return the selector; a ReplicationController's plain map becomes a label selector."""
    if isinstance(workload, ReplicationController):
        return LabelSelector(match_labels=workload.spec.selector) if workload.spec.selector else None
    return workload.spec.selector


def wanted_replicas(workload: Workload) -> int:
    return 1 if workload.spec.replicas is None else workload.spec.replicas


def plan_replicas(
    workload: Workload,
    active: Sequence[Pod],
    now_s: float,
    neighbours: Sequence[Pod] = (),
    doubted: Container[str] = (),
) -> Plan:
    """Return how many pods to create or which to delete. `neighbours` are pods of sibling ReplicaSets (same owner).

    `doubted` are uids of pods that may be deleted already: they go first, or another would go in their place too.
    """
    wanted = wanted_replicas(workload)
    difference = wanted - len(active)
    if difference > 0:
        create = min(difference, BURST)
        return Plan(create, (), f"{len(active)} of {wanted} pods exist: creating {create}")
    if difference < 0:
        count = min(-difference, BURST)
        ranked = rank_for_deletion(active, now_s, neighbours)
        ranked.sort(key=lambda pod: pod.metadata.uid not in doubted)
        return Plan(0, tuple(ranked[:count]), f"{len(active)} pods exist, {wanted} are wanted: deleting {count}")
    return Plan(0, (), f"{wanted} pods exist as wanted")


def rank_for_deletion(active: Sequence[Pod], now_s: float, neighbours: Sequence[Pod] = ()) -> list[Pod]:
    """Return the pods in the order in which they are given up, first those whose loss hurts least."""
    on_node: dict[str, int] = {}
    for pod in (*active, *neighbours):
        if pod.spec.node_name and is_active(pod):
            on_node[pod.spec.node_name] = on_node.get(pod.spec.node_name, 0) + 1

    def rank(pod: Pod) -> tuple[Any, ...]:
        ready = ready_since_s(pod)
        restarts = max((s.restart_count or 0 for s in pod.status.container_statuses), default=0)
        return (
            bool(pod.spec.node_name),
            PHASE_RANK.get(pod.status.phase, 2),
            ready is not None,
            _deletion_cost(pod),
            -on_node.get(pod.spec.node_name, 0),
            _age_bucket(now_s, ready) if ready else 0,
            -restarts,
            _age_bucket(now_s, created_s(pod.metadata)),
            pod.metadata.uid,
        )

    return sorted(active, key=rank)


def _age_bucket(now_s: float, since_s: float) -> int:
    """Ages are compared by their power of two, so that victims spread over pods of about one age."""
    age = now_s - since_s
    return int(math.log2(age)) if age >= 1 else -1


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def plan_status(
    workload: Workload, owned: Sequence[Pod], failure: tuple[str, str] | None, now_s: float
) -> dict[str, Any] | None:
    """Return the status patch, None if the status is right already.

    `failure` is (reason, message) of what went wrong with creating or deleting in this round.
    """
    active = [pod for pod in owned if is_active(pod)]
    labels = view_template(bytes(workload.spec.template)).metadata.labels
    min_ready = workload.spec.min_ready_seconds or 0
    ready = [pod for pod in active if is_ready(pod)]
    terminating = sum(
        1 for p in owned if p.metadata.deletion_timestamp and p.status.phase not in ("Succeeded", "Failed")
    )
    is_rc = isinstance(workload, ReplicationController)
    numbers = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(1 for pod in active if labels.items() <= pod.metadata.labels.items()),
        "readyReplicas": len(ready),
        "availableReplicas": sum(1 for pod in ready if is_available(pod, min_ready, now_s)),
        "observedGeneration": workload.metadata.generation or 0,
    }
    old = workload.status
    conditions = plan_conditions(old.conditions, failure, now_s)
    is_same = (
        old.replicas == numbers["replicas"]
        and (old.fully_labeled_replicas or 0) == numbers["fullyLabeledReplicas"]
        and (old.ready_replicas or 0) == numbers["readyReplicas"]
        and (old.available_replicas or 0) == numbers["availableReplicas"]
        and (old.observed_generation or 0) == numbers["observedGeneration"]
        and (is_rc or old.terminating_replicas == terminating)
        and conditions is None
    )
    if is_same:
        return None
    status: dict[str, Any] = {k: (v if k == "replicas" else omit_zero(v)) for k, v in numbers.items()}
    if not is_rc:
        status["terminatingReplicas"] = terminating
    if conditions is not None:
        status["conditions"] = conditions or None
    return status


def is_passing(workload: Workload, status: Mapping[str, Any]) -> bool:
    """Return whether a status patch tells only of numbers that are about to grow again, or of pods that ended.

    What becomes less is told at once: a rollout takes pods away as long as it believes that enough are available.
    """
    old = workload.status
    if "conditions" in status or status["observedGeneration"] != old.observed_generation:
        return False
    before = (old.replicas or 0, old.ready_replicas or 0, old.available_replicas or 0)
    now = (status["replicas"], status["readyReplicas"] or 0, status["availableReplicas"] or 0)
    if any(less < more for less, more in zip(now, before, strict=True)):
        return False
    if (status.get("terminatingReplicas") or 0) > (old.terminating_replicas or 0):
        return False
    return now == before or now[2] < wanted_replicas(workload)


def concerns_owner(old: Pod, new: Pod) -> bool:
    """Return whether a pod changed in what its ReplicaSet counts or claims by: half of a pod's changes do not."""
    before, after = old.metadata, new.metadata
    return (
        before.uid != after.uid
        or before.labels != after.labels
        or before.owner_references != after.owner_references
        or before.deletion_timestamp != after.deletion_timestamp
        or old.status.phase != new.status.phase
        or ready_since_s(old) != ready_since_s(new)
    )


def plan_conditions(
    old: Sequence[Condition], failure: tuple[str, str] | None, now_s: float
) -> list[dict[str, Any]] | None:
    """Return the new list of conditions, None if it stays: ReplicaFailure appears and goes with the failure."""
    had = next((c for c in old if c.type == "ReplicaFailure"), None)
    if failure is None and had is None:
        return None
    if failure is not None and had is not None and had.reason == failure[0]:
        return None
    kept = [c.to_object() for c in old if c.type != "ReplicaFailure"]
    if failure is not None:
        kept.append(
            {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": failure[0],
                "message": failure[1],
                "lastTransitionTime": format_time(now_s),
            }
        )
    return kept


def next_check_s(workload: Workload, owned: Iterable[Pod], now_s: float) -> float | None:
    """Return after how many seconds a ready pod becomes available by minReadySeconds, None if none waits."""
    min_ready = workload.spec.min_ready_seconds or 0
    if not min_ready:
        return None
    waits = [
        since + min_ready - now_s
        for pod in owned
        if is_active(pod) and (since := ready_since_s(pod)) and since + min_ready > now_s
    ]
    return min(waits) + 0.01 if waits else None


async def claim(
    resource: Resource,
    owner: View,
    selector: LabelSelector | None,
    mirror: Mirror[Any],
    *,
    accepts: Callable[[Any], bool] = lambda view: True,
    finalizer: str = "",
) -> list[Any]:
    """Return the objects that `owner` controls, after adopting matching orphans and releasing what matches no more.

    An owner that is being deleted adopts nothing. `accepts` is a further condition for adoption; `finalizer` comes and
    goes with the ownership. A lost race (the object changed or went) is left to the next event.
    """
    meta = metadata_of(owner)
    kept = []
    for view in mirror.owned(meta.uid):
        if matches_selector(selector, view.metadata.labels) or meta.deletion_timestamp:
            kept.append(view)
            continue
        change: dict[str, Any] = {
            "ownerReferences": [r for r in _raw_references(view) if r["uid"] != meta.uid] or None,
        }
        if finalizer in view.metadata.finalizers:
            change["finalizers"] = [f for f in view.metadata.finalizers if f != finalizer] or None
        await _try_patch(mirror, view, {"metadata": change})
    if meta.deletion_timestamp:
        return kept
    for view in mirror.owned(f"orphans/{meta.namespace}"):
        if view.metadata.deletion_timestamp or not matches_selector(selector, view.metadata.labels):
            continue
        if (isinstance(view, Pod) and not is_active(view)) or not accepts(view):
            continue
        change = {"ownerReferences": [*_raw_references(view), owner_reference(resource, meta)]}
        if finalizer and finalizer not in view.metadata.finalizers:
            change["finalizers"] = [*view.metadata.finalizers, finalizer]
        adopted = await _try_patch(mirror, view, {"metadata": change})
        if adopted is not None:
            kept.append(adopted)
    return kept


def _raw_references(view: Any) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": r.api_version,
            "kind": r.kind,
            "name": r.name,
            "uid": r.uid,
            **({} if r.controller is None else {"controller": r.controller}),
            **({} if r.block_owner_deletion is None else {"blockOwnerDeletion": r.block_owner_deletion}),
        }
        for r in view.metadata.owner_references
    ]


async def _try_patch(mirror: Mirror[Any], view: Any, patch: dict[str, Any]) -> Any:
    patch["metadata"]["resourceVersion"] = view.metadata.resource_version
    try:
        return await mirror.patch(view, patch)
    except ApiError as error:
        if error.code in (404, 409, 422):
            return None
        raise


class ReplicaSetLoop:
    """The effects of the controller for one of its two kinds."""

    def __init__(self, shared: Shared, resource: Resource, view: type[Any], component: str) -> None:
        self.shared = shared
        self.resource = resource
        self.sets: Mirror[Any] = shared.mirror(resource, view)
        self.pods = shared.pods
        self.recorder = shared.recorder(component)
        self.names = PodNames(shared.deps.randomness)
        self.queue = shared.queue()
        self.pace = Pace(shared.deps.clock)
        self._doubted: set[str] = set()
        """Uids of pods that are gone or may be, until the watch says so."""
        self.sets.on_change(self._set_changed)
        self.pods.on_change(self._pod_changed)

    def _set_changed(self, old: Any, new: Any) -> None:
        if new is None:
            self.names.forget(old.metadata.uid)
            self.pace.forget(key_of(old))
        self.queue.add(key_of(new if new is not None else old))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and not concerns_owner(old, new):
            return
        if old is not None and (new is None or new.metadata.deletion_timestamp):
            self._doubted.discard(old.metadata.uid)
        for pod in (old, new):
            if pod is None:
                continue
            owner = controller_of(pod.metadata)
            if owner is not None:
                if owner.kind == self.resource.kind:
                    self.queue.add(f"{pod.metadata.namespace}/{owner.name}")
            elif pod is new:
                for workload in self.sets.all(pod.metadata.namespace):
                    if matches_selector(selector_of(workload), pod.metadata.labels):
                        self.queue.add(key_of(workload))

    async def reconcile(self, key: str) -> None:
        workload = self.sets.get(key)
        if workload is None:
            return
        now_s = self.shared.deps.clock.now_s()
        owned = await claim(self.resource, workload, selector_of(workload), self.pods)
        self.names.settle(workload.metadata.uid, owned)
        failure, error = None, None
        if workload.metadata.deletion_timestamp is None:
            failure, error = await self._apply(workload, [p for p in owned if is_active(p)], now_s)
            if failure or error is None:
                owned = self.pods.owned(workload.metadata.uid)
        status = plan_status(workload, owned, failure, now_s)
        if status is not None:
            await self._write_status(key, workload, status)
        wait_s = next_check_s(workload, owned, now_s)
        if wait_s is not None:
            self.queue.add_after(key, wait_s)
        if error is not None:
            raise error

    async def _write_status(self, key: str, workload: Workload, status: dict[str, Any]) -> None:
        """Write a status, unless it tells only of pods that are on their way and the last one was told just now."""
        wait_s = self.pace.wait_s(key) if is_passing(workload, status) else 0.0
        if wait_s:
            self.queue.add_after(key, wait_s)
            return
        began_s = self.pace.begin()
        try:
            await self.sets.patch(workload, {"status": status}, subresource="status")
        except ApiError as problem:
            if problem.code != 404:
                raise
        else:
            self.pace.end(key, began_s)

    def _neighbours(self, workload: Workload) -> list[Pod]:
        owner = controller_of(workload.metadata)
        if owner is None:
            return []
        siblings = [s for s in self.sets.owned(owner.uid) if s.metadata.uid != workload.metadata.uid]
        return [pod for sibling in siblings for pod in self.pods.owned(sibling.metadata.uid)]

    async def _apply(
        self, workload: Workload, active: list[Pod], now_s: float
    ) -> tuple[tuple[str, str] | None, Exception | None]:
        surplus = len(active) > wanted_replicas(workload)
        neighbours = self._neighbours(workload) if surplus else ()
        plan = plan_replicas(workload, active, now_s, neighbours, self._doubted)
        if plan.create:
            _, error = await run_slow_start(range(plan.create), lambda _: self._create(workload))
            if error is not None:
                if is_namespace_ending(error):
                    return None, None
                return ("FailedCreate", str(error)), error
        elif plan.delete:
            _, error = await run_slow_start(plan.delete, lambda pod: self._delete(workload, pod))
            if error is not None:
                return ("FailedDelete", str(error)), error
        return None, None

    async def _create(self, workload: Workload) -> None:
        meta = workload.metadata
        base = f"{meta.name}-"
        template = bytes(workload.spec.template)

        def make(name: str) -> dict[str, Any]:
            return make_pod(template, self.resource, meta, name, generate_name=base)

        try:
            created = await create_pod(self.pods, self.names, meta.uid, base, make)
        except (ApiError, OSError) as error:
            if not is_namespace_ending(error):
                self.recorder.record(workload, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.recorder.record(workload, "Normal", "SuccessfulCreate", f"Created pod: {created.metadata.name}")

    async def _delete(self, workload: Workload, pod: Pod) -> None:
        uid = pod.metadata.uid
        try:
            await self.pods.delete(pod)
        except OSError:
            self._doubted.add(uid)
            raise
        except ApiError as error:
            if error.code == 404 or error.reason in ("Timeout", "ServerTimeout"):
                self._doubted.add(uid)
            if error.code == 404:
                return
            self.recorder.record(workload, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._doubted.discard(uid)
        self.recorder.record(workload, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    def controller(self, name: str) -> Controller:
        return Controller(name, self.queue, self.reconcile, (self.sets, self.pods), workers=20)


def replicaset_controller(shared: Shared) -> Controller:
    loop = ReplicaSetLoop(shared, resources.REPLICASETS, ReplicaSet, "replicaset-controller")
    return loop.controller("replicaset")


def replicationcontroller_controller(shared: Shared) -> Controller:
    component = "replication-controller"
    loop = ReplicaSetLoop(shared, resources.REPLICATIONCONTROLLERS, ReplicationController, component)
    return loop.controller("replicationcontroller")
