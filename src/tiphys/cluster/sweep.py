"""What a cluster left on the machine, found by its name alone, and taken away by force.

The parts of a node remove their own things in order (node.remove_node); this is for what they cannot find any more,
because their files are damaged or gone. Everything of a cluster carries its name: cgroups `tiphys-<name>`, the bridge
`ti-<name>`, tables `tiphys-<name>` and `ti-<name>-pods`, mounts and sockets below its directories.

Invariant: nothing is touched that does not carry the cluster's whole name.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys.cluster.config import Files
from tiphys.cluster.pidfiles import stop_process

CGROUP_ROOT = Path("/sys/fs/cgroup")
SHOWN = 4
"""How many names of one kind are told."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that stands. `kind`: supervisor, container process, mount, cgroup, link or table."""

    kind: str
    name: str


def summarize(traces: Sequence[Trace]) -> list[str]:
    """Return a line for each kind: what there is, by name where that is short."""
    kinds: dict[str, list[str]] = {}
    for trace in traces:
        kinds.setdefault(trace.kind, []).append(trace.name)
    lines = []
    for kind, names in kinds.items():
        shown = ", ".join(names)
        if len(names) > SHOWN:
            paths = names[0].startswith("/")
            shown = f"{len(names)}" + (f" below {os.path.commonpath(names)}" if paths else f": {names[0]}, ...")
        lines.append(f"{kind + 's' if len(names) > 1 else kind}: {shown}".replace("processs", "processes"))
    return lines


def find_traces(name: str, files: Files) -> list[Trace]:
    """Return what of the cluster stands on the machine, but for its files and the processes with pid files."""
    traces = [Trace("supervisor", str(pid)) for pid in find_supervisors(files)]
    cgroups = list(_cgroups(name))
    pids = {pid for cgroup in cgroups for pid in _pids(cgroup)}
    traces += [Trace("container process", str(pid)) for pid in sorted(pids)]
    traces += [Trace("mount", path) for path in _mounts(files)]
    traces += [Trace("cgroup", str(path)) for path in cgroups if path.name == f"tiphys-{name}"]
    links = _links(name)
    traces += [Trace("link", link) for link in links]
    traces += [Trace("table", table) for table in _tables(name)]
    return traces


def remove_traces(name: str, files: Files) -> list[str]:
    """Remove them; return what could not be removed and why. Idempotent."""
    problems: list[str] = []
    for pid in find_supervisors(files):
        stop_process(pid, timeout_s=2.0)
    handles = [handle for cgroup in _cgroups(name) for pid in _pids(cgroup) if (handle := _kill(pid)) is not None]
    for handle in handles:
        _wait_for_end(handle)
    for path in reversed(_mounts(files)):
        _run(problems, "umount", "--lazy", path)
    for cgroup in sorted(_cgroups(name), reverse=True):
        try:
            cgroup.rmdir()
        except OSError as error:
            problems.append(f"cgroup {cgroup}: {error.strerror}")
    for link in _links(name):
        _run(problems, "ip", "link", "delete", link)
    for table in _tables(name):
        _run(problems, "nft", "delete", "table", *table.split())
    return problems


def find_supervisors(files: Files) -> list[int]:
    """Return the pids of processes that hold this cluster's containers, told by the socket on their command line."""
    marks = (f"\0{files.run}/".encode(), f"\0{files.runtime}/".encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"supervisor" in command and any(mark in command for mark in marks):
                found.append(int(entry.name))
    return found


def _cgroups(name: str) -> Iterator[Path]:
    """Yield the cluster's cgroups in every hierarchy, parents first."""
    wanted = f"tiphys-{name}"
    tops = [CGROUP_ROOT, *(path for path in CGROUP_ROOT.glob("*") if path.is_dir() and not path.is_symlink())]
    for top in tops:
        if (top / wanted).is_dir():
            for directory, _, _ in os.walk(top / wanted):
                yield Path(directory)


def _pids(cgroup: Path) -> list[int]:
    try:
        return [int(line) for line in (cgroup / "cgroup.procs").read_text().split() if line != "0"]
    except OSError:
        return []


def _kill(pid: int) -> int | None:
    try:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return handle
    except ProcessLookupError:
        return None


def _wait_for_end(handle: int) -> None:
    import select

    select.select([handle], [], [], 5.0)
    os.close(handle)


def _mounts(files: Files) -> list[str]:
    """Return the mount points below the cluster's directories, in the order of mounting."""
    places = tuple(f"{path}/" for path in (files.root, files.run))
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), line.split()[4])
        if point.startswith(places):
            found.append(point)
    return found


def _links(name: str) -> list[str]:
    """Return the cluster's bridge and the links on it."""
    bridge = Path("/sys/class/net") / f"ti-{name}"
    if not bridge.exists():
        return []
    try:
        ports = sorted(os.listdir(bridge / "brif"))
    except OSError:
        ports = []
    return [*ports, bridge.name]


def _tables(name: str) -> list[str]:
    """Return `<family> <table>` of the cluster's rules."""
    try:
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, timeout=20, env=_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return []
    wanted = {f"tiphys-{name}", f"ti-{name}-pods"}
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [f"{row[1]} {row[2]}" for row in rows if len(row) == 3 and row[2] in wanted]


def _run(problems: list[str], *command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=_environment())
    except (OSError, subprocess.SubprocessError) as error:
        problems.append(f"{command[0]}: {error}")
        return
    if done.returncode:
        problems.append(f"{' '.join(command)}: {done.stderr.strip()}")


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
