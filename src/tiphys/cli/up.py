"""`tiphys up`: start, show how far it is, say what to do next.

Nothing may start a thread before the processes are forked; the display comes afterwards, and only when the start takes
long enough to be noticed.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import click

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import ClusterConfig, Files, home
from tiphys.cluster.up import Wishes, existing_config, start_cluster, wait_until_ready

DISPLAY_AFTER_S = 1.0
LABELS = {"apiserver": "API server", "node": "node", "controllers": "controllers"}


def run_up(wishes: Wishes) -> None:
    """Start the cluster and return when it is ready. Raises CannotStart."""
    begun_s = time.monotonic()
    wishes = _decide_simulated(wishes)
    started = start_cluster(wishes)
    kubeconfig = _write_kubeconfig(started.config)
    if started.progress < 0:
        click.echo(f"cluster {started.config.name} is running already: {started.config.server_url}")
        _say_next(started.config, kubeconfig)
        return
    try:
        with _Display(begun_s) as display:
            wait_until_ready(
                started, lambda name: display.ready(LABELS[name], _detail(name, started.config)), display.wait
            )
    except KeyboardInterrupt:
        name = started.config.name
        click.echo(
            f"\ncluster {name} goes on starting; see `tiphys status --name {name}`, or remove it: "
            f"tiphys down --name {name}",
            err=True,
        )
        raise SystemExit(130) from None
    click.echo(f"cluster {started.config.name} is ready after {time.monotonic() - begun_s:.2f} s")
    _say_next(started.config, kubeconfig)


def _decide_simulated(wishes: Wishes) -> Wishes:
    """Choose simulated nodes for a new cluster where real ones cannot be, and say why in one line."""
    if wishes.simulated or existing_config(wishes):
        return wishes
    if wishes.nodes > 1:
        click.echo("nodes are simulated: a machine has one real node", err=True)
        return dataclasses.replace(wishes, simulated=True)
    from tiphys.runtime.detect import detect

    possible, reason = detect(home())
    if not possible:
        click.echo(f"nodes are simulated: {reason}", err=True)
    return dataclasses.replace(wishes, simulated=not possible)


def _write_kubeconfig(config: ClusterConfig) -> str:
    """Write the kubeconfig while the processes start. A user's own file that cannot be changed is told, not fatal."""
    from tiphys.cluster.kubeconfig import merge_kubeconfig, write_kubeconfig
    from tiphys.cluster.pki import Pki

    pki = Pki(Files.of(config.name).pki)
    path = write_kubeconfig(config, pki)
    try:
        merge_kubeconfig(config, pki)
    except (OSError, TiphysError) as error:
        click.echo(f"your kubeconfig was left as it is: {error}. Use: export KUBECONFIG={path}", err=True)
    return str(path)


def _detail(component: str, config: ClusterConfig) -> str:
    version = ".".join(map(str, config.kubernetes_version))
    if component == "apiserver":
        return f"Kubernetes {version} at {config.server_url}"
    if component == "node":
        kind = "simulated" if config.simulated else "real containers"
        return f"{config.nodes} nodes, {kind}" if config.nodes > 1 else f"{config.node_name}, {kind}"
    return "and scheduler"


def _say_next(config: ClusterConfig, kubeconfig: str) -> None:
    option = "" if config.name == "tiphys" else f" --name {config.name}"
    click.echo(
        f"kubeconfig: {kubeconfig} (kubectl uses it already)\n"
        f"next: kubectl get nodes\n"
        f"      kubectl create deployment web --image=nginx --replicas=3\n"
        f"      tiphys status{option}    what runs\n"
        f"      tiphys down{option}      remove it all"
    )


class _Display:
    """One line for each component; on a terminal a moving line says what a slow start waits for."""

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s
        self._moving: Any = None

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        self._rest()

    def ready(self, label: str, detail: str) -> None:
        self._rest()
        click.echo(f"{label:<12} {time.monotonic() - self._begun_s:6.2f} s  {detail}")

    def wait(self, missing: set[str]) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self._begun_s < DISPLAY_AFTER_S:
            return
        text = "waiting for " + ", ".join(sorted(LABELS[name] for name in missing))
        if self._moving is None:
            from rich.console import Console

            self._moving = Console(stderr=True).status(text)
            self._moving.start()
        self._moving.update(text)

    def _rest(self) -> None:
        if self._moving is not None:
            self._moving.stop()
            self._moving = None
