"""Removing a cluster and every trace of it: processes, containers, mounts, namespaces, links, rules, cgroups, files.

Works on whatever is left, also after a crash, a killed guardian or a damaged file, because each part finds its own
traces by the cluster's name; nothing depends on a clean stop. First each part is asked to take its own things away,
then what still stands is swept off (sweep.py). A step that fails does not keep the others from being tried.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import ClusterConfig, Files, NoSuchCluster, home, lock_machine, read_config
from tiphys.cluster.kubeconfig import has_entries, remove_kubeconfig
from tiphys.cluster.pidfiles import living, stop_processes
from tiphys.cluster.sweep import find_traces, remove_traces, summarize

GUARDIAN_STOP_S = 30.0
"""More than its children get together."""
REMOVE_TIMEOUT_S = 60.0


class NotRemoved(TiphysError):
    """Something of the cluster is still there; the message names it."""


def remove_cluster(name: str, report: Callable[[str], None]) -> bool:
    """Stop the cluster and remove all of it, telling what. Idempotent: False when there was nothing.

    Raises NotRemoved when something stands after everything was tried.
    """
    lock = lock_machine()
    try:
        return _remove(name, Files.of(name), report)
    finally:
        os.close(lock)


def _remove(name: str, files: Files, report: Callable[[str], None]) -> bool:
    config = _config_of(name)
    traces = [] if config and config.simulated else find_traces(name, files)
    if not files.root.exists() and not files.run.exists() and not traces and not has_entries(name):
        return False
    problems: list[str] = []
    processes = living(files.run)
    if processes:
        report("processes: " + ", ".join(f"{process} ({pid})" for process, pid in processes.items()))
    stop_processes(files.run, guardian_s=GUARDIAN_STOP_S)
    if config is None or not config.simulated:
        for line in summarize(traces):
            report(line)
        _attempt(problems, "the node", lambda: _remove_node(config, name, bool(traces)))
        problems += remove_traces(name, files)
    _attempt(problems, "your kubeconfig", lambda: remove_kubeconfig(name))
    for path in (files.run, files.root):
        if path.exists():
            report(f"files: {path}")
            _attempt(problems, str(path), partial(shutil.rmtree, path))
    _remove_empty(files.run.parent, home())
    left = [] if config and config.simulated else summarize(find_traces(name, files))
    left += [str(path) for path in (files.root, files.run) if path.exists()]
    if left:
        reasons = "; ".join(problems) or "something holds it"
        raise NotRemoved(f"still there: {'; '.join(left)} ({reasons}). Run `tiphys down --name {name}` again, as root")
    for problem in problems:
        report(f"(not needed any more) {problem}")
    return True


def _remove_empty(*directories: Path) -> None:
    """Remove the directories of all clusters with the last cluster."""
    for directory in directories:
        try:
            directory.rmdir()
        except OSError:
            pass  # others are there


def _config_of(name: str) -> ClusterConfig | None:
    try:
        return read_config(name)
    except NoSuchCluster:
        return None


def _remove_node(config: ClusterConfig | None, name: str, traced: bool) -> None:
    """Let runtime, network and proxy take away what they made. Without cluster.json the defaults find it as well: only
    the name matters."""
    if config is None and not traced:
        return
    from tiphys.cluster.node import remove_node

    config = config or ClusterConfig(
        name=name,
        kubernetes_version=(1, 37),
        api_port=0,
        kubelet_port=0,
        node_name="node",
        node_address="127.0.0.1",
        pod_cidr="10.244.0.0/16",
        service_cidr="10.96.0.0/16",
        simulated=False,
    )
    asyncio.run(asyncio.wait_for(remove_node(config), REMOVE_TIMEOUT_S))


def _attempt(problems: list[str], what: str, step: Callable[[], object]) -> None:
    """Take a step; note its failure, because the next steps may clear it."""
    try:
        step()
    except FileNotFoundError:
        pass  # it vanished meanwhile
    except (TiphysError, OSError, ValueError, TimeoutError) as error:
        problems.append(f"{what}: {error}")
