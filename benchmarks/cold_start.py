"""Time from an empty directory to a cluster that can be used: to /readyz, and to the `default` service account.

Starts and removes a cluster N times, each with the command that a user types, and asks over TLS from outside. Prints a
JSON line: medians, and all runs. With --url and --token it only waits for another API server that was just started.

Run: python benchmarks/cold_start.py [--runs 5] [--real] [--name bench]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT_S = 60.0
PAUSE_S = 0.005
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--real", action="store_true", help="with real containers (needs root)")
    options.add_argument("--name", default="bench")
    options.add_argument("--url", help="wait for this API server instead")
    options.add_argument("--token", default="", help="its bearer token")
    arguments = options.parse_args()
    if arguments.url:
        begun_s = time.monotonic()
        context = ssl._create_unverified_context()
        print(json.dumps(measure(arguments.url, context, arguments.token, begun_s)))
        return
    runs = [run(arguments.name, arguments.real) for _ in range(arguments.runs)]
    medians = {key: round(statistics.median(r[key] for r in runs), 3) for key in runs[0]}
    print(
        json.dumps(
            {"benchmark": "cold_start", "nodes": "real" if arguments.real else "simulated", **medians, "runs": runs}
        )
    )


def run(name: str, real: bool) -> dict[str, float]:
    """Start a cluster in an empty directory, measure, remove it."""
    with tempfile.TemporaryDirectory(prefix="tb") as directory:
        environment = {**os.environ, "TIPHYS_HOME": f"{directory}/home", "KUBECONFIG": f"{directory}/kubeconfig"}
        tiphys = [sys.executable, "-m", "tiphys"]
        kind = [] if real else ["--simulated"]
        begun_s = time.monotonic()
        up = subprocess.Popen([*tiphys, "up", "--name", name, *kind], env=environment, stdout=subprocess.DEVNULL)
        try:
            root = Path(directory) / "home" / name
            needed = (root / "cluster.json", root / "pki" / "admin.crt", root / "pki" / "admin.key")
            wait_for(lambda: up.poll() is not None or all(path.exists() for path in needed))
            if up.poll():
                raise SystemExit("tiphys up failed")
            config = json.loads((root / "cluster.json").read_text())
            context = ssl._create_unverified_context()
            context.load_cert_chain(root / "pki" / "admin.crt", root / "pki" / "admin.key")
            measured = measure(f"https://127.0.0.1:{config['api_port']}", context, "", begun_s)
            if up.wait():
                raise SystemExit("tiphys up failed")
            return {**measured, "up_s": round(time.monotonic() - begun_s, 3)}
        finally:
            up.wait()
            subprocess.run([*tiphys, "down", "--name", name], env=environment, check=True, capture_output=True)


def measure(url: str, context: ssl.SSLContext, token: str, begun_s: float) -> dict[str, float]:
    """Return seconds from `begun_s` until /readyz says ok and until the service account is there."""
    asker = Asker(url, context, token)
    wait_for(lambda: asker.status("/readyz") == 200)
    ready_s = time.monotonic() - begun_s
    wait_for(lambda: asker.status(ACCOUNT) == 200)
    return {"readyz_s": round(ready_s, 3), "service_account_s": round(time.monotonic() - begun_s, 3)}


class Asker:
    """One kept connection, opened again when it breaks."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str) -> None:
        self._address = url.removeprefix("https://").rstrip("/")
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPSConnection | None = None

    def status(self, path: str) -> int:
        """Return the status of a GET, 0 when there is no answer."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=TIMEOUT_S)
            self._connection.request("GET", path, headers=self._headers)
            answer = self._connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self._connection = None
            return 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not ready after {TIMEOUT_S:.0f} s")
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
