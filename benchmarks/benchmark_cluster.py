"""The cluster that a benchmark puts its load on: one of its own, or any API server by address and token.

Shared by the benchmarks; prints nothing when run.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0


@dataclass
class Target:
    """An API server under load."""

    url: str
    token: str
    pids: dict[str, int]
    """Name -> pid of the processes whose CPU and memory count."""
    environment: dict[str, str]
    """For running `tiphys` and kubectl against it."""
    name: str = ""
    """The cluster's name when it is ours."""

    def call(self, method: str, path: str, body: Any = None, *, missing_ok: bool = False) -> Any:
        """Return the decoded answer; None for 409, and for 404 where that is fine."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=insecure(), timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 409 or (error.code == 404 and missing_ok):
                return None
            raise SystemExit(f"{method} {path}: {error.code} {error.read()[:300]!r}") from error


def insecure() -> ssl.SSLContext:
    """Return a context that takes any certificate: whose server it is does not matter to a load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def add_target_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--url", help="an API server to use instead of a cluster of its own")
    options.add_argument("--token", default="", help="its bearer token")
    options.add_argument("--pids", default="", help="its processes, name=pid,...")
    options.add_argument("--real", action="store_true", help="own cluster with real containers (needs root)")
    options.add_argument("--nodes", type=int, default=1, help="nodes of its own cluster")
    options.add_argument("--name", default="bench", help="name of its own cluster")


@contextmanager
def open_target(arguments: argparse.Namespace) -> Iterator[Target]:
    """Yield the server that the options name; a cluster of its own is removed afterwards."""
    pids = {name: int(pid) for name, _, pid in (word.partition("=") for word in arguments.pids.split(",") if word)}
    if arguments.url or pids:
        yield Target(arguments.url or "", arguments.token, pids, dict(os.environ))
        return
    with tempfile.TemporaryDirectory(prefix="tb") as directory:
        environment = {**os.environ, "TIPHYS_HOME": f"{directory}/home", "KUBECONFIG": f"{directory}/kubeconfig"}
        tiphys = [sys.executable, "-m", "tiphys"]
        kind = [] if arguments.real else ["--simulated", "--nodes", str(arguments.nodes)]
        up = [*tiphys, "up", "--name", arguments.name, *kind]
        try:
            subprocess.run(up, env=environment, check=True, stdout=subprocess.DEVNULL)
            status = [*tiphys, "status", "--name", arguments.name, "-o", "json"]
            said = json.loads(subprocess.run(status, env=environment, capture_output=True, check=True).stdout)
            found = {process["name"]: process["pid"] for process in said["processes"]}
            token = make_token(Path(directory) / "home" / arguments.name, said["url"])
            yield Target(said["url"], token, found, environment, arguments.name)
        finally:
            down = [*tiphys, "down", "--name", arguments.name]
            subprocess.run(down, env=environment, check=True, capture_output=True)


def make_token(root: Path, url: str) -> str:
    """Return a token of an account that may do everything, made with the administrator's certificate."""
    context = insecure()
    context.load_cert_chain(root / "pki" / "admin.crt", root / "pki" / "admin.key")

    def post(path: str, body: Any) -> Any:
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=context, timeout=TIMEOUT_S) as answer:
            return json.load(answer)

    post("/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": "benchmark"}})
    post(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "benchmark"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "benchmark", "namespace": "kube-system"}],
        },
    )
    answer = post(
        "/api/v1/namespaces/kube-system/serviceaccounts/benchmark/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}},
    )
    return str(answer["status"]["token"])


def kubeconfig(target: Target, directory: str) -> str:
    """Write a kubeconfig for the target, for kubectl; return its path."""
    path = Path(directory) / "target.kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "b",
                "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
                "clusters": [{"name": "b", "cluster": {"server": target.url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "b", "user": {"token": target.token}}],
            }
        )
    )
    path.chmod(0o600)
    return str(path)
