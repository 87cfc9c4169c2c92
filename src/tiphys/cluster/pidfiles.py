"""Which processes of a cluster live: pid files that cannot lie, and how a process is ended.

A pid file holds `<pid> <start time>`: a number that another program got meanwhile is not ours. The guardian's file is
locked besides, for as long as it lives; the lock tells, not the number.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
from pathlib import Path

from tiphys.base.errors import TiphysError

log = logging.getLogger(__name__)

GUARDIAN = "guardian"
STOP_S = 8.0
"""How long a process may take to stop before it is killed."""


class AlreadyRunning(TiphysError):
    """The cluster has a living guardian."""


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" for one that is gone or dead.

    A first thread that ended is shown as a zombie while other threads still end: until the last has, sockets are open.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    threads = int(fields[17])
    return "" if fields[0] in "ZX" and threads <= 1 else fields[19]


def write_pid(run: Path, name: str, pid: int) -> None:
    """Note a child's pid."""
    (run / f"{name}.pid").write_text(_line(pid))


def read_pid(run: Path, name: str) -> int:
    """Return the pid of a living process of the cluster, 0 when there is none."""
    try:
        words = (run / f"{name}.pid").read_text().split()
    except (OSError, UnicodeDecodeError):
        return 0
    if len(words) != 2 or not words[0].isdigit():
        return 0
    return int(words[0]) if start_time(int(words[0])) == words[1] else 0


def living(run: Path) -> dict[str, int]:
    """Return name -> pid of the processes of the cluster that live, guardian first."""
    try:
        names = sorted(path.stem for path in run.glob("*.pid"))
    except OSError:
        return {}
    names.sort(key=lambda name: name != GUARDIAN)
    return {name: pid for name in names if (pid := read_pid(run, name))}


def take_lock(run: Path) -> int:
    """Become the guardian: lock its pid file and write this process's pid. Raises AlreadyRunning."""
    descriptor = os.open(run / f"{GUARDIAN}.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").split()
        os.close(descriptor)
        raise AlreadyRunning(f"the cluster is already running (pid {holder[0] if holder else '?'})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, _line(os.getpid()).encode(), 0)
    return descriptor


def guardian_pid(run: Path) -> int:
    """Return the pid of the living guardian, 0 when there is none."""
    try:
        descriptor = os.open(run / f"{GUARDIAN}.pid", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        words = os.read(descriptor, 32).decode(errors="replace").split()
        return int(words[0]) if words and words[0].isdigit() else 0
    finally:
        os.close(descriptor)


def stop_processes(run: Path, *, guardian_s: float) -> None:
    """End the guardian, which ends its children; then what a killed guardian left. Idempotent."""
    pid = guardian_pid(run)
    if pid:
        stop_process(pid, timeout_s=guardian_s)
    stop_orphans(run)


def stop_orphans(run: Path) -> None:
    """Wait for the children of a killed guardian, which were told to end when it died; kill the slow ones."""
    for name, pid in living(run).items():
        if name != GUARDIAN:
            stop_process(pid)
            (run / f"{name}.pid").unlink(missing_ok=True)


def stop_process(pid: int, *, reap: bool = False, timeout_s: float = STOP_S) -> None:
    """Ask a process to end and wait for it; kill it when it does not. Nothing happens for a pid that is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], timeout_s)[0]:
            log.warning("process %d did not stop within %.0f s and is killed", pid, timeout_s)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], timeout_s)
        if reap:
            os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it was faster
    finally:
        os.close(handle)


def _line(pid: int) -> str:
    return f"{pid} {start_time(pid)}\n"
