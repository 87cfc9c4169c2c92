"""`tiphys status`: is the cluster well, and what does it use?"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from tiphys.base.errors import ApiError
from tiphys.cli.text import format_bytes, format_table
from tiphys.cluster.config import ClusterConfig, Files, read_config
from tiphys.cluster.pidfiles import GUARDIAN, living
from tiphys.cluster.sweep import find_supervisors
from tiphys.cluster.up import COMPONENTS, describe_shortage, last_words


@dataclass(frozen=True, slots=True)
class Process:
    name: str
    pid: int
    cpu_s: float
    memory_bytes: int
    """Proportional share of what is shared (PSS)."""


@dataclass(slots=True)
class ClusterStatus:
    name: str
    url: str
    kubernetes_version: str
    simulated: bool
    processes: list[Process]
    api: str = ""
    """ok, or what is wrong."""
    nodes: int = 0
    nodes_ready: int = 0
    pods: dict[str, int] = field(default_factory=dict)
    """Phase -> count."""
    problems: list[str] = field(default_factory=list)


def show_status(name: str, output: str) -> int:
    """Print the status; return 0 when all is well, else 1."""
    status = observe_status(read_config(name))
    if output == "json":
        click.echo(json.dumps(asdict(status)))
    else:
        click.echo(_format(status))
    return 1 if status.problems else 0


def observe_status(config: ClusterConfig) -> ClusterStatus:
    """Look at processes and API server. Never raises for a cluster that is ill."""
    files = Files.of(config.name)
    pids = living(files.run)
    supervisors = [] if config.simulated else find_supervisors(files)
    named = [*pids.items(), *(("supervisor", pid) for pid in supervisors)]
    status = ClusterStatus(
        config.name,
        config.server_url,
        ".".join(map(str, config.kubernetes_version)),
        config.simulated,
        [_process(process, pid) for process, pid in named],
    )
    missing = [process for process in (GUARDIAN, *COMPONENTS) if process not in pids]
    if GUARDIAN in pids:
        status.problems += [
            f"{process} has ended and is started again: {last_words(files.logs / f'{process}.log')}"
            for process in missing
        ]
    elif missing:
        hint = "tiphys up" + ("" if config.name == "tiphys" else f" --name {config.name}")
        status.problems.append(f"not running: {', '.join(missing)}; `{hint}` starts the cluster again")
    shortage = describe_shortage(files.root)
    if shortage:
        status.problems.append(f"{shortage}; writes may fail")
    if "apiserver" in pids:
        _ask_api(config, status)
    return status


def _ask_api(config: ClusterConfig, status: ClusterStatus) -> None:
    from tiphys.cli.ask import ask
    from tiphys.cli.node import NodeView, is_ready
    from tiphys.client.http import HttpClient
    from tiphys.client.resources import NODES, PODS

    async def question(client: HttpClient) -> tuple[str, list[bytes], list[bytes]]:
        ready = await client.request("GET", "/readyz")
        nodes, pods = await client.list(NODES), await client.list(PODS)
        return ready.decode(), nodes.items, pods.items

    try:
        status.api, nodes, pods = ask(config, question)
    except (ApiError, ConnectionError, TimeoutError) as error:
        status.api = str(error) or type(error).__name__
        status.problems.append(f"the API server does not answer well: {status.api}; see {Files.of(config.name).logs}")
        return
    import msgspec

    decoded = [msgspec.json.decode(item, type=NodeView) for item in nodes]
    status.nodes, status.nodes_ready = len(decoded), sum(map(is_ready, decoded))
    phases = (msgspec.json.decode(item).get("status", {}).get("phase", "Unknown") for item in pods)
    status.pods = dict(sorted(Counter(phases).items()))
    if status.api != "ok":
        status.problems.append(f"the API server is not ready: {status.api}")
    if status.nodes_ready < max(status.nodes, config.nodes):
        status.problems.append(
            f"{max(status.nodes, config.nodes) - status.nodes_ready} nodes are not ready: kubectl describe nodes"
        )


def _format(status: ClusterStatus) -> str:
    rows = [(p.name, str(p.pid), f"{p.cpu_s:.2f} s", format_bytes(p.memory_bytes)) for p in status.processes]
    total = sum(p.memory_bytes for p in status.processes)
    rows.append(("all", "", f"{sum(p.cpu_s for p in status.processes):.2f} s", format_bytes(total)))
    pods = ", ".join(f"{count} {phase}" for phase, count in status.pods.items()) or "none"
    kind = "simulated" if status.simulated else "real containers"
    lines = [
        f"cluster {status.name}: Kubernetes {status.kubernetes_version} at {status.url}",
        f"API     {status.api or 'not running'}",
        f"nodes   {status.nodes_ready} of {status.nodes} ready ({kind})",
        f"pods    {pods}",
        "",
        format_table(("PROCESS", "PID", "CPU", "MEMORY"), rows),
        *(f"\nproblem: {problem}" for problem in status.problems),
    ]
    return "\n".join(lines)


def _process(name: str, pid: int) -> Process:
    """Return what a process has used; zeros when it ended meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return Process(name, pid, 0.0, 0)
    return Process(name, pid, cpu_s, memory_bytes(pid))


def memory_bytes(pid: int) -> int:
    """Return a process's proportional set size; its resident size where the kernel tells no other."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
