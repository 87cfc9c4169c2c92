"""What the embedded runtime remembers of sandboxes and containers, and how it is read back after a crash.

Each has a directory with a record that is written last (sandbox.json, container.json); the supervisor adds
process.json when the process runs and exit.json when it ended. So the state after a crash follows from the files:
no record: half made, remove. No process.json: created, never ran. exit.json: exited. Neither: running if the
supervisor has it, otherwise lost.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tiphys.runtime.interface import Container, ContainerState, Resources, Sandbox, SandboxConfig, SandboxState
from tiphys.runtime.podnetwork import PortMapping

CODE_UNKNOWN = 137
"""What upstream tells when a container's exit was not seen."""


@dataclass(slots=True)
class SandboxEntry:
    """One sandbox. `namespaces`: OCI type -> path; `cgroup`: the pod's."""

    status: Sandbox
    config: SandboxConfig
    directory: Path
    namespaces: dict[str, str]
    cgroup: str


@dataclass(slots=True)
class ContainerEntry:
    """One container."""

    status: Container
    directory: Path
    cgroup: str
    stop_signal: int
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    starting: asyncio.Task[None] | None = None
    """The start, under way or done; None before it and after a restart of the agent."""
    cleanup: asyncio.Task[None] | None = None
    """Removes cgroup and OCI state after the exit."""

    def become_running(self, started_at_s: float, pid: int) -> None:
        """Nothing happens to one that has exited meanwhile, but that it had started."""
        if self.status.state is ContainerState.EXITED:
            self.status = replace(self.status, started_at_s=started_at_s)
        else:
            self.status = replace(self.status, state=ContainerState.RUNNING, started_at_s=started_at_s, pid=pid)

    def become_exited(self, exit_record: dict[str, Any]) -> None:
        code = int(exit_record["code"])
        reason = exit_record.get("reason") or plan_reason(code, exit_record)
        message = exit_record.get("message", "")
        if reason == "ContainerStatusUnknown":
            message = "The container could not be located when the pod was terminated"
        self.status = replace(
            self.status,
            state=ContainerState.EXITED,
            finished_at_s=float(exit_record["time"]),
            exit_code=code,
            reason=reason,
            message=message,
            pid=0,
        )
        self.exited.set()


def plan_reason(code: int, exit_record: dict[str, Any]) -> str:
    """Return the reason that a container's status tells."""
    if not exit_record.get("known", True):
        return "ContainerStatusUnknown"
    if exit_record.get("oom") and code:
        return "OOMKilled"
    return "Error" if code else "Completed"


def write_record(path: Path, record: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(record))
    temporary.rename(path)


def save_sandbox(entry: SandboxEntry) -> None:
    record = {
        "status": asdict(entry.status) | {"state": entry.status.state.value},
        "config": asdict(entry.config),
        "namespaces": entry.namespaces,
        "cgroup": entry.cgroup,
    }
    write_record(entry.directory / "sandbox.json", record)


def load_sandbox(directory: Path) -> SandboxEntry | None:
    """Return a sandbox, None when it is half made."""
    record = _read(directory / "sandbox.json")
    if record is None:
        return None
    status, config = record["status"], record["config"]
    status["state"] = SandboxState(status["state"])
    status["addresses"] = tuple(status["addresses"])
    config["port_mappings"] = tuple(PortMapping(**mapping) for mapping in config["port_mappings"])
    config["resources"] = Resources(**config["resources"])
    for name in ("dns_servers", "dns_searches", "dns_options"):
        config[name] = tuple(config[name])
    return SandboxEntry(Sandbox(**status), SandboxConfig(**config), directory, record["namespaces"], record["cgroup"])


def save_container(entry: ContainerEntry) -> None:
    record = {
        "status": asdict(entry.status) | {"state": entry.status.state.value},
        "cgroup": entry.cgroup,
        "stop_signal": entry.stop_signal,
    }
    write_record(entry.directory / "container.json", record)


def load_container(directory: Path, running: dict[str, int], now_s: float) -> ContainerEntry | None:
    """Return a container in the state that its files tell, None when it is half made or never ran."""
    record = _read(directory / "container.json")
    if record is None:
        return None
    status = record["status"]
    status["state"] = ContainerState(status["state"])
    status["groups"] = tuple(status.get("groups") or ())
    entry = ContainerEntry(Container(**status), directory, record["cgroup"], record["stop_signal"])
    exit_record = _read(directory / "exit.json")
    try:
        started_at_s = os.stat(directory / "process.json").st_mtime
    except FileNotFoundError:
        started_at_s = 0.0
    if exit_record is None and not started_at_s:
        return None
    if entry.status.id in running and exit_record is None:
        entry.become_running(started_at_s, running[entry.status.id])
    else:
        entry.become_exited(exit_record or lost_exit(now_s))
        entry.status = replace(entry.status, started_at_s=started_at_s)
    return entry


def lost_exit(now_s: float) -> dict[str, Any]:
    """Return the exit record of a container whose end nobody saw."""
    return {"code": CODE_UNKNOWN, "time": now_s, "known": False}


def read_exit(directory: Path) -> dict[str, Any] | None:
    return _read(directory / "exit.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None
