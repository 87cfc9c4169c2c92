"""The DaemonSet controller: the effects of placement.py.

In: a key of a DaemonSet. Order of writes: the ControllerRevision of the template, then pods, then the status, then old
revisions away. A crash after any of them is mended by the next run. Pods are pinned to their node by affinity, so a pod
that exists is found under its node whatever else happened; own creates count from their answer (mirror.py).

Spec: see placement.py and history.py.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.views.node import Node
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.creation import PodNames, create_pod, is_namespace_ending, make_pod, run_slow_start
from tiphys.controllers.history import REVISION_LABEL, Histories
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.placement import DaemonPlan, daemon_tolerations, node_of, plan_daemons
from tiphys.controllers.replicaset import claim
from tiphys.controllers.selection import (
    controller_of,
    is_empty_selector,
    key_of,
    matches_selector,
    omit_zero,
    ready_since_s,
)
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import DaemonSet, Pod, decode_template

GENERATION = "deprecated.daemonset.template.generation"
BURST = 250
ENDED_BACKOFF_FIRST_S = 1.0
ENDED_BACKOFF_LONGEST_S = 900.0


class DaemonSetLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.daemonsets: Mirror[DaemonSet] = shared.mirror(resources.DAEMONSETS, DaemonSet)
        self.pods = shared.pods
        self.nodes = shared.nodes
        self.histories = Histories(shared, resources.DAEMONSETS)
        self.recorder = shared.recorder("daemonset-controller")
        self.names = PodNames(shared.deps.randomness)
        self.queue = shared.queue()
        self.ended: dict[tuple[str, str], tuple[int, float]] = {}
        """(DaemonSet uid, node) -> (pods that ended there by themselves, when the last one was replaced)."""
        self.daemonsets.on_change(self._set_changed)
        self.pods.on_change(self._pod_changed)
        self.nodes.on_change(self._node_changed)

    def _set_changed(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        view = new if new is not None else old
        if view is not None:
            self.queue.add(key_of(view))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            owner = controller_of(pod.metadata)
            if owner is not None:
                if owner.kind == "DaemonSet":
                    self.queue.add(f"{pod.metadata.namespace}/{owner.name}")
            elif pod is new:
                for daemonset in self.daemonsets.all(pod.metadata.namespace):
                    if matches_selector(daemonset.spec.selector, pod.metadata.labels):
                        self.queue.add(key_of(daemonset))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        is_same = (
            old is not None
            and new is not None
            and old.metadata.labels == new.metadata.labels
            and [(t.key, t.value, t.effect) for t in old.spec.taints]
            == [(t.key, t.value, t.effect) for t in new.spec.taints]
        )
        if not is_same:
            for daemonset in self.daemonsets.all():
                self.queue.add(key_of(daemonset))

    async def reconcile(self, key: str) -> None:
        daemonset = self.daemonsets.get(key)
        if daemonset is None:
            return
        if is_empty_selector(daemonset.spec.selector):
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self.recorder.record(daemonset, "Warning", "SelectingAll", text)
            return
        if daemonset.metadata.deletion_timestamp:
            return
        template = bytes(daemonset.spec.template)
        revisions = await self.histories.of(daemonset, daemonset.spec.selector)
        collisions = daemonset.status.collision_count or 0
        current, collisions = await self.histories.current(daemonset.metadata, template, revisions, collisions)
        if current is None:
            await self.daemonsets.patch(daemonset, {"status": {"collisionCount": collisions}}, subresource="status")
            self.queue.add(key)
            return
        digest = current.metadata.labels.get(REVISION_LABEL, "")
        pods = await claim(resources.DAEMONSETS, daemonset, daemonset.spec.selector, self.pods)
        now_s = self.shared.deps.clock.now_s()
        nodes = self.nodes.all()
        self.names.settle(daemonset.metadata.uid, pods)
        plan = plan_daemons(daemonset, nodes, pods, digest, now_s)
        error = await self._apply(key, daemonset, plan, digest, now_s)
        pods = self.pods.owned(daemonset.metadata.uid)
        counts = plan_daemons(daemonset, nodes, pods, digest, now_s).counts
        await self._write_status(daemonset, counts, collisions)
        used = {p.metadata.labels.get(REVISION_LABEL) for p in pods} | {digest}
        live = {r.metadata.name for r in revisions if r.metadata.labels.get(REVISION_LABEL) in used}
        await self.histories.forget(revisions, live | {current.metadata.name}, daemonset.spec.revision_history_limit)
        self._plan_next(key, daemonset, pods, now_s)
        if error is not None and not is_namespace_ending(error):
            raise error

    def _plan_next(self, key: str, daemonset: DaemonSet, pods: list[Pod], now_s: float) -> None:
        min_ready = daemonset.spec.min_ready_seconds or 0
        waits = [since + min_ready - now_s for p in pods if (since := ready_since_s(p)) and since + min_ready > now_s]
        if min_ready and waits:
            self.queue.add_after(key, min(waits) + 0.01)

    async def _apply(
        self, key: str, daemonset: DaemonSet, plan: DaemonPlan, digest: str, now_s: float
    ) -> Exception | None:
        _, failed = await run_slow_start(plan.create[:BURST], lambda name: self._create(daemonset, name, digest))
        delete = [pod for pod in plan.delete if pod not in plan.ended or self._may_replace(key, daemonset, pod, now_s)]
        _, other = await run_slow_start(delete[:BURST], lambda pod: self._delete(daemonset, pod, pod in plan.ended))
        return failed or other

    def _may_replace(self, key: str, daemonset: DaemonSet, pod: Pod, now_s: float) -> bool:
        """Pods that end again and again on a node are replaced more and more slowly."""
        slot = (daemonset.metadata.uid, node_of(pod))
        count, last_s = self.ended.get(slot, (0, 0.0))
        wait_s = min(ENDED_BACKOFF_FIRST_S * 2.0 ** min(count - 1, 12), ENDED_BACKOFF_LONGEST_S) if count else 0.0
        if now_s - last_s < wait_s:
            self.queue.add_after(key, last_s + wait_s - now_s + 0.005)
            return False
        if now_s - last_s > 2 * ENDED_BACKOFF_LONGEST_S:
            count = 0
        self.ended[slot] = (count + 1, now_s)
        return True

    async def _create(self, daemonset: DaemonSet, node: str, digest: str) -> None:
        meta = daemonset.metadata
        template = bytes(daemonset.spec.template)
        spec = pinned_spec(decode_template(template).get("spec", {}), node)
        labels = {REVISION_LABEL: digest}
        if generation := meta.annotations.get(GENERATION):
            labels["pod-template-generation"] = generation
        base = f"{meta.name}-"

        def make(name: str) -> dict[str, Any]:
            return make_pod(template, resources.DAEMONSETS, meta, name, labels=labels, spec=spec, generate_name=base)

        try:
            created = await create_pod(self.pods, self.names, f"{meta.uid}/{node}", base, make)
        except (ApiError, OSError) as error:
            if not is_namespace_ending(error):
                self.recorder.record(daemonset, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.recorder.record(daemonset, "Normal", "SuccessfulCreate", f"Created pod: {created.metadata.name}")

    async def _delete(self, daemonset: DaemonSet, pod: Pod, has_ended: bool) -> None:
        if has_ended:
            what = f"{pod.metadata.namespace}/{pod.metadata.name} on node {node_of(pod)}"
            if pod.status.phase == "Failed":
                text = f"Found failed daemon pod {what}, will try to kill it"
                self.recorder.record(daemonset, "Warning", "FailedDaemonPod", text)
            else:
                text = f"Found succeeded daemon pod {what}, will try to delete it"
                self.recorder.record(daemonset, "Normal", "SucceededDaemonPod", text)
        try:
            await self.pods.delete(pod)
        except ApiError as error:
            if error.code == 404:
                return
            self.recorder.record(daemonset, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self.recorder.record(daemonset, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    async def _write_status(self, daemonset: DaemonSet, counts: dict[str, int], collisions: int) -> None:
        status = plan_status(daemonset, counts, collisions)
        if status is None:
            return
        try:
            await self.daemonsets.patch(daemonset, {"status": status}, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise


def plan_status(daemonset: DaemonSet, counts: dict[str, int], collisions: int) -> dict[str, Any] | None:
    """Return the status patch, None if the status is right already."""
    old = daemonset.status
    status = {
        "observedGeneration": omit_zero(daemonset.metadata.generation or 0),
        "desiredNumberScheduled": counts["desired"],
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["misscheduled"],
        "numberReady": counts["ready"],
        "updatedNumberScheduled": omit_zero(counts["updated"]),
        "numberAvailable": omit_zero(counts["available"]),
        "numberUnavailable": omit_zero(counts["desired"] - counts["available"]),
        "collisionCount": omit_zero(collisions),
    }
    before = {
        "observedGeneration": old.observed_generation,
        "desiredNumberScheduled": old.desired_number_scheduled,
        "currentNumberScheduled": old.current_number_scheduled,
        "numberMisscheduled": old.number_misscheduled,
        "numberReady": old.number_ready,
        "updatedNumberScheduled": old.updated_number_scheduled,
        "numberAvailable": old.number_available,
        "numberUnavailable": old.number_unavailable,
        "collisionCount": old.collision_count,
    }
    return None if status == before else status


def pinned_spec(spec: dict[str, Any], node: str) -> dict[str, Any]:
    """Return the fields of a daemon pod's spec that differ from its template: pinned to a node, tolerating its troubles."""
    affinity = dict(spec.get("affinity") or {})
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    tolerations = list(spec.get("tolerations") or ())
    for key, effect in daemon_tolerations(bool(spec.get("hostNetwork"))):
        own = {"key": key, "operator": "Exists", "effect": effect}
        if own not in tolerations:
            tolerations.append(own)
    return {"affinity": affinity, "tolerations": tolerations}


def daemonset_controller(shared: Shared) -> Controller:
    loop = DaemonSetLoop(shared)
    mirrors = (loop.daemonsets, loop.pods, loop.nodes, loop.histories.mirror)
    return Controller("daemonset", loop.queue, loop.reconcile, mirrors, workers=5)
