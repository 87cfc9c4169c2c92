"""How long pods take with real containers: create to Running as a watch sees it, one pod and 20 at once, delete to gone,
and `kubectl exec` of `true` where kubectl is found.

Starts a cluster of its own with real containers (needs root and an OCI runtime) and a busybox image made on the spot, or
uses another API server, whose nodes must have the image. Prints a JSON line.

Run: python benchmarks/pod_start.py [--runs 10] [--burst 20] [--image IMAGE]
     python benchmarks/pod_start.py --url https://127.0.0.1:6443 --token T --image IMAGE
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmark_cluster import TIMEOUT_S, Target, add_target_options, insecure, kubeconfig, open_target

IMAGE = "docker.io/library/tiphys-benchmark:1"
PODS = "/api/v1/namespaces/default/pods"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_target_options(options)
    options.add_argument("--runs", type=int, default=10)
    options.add_argument("--burst", type=int, default=20)
    options.add_argument("--image", default=IMAGE)
    options.set_defaults(real=True)
    arguments = options.parse_args()
    with open_target(arguments) as target:
        if target.name:
            load_image(target, arguments.image)
        while target.call("GET", "/api/v1/namespaces/default/serviceaccounts/default", missing_ok=True) is None:
            time.sleep(0.05)
        with Watch(target) as watch:
            print(json.dumps(measure(target, watch, arguments)))


def load_image(target: Target, image: str) -> None:
    from tiphys.runtime.imagebuild import build_busybox_image

    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "image.tar"
        build_busybox_image(archive, [image])
        command = [sys.executable, "-m", "tiphys", "image", "load", "--name", target.name, str(archive)]
        subprocess.run(command, env=target.environment, check=True, capture_output=True)


def measure(target: Target, watch: Watch, arguments: argparse.Namespace) -> dict[str, Any]:
    run_once(target, watch, ["warm-up"], arguments.image)
    single = [run_once(target, watch, [f"one-{n}"], arguments.image) for n in range(arguments.runs)]
    cpu_before_s, pids = machine_cpu_s(), arguments.burst
    many = run_once(target, watch, [f"many-{n}" for n in range(arguments.burst)], arguments.image)
    cpu_pod_s = (machine_cpu_s() - cpu_before_s) / pids
    return {
        "benchmark": "pod_start",
        "running_ms": milliseconds(run[0] for run in single),
        "deleted_ms": milliseconds(run[1] for run in single),
        "burst": arguments.burst,
        "burst_running_ms": milliseconds([many[0]]),
        "burst_deleted_ms": milliseconds([many[1]]),
        "burst_machine_cpu_s_per_pod": round(cpu_pod_s, 3),
        "exec_ms": measure_exec(target, watch, arguments),
    }


def milliseconds(seconds: Any) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def run_once(target: Target, watch: Watch, names: list[str], image: str) -> tuple[float, float]:
    """Make pods, wait until all run, delete them, wait until all are gone. Return both times in seconds."""
    begun_s = time.monotonic()
    for name in names:
        target.call("POST", PODS, pod(name, image))
    running_s = watch.wait(names, "Running") - begun_s
    begun_s = time.monotonic()
    for name in names:
        target.call("DELETE", f"{PODS}/{name}")
    return running_s, watch.wait(names, "") - begun_s


def pod(name: str, image: str) -> dict[str, Any]:
    """Return a pod whose process leaves at once on SIGTERM."""
    command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]
    container = {"name": "main", "image": image, "command": command}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def measure_exec(target: Target, watch: Watch, arguments: argparse.Namespace) -> float | None:
    """Return the median of `kubectl exec` of true in ms, None without kubectl."""
    clients = sorted((Path(__file__).parent.parent / ".cache" / "clients").glob("kubectl-1.*"))
    kubectl = str(clients[-1]) if clients else shutil.which("kubectl")
    if not kubectl:
        return None
    target.call("POST", PODS, pod("exec", arguments.image))
    watch.wait(["exec"], "Running")
    with tempfile.TemporaryDirectory() as directory:
        environment = {**target.environment, "KUBECONFIG": kubeconfig(target, directory), "HOME": directory}
        took = []
        for _ in range(arguments.runs):
            begun_s = time.monotonic()
            subprocess.run([kubectl, "exec", "exec", "--", "true"], env=environment, check=True)
            took.append(time.monotonic() - begun_s)
    target.call("DELETE", f"{PODS}/exec")
    watch.wait(["exec"], "")
    return milliseconds(took)


def machine_cpu_s() -> float:
    """Return the CPU seconds that the whole machine has used."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system = (int(words[i]) for i in (1, 2, 3))
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


class Watch:
    """Knows the phase of each pod, and when it came to it, from one watch in a thread."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._changed = threading.Condition()
        self._phases: dict[str, str] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._answer: Any = None

    def __enter__(self) -> Watch:
        version = self._target.call("GET", PODS)["metadata"]["resourceVersion"]
        url = f"{self._target.url}{PODS}?watch=true&resourceVersion={version}&timeoutSeconds=3600"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._target.token}"})
        self._answer = urllib.request.urlopen(request, context=insecure(), timeout=3600)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        pass  # the thread ends with the connection, at the latest with the process

    def _read(self) -> None:
        for line in self._answer:
            event = json.loads(line)
            name = event["object"]["metadata"].get("name", "")
            with self._changed:
                if event["type"] == "DELETED":
                    self._phases.pop(name, None)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._phases[name] = event["object"].get("status", {}).get("phase", "Pending")
                self._changed.notify_all()

    def wait(self, names: list[str], phase: str) -> float:
        """Wait until all are in that phase ("" for gone); return when, on the monotonic clock."""
        with self._changed:
            if not self._changed.wait_for(lambda: all(self._phases.get(n, "") == phase for n in names), TIMEOUT_S):
                states = {name: self._phases.get(name, "gone") for name in names}
                raise SystemExit(f"pods did not become {phase or 'gone'}: {states}")
            return time.monotonic()


if __name__ == "__main__":
    main()
