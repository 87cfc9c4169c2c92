"""The pod garbage collector: removes pods that nobody else will.

In: all pods and nodes, every 20 seconds. Decides `plan_sweep`: finished pods beyond the threshold (oldest first), pods of
nodes that are gone for 40 seconds, pods that were deleted before they had a node. Out: forced deletions; a pod that did
not end itself is marked Failed first, so that its controller counts it.

Spec: Kubernetes docs, "Pod Lifecycle" (garbage collection of Pods), "Pod disruption conditions".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError, tells_of_another
from tiphys.client import resources
from tiphys.client.interface import STRATEGIC_PATCH
from tiphys.controllers.selection import created_s, is_active, key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod

log = logging.getLogger(__name__)

SWEEP_S = 20.0
QUARANTINE_S = 40.0
"""How long a node must be gone: one that registers late keeps its pods."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pod to remove. `condition` is (reason, message) of its DisruptionTarget condition, None without one."""

    pod: Pod
    reason: str
    condition: tuple[str, str] | None = None


def plan_sweep(pods: Iterable[Pod], gone_nodes: set[str], threshold: int) -> list[Sweep]:
    """Return the pods to remove. `gone_nodes` are those whose quarantine is over."""
    sweeps: list[Sweep] = []
    finished: list[Pod] = []
    for pod in pods:
        if pod.spec.node_name in gone_nodes and pod.spec.node_name:
            told = ("DeletionByPodGC", "PodGC: node no longer exists")
            sweeps.append(Sweep(pod, f"its node {pod.spec.node_name} is gone", told))
        elif pod.metadata.deletion_timestamp and not pod.spec.node_name:
            sweeps.append(Sweep(pod, "it was deleted before it had a node"))
        elif pod.status.phase in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp:
            finished.append(pod)
    surplus = len(finished) - threshold if threshold > 0 else 0
    if surplus > 0:
        finished.sort(key=lambda p: (created_s(p.metadata), p.metadata.name))
        sweeps += [
            Sweep(pod, f"{len(finished)} pods have finished, {threshold} are kept") for pod in finished[:surplus]
        ]
    return sweeps


class PodGarbageLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.pods = shared.pods
        self.nodes = shared.nodes
        self.queue = shared.queue()
        self.missing: dict[str, float] = {}
        """Node -> since when pods name it although it is not there (monotonic)."""

    async def sweep_for_ever(self) -> None:
        while True:
            self.queue.add("sweep")
            await asyncio.sleep(SWEEP_S)

    async def reconcile(self, key: str) -> None:
        gone = await self._gone_nodes()
        deps = self.shared.deps
        sweeps = plan_sweep(self.pods.all(), gone, deps.terminated_pod_threshold)
        for sweep in sweeps:
            log.info("pod %s is removed: %s", key_of(sweep.pod), sweep.reason)
            await self._remove(sweep)

    async def _gone_nodes(self) -> set[str]:
        now_s = self.shared.deps.clock.monotonic_s()
        named = {pod.spec.node_name for pod in self.pods.all() if pod.spec.node_name}
        missing: Mapping[str, float] = {
            name: self.missing.get(name, now_s) for name in sorted(named) if self.nodes.get(name) is None
        }
        self.missing = dict(missing)
        return {name for name, since in missing.items() if now_s - since >= QUARANTINE_S and await self._is_gone(name)}

    async def _is_gone(self, name: str) -> bool:
        try:
            await self.shared.deps.client.get(resources.NODES, "", name)
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        return False

    async def _remove(self, sweep: Sweep) -> None:
        pod = sweep.pod
        try:
            if sweep.condition is not None and (is_active(pod) or pod.status.phase not in ("Succeeded", "Failed")):
                reason, message = sweep.condition
                condition = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": format_time(self.shared.deps.clock.now_s()),
                }
                body = {
                    "metadata": {"uid": pod.metadata.uid},
                    "status": {"phase": "Failed", "conditions": [condition]},
                }
                await self.pods.client.patch(
                    resources.PODS, pod.metadata.namespace, pod.metadata.name, body,
                    subresource="status", patch_type=STRATEGIC_PATCH,
                )  # fmt: skip
            await self.pods.delete(pod, grace_period_s=0)
        except ApiError as error:
            if not tells_of_another(error):
                raise


def pod_garbage_controller(shared: Shared) -> Controller:
    loop = PodGarbageLoop(shared)
    mirrors = (loop.pods, loop.nodes)
    return Controller("pod-garbage", loop.queue, loop.reconcile, mirrors, workers=1, tasks=(loop.sweep_for_ever,))
