"""Usage of the node, its pods and containers: /stats/summary, /metrics and /metrics/resource.

Spec: the kubelet's Summary API and resource metrics as metrics-server reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tiphys.base.clock import format_time
from tiphys.base.errors import TiphysError
from tiphys.kubelet.worker import PodWorker
from tiphys.runtime.interface import Container, Stats

if TYPE_CHECKING:
    from tiphys.kubelet.run import Kubelet


async def stats_summary(kubelet: Kubelet) -> dict[str, Any]:
    """Return the summary document."""
    now = format_time(kubelet.deps.clock.now_s())
    pods = []
    cpu_ns = 0
    memory = 0
    for worker in list(kubelet.workers.values()):
        containers = [(c, s) async for c, s in _container_stats(kubelet, worker)]
        if not containers:
            continue
        meta = worker.pod.metadata
        pod_cpu = sum(s.cpu_usage_ns for _, s in containers)
        pod_memory = sum(s.memory_working_set_bytes for _, s in containers)
        cpu_ns += pod_cpu
        memory += pod_memory
        pods.append(
            {
                "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "startTime": worker.writer.known.get("startTime"),
                "containers": [_container(now, c, s) for c, s in containers],
                "cpu": {"time": now, "usageCoreNanoSeconds": pod_cpu},
                "memory": {"time": now, "workingSetBytes": pod_memory},
                "process_stats": {"process_count": sum(s.pids for _, s in containers)},
            }
        )
    return {"node": _node(kubelet, now, cpu_ns, memory), "pods": pods}


def _container(now: str, container: Container, stats: Stats) -> dict[str, Any]:
    return {
        "name": container.name,
        "startTime": format_time(container.started_at_s),
        "cpu": {"time": now, "usageCoreNanoSeconds": stats.cpu_usage_ns},
        "memory": {
            "time": now,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
        },
        "rootfs": {"time": now, "usedBytes": stats.writable_layer_bytes},
    }


def _node(kubelet: Kubelet, now: str, cpu_ns: int, memory: int) -> dict[str, Any]:
    machine = kubelet.deps.machine
    node: dict[str, Any] = {
        "nodeName": kubelet.deps.node_name,
        "cpu": {"time": now, "usageCoreNanoSeconds": cpu_ns},
        "memory": {
            "time": now,
            "workingSetBytes": memory,
            "availableBytes": max(machine.memory_bytes - memory, 0),
        },
    }
    root = kubelet.context.files.disk_root()
    if root:
        disk = os.statvfs(root)
        node["fs"] = {
            "time": now,
            "availableBytes": disk.f_bavail * disk.f_frsize,
            "capacityBytes": disk.f_blocks * disk.f_frsize,
            "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        }
    return node


async def _container_stats(kubelet: Kubelet, worker: PodWorker) -> Any:
    for container in worker.runtime.running():
        try:
            yield container, await kubelet.deps.runtime.container_stats(container.id)
        except TiphysError:
            # It ended between the two looks.
            continue


def metrics_text(kubelet: Kubelet) -> str:
    """Return the kubelet's own few metrics."""
    workers = list(kubelet.workers.values())
    running = sum(len(w.runtime.running()) for w in workers)
    return "\n".join(
        [
            "# HELP kubelet_running_pods Number of pods that have a running pod sandbox",
            "# TYPE kubelet_running_pods gauge",
            f"kubelet_running_pods {sum(1 for w in workers if w.runtime.ready_sandbox())}",
            "# HELP kubelet_running_containers Number of containers currently running",
            "# TYPE kubelet_running_containers gauge",
            f'kubelet_running_containers{{container_state="running"}} {running}',
            "# HELP kubelet_node_name The node's name. The count is always 1.",
            "# TYPE kubelet_node_name gauge",
            f'kubelet_node_name{{node="{kubelet.deps.node_name}"}} 1',
            "",
        ]
    )


async def resource_metrics_text(kubelet: Kubelet) -> str:
    """Return cpu and memory of containers and pods."""
    cpu: list[str] = []
    memory: list[str] = []
    for worker in list(kubelet.workers.values()):
        meta = worker.pod.metadata
        async for container, stats in _container_stats(kubelet, worker):
            labels = f'container="{container.name}",namespace="{meta.namespace}",pod="{meta.name}"'
            cpu.append(f"container_cpu_usage_seconds_total{{{labels}}} {stats.cpu_usage_ns / 1e9:.6f}")
            memory.append(f"container_memory_working_set_bytes{{{labels}}} {stats.memory_working_set_bytes}")
    return "\n".join([*_family("container_cpu_usage_seconds_total", "counter", cpu),
                      *_family("container_memory_working_set_bytes", "gauge", memory), ""])  # fmt: skip


def _family(name: str, kind: str, samples: list[str]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    yield from samples
