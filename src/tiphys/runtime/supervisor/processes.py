"""What the supervisor knows of a process that it holds and of a client, and how their descriptors are made."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from tiphys.runtime.supervisor.logfile import Log


class Process:
    """A container's first process, an exec, or the holder of a pod's PID namespace."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id: str = request["id"]
        self.dir: str = request["dir"]
        self.kind: str = request.get("kind", "container")
        self.tty: bool = request.get("tty", False)
        self.has_stdin: bool = request.get("stdin", False)
        self.stdin_once: bool = request.get("stdin_once", False)
        self.oom: str = request.get("oom", "")
        self.log_path: str = request.get("log", "")
        self.log: Log | None = None
        self.pid = 0
        self.start_time = 0
        self.pidfd = -1
        self.fds: dict[int, bytes] = {}
        """Descriptor read from -> stdout or stderr."""
        self.stdin = -1
        self.input = bytearray()
        self.input_ended = False
        self.readers: list[Connection] = []
        """Connections that get the output."""
        self.code: int | None = None
        self.stopped_reading = False


class Connection:
    """One client. `process` is set on a stream connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.process: Process | None = None
        self.owns = False
        """The process is an exec that dies with this connection."""
        self.ending = False
        """Close once everything is sent."""
        self.dead = False


class Consoles:
    """The sockets on which the OCI runtime hands over the terminals of what it starts."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._waiting: dict[str, tuple[socket.socket, str]] = {}
        self._counter = 0

    def listen(self, process_id: str) -> str:
        """Return the path of the socket for one process."""
        self._counter += 1
        path = os.path.join(self._directory, f"tty{os.getpid()}-{self._counter}")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(1)
        self._waiting[process_id] = (sock, path)
        return path

    def take(self, process_id: str, *, failed: bool) -> list[int]:
        """Return the terminal of a process that was started, none for one that has none or was not started."""
        sock, path = self._waiting.pop(process_id, (None, ""))
        if sock is None:
            return []
        sock.settimeout(0.5)
        terminals: list[int] = []
        with contextlib.suppress(OSError):
            if not failed:
                peer, _ = sock.accept()
                peer.settimeout(0.5)
                _, terminals, _, _ = socket.recv_fds(peer, 4096, 1)
                peer.close()
                for terminal in terminals:
                    os.set_blocking(terminal, False)
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(path)
        return terminals


def make_fifo(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
        os.chmod(path, 0o666)  # the directory is closed; the container's user opens it through /proc/self/fd
    return path


def write_json(path: str, value: dict[str, Any]) -> None:
    temporary = path + ".new"
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.rename(temporary, path)
