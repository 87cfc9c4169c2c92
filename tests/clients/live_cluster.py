"""One live cluster with simulated nodes, shared by all test processes of a run and removed by the last one.

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

NAME = "clients"
NODES = 2
UP_TIMEOUT_S = 120.0
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """Where the cluster is. `home` holds everything: its state, the kubeconfig, the clients' caches."""

    home: Path

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
def shared_cluster(directory: Path) -> Iterator[LiveCluster]:
    """Give the run's cluster; `directory` is common to all processes of the run."""
    state = directory / "live-cluster.json"
    with _locked(directory):
        data: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"users": 0, "home": ""}
        if not data["users"]:
            data["home"] = tempfile.mkdtemp(prefix="tiphys-clients-")
            _up(LiveCluster(Path(data["home"])))
        data["users"] += 1
        state.write_text(json.dumps(data))
    cluster = LiveCluster(Path(data["home"]))
    try:
        yield cluster
    finally:
        with _locked(directory):
            data = json.loads(state.read_text())
            data["users"] -= 1
            state.write_text(json.dumps(data))
            if not data["users"]:
                _down(cluster)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with open(directory / "live-cluster.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tiphys(cluster: LiveCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tiphys.cli.main import main; main()", *arguments]
    return subprocess.run(
        command,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=UP_TIMEOUT_S,
        cwd=cluster.home,
        check=False,
    )


def _up(cluster: LiveCluster) -> None:
    said = ""
    for _ in range(ATTEMPTS):  # another test may take the free port meanwhile
        port = _free_port()
        done = _tiphys(cluster, "up", "--name", NAME, "--simulated", "--nodes", str(NODES), "--port", str(port))
        if done.returncode == 0:
            return
        said = done.stdout + done.stderr + _logs(cluster)
        _tiphys(cluster, "down", "--name", NAME)
    raise RuntimeError(f"tiphys up failed {ATTEMPTS} times; the last time it said:\n{said}")


def _down(cluster: LiveCluster) -> None:
    done = _tiphys(cluster, "down", "--name", NAME)
    if done.returncode:
        raise RuntimeError(f"tiphys down failed: {done.stdout}{done.stderr}")
    shutil.rmtree(cluster.home)


def _logs(cluster: LiveCluster) -> str:
    files = sorted((cluster.home / "t" / NAME / "log").glob("*.log"))
    return "".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
