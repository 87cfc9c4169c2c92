"""What the world is told of a pod: phase, conditions, container statuses, addresses.

Input: the pod, what the runtime has of it, probe verdicts, the reasons why containers wait. Output: the whole status
as JSON. Pure. Invariants: restart counts come from the runtime's attempt numbers, so they survive a kubelet restart; a
pod that was reported finished stays finished with the same phase.

Spec: Kubernetes docs, "Pod Lifecycle"; PodStatus of the API reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tiphys.api.qos import spec_qos_class
from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.api.views.pod import ResourceRequirements, VolumeMount
from tiphys.base.clock import format_time
from tiphys.kubelet.conditions import disruption_condition, pod_conditions, resize_conditions
from tiphys.kubelet.container import stop_signal
from tiphys.kubelet.plan import PodRuntime, Verdicts, matches_restart_rule, should_restart
from tiphys.kubelet.pod import BoundPod, Specced, find_container, is_sidecar
from tiphys.kubelet.resources import requirements
from tiphys.runtime.interface import Container, ContainerState

Json = dict[str, Any]
ID_SCHEME = "tiphys://"
TERMINAL = ("Succeeded", "Failed")
PASSING = ("PodResizePending", "PodResizeInProgress")
"""Conditions that go when they are no longer true."""
LOST_MESSAGE = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class StatusInput:
    """What the status depends on besides the pod and the runtime."""

    verdicts: Verdicts = field(default_factory=Verdicts)
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Container name -> (reason, message) of its last failed start or of its back-off."""
    messages: Mapping[str, str] = field(default_factory=dict)
    """Container id -> termination message."""
    host_addresses: tuple[str, ...] = ()
    ended: bool = False
    """Everything has stopped for good: what is not known to have exited counts as lost."""
    initialized: bool = True
    """Main containers had their turn, or are still to have it."""
    resize: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Condition type of a resize under way -> (reason, message)."""
    applied: Mapping[str, ResourceRequirements] = field(default_factory=dict)
    """Container name -> resources that it has; absent: those of the spec."""
    failed: tuple[str, str] | None = None
    """(reason, message) when the kubelet itself ended the pod: DeadlineExceeded, OutOfcpu, Evicted, ..."""


def pod_status(pod: BoundPod, runtime: PodRuntime, given: StatusInput, now_s: float) -> Json:
    """Return the status that the pod should have."""
    now = format_time(now_s)
    init = [_container_status(pod, c, runtime, given, init=True) for c in pod.spec.init_containers]
    if given.ended and not _was_initialized(pod, init, runtime):
        # Containers that never had their turn are not lost: they still wait, which tells why the pod failed.
        given = replace(given, initialized=False)
        init = [_container_status(pod, c, runtime, given, init=True) for c in pod.spec.init_containers]
    main = [_container_status(pod, c, runtime, given) for c in pod.spec.containers]
    ephemeral = [_container_status(pod, c, runtime, given) for c in pod.spec.ephemeral_containers]
    phase = pod_phase(pod, init, main, given)
    sandbox = runtime.ready_sandbox()
    addresses = _addresses(pod, runtime, given)
    sandbox_ready = sandbox is not None and bool(addresses) and not given.ended
    known_phase = pod.status.get("phase")
    status: Json = {
        # Nobody may take a pod for finished while one of its containers may still run.
        "phase": phase if given.ended or phase not in TERMINAL else known_phase or "Pending",
        "conditions": pod_conditions(pod, phase, init, main, sandbox_ready=sandbox_ready, now=now),
        "hostIP": given.host_addresses[0] if given.host_addresses else "",
        "hostIPs": [{"ip": address} for address in given.host_addresses],
        "startTime": pod.status.get("startTime") or now,
        "qosClass": pod.status.get("qosClass") or spec_qos_class(pod.spec),
        "containerStatuses": main,
    }
    if given.failed:
        status["reason"], status["message"] = given.failed
        if given.failed[0] == "Evicted":
            status["conditions"].append(disruption_condition(pod, given.failed[1], now))
    elif phase == "Failed" and pod.status.get("reason"):
        status["reason"] = pod.status["reason"]
        status["message"] = pod.status.get("message", "")
    status["conditions"] += resize_conditions(pod, given.resize, now)
    if init:
        status["initContainerStatuses"] = init
    if ephemeral:
        status["ephemeralContainerStatuses"] = ephemeral
    if addresses:
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": address} for address in addresses]
    if pod.metadata.generation:
        status["observedGeneration"] = pod.metadata.generation
    return status


def rejected_status(pod: BoundPod, reason: str, message: str, now_s: float) -> Json:
    """Return the status of a pod that the node refused."""
    status: Json = {
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "startTime": pod.status.get("startTime") or format_time(now_s),
    }
    if pod.metadata.generation:
        status["observedGeneration"] = pod.metadata.generation
    return status


def _addresses(pod: BoundPod, runtime: PodRuntime, given: StatusInput) -> tuple[str, ...]:
    if pod.spec.host_network:
        return given.host_addresses
    sandbox = runtime.sandboxes[0] if runtime.sandboxes else None
    if sandbox is not None and sandbox.addresses:
        return sandbox.addresses
    return tuple(entry["ip"] for entry in pod.status.get("podIPs") or () if entry.get("ip"))


def pod_phase(pod: BoundPod, init: Sequence[Json], main: Sequence[Json], given: StatusInput) -> str:
    """Return the phase. A finished pod keeps the phase that the server knows."""
    known = pod.status.get("phase")
    if known in TERMINAL:
        return str(known)
    if given.failed:
        return "Failed"
    policy = pod.spec.restart_policy or "Always"
    sidecars = {c.name for c in pod.spec.init_containers if is_sidecar(c)}
    states = [s["state"] for s in main]
    began = any("running" in s["state"] or s.get("lastState") or "terminated" in s["state"] for s in main)
    if not began and not given.ended:
        if _init_failed(init, sidecars, policy):
            return "Failed"
        if any(not _init_complete(s, s["name"] in sidecars) for s in init):
            return "Pending"
    stopped = [s["state"].get("terminated") or s.get("lastState", {}).get("terminated") for s in main]
    if not given.ended:
        if any("waiting" in s["state"] and not s.get("lastState") for s in main):
            return "Pending"
        if any("running" in state for state in states):
            return "Running"
        if policy == "Always" or any("waiting" in state for state in states):
            return "Running"
        if any(_restarts(pod, state, s["name"]) for state, s in zip(states, main, strict=True)):
            return "Running"
    codes = [end["exitCode"] if end else 1 for end in stopped]
    if given.ended and _init_failed(init, sidecars, "Never"):
        return "Failed"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Running" if policy == "OnFailure" and not given.ended else "Failed"


def _restarts(pod: BoundPod, state: Json, name: str) -> bool:
    """Tell whether a container that ended is started again by a policy or rule of its own."""
    end, container = state.get("terminated"), find_container(pod, name)
    if end is None or not isinstance(container, ContainerSpec):
        return False
    if matches_restart_rule(container, end["exitCode"]):
        return True
    own = container.restart_policy
    return own == "Always" or (own == "OnFailure" and end["exitCode"] != 0)


def _init_complete(status: Json, sidecar: bool) -> bool:
    if sidecar:
        return bool(status.get("started"))
    return bool(status["state"].get("terminated", {}).get("exitCode") == 0)


def _init_failed(init: Sequence[Json], sidecars: set[str], policy: str) -> bool:
    if policy != "Never":
        return False
    return any(s["state"].get("terminated", {}).get("exitCode", 0) != 0 for s in init if s["name"] not in sidecars)


def _container_status(
    pod: BoundPod, container: Specced, runtime: PodRuntime, given: StatusInput, *, init: bool = False
) -> Json:
    current = runtime.newest(container.name)
    status: Json = {
        "name": container.name,
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.image,
        "imageID": "",
        "started": False,
    }
    if current is None or (current.state is ContainerState.CREATED and not current.attempt and not given.ended):
        _describe_absent(pod, container, status, given)
    else:
        _describe_present(pod, container, current, runtime.previous(container.name), status, given)
    _describe_readiness(container, current, status, given, init=init)
    if current is not None and current.state is not ContainerState.CREATED:
        _describe_settings(container, current, status, given.applied.get(container.name))
    mounts = [_mount_status(m) for m in container.volume_mounts]
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _was_initialized(pod: BoundPod, init: Sequence[Json], runtime: PodRuntime) -> bool:
    """Tell whether main containers could have been started before everything stopped."""
    if not init or any(runtime.newest(c.name) for c in pod.spec.containers):
        return True
    known = {s.get("name"): s for s in pod.status.get("containerStatuses") or ()}
    if any({"running", "terminated"} & set(s.get("state") or ()) or s.get("lastState") for s in known.values()):
        return True
    sidecars = {c.name for c in pod.spec.init_containers if is_sidecar(c)}
    return all(s["name"] in sidecars or s["state"].get("terminated", {}).get("exitCode") == 0 for s in init)


def _describe_absent(pod: BoundPod, container: Specced, status: Json, given: StatusInput) -> None:
    """Fill the state of a container that the runtime does not have."""
    known = _known_status(pod, container.name)
    if known and ("terminated" in (known.get("state") or {}) or given.ended):
        # The runtime's record is gone (garbage, a wiped machine): keep what the server was told.
        status.update({k: known[k] for k in ("restartCount", "image", "imageID", "containerID") if k in known})
        if known.get("lastState"):
            status["lastState"] = known["lastState"]
        if "terminated" in (known.get("state") or {}):
            status["state"] = known["state"]
            return
    if given.ended and given.initialized:
        status["state"] = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": LOST_MESSAGE,
                "startedAt": None,
                "finishedAt": None,
            }
        }
        return
    reason, message = given.waiting.get(container.name) or (
        "PodInitializing" if pod.spec.init_containers else "ContainerCreating",
        "",
    )
    status["state"] = {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _known_status(pod: BoundPod, name: str) -> Mapping[str, Any] | None:
    for group in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for known in pod.status.get(group) or ():
            if known.get("name") == name:
                return dict(known)
    return None


def _describe_present(
    pod: BoundPod, container: Specced, current: Container, previous: Container | None, status: Json, given: StatusInput
) -> None:
    status["restartCount"] = current.attempt
    status["image"] = current.image or container.image
    status["imageID"] = current.image_ref or current.image_id
    status["containerID"] = ID_SCHEME + current.id
    if previous is not None and previous.state is ContainerState.EXITED:
        status["lastState"] = {"terminated": _terminated(pod, previous, given)}
    elif current.attempt:
        known = _known_status(pod, container.name) or {}
        if known.get("lastState"):
            status["lastState"] = known["lastState"]
    if current.state is ContainerState.RUNNING:
        status["state"] = {"running": {"startedAt": format_time(current.started_at_s)}}
        return
    waiting = given.waiting.get(container.name)
    if current.state is ContainerState.EXITED:
        end = {"terminated": _terminated(pod, current, given)}
        if waiting and not given.ended and should_restart(pod, container, current):
            status["lastState"], status["state"] = end, _waiting(*waiting)
        else:
            status["state"] = end
        return
    if given.ended:
        status["state"] = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": LOST_MESSAGE}}
        return
    reason, message = waiting or ("ContainerCreating", "")
    status["state"] = _waiting(reason, message)


def _waiting(reason: str, message: str) -> Json:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _terminated(pod: BoundPod, container: Container, given: StatusInput) -> Json:
    end: Json = {
        "exitCode": container.exit_code,
        "reason": container.reason or ("Completed" if container.exit_code == 0 else "Error"),
        "startedAt": format_time(container.started_at_s) if container.started_at_s else None,
        "finishedAt": format_time(container.finished_at_s) if container.finished_at_s else None,
        "containerID": ID_SCHEME + container.id,
    }
    message = given.messages.get(container.id) or container.message or _known_message(pod, container)
    if message:
        end["message"] = message
    return end


def _known_message(pod: BoundPod, container: Container) -> str:
    """Return the termination message that the server has: the file is gone once the pod's volumes are."""
    known = _known_status(pod, container.name) or {}
    for place in ("state", "lastState"):
        end = (known.get(place) or {}).get("terminated") or {}
        if end.get("containerID") == ID_SCHEME + container.id:
            return str(end.get("message") or "")
    return ""


def _describe_readiness(
    container: Specced, current: Container | None, status: Json, given: StatusInput, *, init: bool
) -> None:
    running = current is not None and "running" in status["state"]
    if init and not is_sidecar(container):
        status["ready"] = status["state"].get("terminated", {}).get("exitCode") == 0
        return
    if not isinstance(container, ContainerSpec):
        # Ephemeral containers have no probes; upstream leaves `started` out and ready false.
        del status["started"]
        return
    started = running and given.verdicts.started.get(container.name, container.startup_probe is None)
    status["started"] = bool(started)
    ready = bool(started) and given.verdicts.ready.get(container.name, container.readiness_probe is None)
    status["ready"] = ready and not given.ended


def _describe_settings(
    container: Specced, current: Container, status: Json, applied: ResourceRequirements | None
) -> None:
    resources = requirements(container)
    if resources.requests:
        status["allocatedResources"] = dict(resources.requests)
    resources = applied or resources
    status["resources"] = {
        key: dict(values) for key, values in (("limits", resources.limits), ("requests", resources.requests)) if values
    }
    if current.uid is not None:
        groups = list(current.groups)
        status["user"] = {"linux": {"uid": current.uid, "gid": current.gid, "supplementalGroups": groups}}
    if signal := stop_signal(container):
        status["stopSignal"] = signal


def _mount_status(mount: VolumeMount) -> Json:
    entry: Json = {"name": mount.name, "mountPath": mount.mount_path}
    if mount.read_only:
        entry["readOnly"] = True
        wanted = mount.recursive_read_only or "Disabled"
        entry["recursiveReadOnly"] = "Enabled" if wanted == "IfPossible" else wanted
    return entry


def status_patch(pod: BoundPod, old: Mapping[str, Any], new: Json) -> Json | None:
    """Return a strategic merge patch of the status from `old` to `new`; None when nothing changed.

    Only changed fields are in it. Conditions are merged by type, so that those of others stay; podIPs and hostIPs are
    replaced as a whole. The uid keeps the patch from a namesake.
    """
    changes: Json = {}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if key == "conditions":
            known = {c.get("type"): c for c in before or ()}
            changed = [c for c in value if not _alike(known.get(c["type"]), c)]
            wanted = {c["type"] for c in value}
            over = [{"$patch": "delete", "type": kind} for kind in PASSING if kind in known and kind not in wanted]
            if over:
                changes[key] = over
            if changed:
                changes[key] = [*over, *(_condition_change(c, known.get(c["type"])) for c in changed)]
        elif key in ("podIPs", "hostIPs"):
            if [*(before or ())] != value:
                gone = [{"$patch": "delete", "ip": e["ip"]} for e in before or () if e not in value]
                changes[key] = [*gone, *value]
        elif not _alike(before, value):
            changes[key] = value
    for key in ("reason", "message"):
        if old.get(key) and key not in new:
            changes[key] = None
    if not changes:
        return None
    return {"metadata": {"uid": pod.metadata.uid}, "status": changes}


def _condition_change(new: Json, old: Mapping[str, Any] | None) -> Json:
    gone = {key: None for key in (old or {}) if key not in new and key != "lastProbeTime"}
    return {**new, **gone}


def _alike(one: Any, other: Any) -> bool:
    """Compare two values but for nulls and empty maps and lists, which the server may leave out."""
    if one is other or one == other:
        return True
    kinds = {type(one), type(other)} - {type(None)}
    if kinds == {dict}:
        one, other = one or {}, other or {}
        return all(_alike(one.get(key), other.get(key)) for key in {**one, **other})
    if kinds == {list}:
        return len(one or ()) == len(other or ()) and all(map(_alike, one or (), other or ()))
    return not one and not other and kinds == {dict, list}
