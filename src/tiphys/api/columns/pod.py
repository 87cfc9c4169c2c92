"""The table row of a pod: one word that sums up what its containers do.

The word is the phase unless something says more: a reason in the status, the init container that the pod waits for,
the state of its containers (the first container that has something to say wins), and deletion above all.

Spec: Kubernetes docs, "Pod Lifecycle" and "Debug Init Containers" (the words `Init:N/M`, `Init:Error`, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiphys.api.columns.text import NONE, age, columns, duration, is_true, name, part
from tiphys.api.kind import JsonObject
from tiphys.base.clock import parse_time

COLUMNS = columns("""
    Name            | string/name | Name of the pod, unique in its namespace.
    Ready           |             | Containers that are ready, of all that keep running.
    Status          |             | What the pod's containers do, in one word.
    Restarts        |             | How often containers were restarted, and how long ago the last time was.
    Age             |             | Time since the pod was created.
    IP              | wide        | The pod's first IP address.
    Node            | wide        | The node that the pod is bound to.
    Nominated Node  | wide        | The node where preemption makes room for the pod.
    Readiness Gates | wide        | Readiness gates that are fulfilled, of all.
    """)


@dataclass(slots=True)
class _Summary:
    """What is found out while going over the container statuses."""

    reason: str
    total: int
    ready: int = 0
    restarts: int = 0
    last_restart_s: float = 0.0
    sidecar_restarts: int = 0
    sidecar_restart_s: float = 0.0


def row(pod: JsonObject, now_s: float) -> list[Any]:
    """Return the cells of a pod."""
    spec, status, metadata = part(pod, "spec"), part(pod, "status"), part(pod, "metadata")
    summary = _Summary(status.get("reason") or status.get("phase") or "", len(spec.get("containers") or ()))
    scheduled = [c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"]
    if any(c.get("reason") == "SchedulingGated" for c in scheduled):
        summary.reason = "SchedulingGated"
    waits_for_init = _sum_init_containers(summary, spec, status)
    if not waits_for_init or is_true(pod, "Initialized"):
        _sum_containers(summary, status, is_true(pod, "Ready"))
    if metadata.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            summary.reason = "Terminating"
    return [
        name(pod),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        _restarts(summary, now_s),
        age(pod, now_s),
        _address(status),
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(pod, spec),
    ]


def row_conditions(pod: JsonObject) -> list[JsonObject]:
    """Return the `conditions` of the pod's table row: that it has ended, if it has."""
    messages = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    phase = part(pod, "status").get("phase", "")
    if phase not in messages:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


def _sum_init_containers(summary: _Summary, spec: JsonObject, status: JsonObject) -> bool:
    """Sum up init containers and sidecars; True when the pod still waits for one."""
    init_containers = spec.get("initContainers") or ()
    sidecars = {c.get("name") for c in init_containers if c.get("restartPolicy") == "Always"}
    summary.total += len(sidecars)
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        _count_restarts(summary, container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            summary.sidecar_restarts += container.get("restartCount") or 0
            summary.sidecar_restart_s = max(summary.sidecar_restart_s, _last_finished_s(container))
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            summary.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            summary.reason = f"Init:{_ended(terminated)}"
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            summary.reason = f"Init:{waiting['reason']}"
        else:
            summary.reason = f"Init:{index}/{len(init_containers)}"
        return True
    return False


def _sum_containers(summary: _Summary, status: JsonObject, pod_is_ready: bool) -> None:
    """Sum up the containers proper. Of init containers only sidecars' restarts still count then."""
    summary.restarts, summary.last_restart_s = summary.sidecar_restarts, summary.sidecar_restart_s
    one_runs = False
    for container in reversed(status.get("containerStatuses") or ()):
        _count_restarts(summary, container)
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            summary.reason = waiting["reason"]
        elif terminated is not None:
            summary.reason = _ended(terminated)
        elif container.get("ready") and state.get("running") is not None:
            one_runs = True
            summary.ready += 1
    if summary.reason == "Completed" and one_runs:
        summary.reason = "Running" if pod_is_ready else "NotReady"


def _ended(terminated: JsonObject) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _count_restarts(summary: _Summary, container: JsonObject) -> None:
    summary.restarts += container.get("restartCount") or 0
    summary.last_restart_s = max(summary.last_restart_s, _last_finished_s(container))


def _last_finished_s(container: JsonObject) -> float:
    finished = part(container, "lastState", "terminated").get("finishedAt")
    return parse_time(finished) if finished else 0.0


def _restarts(summary: _Summary, now_s: float) -> str:
    if summary.restarts and summary.last_restart_s:
        return f"{summary.restarts} ({duration(now_s - summary.last_restart_s)} ago)"
    return str(summary.restarts)


def _address(status: JsonObject) -> str:
    addresses = status.get("podIPs") or ()
    return (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE


def _gates(pod: JsonObject, spec: JsonObject) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return NONE
    return f"{sum(is_true(pod, gate.get('conditionType', '')) for gate in gates)}/{len(gates)}"
