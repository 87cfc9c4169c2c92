"""Taint eviction: deletes pods from nodes with NoExecute taints that they do not tolerate, or not for long enough.

In: a pod's key. Decides `plan_eviction`: never, now, or after the shortest toleration. Out: the DisruptionTarget condition,
the deletion (with the pod's uid), TaintManagerEviction events. A timer is only a wish to look again: what it finds then
decides, so a removed taint cancels by itself.

Spec: Kubernetes docs, "Taints and Tolerations" (NoExecute, tolerationSeconds), "Pod disruption conditions".
"""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.api.views.node import Node, Taint
from tiphys.api.views.pod import Toleration
from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError, tells_of_another
from tiphys.client import resources
from tiphys.client.interface import STRATEGIC_PATCH
from tiphys.controllers.selection import key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether one toleration covers one taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def plan_eviction(pod: Pod, taints: Sequence[Taint], now_s: float, seen_at_s: float) -> float | None:
    """Return after how many seconds the pod is to be deleted (0: now), None if it may stay. `seen_at_s` is when its
    node's taints were first seen to end it: it counts for taints that do not tell when they were added."""
    waits: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        covering = [t for t in pod.spec.tolerations if tolerates(t, taint)]
        if not covering:
            return 0.0
        seconds = [t.toleration_seconds for t in covering if t.toleration_seconds is not None]
        if seconds:
            since = parse_time(taint.time_added) if taint.time_added else seen_at_s
            waits.append(max(0.0, since + max(0, min(seconds)) - now_s))
    return min(waits) if waits else None


class EvictionLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.nodes = shared.nodes
        self.pods = shared.pods
        self.recorder = shared.recorder("taint-eviction-controller")
        self.queue = shared.queue()
        self.marked: dict[str, float] = {}
        """Uids of pods that wait for their end -> when their wait began."""
        self.nodes.on_change(self._node_changed)
        self.pods.on_change(self._pod_changed)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None or (old is not None and old.spec.taints == new.spec.taints):
            return
        taints = (*new.spec.taints, *(old.spec.taints if old else ()))
        if any(t.effect == "NoExecute" for t in taints):
            for pod in self.pods.by_index("node", new.metadata.name):
                self.queue.add(key_of(pod))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            if old is not None:
                self.marked.pop(old.metadata.uid, None)
            return
        is_placed = new.spec.node_name and (
            old is None or not old.spec.node_name or old.spec.tolerations != new.spec.tolerations
        )
        node = self.nodes.get(new.spec.node_name) if is_placed else None
        if node is not None and any(t.effect == "NoExecute" for t in node.spec.taints):
            self.queue.add(key_of(new))

    async def reconcile(self, key: str) -> None:
        pod = self.pods.get(key)
        node = self.nodes.get(pod.spec.node_name) if pod is not None else None
        if pod is None or node is None or pod.metadata.deletion_timestamp:
            return
        now_s = self.shared.deps.clock.now_s()
        wait_s = plan_eviction(pod, node.spec.taints, now_s, self.marked.get(pod.metadata.uid, now_s))
        if wait_s is None:
            if pod.metadata.uid in self.marked:
                del self.marked[pod.metadata.uid]
                self.recorder.record(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
        elif wait_s > 0:
            self.marked.setdefault(pod.metadata.uid, now_s)
            self.queue.add_after(key, wait_s + 0.005)
        else:
            await self._evict(key, pod)

    async def _evict(self, key: str, pod: Pod) -> None:
        self.recorder.record(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": format_time(self.shared.deps.clock.now_s()),
        }
        body = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        namespace, name = pod.metadata.namespace, pod.metadata.name
        try:
            await self.pods.client.patch(
                resources.PODS, namespace, name, body, subresource="status", patch_type=STRATEGIC_PATCH
            )
            await self.pods.delete(pod)
        except ApiError as error:
            if not tells_of_another(error):
                raise


def taint_eviction_controller(shared: Shared) -> Controller:
    loop = EvictionLoop(shared)
    return Controller("taint-eviction", loop.queue, loop.reconcile, (loop.nodes, loop.pods), workers=8)
