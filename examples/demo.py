"""`make demo`: a cluster, the sample application in it, and the page fetched through its Service.

Everything is made on the spot: the image comes from this machine's busybox, so no registry is needed. The cluster stays
up afterwards. Running it again is fine.

Run: python examples/demo.py [--name NAME] [--simulated]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tiphys.base.errors import ApiError, TiphysError
from tiphys.client.http import HttpClient
from tiphys.client.interface import Resource
from tiphys.client.resources import CONFIGMAPS, DEPLOYMENTS, SERVICES
from tiphys.cluster.config import ClusterConfig, Files, read_config
from tiphys.runtime.imagebuild import build_busybox_image

HERE = Path(__file__).parent
IMAGE = "docker.io/library/tiphys-demo:1"
READY_TIMEOUT_S = 90.0
FETCH_TIMEOUT_S = 10.0
KINDS: dict[str, Resource] = {r.kind: r for r in (CONFIGMAPS, DEPLOYMENTS, SERVICES)}


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--name", default="tiphys", help="the cluster (default: tiphys)")
    options.add_argument("--simulated", action="store_true", help="with simulated nodes")
    arguments = options.parse_args()
    try:
        return run_demo(arguments.name, arguments.simulated)
    except (TiphysError, OSError, TimeoutError) as error:
        print(f"demo: {error or type(error).__name__}", file=sys.stderr)
        return 1


def run_demo(name: str, simulated: bool) -> int:
    begun_s = time.monotonic()
    step("starting a cluster")
    if tiphys("up", "--name", name, *["--simulated"] * simulated):
        return 1
    config = read_config(name)
    if not config.simulated:
        step("building the sample image from this machine's busybox and loading it")
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "demo.tar"
            build_busybox_image(archive, [IMAGE])
            if tiphys("image", "load", "--name", name, str(archive)):
                return 1
    step("applying examples/web.yaml")
    kubectl = find_kubectl()
    environment = {**os.environ, "KUBECONFIG": str(Files.of(name).kubeconfig)}
    if kubectl:
        subprocess.run([kubectl, "apply", "-f", str(HERE / "web.yaml")], check=True, env=environment)
    else:
        asyncio.run(with_client(name, apply_all))
    step("waiting for the three pods")
    asyncio.run(with_client(name, wait_for_rollout))
    service = asyncio.run(with_client(name, lambda client: get(client, SERVICES, "web")))
    cluster_url = f"http://{service['spec']['clusterIP']}/"
    node_url = f"http://{config.node_address}:{service['spec']['ports'][0]['nodePort']}/"
    if config.simulated:
        step("nodes are simulated, so there is no page to fetch; everything else is as it would be")
    else:
        for what, url in (("the ClusterIP", cluster_url), ("the NodePort", node_url)):
            step(f"fetching the page through {what}: {url}")
            print("    " + fetch(url).strip().replace("\n", "\n    "))
    print(f"\nThe demo took {time.monotonic() - begun_s:.1f} s. The cluster is up; what you would do next:\n")
    print(next_steps(config, node_url))
    return 0


def next_steps(config: ClusterConfig, url: str) -> str:
    """Return commands to copy. kubectl has found the cluster by itself: `tiphys up` made it the current context."""
    option = "" if config.name == "tiphys" else f" --name {config.name}"
    command = "tiphys" if shutil.which("tiphys") else os.path.relpath(Path(sys.executable).with_name("tiphys"))
    lines = [
        "  kubectl get pods -o wide",
        "  kubectl scale deployment web --replicas=5",
        "  kubectl logs -l app=web --prefix",
        f"  {command} status{option}",
        f"  {command} down{option}        (removes every trace)",
    ]
    if not config.simulated:
        lines.insert(3, f"  curl {url}")
    if not shutil.which("kubectl"):
        lines.insert(0, "  (kubectl is not installed here: https://kubernetes.io/docs/tasks/tools)")
    return "\n".join(lines)


def step(text: str) -> None:
    print(f"==> {text}", flush=True)


def tiphys(*words: str) -> int:
    """Run the command as a user would."""
    return subprocess.run([sys.executable, "-m", "tiphys", *words]).returncode


def find_kubectl() -> str | None:
    """Return a kubectl: the user's own, or the newest that the tests fetched."""
    fetched = sorted((HERE.parent / ".cache" / "clients").glob("kubectl-1.*"))
    return shutil.which("kubectl") or (str(fetched[-1]) if fetched else None)


async def with_client(name: str, work: Callable[[HttpClient], Any]) -> Any:
    client = HttpClient.from_kubeconfig(Files.of(name).kubeconfig)
    try:
        return await work(client)
    finally:
        await client.close()


async def get(client: HttpClient, resource: Resource, name: str) -> dict[str, Any]:
    return dict(msgspec.json.decode(await client.get(resource, "default", name)))


async def apply_all(client: HttpClient) -> None:
    """Create what the file holds; patch what is there already."""
    for obj in yaml.safe_load_all((HERE / "web.yaml").read_text()):
        resource, name = KINDS[obj["kind"]], obj["metadata"]["name"]
        try:
            await client.create(resource, "default", obj)
            print(f"{obj['kind'].lower()}/{name} created")
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            await client.patch(resource, "default", name, obj)
            print(f"{obj['kind'].lower()}/{name} configured")


async def wait_for_rollout(client: HttpClient) -> None:
    """Show how many pods are ready until all are. Raises TimeoutError with what to look at."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            with Display() as display:
                deployment = await get(client, DEPLOYMENTS, "web")
                while not display.show(deployment):
                    version = deployment["metadata"]["resourceVersion"]
                    watch = client.watch(
                        DEPLOYMENTS, "default", resource_version=version, field_selector="metadata.name=web"
                    )
                    async for event in watch:
                        if event.type == "BOOKMARK":
                            continue
                        deployment = msgspec.json.decode(event.object)
                        if display.show(deployment):
                            return
                    deployment = await get(client, DEPLOYMENTS, "web")
    except TimeoutError:
        raise TimeoutError(
            f"the pods are not ready after {READY_TIMEOUT_S:.0f} s; look with: kubectl describe pods -l app=web"
        ) from None


class Display:
    """A progress bar on a terminal, a line for each change elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._last = -1

    def __enter__(self) -> Display:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

            self._bar = Progress("    pods ready", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar.start()
            self._task = self._bar.add_task("", total=3)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, deployment: dict[str, Any]) -> bool:
        """Return whether the rollout is complete."""
        status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
        ready = status.get("availableReplicas", 0)
        if self._bar is not None:
            self._bar.update(self._task, completed=ready, total=wanted)
        elif ready != self._last:
            print(f"    {ready} of {wanted} pods ready", flush=True)
        self._last = ready
        current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        return bool(current and status.get("updatedReplicas", 0) == ready == wanted == status.get("replicas"))


def fetch(url: str) -> str:
    """Return the page. A refused connection is tried again for a moment: rules follow a ready pod at once, not before."""
    deadline_s = time.monotonic() + FETCH_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{url} does not answer: {error}") from error
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
