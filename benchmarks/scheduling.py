"""Measures scheduling decisions alone: one process, no API server, every node scored for every pod.

Prints JSON: for each number of nodes and each sort of pod, decisions a second of CPU time. `plain` pods have requests
only; `service` pods belong to one of 10 Services, so they are spread by default; `spread` pods have a hard zone
constraint and a soft host one; `apart` pods refuse their own kind on one host.

Run: python benchmarks/scheduling.py [--nodes 100 1000 5000] [--pods 2000]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import orjson

from tiphys.api.views.meta import decode_view
from tiphys.api.views.node import Node
from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import plan_pod
from tiphys.scheduler.state import ClusterState, info_of
from tiphys.scheduler.views import Pod

ZONES = 3


def make_state(nodes: int, services: int = 0) -> ClusterState:
    state = ClusterState()
    for number in range(nodes):
        name = f"node-{number}"
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % ZONES}"}
        amounts = {"cpu": "32", "memory": "256Gi", "pods": "110"}
        obj = {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": amounts}}
        state.set_node(decode_view(orjson.dumps(obj), Node))
    for number in range(services):
        state.workloads.set_service("default", f"app-{number}", {"app": f"app-{number}"})
    return state


def spec_of(sort: str, app: str) -> dict[str, Any]:
    selector = {"matchLabels": {"app": app}}
    if sort == "spread":
        zone = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        host = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        return {"topologySpreadConstraints": [{**c, "labelSelector": selector} for c in (zone, host)]}
    if sort == "apart":
        term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
        return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    return {}


def make_pods(sort: str, count: int) -> list[Pod]:
    pods = []
    for number in range(count):
        app = f"app-{number % 10}" if sort != "apart" else f"app-{number % 100}"
        container = {"name": "main", "image": "app", "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}
        obj = {
            "metadata": {"name": f"pod-{number}", "namespace": "default", "uid": str(number), "labels": {"app": app}},
            "spec": {"containers": [container], **spec_of(sort, app)},
        }
        pods.append(decode_view(orjson.dumps(obj), Pod))
    return pods


def measure(nodes: int, sort: str, count: int) -> dict[str, Any]:
    state = make_state(nodes, services=10 if sort == "service" else 0)
    pods = make_pods(sort, count)
    randomness = Randomness(1)
    refused = 0
    started_s = time.process_time()
    for pod in pods:
        info = info_of(pod)
        plan = plan_pod(info, state, randomness)
        if plan.node is None:
            refused += 1
        else:
            state.assume(info, plan.node)
    cpu_s = time.process_time() - started_s
    return {"nodes": nodes, "pods": sort, "decisions_per_cpu_s": round(count / cpu_s), "refused": refused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--sorts", nargs="+", default=["plain", "service", "spread", "apart"])
    arguments = parser.parse_args()
    results = [measure(nodes, sort, arguments.pods) for nodes in arguments.nodes for sort in arguments.sorts]
    print(json.dumps({"benchmark": "scheduling decisions", "results": results}, indent=1))


if __name__ == "__main__":
    main()
