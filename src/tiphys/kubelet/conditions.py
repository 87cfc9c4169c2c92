"""The conditions that the kubelet owns on a pod.

Pure. Invariant: a condition's transition time changes only with its status; conditions of others are left to them
(status patches merge conditions by type).

Spec: Kubernetes docs, "Pod conditions", "Pod readiness" (gates). Reasons and messages are those that clients match on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.kubelet.pod import BoundPod, is_sidecar

Condition = dict[str, Any]
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def pod_conditions(
    pod: BoundPod,
    phase: str,
    init_statuses: Sequence[Mapping[str, Any]],
    statuses: Sequence[Mapping[str, Any]],
    *,
    sandbox_ready: bool,
    now: str,
) -> list[Condition]:
    """Return the owned conditions in their usual order. `now` is RFC 3339 text."""
    old = {c.get("type"): c for c in pod.status.get("conditions") or ()}
    containers_ready = _containers_ready(pod, phase, init_statuses, statuses)
    new = {
        "PodReadyToStartContainers": _plain(sandbox_ready),
        "Initialized": _initialized(pod, phase, init_statuses, statuses),
        "Ready": _ready(pod, containers_ready, old),
        "ContainersReady": containers_ready,
        "PodScheduled": {"status": "True"},
    }
    return [_stamped(pod, kind, new[kind], old.get(kind), now) for kind in OWNED]


def disruption_condition(pod: BoundPod, message: str, now: str) -> Condition:
    """Return the condition of a pod that the kubelet ended for the node's sake."""
    old = next((c for c in pod.status.get("conditions") or () if c.get("type") == "DisruptionTarget"), None)
    new = {"status": "True", "reason": "TerminationByKubelet", "message": message}
    return _stamped(pod, "DisruptionTarget", new, old, now)


def resize_conditions(pod: BoundPod, given: Mapping[str, tuple[str, str]], now: str) -> list[Condition]:
    """Return the conditions of a resize under way; type -> (reason, message)."""
    old = {c.get("type"): c for c in pod.status.get("conditions") or ()}
    made = []
    for kind, (reason, message) in given.items():
        new = {"status": "True", **({"reason": reason} if reason else {}), **({"message": message} if message else {})}
        made.append(_stamped(pod, kind, new, old.get(kind), now))
    return made


def _stamped(pod: BoundPod, kind: str, new: Condition, old: Mapping[str, Any] | None, now: str) -> Condition:
    same = old is not None and old.get("status") == new["status"]
    condition: Condition = {"type": kind, **new}
    condition["lastTransitionTime"] = (old or {}).get("lastTransitionTime") or now if same else now
    if pod.metadata.generation:
        condition["observedGeneration"] = pod.metadata.generation
    return condition


def _plain(value: bool) -> Condition:
    return {"status": "True" if value else "False"}


def _names(prefix: str, names: Sequence[str]) -> str:
    return f"containers with {prefix} status: [{' '.join(names)}]"


def _initialized(
    pod: BoundPod, phase: str, init_statuses: Sequence[Mapping[str, Any]], statuses: Sequence[Mapping[str, Any]]
) -> Condition:
    if any("running" in s.get("state", {}) or s.get("started") for s in statuses):
        return {"status": "True"}
    known = {s["name"]: s for s in init_statuses}
    unknown = [c.name for c in pod.spec.init_containers if c.name not in known]
    incomplete = [
        c.name
        for c in pod.spec.init_containers
        if c.name in known and not (known[c.name].get("started") if is_sidecar(c) else known[c.name].get("ready"))
    ]
    if phase == "Succeeded" and not unknown:
        return {"status": "True", "reason": "PodCompleted"}
    messages = []
    if unknown:
        messages.append(_names("unknown", unknown))
    if incomplete:
        messages.append(_names("incomplete", incomplete))
    if messages:
        return {"status": "False", "reason": "ContainersNotInitialized", "message": ", ".join(messages)}
    return {"status": "True"}


def _containers_ready(
    pod: BoundPod, phase: str, init_statuses: Sequence[Mapping[str, Any]], statuses: Sequence[Mapping[str, Any]]
) -> Condition:
    if phase == "Succeeded":
        return {"status": "False", "reason": "PodCompleted"}
    if phase == "Failed":
        return {"status": "False", "reason": "PodFailed"}
    known = {s["name"]: bool(s.get("ready")) for s in (*init_statuses, *statuses)}
    watched = [c.name for c in pod.spec.init_containers if is_sidecar(c)] + [c.name for c in pod.spec.containers]
    unknown = [name for name in watched if name not in known]
    unready = [name for name in watched if not known.get(name, True)]
    messages = []
    if unknown:
        messages.append(_names("unknown", unknown))
    if unready:
        messages.append(_names("unready", unready))
    if messages:
        return {"status": "False", "reason": "ContainersNotReady", "message": ", ".join(messages)}
    return {"status": "True"}


def _ready(pod: BoundPod, containers_ready: Condition, old: Mapping[Any, Mapping[str, Any]]) -> Condition:
    if containers_ready["status"] != "True":
        return dict(containers_ready)
    messages = []
    for gate in pod.spec.readiness_gates:
        condition = old.get(gate.condition_type)
        if condition is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif condition.get("status") != "True":
            messages.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {condition.get("status")}'
            )
    if messages:
        return {"status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(messages)}
    return {"status": "True"}
