"""Memory of an API server that holds very many pods, before and after a client pages through all of them.

Starts an API server of its own on a store with pods of 4 KB (written into the store before it starts), and prints a
JSON line for each state: at start, after lists in pages of 500 with and without a selector, after a whole list as
metadata, and after updates. PSS and its peak are of the server's process alone. With --url and --pids it pages
through the pods of any API server.

Run: python benchmarks/memory_150k.py [--pods 150000]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmark_apiserver import lone_apiserver
from benchmark_cluster import Target, insecure
from idle_memory import cpu_s, pss_mib
from loop_stalls import Client

PODS = "/api/v1/pods"
PAGE = 500
UPDATES = 2000
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
MERGE_PATCH = "application/merge-patch+json"


class Meter:
    """Reports one process."""

    def __init__(self, target: Target) -> None:
        self.pid = target.pids.get("apiserver") or next(iter(target.pids.values()))
        self._before_s = cpu_s(self.pid)
        self._started_s = time.perf_counter()

    def report(self, state: str, **facts: Any) -> None:
        used_s, now_s = cpu_s(self.pid), time.perf_counter()
        line = {
            "benchmark": "memory_150k",
            "state": state,
            "pss_mib": round(pss_mib(self.pid)),
            "peak_rss_mib": round(_peak_mib(self.pid)),
            "cpu_s": round(used_s - self._before_s, 2),
            "wall_s": round(now_s - self._started_s, 2),
        }
        print(json.dumps(line | facts), flush=True)
        self._before_s, self._started_s = used_s, now_s


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def page_through(client: Client, query: str = "") -> int:
    """List all pods in pages; return how many there were."""
    count, token = 0, ""
    while True:
        page = json.loads(client.send("GET", f"{PODS}?limit={PAGE}{query}{token}"))
        count += len(page["items"])
        if not page["metadata"].get("continue"):
            return count
        token = f"&continue={page['metadata']['continue']}"


def run(target: Target, *, own: bool) -> None:
    client = Client(target, insecure())
    meter = Meter(target)
    meter.report("start")
    for turn in (1, 2):
        meter.report("paged", turn=turn, pods=page_through(client))
    meter.report("paged with a selector", pods=page_through(client, "&labelSelector=tenth%3D3"))
    listed = json.loads(client.send("GET", PODS, accept=PARTIAL))
    meter.report("listed as metadata", pods=len(listed["items"]))
    if own:
        for number in range(UPDATES):
            path = f"/api/v1/namespaces/stored/pods/pod-{number:06d}/status"
            client.send("PATCH", path, {"status": {"message": "updated"}}, Content_Type=MERGE_PATCH)
        meter.report("updated", updates=UPDATES)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--pods", type=int, default=150_000)
    options.add_argument("--url", default="", help="an API server to use instead of one of its own")
    options.add_argument("--token", default="", help="its bearer token")
    options.add_argument("--pids", default="", help="its process, name=pid")
    arguments = options.parse_args()
    if arguments.url:
        name, _, pid = arguments.pids.partition("=")
        run(Target(arguments.url, arguments.token, {name: int(pid)}, {}), own=False)
        return
    with lone_apiserver(arguments.pods) as server:
        run(server.target, own=True)


if __name__ == "__main__":
    main()
