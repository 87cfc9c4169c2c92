"""The parent of a cluster's processes: forks them, restarts one that dies, and stops them in order.

It runs no event loop and serves nothing: it waits for signals, so it uses no CPU. What all children import is imported
before the fork, so start-up pays for it once and the pages stay shared. It holds the API server's listening sockets;
clients that connect while the API server restarts wait instead of being refused.

Invariant: a child never outlives its parent (PR_SET_PDEATHSIG), so a killed guardian leaves no process but the
supervisor of the containers, which the next start adopts.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.base.memory import limit_blocks
from tiphys.cluster.pidfiles import GUARDIAN, AlreadyRunning, stop_process, take_lock, write_pid

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Wait before a restart, by how often the child died lately."""
STEADY_S = 30.0
"""A child that lived this long starts with a clean slate."""
DIED = "died "
"""How a line of the progress pipe begins that tells of a child's death; others name a component that is ready."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of the cluster. `main` runs in the forked child and returns when it is asked to stop (SIGTERM)."""

    name: str
    main: Callable[[], None]


@dataclass(slots=True)
class _Running:
    child: Child
    pid: int = 0
    started_s: float = 0.0
    deaths: int = 0
    restart_at_s: float = 0.0


def fork_guardian(children: Sequence[Child], run: Path, logs: Path, keep: Sequence[int], progress: int) -> int:
    """Fork a guardian that is no child of this process's session, and return its pid. Raises AlreadyRunning.

    `progress` is the pipe on which the caller hears how far it is; `keep` are further file descriptors that the
    children need. No thread may run in this process.
    """
    gc.freeze()  # what is loaded now stays untouched, so its pages stay shared
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with open(reader, "rb") as pipe:
            text = pipe.read().decode()
        os.waitpid(pid, 0)
        if not text.isdigit():
            raise AlreadyRunning(text or "the cluster's parent process could not be started")
        return int(text)
    # a second fork, so that the caller is not the parent and need not reap
    status = 1
    try:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _detach(logs / "guardian.log", {writer, progress, *keep})
            status = _Guardian(children, run, logs, progress).run(writer)
        else:
            status = 0
    except Exception:  # noqa: BLE001  top of a process
        traceback.print_exc()
    finally:
        os._exit(status)


def _detach(log_file: Path, keep: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for text in os.listdir("/proc/self/fd"):
        descriptor = int(text)
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the descriptor of the listing itself
    os.chdir("/")
    os.umask(0o022)  # containers read files of pods; what is secret is made with its own mode
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)


class _Guardian:
    def __init__(self, children: Sequence[Child], run: Path, logs: Path, progress: int) -> None:
        self._running = [_Running(child) for child in children]
        self._run = run
        self._logs = logs
        self._progress = progress
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._lock = -1

    def run(self, report: int) -> int:
        """Run until SIGTERM. `report` gets this process's pid, or why it cannot run."""
        try:
            self._lock = take_lock(self._run)
        except AlreadyRunning as error:
            os.write(report, str(error).encode())
            return 1
        os.write(report, str(os.getpid()).encode())
        os.close(report)
        _name_process(self._libc, GUARDIAN)
        limit_blocks()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for running in self._running:
            self._start(running)
        while True:
            received = signal.sigtimedwait(_SIGNALS, self._wait_s())
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._stop_all()
                return 0
            self._reap()
            self._restart_due()

    def _wait_s(self) -> float:
        due = [r.restart_at_s for r in self._running if not r.pid]
        return max(0.0, min(due) - time.monotonic()) if due else 3600.0

    def _start(self, running: _Running) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            running.pid, running.started_s = pid, time.monotonic()
            write_pid(self._run, running.child.name, pid)
            return
        status = 1
        try:
            os.close(self._lock)
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(0)  # the parent died before it could be watched
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            _log_to(self._logs / f"{running.child.name}.log")
            _name_process(self._libc, running.child.name)
            gc.enable()
            running.child.main()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:  # noqa: BLE001  top of a process
            _tell(error)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for running in self._running:
                if running.pid == pid:
                    self._died(running, os.waitstatus_to_exitcode(status))

    def _died(self, running: _Running, code: int) -> None:
        now_s = time.monotonic()
        if now_s - running.started_s > STEADY_S:
            running.deaths = 0
        wait_s = BACKOFF_S[min(running.deaths, len(BACKOFF_S) - 1)]
        running.deaths += 1
        running.pid, running.restart_at_s = 0, now_s + wait_s
        log.warning(
            "%s ended with %d (see %s.log); it starts again in %.1f s",
            running.child.name,
            code,
            running.child.name,
            wait_s,
        )
        try:
            os.write(self._progress, f"{DIED}{running.child.name}\n".encode())
        except OSError:
            pass  # nobody waits any more

    def _restart_due(self) -> None:
        now_s = time.monotonic()
        for running in self._running:
            if not running.pid and running.restart_at_s <= now_s:
                self._start(running)

    def _stop_all(self) -> None:
        """Stop children in reverse order, so that the API server still takes the last words of the others."""
        for running in reversed(self._running):
            if running.pid:
                stop_process(running.pid, reap=True)
            (self._run / f"{running.child.name}.pid").unlink(missing_ok=True)
        (self._run / f"{GUARDIAN}.pid").unlink(missing_ok=True)


def _tell(error: BaseException) -> None:
    """Write why a process ends: what the project raises itself as one line, anything else with its traceback."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, TiphysError):
        log.error("%s", error)
    else:
        traceback.print_exception(error)


def _log_to(path: Path) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)


def _name_process(libc: ctypes.CDLL, name: str) -> None:
    """Make `ps` and `top` show which process this is."""
    libc.prctl(_PR_SET_NAME, f"tiphys-{name}"[:15].encode(), 0, 0, 0)


def bind(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket. The address need not exist yet (the bridge comes later). Raises OSError."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    try:
        bound.bind((address, port))
        bound.listen(1024)
    except OSError:
        bound.close()
        raise
    return bound
