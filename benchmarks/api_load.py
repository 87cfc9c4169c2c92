"""CPU of an API server for each kind of request, measured from outside, with wrk over TLS and kept connections.

Makes 1,000 ConfigMaps of 200 bytes and 500 Pods of 3.7 KB, then runs each operation for some seconds. Prints a JSON
line an operation: requests a second, p50 and p99 in ms, and the CPU (user + system, all its processes) of one request,
which holds better on a noisy machine than times do. Where `perf` may count, it also tells the thousands of instructions
of one request, in the program and in the kernel: these hardly depend on who else uses the machine. `list-pods-gzip` asks for a compressed answer; `mix` is what controllers
do; `delete-configmap` deletes 3,000 objects with this program's own threads.

Run: python benchmarks/api_load.py [--seconds 5] [--connections 16,64] [--operations get-pod,...] [--accept TYPE]
     python benchmarks/api_load.py --url https://127.0.0.1:6443 --token T --pids apiserver=1,etcd=2
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmark_cluster import Target, add_target_options, insecure, open_target

SCRIPT = Path(__file__).with_name("api_load.lua")
OPERATIONS = (
    "get-configmap",
    "get-pod",
    "list-pods",
    "list-pods-gzip",
    "create-configmap",
    "put-configmap",
    "patch-configmap",
    "delete-configmap",
    "mix",
)
CONFIGMAPS = 1_000
DELETED = 3_000
PODS = 500


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_target_options(options)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--connections", default="16", help="how many, or several numbers with commas")
    options.add_argument("--accept", default="application/json", help="media type of the answers")
    options.add_argument("--operations", default=",".join(OPERATIONS))
    options.add_argument(
        "--process", default="apiserver", help="which of its own cluster's processes count; '' for all"
    )
    arguments = options.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("this benchmark needs wrk (Debian package wrk)")
    with open_target(arguments) as target:
        if target.name and arguments.process:
            target.pids = {arguments.process: target.pids[arguments.process]}
        fill(target)
        for connections in map(int, arguments.connections.split(",")):
            for operation in arguments.operations.split(","):
                if operation == "delete-configmap":
                    figures = delete(target, connections)
                else:
                    figures = load(target, operation, connections, arguments.seconds, arguments.accept)
                print(json.dumps({"accept": arguments.accept, **figures}), flush=True)


def fill(target: Target) -> None:
    """Make what is read. Objects that are there already are left."""
    for namespace in ("load", "load-pods", "load-new"):
        target.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda number: make_configmap(target, number), range(CONFIGMAPS)):
            pass
        for _ in pool.map(lambda number: make_pod(target, number), range(PODS)):
            pass


def make_configmap(target: Target, number: int) -> None:
    body = {"metadata": {"name": f"map-{number}"}, "data": {"key": "y" * 200}}
    target.call("POST", "/api/v1/namespaces/load/configmaps", body)


def make_pod(target: Target, number: int) -> None:
    """Make a Pod that no scheduler takes, so that it stays as it is."""
    environment = [{"name": f"VARIABLE_{n}", "value": "v" * 24} for n in range(20)]
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    container = {"name": "main", "image": "registry.example/app:v1", "env": environment, "resources": resources}
    metadata = {
        "name": f"pod-{number:05d}",
        "labels": {"app": "load", "number": str(number)},
        "annotations": {"note": "x" * 400},
    }
    spec = {"schedulerName": "nobody", "containers": [container]}
    target.call("POST", "/api/v1/namespaces/load-pods/pods", {"metadata": metadata, "spec": spec})


class Kept(threading.local):
    """A connection a thread, kept open: a handshake costs the server more than the request."""

    def __init__(self, target: Target) -> None:
        at = urlsplit(target.url)
        self.connection = http.client.HTTPSConnection(at.hostname or "", at.port, context=insecure(), timeout=20)
        self.headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}

    def send(self, method: str, path: str, body: str | None = None) -> float:
        """Return the seconds until the whole answer was there."""
        begin_s = time.perf_counter()
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 201):
            raise SystemExit(f"{method} {path}: {answer.status} {said[:300]!r}")
        return time.perf_counter() - begin_s


def delete(target: Target, connections: int) -> dict[str, Any]:
    """Delete objects, each once, and return the figures."""
    path, kept = "/api/v1/namespaces/load-new/configmaps", Kept(target)
    names = [f"gone-{number}" for number in range(DELETED)]

    def make(name: str) -> float:
        return kept.send("POST", path, json.dumps({"metadata": {"name": name}}))

    with ThreadPoolExecutor(connections) as pool:
        deque(pool.map(make, names), maxlen=0)
        before_s, begin_s = cpu_s(target.pids), time.perf_counter()
        taken_s = sorted(pool.map(lambda name: kept.send("DELETE", f"{path}/{name}"), names))
        seconds, used_s = time.perf_counter() - begin_s, cpu_s(target.pids) - before_s
    cpu = {"cpu_ms_per_request": round(used_s * 1000 / DELETED, 4)} if target.pids else {}
    return {
        "benchmark": "api_load",
        "operation": "delete-configmap",
        "connections": connections,
        "per_second": round(DELETED / seconds, 1),
        "p50_ms": round(taken_s[DELETED // 2] * 1000, 3),
        "p99_ms": round(taken_s[DELETED * 99 // 100] * 1000, 3),
        **cpu,
    }


def load(target: Target, operation: str, connections: int, seconds: int, accept: str) -> dict[str, Any]:
    """Run one operation and return its figures."""
    environment = {**os.environ, "OPERATION": operation, "TOKEN": target.token, "ACCEPT": accept}
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(SCRIPT), target.url]
    counting, counts = counted(target.pids)
    before_s = cpu_s(target.pids)
    said = subprocess.run([*counting, *command], env=environment, capture_output=True, text=True)
    used_s = cpu_s(target.pids) - before_s
    line = next((line for line in said.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"wrk failed: {said.stdout}{said.stderr}")
    figures = json.loads(line.removeprefix("RESULT "))
    requests = figures.pop("requests")
    cpu = {"cpu_ms_per_request": round(used_s * 1000 / max(1, requests), 4)} if target.pids else {}
    for place, count in counts(said.stderr).items():
        cpu[f"kinstructions_{place}"] = round(count / 1000 / max(1, requests), 1)
    return {"benchmark": "api_load", "operation": operation, "connections": connections, **figures, **cpu}


EVENTS = {"instructions:u": "program", "instructions:k": "kernel"}


def counted(pids: dict[str, int]) -> tuple[list[str], Callable[[str], dict[str, float]]]:
    """Return what to put before a command so that the processes' instructions are counted meanwhile, and what reads the
    counts from its standard error; nothing where nobody can count."""
    perf = ["perf", "stat", "-x,", "-e", ",".join(EVENTS), "-p", ",".join(map(str, pids.values())), "--"]
    usable = pids and shutil.which("perf") and subprocess.run([*perf, "true"], capture_output=True).returncode == 0
    if not usable:
        return [], lambda text: {}

    def read(text: str) -> dict[str, float]:
        rows = [line.split(",") for line in text.splitlines() if line.count(",") > 3]
        return {EVENTS[row[2]]: float(row[0]) for row in rows if row[2] in EVENTS and row[0].isdigit()}

    return perf, read


def cpu_s(pids: dict[str, int]) -> float:
    """Return the CPU seconds that the processes have used."""
    ticks = 0
    for pid in pids.values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
