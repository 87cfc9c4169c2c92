"""Which pods this node has to end because of what they take: local storage beyond their limits, memory when it runs low.

Input: usage measured every 10 s. Output: at most one reason a pod (`storage_excess`, pure) or one pod a round
(`plan_memory_eviction`, pure), given to its worker, which ends the pod as Failed with reason Evicted. Only pods that
have a limit are measured, so that nodes without any pay nothing.

Spec: Kubernetes docs, "Volumes" (emptyDir sizeLimit), "Local ephemeral storage", "Node-pressure Eviction" (order:
over its request, then priority, then by how much over).
DIFFERS: of the node-pressure signals only memory.available is watched; a nearly full disk only loses unused images.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiphys.api.quantity import memory_bytes
from tiphys.base.errors import TiphysError
from tiphys.kubelet.machine import MEMORY_THRESHOLD_BYTES
from tiphys.kubelet.pod import BoundPod, pod_reference
from tiphys.kubelet.resources import requirements
from tiphys.kubelet.worker import Phase, PodWorker

if TYPE_CHECKING:
    from tiphys.kubelet.run import Kubelet

log = logging.getLogger(__name__)

EVERY_S = 10.0
REASON = "Evicted"
STORAGE = "ephemeral-storage"
SYSTEM_CRITICAL = 2_000_000_000


@dataclass(frozen=True, slots=True)
class StorageUse:
    """Bytes on disk."""

    volumes: Mapping[str, int]
    """emptyDir volumes by name."""
    containers: Mapping[str, int]
    """Writable layer and logs by container name."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A pod and its working set."""

    pod: BoundPod
    used_bytes: int


def has_storage_limits(pod: BoundPod) -> bool:
    """Tell whether the pod has to be measured at all."""
    if any(v.empty_dir and v.empty_dir.size_limit and v.empty_dir.medium != "Memory" for v in pod.spec.volumes):
        return True
    return any(STORAGE in requirements(c).limits for c in pod.spec.containers)


def storage_excess(pod: BoundPod, use: StorageUse) -> str:
    """Return why the pod takes too much of the disk, "" when it does not."""
    for volume in pod.spec.volumes:
        source = volume.empty_dir
        if source is None or not source.size_limit or source.medium == "Memory":
            continue
        if use.volumes.get(volume.name, 0) > memory_bytes(source.size_limit):
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{source.size_limit}". '
    total = 0
    for container in pod.spec.containers:
        text = requirements(container).limits.get(STORAGE)
        limit = memory_bytes(text or 0)
        total += limit
        if limit and use.containers.get(container.name, 0) > limit:
            return f'Container {container.name} exceeded its local ephemeral storage limit "{text}". '
    every = all(STORAGE in requirements(c).limits for c in pod.spec.containers)
    if every and total and sum(use.volumes.values()) + sum(use.containers.values()) > total:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {format_bytes(total)}. "
    return ""


def plan_memory_eviction(uses: Sequence[MemoryUse], available_bytes: int) -> tuple[BoundPod, str] | None:
    """Return the pod to end now that memory is low, and why; None when there is nobody to end."""
    candidates = [u for u in uses if (u.pod.spec.priority or 0) < SYSTEM_CRITICAL]
    if not candidates:
        return None
    chosen = max(candidates, key=lambda u: (_excess(u) > 0, -(u.pod.spec.priority or 0), _excess(u)))
    message = (
        f"The node was low on resource: memory. Threshold quantity: {format_bytes(MEMORY_THRESHOLD_BYTES)}, "
        f"available: {available_bytes // 1024}Ki. "
    )
    if _excess(chosen) > 0 and len(chosen.pod.spec.containers) == 1:
        name = chosen.pod.spec.containers[0].name
        request = requirements(chosen.pod.spec.containers[0]).requests.get("memory", 0)
        message += (
            f"Container {name} was using {chosen.used_bytes // 1024}Ki, request is {request}, "
            "has larger consumption of memory. "
        )
    return chosen.pod, message


def _excess(use: MemoryUse) -> int:
    return use.used_bytes - sum(
        memory_bytes(requirements(c).requests.get("memory", 0)) for c in use.pod.spec.containers
    )


def format_bytes(number: int) -> str:
    """Return a number of bytes as a quantity in the largest binary unit that fits."""
    for unit in ("", "Ki", "Mi", "Gi"):
        if number % 1024 or number == 0:
            return f"{number}{unit}"
        number //= 1024
    return f"{number}Ti"


async def run_eviction(kubelet: Kubelet) -> None:
    """Look every 10 s, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        for worker in list(kubelet.workers.values()):
            if worker.phase is Phase.RUNNING and has_storage_limits(worker.pod):
                try:
                    why = storage_excess(worker.pod, await _measure(kubelet, worker))
                except (TiphysError, OSError) as error:
                    log.debug("pod %s is measured again in %.0f s: %s", worker.pod.metadata.name, EVERY_S, error)
                    continue
                if why:
                    evict(kubelet, worker, why)
        await _relieve_memory(kubelet)


def evict(kubelet: Kubelet, worker: PodWorker, message: str) -> None:
    """End a pod as Failed."""
    log.warning("pod %s/%s is evicted: %s", worker.pod.metadata.namespace, worker.pod.metadata.name, message)
    kubelet.context.recorder.record(pod_reference(worker.pod), "Warning", REASON, message)
    worker.evict(REASON, message)


async def _measure(kubelet: Kubelet, worker: PodWorker) -> StorageUse:
    pod, files = worker.pod, kubelet.context.files
    volumes = {
        v.name: await files.volume_bytes(pod.metadata.uid, v.name)
        for v in pod.spec.volumes
        if v.empty_dir is not None and v.empty_dir.medium != "Memory"
    }
    containers: dict[str, int] = {}
    for container in worker.runtime.running():
        stats = await kubelet.deps.runtime.container_stats(container.id)
        containers[container.name] = stats.writable_layer_bytes + files.log_bytes(container)
    return StorageUse(volumes, containers)


async def _relieve_memory(kubelet: Kubelet) -> None:
    pressure = kubelet.deps.machine.pressure()
    if not pressure.memory:
        return
    uses = []
    for worker in list(kubelet.workers.values()):
        if worker.phase is not Phase.RUNNING:
            continue
        try:
            stats = [await kubelet.deps.runtime.container_stats(c.id) for c in worker.runtime.running()]
        except TiphysError:
            continue
        uses.append(MemoryUse(worker.pod, sum(s.memory_working_set_bytes for s in stats)))
    planned = plan_memory_eviction(uses, pressure.memory_available_bytes)
    if planned is not None:
        pod, message = planned
        evict(kubelet, kubelet.workers[pod.metadata.uid], message)
