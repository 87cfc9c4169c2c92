"""Many Deployments at once: seconds and CPU of all processes until every Pod exists.

Makes the Deployments over 16 connections and counts Pods by a watch. Its own cluster is simulated unless --real.
Prints a JSON line when all Pods exist and one when all Deployments are available. With --unscheduled the Pods name a
scheduler that does not exist, so that only the API server and the controllers work, and only the first is printed.

Run: python benchmarks/deployments.py [--deployments 100] [--replicas 10]
     python benchmarks/deployments.py --url https://127.0.0.1:6443 --token T --pids apiserver=1,controllers=2
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from benchmark_cluster import Target, add_target_options, insecure, open_target
from idle_memory import cpu_s

NAMESPACE = "deployments"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PATIENCE_S = 120.0
ACCOUNT_S = 10.0
"""How long the namespace's default account may take."""


class Count(threading.Thread):
    """Watches a collection and tells when so many different objects were seen that fulfil a condition."""

    def __init__(self, target: Target, path: str, wanted: int, accept: str, field: str = "") -> None:
        super().__init__(daemon=True)
        self._target = target
        self._path = f"{path}?watch=1&timeoutSeconds={PATIENCE_S:.0f}"
        self._accept = accept
        self._wanted = wanted
        self._field = field
        self.done_s = 0.0
        self.opened = threading.Event()
        self._names: set[str] = set()

    def run(self) -> None:
        netloc = urlsplit(self._target.url).netloc
        connection = http.client.HTTPSConnection(netloc, context=insecure(), timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {self._target.token}", "Accept": self._accept}
        connection.request("GET", self._path, headers=headers)
        answer = connection.getresponse()
        self.opened.set()
        while len(self._names) < self._wanted:
            line = answer.readline()
            if not line:
                return
            obj = json.loads(line)["object"]
            if not self._field or obj.get("status", {}).get(self._field, 0) >= obj["spec"]["replicas"]:
                self._names.add(obj["metadata"]["name"])
        self.done_s = time.perf_counter()

    def wait(self) -> float:
        """Return when the last one was seen."""
        self.join(PATIENCE_S)
        if not self.done_s:
            raise SystemExit(f"only {len(self._names)} of {self._wanted} at {self._path}")
        return self.done_s


def deployment(number: int, replicas: int, unscheduled: bool) -> dict[str, Any]:
    labels = {"app": f"web-{number}"}
    container = {"name": "main", "image": "registry.example/app:v1"}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    template: dict[str, Any] = {"metadata": {"labels": labels}, "spec": pod}
    if unscheduled:
        template["spec"]["schedulerName"] = "nobody"
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"web-{number}"}, "spec": spec}


def prepare(target: Target) -> None:
    """Make the namespace and wait for its default account, without which no Pod is admitted."""
    target.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    deadline_s = time.monotonic() + ACCOUNT_S
    while target.call("GET", path, missing_ok=True) is None:
        if time.monotonic() > deadline_s:
            raise SystemExit("the namespace got no default account: are the controllers running?")
        time.sleep(0.05)


def run(target: Target, deployments: int, replicas: int, unscheduled: bool) -> None:
    prepare(target)
    pods = Count(target, PODS, deployments * replicas, PARTIAL)
    available = Count(target, DEPLOYMENTS, deployments, "application/json", "availableReplicas")
    counts = [("pods exist", pods)] if unscheduled else [("pods exist", pods), ("available", available)]
    for _, count in counts:
        count.start()
        count.opened.wait(PATIENCE_S)
    before = {name: cpu_s(pid) for name, pid in target.pids.items()}
    started_s = time.perf_counter()

    def make(first: int) -> None:
        connection = http.client.HTTPSConnection(urlsplit(target.url).netloc, context=insecure(), timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
        for number in range(first, deployments, 16):
            connection.request("POST", DEPLOYMENTS, json.dumps(deployment(number, replicas, unscheduled)), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 201:
                raise SystemExit(f"a Deployment was refused: {answer.status} {body[:300]!r}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(make, range(16)))
    for state, count in counts:
        done_s = count.wait()
        used = {name: round(cpu_s(pid) - before[name], 2) for name, pid in target.pids.items()}
        print(
            json.dumps(
                {
                    "benchmark": "deployments",
                    "until": state,
                    "deployments": deployments,
                    "pods": deployments * replicas,
                    "seconds": round(done_s - started_s, 2),
                    "cpu_s": round(sum(used.values()), 2),
                    "cpu_s_by_process": used,
                }
            ),
            flush=True,
        )
    target.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_target_options(options)
    options.add_argument("--deployments", type=int, default=100)
    options.add_argument("--replicas", type=int, default=10)
    options.add_argument("--unscheduled", action="store_true", help="controllers and API server alone")
    arguments = options.parse_args()
    if arguments.nodes == 1 and not arguments.unscheduled:
        arguments.nodes = 1 + arguments.deployments * arguments.replicas // 100  # a node takes 110 Pods
    with open_target(arguments) as target:
        run(target, arguments.deployments, arguments.replicas, arguments.unscheduled)


if __name__ == "__main__":
    main()
