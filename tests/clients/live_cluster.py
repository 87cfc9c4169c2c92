"""Live clusters, each shared by all test processes of a run and removed by the last one: simulated nodes, or real ones.

The first process that asks makes it with the `tiphys` command, as a user would, in a directory of its own; a counter
under a file lock tells who is last. Nothing of the machine's own kubeconfig or clusters is touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIMULATED = ("--simulated", "--nodes", "2")
REAL = ()
TESTBOX = "docker.io/library/testbox:1"
"""The small image of real clusters, with a page to serve."""
PAGE = "hello from a real pod\n"
UP_TIMEOUT_S = 120.0
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """Where the cluster is. `home` holds everything: its state, the kubeconfig, the clients' caches."""

    home: Path
    name: str

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def environment(self) -> dict[str, str]:
        """Return the environment of every client and of the `tiphys` command."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "TIPHYS_HOME": str(self.home / "t"),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "TZ": "UTC",
        }


@contextmanager
def shared_cluster(directory: Path, name: str, flags: tuple[str, ...]) -> Iterator[LiveCluster]:
    """Give the run's cluster of that name; `directory` is common to all processes of the run."""
    state = directory / f"live-cluster-{name}.json"
    with _locked(directory, name):
        data: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"users": 0, "home": ""}
        if not data["users"]:
            data["home"] = tempfile.mkdtemp(prefix="tiphys-clients-")
            _up(LiveCluster(Path(data["home"]), name), flags)
        data["users"] += 1
        state.write_text(json.dumps(data))
    cluster = LiveCluster(Path(data["home"]), name)
    try:
        yield cluster
    finally:
        with _locked(directory, name):
            data = json.loads(state.read_text())
            data["users"] -= 1
            state.write_text(json.dumps(data))
            if not data["users"]:
                _down(cluster)


@contextmanager
def _locked(directory: Path, name: str) -> Iterator[None]:
    with open(directory / f"live-cluster-{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_tiphys(cluster: LiveCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `tiphys` command on a cluster."""
    command = [sys.executable, "-c", "from tiphys.cli.main import main; main()", *arguments, "--name", cluster.name]
    return subprocess.run(
        command,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=UP_TIMEOUT_S,
        cwd=cluster.home,
        check=False,
    )


def _up(cluster: LiveCluster, flags: tuple[str, ...]) -> None:
    said = ""
    for _ in range(ATTEMPTS):  # another test may take the free port meanwhile
        port = _free_port()
        done = run_tiphys(cluster, "up", *flags, "--port", str(port))
        if done.returncode == 0:
            return
        said = done.stdout + done.stderr + _logs(cluster)
        run_tiphys(cluster, "down")
    shutil.rmtree(cluster.home)
    raise RuntimeError(f"tiphys up failed {ATTEMPTS} times; the last time it said:\n{said}")


def _down(cluster: LiveCluster) -> None:
    done = run_tiphys(cluster, "down")
    if done.returncode:
        raise RuntimeError(f"tiphys down failed: {done.stdout}{done.stderr}")
    shutil.rmtree(cluster.home)


def _logs(cluster: LiveCluster) -> str:
    files = sorted((cluster.home / "t" / cluster.name / "log").glob("*.log"))
    return "".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
