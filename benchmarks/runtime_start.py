"""How long the embedded runtime takes to start, enter and remove pods, without a kubelet; prints JSON, times in ms.

    python benchmarks/runtime_start.py [--pods 20] [--rounds 10]

Each pod is a sandbox (own network, IPC and UTS namespaces, no links) and one busybox container with its cgroups. CPU
is that of this process and its children, supervisor and OCI runtime included. Needs root and crun or runc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tiphys.base.clock import Randomness, SystemClock
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.detect import detect
from tiphys.runtime.embedded import EmbeddedRuntime
from tiphys.runtime.imagebuild import build_busybox_image
from tiphys.runtime.interface import ContainerConfig, SandboxConfig


async def start_pod(runtime: EmbeddedRuntime, name: str, cgroup: str) -> tuple[str, str, float]:
    start = time.perf_counter()
    sandbox = await runtime.run_pod_sandbox(
        SandboxConfig(name, "default", name, hostname=name, cgroup_parent=f"{cgroup}/{name}")
    )
    container = await runtime.create_container(sandbox, ContainerConfig("main", "busybox", command=("sleep", "10000")))
    await runtime.start_container(container)
    return sandbox, container, 1000 * (time.perf_counter() - start)


async def timed(action: object) -> float:
    start = time.perf_counter()
    await action  # type: ignore[misc]
    return 1000 * (time.perf_counter() - start)


def machine_cpu_s() -> float:
    """Return the CPU time that the whole machine has used: the only one that counts detached children too."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(value) for value in (*fields[:3], *fields[5:8])) / os.sysconf("SC_CLK_TCK")


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def measure(directory: Path, pods: int, rounds: int) -> dict[str, object]:
    build_busybox_image(directory / "busybox.tar")
    runtime = EmbeddedRuntime(directory / "root", directory / "run", SimulatedPodNetwork(), SystemClock(), Randomness())
    cgroup = f"/{directory.name}"
    load_ms = await timed(asyncio.to_thread(runtime.images.load_archive, directory / "busybox.tar"))
    start_ms = await timed(runtime.start())
    try:
        one = [await start_pod(runtime, f"one{number}", cgroup) for number in range(rounds)]
        before = machine_cpu_s()
        begun = time.perf_counter()
        many = await asyncio.gather(*(start_pod(runtime, f"many{number}", cgroup) for number in range(pods)))
        many_ms = 1000 * (time.perf_counter() - begun)
        cpu_ms = 1000 * (machine_cpu_s() - before) / pods
        execs = [await timed(runtime.exec_sync(one[0][1], ["true"], 10)) for _ in range(2 * rounds)]
        removals = [await timed(runtime.remove_pod_sandbox(sandbox)) for sandbox, _, _ in one]
        return {
            "runtime": "://".join(await runtime.version()),
            "runtime_start": round(start_ms, 1),
            "image_load": round(load_ms, 1),
            "pod_start_median": round(statistics.median(ms for _, _, ms in one), 1),
            "pods_at_once": pods,
            "pods_at_once_all": round(many_ms, 1),
            "pods_at_once_slowest": round(max(ms for _, _, ms in many), 1),
            "machine_cpu_per_pod": round(cpu_ms, 1),
            "exec_true_median": round(statistics.median(execs), 1),
            "pod_remove_median": round(statistics.median(removals), 1),
            "supervisor_pss_kib": pss_kib(runtime.supervisor.pid),
        }
    finally:
        await runtime.remove_all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    possible, reason = detect()
    if not possible:
        sys.exit(reason)
    directory = Path(tempfile.mkdtemp(prefix="tb"))
    try:
        print(json.dumps(asyncio.run(measure(directory, options.pods, options.rounds)), indent=2))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
