"""The supervisor's start: `command` returns what to run, `main` is what then runs, with SOCKET STATE_DIR... as arguments.

It is started with an interpreter of its own, in isolated mode and without site packages: nothing in the environment or
the working directory changes what it imports, and its memory is that of the standard library's parts that it uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
LOCK_RETRY_S = 0.005
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
_START = f"import sys; sys.path.append({_ROOT!r}); from tiphys.runtime.supervisor.main import main; main(*sys.argv[1:])"


def command(socket_path: str, *state_directories: str) -> list[str]:
    """Return the command that runs a supervisor."""
    return [sys.executable, "-I", "-S", "-c", _START, socket_path, *state_directories]


def take_lock(lock: int, socket_path: str) -> bool:
    """Wait for a predecessor to be gone; return False when another supervisor serves."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.connect(socket_path)
                return False
        time.sleep(LOCK_RETRY_S)


def main(socket_path: str, *state_directories: str) -> None:
    """Serve until killed; write `ready` to standard output when this process, or another one, does."""
    from tiphys.runtime.supervisor.children import LIBC, OWN_FILE_LIMITS
    from tiphys.runtime.supervisor.loop import Supervisor

    lock = os.open(os.path.join(os.path.dirname(socket_path), "supervisor.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    if not take_lock(lock, socket_path):
        os.write(1, b"ready\n")
        return
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("cannot become a child subreaper")
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):  # three descriptors a container
        resource.setrlimit(resource.RLIMIT_NOFILE, (OWN_FILE_LIMITS[1], OWN_FILE_LIMITS[1]))
    supervisor = Supervisor(socket_path)
    for directory in state_directories:
        for name in os.listdir(directory):
            supervisor.adopt(os.path.join(directory, name))
    os.write(1, b"ready\n")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    supervisor.run()
