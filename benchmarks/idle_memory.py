"""Memory and CPU of a cluster's processes while nothing happens: PSS by process, and CPU seconds of a quiet interval.

Starts a cluster of its own (simulated unless --real), or looks at processes that are named. Prints a JSON line.

Run: python benchmarks/idle_memory.py [--real] [--seconds 10] [--pods 0] [--nodes 1]
     python benchmarks/idle_memory.py --pids apiserver=123,etcd=124
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from benchmark_cluster import Target, add_target_options, open_target

NODE = ("node", "supervisor")
"""Processes that are no control plane."""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_target_options(options)
    options.add_argument("--seconds", type=float, default=10.0, help="how long the quiet interval is")
    options.add_argument("--pods", type=int, default=0, help="pods to make first, in Deployments of 100")
    arguments = options.parse_args()
    with open_target(arguments) as target:
        if arguments.pods:
            make_pods(target, arguments.pods)
        time.sleep(2.0)  # what a start leaves to do is not idleness
        before = {name: cpu_s(pid) for name, pid in target.pids.items()}
        time.sleep(arguments.seconds)
        memory = {name: pss_mib(pid) for name, pid in target.pids.items()}
        used = {name: round(cpu_s(pid) - before[name], 3) for name, pid in target.pids.items()}
    print(
        json.dumps(
            {
                "benchmark": "idle_memory",
                "nodes": arguments.nodes,
                "pods": arguments.pods,
                "pss_mib": {name: round(mib, 1) for name, mib in memory.items()},
                "total_mib": round(sum(memory.values()), 1),
                "control_plane_mib": round(sum(mib for name, mib in memory.items() if name not in NODE), 1),
                "cpu_s": used,
                "interval_s": arguments.seconds,
            }
        )
    )


def make_pods(target: Target, count: int) -> None:
    """Make Deployments of 100 pods each and wait until all are Running."""
    for number in range(0, count, 100):
        labels = {"app": f"idle-{number}"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}}
        spec = {"replicas": min(100, count - number), "selector": {"matchLabels": labels}, "template": template}
        obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"idle-{number}"}, "spec": spec}
        target.call("POST", "/apis/apps/v1/namespaces/default/deployments", obj)
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s:
        items = target.call("GET", "/apis/apps/v1/namespaces/default/deployments")["items"]
        if sum(item.get("status", {}).get("availableReplicas", 0) for item in items) >= count:
            return
        time.sleep(0.5)
    raise SystemExit("the pods did not become available")


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
