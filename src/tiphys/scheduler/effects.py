"""What the scheduler writes: bindings, the PodScheduled condition, nominations.

Every write names the pod's uid, so that a pod that was replaced by another of its name is never touched. Each is safe to
say twice.

Spec: Kubernetes API reference, Binding v1; "Pod Lifecycle", conditions.
"""

from __future__ import annotations

from typing import Any

from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError, tells_of_another
from tiphys.client import resources
from tiphys.client.interface import STRATEGIC_PATCH, Client
from tiphys.scheduler.state import PodInfo
from tiphys.scheduler.views import PersistentVolume, PersistentVolumeClaim
from tiphys.scheduler.volumes import SELECTED_NODE


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


async def select_node(client: Client, claim: PersistentVolumeClaim, node_name: str) -> None:
    """Ask for a volume that is made for a node. Raises ApiError 409 when the claim changed meanwhile."""
    metadata = claim.metadata
    patch = {
        "metadata": {"resourceVersion": metadata.resource_version, "annotations": {SELECTED_NODE: node_name}},
    }
    await client.patch(resources.PERSISTENTVOLUMECLAIMS, metadata.namespace, metadata.name, patch)


async def reserve_volume(client: Client, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
    """Reserve a volume for a claim; the volume controller binds them. Raises ApiError 409 when the volume changed."""
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.metadata.namespace,
        "name": claim.metadata.name,
        "uid": claim.metadata.uid,
    }
    patch = {
        "metadata": {
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
        },
        "spec": {"claimRef": reference},
    }
    await client.patch(resources.PERSISTENTVOLUMES, "", volume.metadata.name, patch)


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
        if not tells_of_another(error):
            raise
