"""The node lifecycle controller: notices silent nodes and taints nodes by their conditions.

In: a node's name. A node is heard through its lease and through its status; `plan_node` decides from the time it was last
heard (on our own clock, so that a node's wrong clock does no harm) and from its conditions. Out: conditions Unknown,
taints, pods marked not ready, events. Nothing polls: each node has one timer that fires when its grace would end.

After a start every node counts as heard now, so an outage of the control plane evicts nobody.

Spec: Kubernetes docs, "Nodes" (heartbeats, node controller), "Taint Nodes by Condition", "Taint-based evictions".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.views.lease import Lease
from tiphys.api.views.node import Node, Taint
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod

LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
CONDITION_TAINTS = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
OWN_TAINTS = frozenset({*CONDITION_TAINTS.values(), UNSCHEDULABLE})
WATCHED_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What to do for one node now. Patches are None where nothing changes."""

    conditions: list[dict[str, Any]] | None
    taints: list[dict[str, Any]] | None
    wait_s: float | None
    """When to look again if nothing is heard, None if the node is silent already."""
    becomes_unready: bool
    """The node was ready until now: its pods are to be marked."""
    reason: str


def plan_node(node: Node, heard_s: float, now_s: float, grace_s: float) -> NodePlan:
    """Return what to do for a node that was last heard at `heard_s`."""
    silent = now_s - heard_s >= grace_s
    current = {c.type: c for c in node.status.conditions}
    statuses = {c.type: c.status for c in node.status.conditions}
    ready = current.get("Ready")
    conditions = None
    if silent and (ready is None or any(statuses.get(t) != "Unknown" for t in WATCHED_CONDITIONS)):
        conditions = _silenced(node, now_s)
        statuses |= dict.fromkeys(WATCHED_CONDITIONS, "Unknown")
    taints = plan_taints(node, statuses, now_s)
    wait_s = None if silent else heard_s + grace_s - now_s
    becomes_unready = conditions is not None and ready is not None and ready.status == "True"
    quiet_s = now_s - heard_s
    reason = f"silent for {quiet_s:.0f} s" if silent else f"heard {quiet_s:.0f} s ago"
    return NodePlan(conditions, taints, wait_s, becomes_unready, reason)


def _silenced(node: Node, now_s: float) -> list[dict[str, Any]]:
    now = format_time(now_s)
    result = []
    seen = set()
    for c in node.status.conditions:
        seen.add(c.type)
        entry = {
            "type": c.type,
            "status": c.status,
            "lastHeartbeatTime": c.last_heartbeat_time,
            "lastTransitionTime": c.last_transition_time,
            "reason": c.reason,
            "message": c.message,
        }
        if c.type in WATCHED_CONDITIONS and c.status != "Unknown":
            entry |= {
                "status": "Unknown",
                "lastTransitionTime": now,
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
        result.append(entry)
    result += [
        {
            "type": missing,
            "status": "Unknown",
            "lastHeartbeatTime": node.metadata.creation_timestamp,
            "lastTransitionTime": now,
            "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
        }
        for missing in WATCHED_CONDITIONS
        if missing not in seen
    ]
    return result


def plan_taints(node: Node, statuses: Mapping[str, str], now_s: float) -> list[dict[str, Any]] | None:
    """Return the node's taints with those that its conditions ask for, None if they are right already."""
    wanted: set[tuple[str, str]] = set()
    for (type_, status), key in CONDITION_TAINTS.items():
        if statuses.get(type_) == status:
            wanted.add((key, "NoSchedule"))
            if type_ == "Ready":
                wanted.add((key, "NoExecute"))
    if node.spec.unschedulable:
        wanted.add((UNSCHEDULABLE, "NoSchedule"))
    kept = [t for t in node.spec.taints if _is_foreign(t) or (t.key, t.effect) in wanted]
    missing = sorted(wanted - {(t.key, t.effect) for t in kept})
    if not missing and len(kept) == len(node.spec.taints):
        return None
    now = format_time(now_s)
    added = [{"key": key, "effect": effect, "timeAdded": now} for key, effect in missing]
    return [*(_dump(t) for t in kept), *added]


def _is_foreign(taint: Taint) -> bool:
    """Return whether a taint is not ours to remove."""
    if taint.key not in OWN_TAINTS:
        return True
    return taint.effect not in ("NoSchedule", "NoExecute") or (
        taint.effect == "NoExecute" and taint.key not in (NOT_READY, UNREACHABLE)
    )


def _dump(taint: Taint) -> dict[str, Any]:
    return {
        "key": taint.key,
        "effect": taint.effect,
        **({"value": taint.value} if taint.value else {}),
        **({"timeAdded": taint.time_added} if taint.time_added else {}),
    }


class NodeLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.clock = shared.deps.clock
        self.nodes = shared.nodes
        self.pods = shared.pods
        self.leases: Mirror[Lease] = shared.mirror(resources.LEASES, Lease)
        self.recorder = shared.recorder("node-controller")
        self.queue = shared.queue()
        self.heard: dict[str, float] = {}
        """Node -> when it was last heard, on our monotonic clock."""
        self.nodes.on_change(self._node_changed)
        self.leases.on_change(self._lease_changed)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        node = new if new is not None else old
        if node is None:
            return
        name = node.metadata.name
        if new is None:
            self.heard.pop(name, None)
            text = f"Node {name} event: Removing Node {name} from Controller"
            self.recorder.record(node, "Normal", "RemovingNode", text)
            return
        if old is None:
            text = f"Node {name} event: Registered Node {name} in Controller"
            self.recorder.record(new, "Normal", "RegisteredNode", text)
        if old is None or _heartbeat(old) != _heartbeat(new):
            self.heard[name] = self.clock.monotonic_s()
        if old is None or old.spec != new.spec or _statuses(old) != _statuses(new):
            self.queue.add(name)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        if new is None or new.metadata.namespace != LEASE_NAMESPACE:
            return
        name = new.metadata.name
        if name in self.heard and (old is None or old.spec.renew_time != new.spec.renew_time):
            self.heard[name] = self.clock.monotonic_s()

    async def reconcile(self, key: str) -> None:
        node = self.nodes.get(key)
        if node is None or node.metadata.deletion_timestamp:
            return
        silent_s = self.clock.monotonic_s() - self.heard.setdefault(key, self.clock.monotonic_s())
        now_s = self.clock.now_s()
        plan = plan_node(node, now_s - silent_s, now_s, self.shared.deps.node_grace_s)
        try:
            if plan.conditions is not None:
                body = {
                    "metadata": {"resourceVersion": node.metadata.resource_version},
                    "status": {"conditions": plan.conditions},
                }
                node = await self.nodes.patch(node, body, subresource="status")
            if plan.taints is not None:
                meta = {"resourceVersion": node.metadata.resource_version}
                node = await self.nodes.patch(node, {"metadata": meta, "spec": {"taints": plan.taints or None}})
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if plan.becomes_unready:
            text = f"Node {key} status is now: NodeNotReady"
            self.recorder.record(node, "Normal", "NodeNotReady", text)
        if _statuses(node).get("Ready") == "Unknown":
            await self._mark_pods(key)
        if plan.wait_s is not None:
            self.queue.add_after(key, plan.wait_s + 0.05)

    async def _mark_pods(self, node: str) -> None:
        """The kubelet cannot tell any more, so its pods are not ready: Services stop sending to them."""
        pods = [p for p in self.pods.by_index("node", node) if _is_marked_ready(p)]
        await asyncio.gather(*(self._mark(pod) for pod in pods))

    async def _mark(self, pod: Pod) -> None:
        now = format_time(self.clock.now_s())
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        try:
            await self.pods.client.patch(
                resources.PODS, pod.metadata.namespace, pod.metadata.name,
                {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}},
                subresource="status", patch_type="application/strategic-merge-patch+json",
            )  # fmt: skip
        except ApiError as error:
            if error.code != 404:
                raise
            return
        self.recorder.record(pod, "Warning", "NodeNotReady", "Node is not ready")


def _is_marked_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def _heartbeat(node: Node) -> tuple[str | None, ...]:
    return tuple(c.last_heartbeat_time for c in node.status.conditions)


def _statuses(node: Node) -> dict[str, str]:
    return {c.type: c.status for c in node.status.conditions}


def node_lifecycle_controller(shared: Shared) -> Controller:
    loop = NodeLoop(shared)
    return Controller("node-lifecycle", loop.queue, loop.reconcile, (loop.nodes, loop.leases, loop.pods), workers=10)
