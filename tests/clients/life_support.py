"""A cluster of one test, driven with the `tiphys` command as a user drives it, and processes killed behind its back."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tiphys.base.errors import ApiError
from tiphys.client.http import HttpClient
from tiphys.client.interface import Resource

COMMAND_TIMEOUT_S = 120.0
WAIT_S = 60.0


class Life:
    """One cluster. Its name, directory and port are its own, so that tests run beside each other: a port that is chosen
    when another test's cluster is just dead would be missed when that starts again."""

    def __init__(self, home: Path) -> None:
        self.name = f"l{uuid.uuid4().hex[:7]}"
        self.port = 12_000 + uuid.uuid4().int % 18_000
        self.home = home / "t"
        self.kubeconfig = home / "kubeconfig"
        self.root = self.home / self.name
        self.environment = {
            **os.environ,
            "TIPHYS_HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(home),
        }

    def run(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command; output is text."""
        done = subprocess.run(
            [sys.executable, "-m", "tiphys", *words],
            env=self.environment,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            input=stdin,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def __call__(self, *words: str) -> str:
        """Run a command of this cluster that must succeed; return what it printed."""
        if words[0] == "up" and not self.root.exists():
            words = (*words, "--port", str(self.port))
        done = self.run(*words, "--name", self.name)
        assert done.returncode == 0, f"tiphys {' '.join(words)}: {done.stderr}{self.logs()}"
        return done.stdout

    def refuse(self, *words: str) -> str:
        """Run a command of this cluster that must fail with one line; return that line."""
        done = self.run(*words, "--name", self.name)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    def logs(self) -> str:
        """Return the last words of every process, for a failure."""
        files = sorted((self.root / "log").glob("*.log")) if self.root.exists() else []
        return "".join(f"\n--- {file.name}\n{file.read_text()[-2000:]}" for file in files)

    def pids(self) -> dict[str, int]:
        """Return name -> pid of what lives now."""
        status = json.loads(self.run("status", "--name", self.name, "-o", "json").stdout)
        return {process["name"]: process["pid"] for process in status["processes"]}

    def client(self) -> HttpClient:
        return HttpClient.from_kubeconfig(self.root / "admin.kubeconfig")


@contextmanager
def living() -> Iterator[Life]:
    """Give a cluster's directory, and leave nothing of it whatever the test did."""
    home = Path(tempfile.mkdtemp(prefix="tl"))
    life = Life(home)
    try:
        yield life
    finally:
        life.run("down", "--name", life.name)
        shutil.rmtree(home)


def kill(pid: int) -> None:
    """Kill -9 and wait until it is dead."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], 10)[0], f"{pid} did not die"
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


@asynccontextmanager
async def connected(life: Life) -> AsyncIterator[HttpClient]:
    client = life.client()
    try:
        yield client
    finally:
        await client.close()


async def insist(call: Callable[[], Any]) -> Any:
    """Repeat a call until the server answers: it may have been killed just now. What it answers counts."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await call()
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(0.02)


async def create(client: HttpClient, resource: Resource, obj: dict[str, Any]) -> None:
    """Create an object. That it is there already means that an earlier try was done but not answered."""

    async def once() -> None:
        try:
            await client.create(resource, "default", obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    await insist(once)


async def wait_for(
    client: HttpClient, resource: Resource, name: str, accept: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Watch an object until it is as wanted, through restarts of the server."""
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    last = msgspec.json.decode(await client.get(resource, "default", name))
                    if accept(last):
                        return last
                    version = last["metadata"]["resourceVersion"]
                    selector = f"metadata.name={name}"
                    async for event in client.watch(
                        resource, "default", resource_version=version, field_selector=selector
                    ):
                        if event.type in ("ADDED", "MODIFIED"):
                            last = msgspec.json.decode(event.object)
                            if accept(last):
                                return last
                except (ConnectionError, ApiError):
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{resource.plural}/{name} did not come to what is wanted: {last}") from None


def rolled_out(deployment: dict[str, Any]) -> bool:
    status, replicas = deployment.get("status", {}), deployment["spec"]["replicas"]
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return bool(current and counts == [replicas] * 3)


def deployment(image: str, replicas: int) -> dict[str, Any]:
    """Return a Deployment whose pods end at once when asked to."""
    command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]
    container = {"name": "main", "image": image, "command": command}
    labels = {"app": "life"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "life"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
