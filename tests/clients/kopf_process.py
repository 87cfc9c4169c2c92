"""A kopf operator in a process of its own: test support of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kubectl_cli import Kubectl

STOP_S = 15


@contextmanager
def running_kopf(kubectl: Kubectl, program: Path, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run an operator in the namespace of `kubectl`; the end of its log is printed for a test that fails."""
    command = [sys.executable, "-m", "kopf", "run", "-n", kubectl.namespace, "--standalone", str(program)]
    with open(log, "w") as output:
        operator = subprocess.Popen(
            command, env={**kubectl.environment, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        operator.terminate()
        try:
            operator.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            operator.kill()
            operator.wait()
        print(log.read_text()[-4000:])
