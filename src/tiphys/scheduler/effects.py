"""What the scheduler writes: bindings, the PodScheduled condition, nominations.

Every write names the pod's uid, so that a pod that was replaced by another of its name is never touched. Each is safe to
say twice.

Spec: Kubernetes API reference, Binding v1; "Pod Lifecycle", conditions.
"""

from __future__ import annotations

from typing import Any

from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import STRATEGIC_PATCH, Client
from tiphys.scheduler.state import PodInfo


async def bind(client: Client, info: PodInfo, node_name: str) -> None:
    """Give a pod its node. Raises ApiError when it has one already or is gone."""
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": info.name, "namespace": info.namespace, "uid": info.uid},
        "target": {"kind": "Node", "name": node_name},
    }
    await client.create(resources.PODS, info.namespace, binding, name=info.name, subresource="binding")


def plan_condition(info: PodInfo, message: str, now_s: float, nominated: str | None) -> dict[str, Any] | None:
    """Return the status patch that says why a pod has no node; None when it says so already."""
    status = info.pod.status
    old = next((c for c in status.conditions if c.type == "PodScheduled"), None)
    patch: dict[str, Any] = {}
    if old is None or (old.status, old.reason, old.message) != ("False", "Unschedulable", message):
        changed = old is None or old.status != "False"
        transition = format_time(now_s) if changed or old is None else old.last_transition_time
        condition: dict[str, Any] = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": transition,
        }
        if info.pod.metadata.generation is not None:
            condition["observedGeneration"] = info.pod.metadata.generation
        patch["conditions"] = [condition]
    if nominated is not None and nominated != status.nominated_node_name:
        patch["nominatedNodeName"] = nominated or None
    return {"metadata": {"uid": info.uid}, "status": patch} if patch else None


async def tell_unschedulable(
    client: Client, info: PodInfo, message: str, now_s: float, nominated: str | None = None
) -> None:
    """Write the condition PodScheduled=False, and the node that was cleared for the pod (None: leave it)."""
    patch = plan_condition(info, message, now_s, nominated)
    if patch is not None:
        await client.patch(
            resources.PODS, info.namespace, info.name, patch, subresource="status", patch_type=STRATEGIC_PATCH
        )


async def evict(client: Client, victim: PodInfo, now_s: float) -> None:
    """Delete a victim of preemption gracefully, having said so in its status. One that is gone or going is left."""
    if victim.terminating:
        return
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now_s),
    }
    patch = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
    try:
        await client.patch(
            resources.PODS, victim.namespace, victim.name, patch, subresource="status", patch_type=STRATEGIC_PATCH
        )
        await client.delete(resources.PODS, victim.namespace, victim.name, uid=victim.uid)
    except ApiError as error:
        if error.code not in (404, 409):
            raise
