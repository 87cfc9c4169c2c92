"""The Node object: what it should say. Pure; registration.py writes it.

Spec: Kubernetes docs, "Node Status" (addresses, conditions, capacity, info), "Well-Known Labels".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.api.quantity import Written, parse_quantity
from tiphys.base.clock import format_time
from tiphys.kubelet.machine import DISK_SHARE, Machine, Pressure
from tiphys.runtime.interface import Image

MAX_IMAGES = 50
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the Node object is made from."""

    name: str
    addresses: tuple[str, ...]
    machine: Machine
    kubernetes_version: str
    """Such as v1.37.0."""
    runtime_version: tuple[str, str]
    port: int = 10250
    labels: Mapping[str, str] | None = None
    taints: Sequence[Mapping[str, str]] = ()
    pod_cidr: str = ""


def capacity(machine: Machine) -> dict[str, str]:
    """Return what the machine has."""
    return {
        "cpu": str(machine.cpus),
        "ephemeral-storage": f"{machine.disk_bytes // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "pods": str(machine.max_pods),
        **{name: str(value) for name, value in machine.extra_capacity.items()},
    }


def allocatable(machine: Machine) -> dict[str, Written]:
    """Return what pods can have: capacity without what is reserved, and 90% of the disk."""
    result: dict[str, Written] = dict(capacity(machine))
    result["ephemeral-storage"] = str(int(machine.disk_bytes * DISK_SHARE))
    for name, value in machine.reserved.items():
        left = parse_quantity(result.get(name, 0)) - parse_quantity(value)
        if name == "cpu":
            result[name] = f"{left.milli}m"
        elif name == "memory":
            result[name] = f"{left.value() // 1024}Ki"
        else:
            result[name] = str(left.value())
    return result


def node_labels(facts: NodeFacts) -> dict[str, str]:
    """Return the labels that a kubelet sets on its own node."""
    return {
        "beta.kubernetes.io/arch": facts.machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.machine.architecture,
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        **(facts.labels or {}),
    }


def node_object(facts: NodeFacts, status: Json) -> Json:
    """Return the Node as it is created."""
    spec: Json = {}
    if facts.taints:
        spec["taints"] = [dict(taint) for taint in facts.taints]
    if facts.pod_cidr:
        spec["podCIDR"], spec["podCIDRs"] = facts.pod_cidr, [facts.pod_cidr]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": node_labels(facts),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": status,
    }


def node_status(
    facts: NodeFacts, old: Mapping[str, Any], images: Sequence[Image], pressure: Pressure, not_ready: str, now_s: float
) -> Json:
    """Return the status. `old` is the one that the server has; `not_ready` says why the node is not ready, or ""."""
    machine = facts.machine
    name, version = facts.runtime_version
    return {
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in facts.addresses),
            {"type": "Hostname", "address": facts.name},
        ],
        "allocatable": allocatable(machine),
        "capacity": capacity(machine),
        "conditions": node_conditions(old.get("conditions") or (), pressure, not_ready, now_s),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "images": image_list(images),
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": f"{name}://{version}",
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": facts.kubernetes_version,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
        },
    }


def image_list(images: Sequence[Image]) -> list[Json]:
    """Return the largest images, with all their names."""
    largest = sorted(images, key=lambda i: (-i.size_bytes, i.id))[:MAX_IMAGES]
    return [{"names": [*i.digests, *i.tags], "sizeBytes": i.size_bytes} for i in largest if i.digests or i.tags]


def node_conditions(old: Sequence[Mapping[str, Any]], pressure: Pressure, not_ready: str, now_s: float) -> list[Json]:
    """Return the four conditions; transition times change with the status only."""
    table = (
        ("MemoryPressure", pressure.memory, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available",
         "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", pressure.disk, "KubeletHasDiskPressure", "kubelet has disk pressure",
         "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", pressure.pids, "KubeletHasInsufficientPID", "kubelet has insufficient PID available",
         "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", not not_ready, "KubeletReady", "kubelet is posting ready status", "KubeletNotReady", not_ready),
    )  # fmt: skip
    known = {c.get("type"): c for c in old}
    now = format_time(now_s)
    result = []
    for kind, on, reason_on, message_on, reason_off, message_off in table:
        status = "True" if on else "False"
        before = known.get(kind) or {}
        same = before.get("status") == status
        result.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": now,
                "lastTransitionTime": (before.get("lastTransitionTime") or now) if same else now,
                "reason": reason_on if on else reason_off,
                "message": message_on if on else message_off,
            }
        )
    return result


def changed(old: Mapping[str, Any], new: Json) -> bool:
    """Tell whether two statuses differ in more than their heartbeat."""
    return _without_heartbeat(old) != _without_heartbeat(new)


def _without_heartbeat(status: Mapping[str, Any]) -> Json:
    # The server leaves out empty lists and writes quantities in their shortest form.
    kept: Json = {k: status.get(k) or None for k in ("addresses", "daemonEndpoints", "images", "nodeInfo")}
    for amounts in ("allocatable", "capacity"):
        kept[amounts] = {name: parse_quantity(value) for name, value in (status.get(amounts) or {}).items()}
    own = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    kept["conditions"] = {
        c["type"]: (c.get("status"), c.get("reason"), c.get("message"))
        for c in status.get("conditions") or ()
        if c.get("type") in own
    }
    return kept
