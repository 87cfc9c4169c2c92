"""Removing a cluster and every trace of it: processes, containers, mounts, namespaces, links, rules, cgroups, files.

Works on whatever is left, also after a crash or a killed guardian, because each part finds its own traces by the
cluster's name; nothing depends on a clean stop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tiphys.cluster.config import ClusterConfig, Files, NoSuchCluster, read_config
from tiphys.cluster.guardian import guardian_pid, stop_process
from tiphys.cluster.kubeconfig import remove_kubeconfig

GUARDIAN_STOP_S = 30.0


def stop_cluster(name: str) -> None:
    """Stop the processes of a cluster; containers and files stay. Idempotent."""
    run = Files.of(name).run
    pid = guardian_pid(run)
    if pid:
        stop_process(pid, timeout_s=GUARDIAN_STOP_S)
    for path in sorted(run.glob("*.pid")):
        text = path.read_text().strip() if path.exists() else ""
        # a killed guardian's children end by themselves; a pid of another program is left alone
        if text.isdigit() and _is_ours(int(text)):
            stop_process(int(text))
        path.unlink(missing_ok=True)


def remove_cluster(name: str, report: Callable[[str], None]) -> None:
    """Stop the cluster and remove all of it. Idempotent. Raises NoSuchCluster when there is nothing at all."""
    files = Files.of(name)
    try:
        config: ClusterConfig | None = read_config(name)
    except NoSuchCluster:
        config = None
        if not files.root.exists() and not files.run.exists():
            raise
    report("processes")
    stop_cluster(name)
    if config is not None and not config.simulated:
        from tiphys.cluster.node import remove_node

        report("containers and networks")
        asyncio.run(remove_node(config))
    report("files")
    remove_kubeconfig(name)
    for path in (files.run, files.root):
        shutil.rmtree(path, ignore_errors=False, onerror=_tell_busy) if path.exists() else None


def _tell_busy(function: object, path: str, info: object) -> None:
    """A file that vanished meanwhile is fine; anything else is told as it is."""
    if os.path.lexists(path):
        error = info[1] if isinstance(info, tuple) else None
        if isinstance(error, BaseException):
            raise error


def _is_ours(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().startswith("tiphys-")
    except OSError:
        return False
