"""`tiphys up`: start, show how far it is, say what to do next."""

from __future__ import annotations

import time

import click

from tiphys.cluster.up import CannotStart, Wishes, start_cluster, wait_until_ready


def run_up(name: str, version: str, simulated: bool, nodes: int, port: int) -> None:
    """Start the cluster and return when it is ready. Raises CannotStart."""
    begun_s = time.monotonic()
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not all(p.isdigit() for p in parts[:2]):
        raise CannotStart(f"{version!r} is not a Kubernetes version such as 1.37")
    if not simulated:
        from tiphys.runtime.detect import detect

        possible, reason = detect()
        if nodes > 1:
            simulated = True
        elif not possible:
            simulated = True
            click.echo(f"nodes are simulated: {reason}", err=True)
    wishes = Wishes(name, (int(parts[0]), int(parts[1])), simulated, nodes, port)
    started = start_cluster(wishes)
    wait_until_ready(started, {"apiserver", "controllers", "node"}, lambda line: None)
    click.echo(f"cluster {name} is ready after {time.monotonic() - begun_s:.2f} s: {started.config.server_url}")
