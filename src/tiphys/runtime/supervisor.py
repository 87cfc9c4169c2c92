"""A tiny process that holds containers' streams and reaps their exits, so that they outlive the node agent.

Run as `python -I -S supervisor.py SOCKET STATE_DIR...`; imports nothing of the package, no asyncio: it stays small and
rarely changes. It is a child subreaper: an OCI runtime started with --detach leaves its container as our child.
stdout and stderr are FIFOs in the container's directory, held read-write on both sides, so that killing this process
closes nobody's pipe; a successor opens them again by name. Each exit is written to `<dir>/exit.json` before anyone is
told. A successor finds `<dir>/process.json` without `exit.json`, watches that process by pidfd, and tells code 137 with
`known: false` when the kernel cannot tell the code of a process that was not its child.

Protocol, on one Unix stream socket, both ways: frames of 1 byte type, 4 bytes length (big endian), payload.
JSON (0): requests with `op` and `n`, answers with `re`, events with `ev`. STDOUT (1), STDERR (2), STDIN (3),
STDIN_END (4): a stream connection's data. A connection that sent `exec` or `attach` is that process's stream; when it
closes, an exec's process is killed and an attached container goes on. Longer than other files because it must be one.

Bounds: a reader of an exec that is slow stops the process's output (the pipe fills); an attached reader more than
4 MiB behind is cut off; logs rotate at 10 MiB, five files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

JSON, STDOUT, STDERR, STDIN, STDIN_END = range(5)
HEADER = struct.Struct("!BI")
FRAME_LIMIT = 4 << 20
BACKLOG_BYTES = 256 << 10
ATTACH_LIMIT_BYTES = 4 << 20
LOG_LIMIT_BYTES = 10 << 20
LOG_FILES = 5
LINE_LIMIT_BYTES = 16 << 10
READ_BYTES = 64 << 10
DRAIN_READS = 64
LOCK_RETRY_S = 0.005
PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, PR_SET_NAME = 36, 1, 15
CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 1 << 18, 2
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3

OWN_FILE_LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""As we were started; containers get the same, though we raise ours."""
LIBC = ctypes.CDLL(None, use_errno=True)


class Log:
    """One container's log file in CRI format. A full disk loses lines, never the container."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.partial: dict[bytes, bytearray] = {b"stdout": bytearray(), b"stderr": bytearray()}
        self.fd = -1
        self.size = 0
        self.reopen()

    def reopen(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self.size = os.fstat(self.fd).st_size

    def write(self, stream: bytes, data: bytes, *, final: bool = False) -> None:
        buffer = self.partial[stream]
        buffer += data
        now_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // 1_000_000_000))
        prefix = b"%s.%09dZ %s " % (stamp.encode(), now_ns % 1_000_000_000, stream)
        out = []
        start = 0
        while True:
            end = buffer.find(b"\n", start)
            stop = end if end >= 0 else len(buffer)
            while stop - start > LINE_LIMIT_BYTES:
                out += [prefix, b"P ", bytes(buffer[start : start + LINE_LIMIT_BYTES]), b"\n"]
                start += LINE_LIMIT_BYTES
            if end < 0:
                if final and stop > start:
                    out += [prefix, b"P ", bytes(buffer[start:stop]), b"\n"]
                    start = stop
                break
            out += [prefix, b"F ", bytes(buffer[start:end]), b"\n"]
            start = end + 1
        del buffer[:start]
        if out:
            self._append(b"".join(out))

    def _append(self, data: bytes) -> None:
        if self.size and self.size + len(data) > LOG_LIMIT_BYTES:
            self._rotate()
        if self.fd < 0:
            self.reopen()
        view = memoryview(data)
        while view and self.fd >= 0:
            try:
                written = os.write(self.fd, view)
            except OSError:
                return
            self.size += written
            view = view[written:]

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            os.rename(self.path, f"{self.path}.{stamp}.{time.monotonic_ns():020d}")
            directory, name = os.path.split(self.path)
            old = sorted(entry for entry in os.listdir(directory) if entry.startswith(name + "."))
            for entry in old[: -(LOG_FILES - 1)]:
                os.unlink(os.path.join(directory, entry))
        self.reopen()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


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


class Supervisor:
    """The event loop and all its state."""

    def __init__(self, socket_path: str) -> None:
        self.directory = os.path.dirname(socket_path)
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.processes: dict[str, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.starting: dict[int, tuple[Process, Connection, int]] = {}
        """Pid of an OCI runtime command -> what it starts, who asked, request number."""
        self.early_exits: dict[int, int] = {}
        """Exits of children not known yet: a container may end before its OCI runtime command does."""
        self.subscribers: list[Connection] = []
        """Connections that hear of every exit."""
        self.consoles: dict[str, tuple[socket.socket, str]] = {}
        self.counter = 0
        self.listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
        old = os.umask(0o177)
        self.listener.bind(socket_path)
        os.umask(old)
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.watch(self.listener.fileno(), select.EPOLLIN, lambda _: self.accept())
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.watch(read, select.EPOLLIN, lambda _: self.reap(read))

    # The loop
    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        if fd in self.handlers:
            self.epoll.modify(fd, events)
        else:
            self.epoll.register(fd, events)
        self.handlers[fd] = handler

    def forget(self, fd: int) -> None:
        if self.handlers.pop(fd, None):
            self.epoll.unregister(fd)

    def run(self) -> None:
        while True:
            try:
                ready = self.epoll.poll()
            except InterruptedError:
                continue
            for fd, events in ready:
                handler = self.handlers.get(fd)
                if handler:
                    handler(events)

    # Connections
    def accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self.listener.accept()
            sock.setblocking(False)
            connection = Connection(sock)
            self.watch(connection.fd, select.EPOLLIN, lambda events: self.serve(connection, events))

    def serve(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self.flush(connection)
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not connection.dead:
            try:
                data = connection.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.drop(connection)
                return
            connection.incoming += data
            self.parse(connection)

    def parse(self, connection: Connection) -> None:
        buffer = connection.incoming
        while len(buffer) >= HEADER.size and not connection.dead:
            kind, length = HEADER.unpack_from(buffer)
            if length > FRAME_LIMIT:
                self.drop(connection)
                return
            if len(buffer) < HEADER.size + length:
                return
            payload = bytes(buffer[HEADER.size : HEADER.size + length])
            del buffer[: HEADER.size + length]
            if kind == JSON:
                self.request(connection, json.loads(payload))
            elif connection.process and kind == STDIN:
                self.feed(connection.process, payload)
            elif connection.process and kind == STDIN_END:
                self.end_input(connection.process, connection.owns)
        self.update(connection)

    def send(self, connection: Connection, kind: int, payload: bytes) -> None:
        if connection.dead:
            return
        connection.outgoing += HEADER.pack(kind, len(payload)) + payload
        self.flush(connection)

    def answer(self, connection: Connection, number: int, **fields: Any) -> None:
        self.send(connection, JSON, json.dumps({"re": number, **fields}).encode())

    def flush(self, connection: Connection) -> None:
        try:
            while connection.outgoing:
                sent = connection.sock.send(connection.outgoing[: 1 << 18])
                del connection.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.drop(connection)
            return
        if connection.ending and not connection.outgoing:
            self.drop(connection)
            return
        self.update(connection)

    def update(self, connection: Connection) -> None:
        """Make what we wait for match the buffers: this is where back-pressure happens."""
        if connection.dead:
            return
        process = connection.process
        events = select.EPOLLOUT if connection.outgoing else 0
        if not process or len(process.input) < BACKLOG_BYTES:
            events |= select.EPOLLIN
        self.epoll.modify(connection.fd, events)
        if process and connection.owns and process.code is None:
            behind = len(connection.outgoing) > BACKLOG_BYTES
            if behind != process.stopped_reading:
                process.stopped_reading = behind
                for fd in process.fds:
                    self.epoll.modify(fd, 0 if behind else select.EPOLLIN)
        elif len(connection.outgoing) > ATTACH_LIMIT_BYTES and not connection.owns:
            self.drop(connection)

    def drop(self, connection: Connection) -> None:
        if connection.dead:
            return
        connection.dead = True
        self.forget(connection.fd)
        connection.sock.close()
        if connection in self.subscribers:
            self.subscribers.remove(connection)
        process = connection.process
        if process:
            with contextlib.suppress(ValueError):
                process.readers.remove(connection)
            if connection.owns and process.code is None:
                self.signal(process, signal.SIGKILL)
                if process.stopped_reading:
                    process.stopped_reading = False
                    for fd in process.fds:
                        self.epoll.modify(fd, select.EPOLLIN)

    # Requests
    def request(self, connection: Connection, request: dict[str, Any]) -> None:
        operation, number = request.get("op"), request.get("n", 0)
        if operation in ("start", "exec", "hold"):
            try:
                self.start(connection, number, request)
            except OSError as error:
                self.answer(connection, number, error=str(error))
            return
        if operation == "hello":
            if connection not in self.subscribers:
                self.subscribers.append(connection)
            running = {p.id: p.pid for p in self.processes.values() if p.kind != "exec" and p.pid and p.code is None}
            self.answer(connection, number, pid=os.getpid(), running=running)
            return
        if operation == "shutdown":
            os._exit(0)
        process = self.processes.get(request.get("id", "")) or connection.process
        if process is None or process.code is not None:
            self.answer(connection, number, error="not running")
        elif operation == "attach":
            connection.process = process
            process.readers.append(connection)
            self.answer(connection, number, tty=process.tty)
        elif operation == "signal":
            self.signal(process, request["signal"])
            self.answer(connection, number)
        elif operation == "resize":
            for fd in process.fds if process.tty else ():
                with contextlib.suppress(OSError):
                    size = struct.pack("HHHH", request["height"], request["width"], 0, 0)
                    fcntl.ioctl(fd, termios.TIOCSWINSZ, size)
            self.answer(connection, number)
        elif operation == "reopen":
            if process.log:
                process.log.reopen()
            self.answer(connection, number)
        else:
            self.answer(connection, number, error=f"unknown operation {operation}")

    def start(self, connection: Connection, number: int, request: dict[str, Any]) -> None:
        process = Process(request)
        if process.kind == "holder":
            process.pid, go = hold_pid_namespace()
            self.become_running(process)
            os.write(go, b"1")
            os.close(go)
            self.answer(connection, number, pid=process.pid)
            return
        if process.kind == "exec":
            connection.process, connection.owns = process, True
            process.readers.append(connection)
        argv: list[str] = request["argv"]
        if process.tty:
            argv = [self.listen_console(process) if word == "{console}" else word for word in argv]
            child_fds = None
        else:
            child_fds = self.open_fifos(process)
        if process.log_path:
            process.log = Log(process.log_path)
        try:
            pid = spawn(argv, child_fds, request.get("hide", ""))
        finally:
            for fd in child_fds or ():
                os.close(fd)
        self.processes[process.id] = process
        self.starting[pid] = (process, connection, number)

    def open_fifos(self, process: Process) -> list[int]:
        """Return the container's ends of stdin, stdout and stderr; ours go into the process."""
        ends = []
        if process.has_stdin:
            path = make_fifo(process.dir, "stdin")
            process.stdin = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            ends.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.close(process.stdin)
            process.stdin = writer
        else:
            ends.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            path = make_fifo(process.dir, name)
            self.open_output(process, path, name.encode())
            ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return ends

    def open_output(self, process: Process, path: str, name: bytes) -> None:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        process.fds[fd] = name
        self.watch(fd, select.EPOLLIN, lambda _: self.read_output(process, fd))

    def listen_console(self, process: Process) -> str:
        """Return the path of a socket on which the OCI runtime hands us the terminal."""
        self.counter += 1
        path = os.path.join(self.directory, f"tty{os.getpid()}-{self.counter}")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(1)
        self.consoles[process.id] = (sock, path)
        return path

    def take_console(self, process: Process, *, failed: bool) -> None:
        sock, path = self.consoles.pop(process.id, (None, ""))
        if sock is None:
            return
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            if not failed:
                peer, _ = sock.accept()
                peer.settimeout(0.5)
                _, fds, _, _ = socket.recv_fds(peer, 4096, 1)
                peer.close()
                for fd in fds:
                    os.set_blocking(fd, False)
                    process.fds[fd] = b"stdout"
                    process.stdin = fd if process.has_stdin else -1
                    self.watch(fd, select.EPOLLIN, lambda _, fd=fd: self.read_output(process, fd))  # type: ignore[misc]
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(path)

    # Children
    def reap(self, wakeup: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(wakeup, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
            if pid in self.starting:
                self.started(*self.starting.pop(pid), code)
                if not self.starting:
                    self.early_exits.clear()
            elif pid in self.by_pid:
                self.become_exited(self.by_pid[pid], code)
            elif self.starting:
                self.early_exits[pid] = code

    def started(self, process: Process, connection: Connection, number: int, code: int) -> None:
        """The OCI runtime's command ended: the container runs, or there is an error to tell."""
        self.take_console(process, failed=code != 0)
        if code == 0:
            with contextlib.suppress(OSError, ValueError), open(os.path.join(process.dir, "pid")) as file:
                process.pid = int(file.read())
        if not process.pid:
            said = b"".join(self.read_all(fd) for fd in process.fds)[:2000].decode(errors="replace")
            self.processes.pop(process.id, None)
            self.close(process)
            connection.process, connection.owns = None, False
            self.answer(connection, number, error=f"exit code {code}", output=said)
            return
        self.become_running(process)
        self.answer(connection, number, pid=process.pid)
        early = self.early_exits.pop(process.pid, None)
        if early is not None:
            self.become_exited(process, early)
        elif connection.dead and process.kind == "exec":
            self.signal(process, signal.SIGKILL)

    def become_running(self, process: Process) -> None:
        process.start_time = read_start_time(process.pid)
        self.processes[process.id] = process
        self.by_pid[process.pid] = process
        names = ("id", "dir", "kind", "tty", "stdin_once", "oom", "pid", "start_time")
        record = {name: getattr(process, name) for name in names}
        record |= {"log": process.log_path, "stdin": process.has_stdin}
        with contextlib.suppress(OSError):
            write_json(os.path.join(process.dir, "process.json"), record)

    def become_exited(self, process: Process, code: int, *, known: bool = True) -> None:
        """Write the exit, then tell everybody."""
        for fd, stream in list(process.fds.items()):
            for _ in range(DRAIN_READS):  # bounded: what the process left behind may write for ever
                data = self.read_all(fd)
                if not data:
                    break
                self.put(process, stream, data)
        if process.log:
            process.log.write(b"stdout", b"", final=True)
            process.log.write(b"stderr", b"", final=True)
        process.code = code
        self.by_pid.pop(process.pid, None)
        event = {"id": process.id, "code": code, "time": time.time(), "oom": oom_killed(process.oom), "known": known}
        if process.kind != "exec":
            with contextlib.suppress(OSError):
                write_json(os.path.join(process.dir, "exit.json"), event)
        for connection in list(process.readers):
            self.send(connection, JSON, json.dumps({"exit": code}).encode())
            connection.ending = True
            self.flush(connection)
        if process.kind != "exec":
            for listener in list(self.subscribers):
                self.send(listener, JSON, json.dumps({"ev": "exit", **event}).encode())
        self.close(process)
        self.processes.pop(process.id, None)

    def signal(self, process: Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if process.pidfd >= 0:
                signal.pidfd_send_signal(process.pidfd, number)
            elif process.pid:
                os.kill(process.pid, number)

    # Streams
    def read_all(self, fd: int) -> bytes:
        try:
            return os.read(fd, READ_BYTES)
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose last holder is gone
                self.forget(fd)
            return b""

    def read_output(self, process: Process, fd: int) -> None:
        data = self.read_all(fd)
        if data:
            self.put(process, process.fds[fd], data)

    def put(self, process: Process, stream: bytes, data: bytes) -> None:
        if process.log:
            process.log.write(stream, data)
        for connection in list(process.readers):
            self.send(connection, STDOUT if stream == b"stdout" else STDERR, data)

    def feed(self, process: Process, data: bytes) -> None:
        if process.stdin >= 0:
            process.input += data
            self.write_input(process)

    def write_input(self, process: Process) -> None:
        if process.stdin < 0:
            return
        try:
            while process.input:
                written = os.write(process.stdin, process.input[:4096])
                del process.input[:written]
        except BlockingIOError:
            events = select.EPOLLOUT | (select.EPOLLIN if process.tty else 0)
            self.watch(process.stdin, events, lambda events: self.input_ready(process, events))
            return
        except OSError:
            process.input.clear()
            process.input_ended = True
        if process.tty:
            self.watch(process.stdin, select.EPOLLIN, lambda _: self.read_output(process, process.stdin))
        else:
            self.forget(process.stdin)
        if process.input_ended and not process.tty:
            os.close(process.stdin)
            process.stdin = -1
        for connection in process.readers:
            self.update(connection)

    def input_ready(self, process: Process, events: int) -> None:
        if process.tty and events & select.EPOLLIN:
            self.read_output(process, process.stdin)
        self.write_input(process)

    def end_input(self, process: Process, owner: bool) -> None:
        if owner or process.stdin_once:
            process.input_ended = True
            if process.tty and owner:
                self.feed(process, b"\x04")
            else:
                self.write_input(process)

    def close(self, process: Process) -> None:
        for fd in {*process.fds, process.stdin, process.pidfd}:
            if fd >= 0:
                self.forget(fd)
                os.close(fd)
        process.fds, process.stdin, process.pidfd = {}, -1, -1
        if process.log:
            process.log.close()

    # After a crash
    def adopt(self, directory: str) -> None:
        """Take over what a killed supervisor left running in one container's directory."""
        try:
            with open(os.path.join(directory, "process.json")) as file:
                record = json.load(file)
        except (OSError, ValueError):
            return
        if os.path.exists(os.path.join(directory, "exit.json")):
            return
        process = Process(record)
        process.pid, process.start_time = record["pid"], record["start_time"]
        try:
            process.pidfd = os.pidfd_open(process.pid)
            if read_start_time(process.pid) != process.start_time:
                raise ProcessLookupError
        except OSError:
            self.close(process)
            if process.kind != "exec":
                self.become_exited(process, 137, known=False)
            return
        if process.kind == "exec":  # whoever asked for it has lost its streams
            self.signal(process, signal.SIGKILL)
            self.close(process)
            return
        if process.log_path:
            process.log = Log(process.log_path)
        if process.kind == "container" and not process.tty:
            for name in ("stdout", "stderr"):
                with contextlib.suppress(OSError):
                    self.open_output(process, os.path.join(directory, name), name.encode())
        self.processes[process.id] = process
        self.watch(process.pidfd, select.EPOLLIN, lambda events: self.adopted_exit(process, events))

    def adopted_exit(self, process: Process, events: int) -> None:
        """A process that is not our child ended. Its parent may not have reaped it yet: then look at the zombie."""
        code = read_zombie_code(process.pid, process.start_time)
        if code is None:
            code = read_pidfd_code(process.pidfd)
        self.become_exited(process, 137 if code is None else code, known=code is not None)


def make_fifo(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
        os.chmod(path, 0o666)  # the directory is closed; the container's user opens it through /proc/self/fd
    return path


def spawn(argv: list[str], fds: list[int] | None, hide: str) -> int:
    """Start a command with `fds` as its first three. `hide` is a mount that it must not see (a cgroup v2 mount beside
    v1 ones, which crun refuses): then it gets a mount namespace of its own, everything else still shared."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for caught in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_NOFILE, OWN_FILE_LIMITS)
        os.setsid()
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a half-made start ends with us; a running one does not
        if fds is None:
            null = os.open("/dev/null", os.O_RDWR)
            fds = [null, null, null]
        for number, fd in enumerate(fds):
            os.dup2(fd, number, inheritable=True)
        if hide:
            parent = os.path.dirname(hide).encode()
            if (
                LIBC.unshare(CLONE_NEWNS)
                or LIBC.mount(None, parent, None, MS_REC | MS_PRIVATE, None)
                or LIBC.umount2(hide.encode(), MNT_DETACH)
            ):
                os.write(2, f"cannot hide {hide}: {os.strerror(ctypes.get_errno())}\n".encode())
                os._exit(126)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def hold_pid_namespace() -> tuple[int, int]:
    """Start the first process of a new PID namespace, which reaps and otherwise sleeps. Return its pid and a pipe: it
    ends unless something is written there, so that a crash before it is recorded leaves no process behind."""
    wait, go = os.pipe2(os.O_CLOEXEC)
    read, write = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            if LIBC.unshare(CLONE_NEWPID):
                os._exit(1)
            holder = os.fork()
            if holder:
                os.write(write, str(holder).encode())
                os._exit(0)
            os.setsid()
            os.close(go)
            if not os.read(wait, 1):
                os._exit(1)
            LIBC.prctl(PR_SET_NAME, b"pod-init", 0, 0, 0)
            os.closerange(0, 4096)
            os.chdir("/")
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            while True:
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                signal.sigwait({signal.SIGCHLD})
        finally:
            os._exit(1)
    os.close(write)
    os.close(wait)
    said = os.read(read, 32)
    os.close(read)
    if not said:
        os.close(go)
        raise OSError(errno.EPERM, "cannot make a PID namespace")
    return int(said), go


def read_stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def read_start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone. With the pid it names a process."""
    try:
        return int(read_stat(pid)[19])
    except (OSError, IndexError):
        return 0


def decode_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def read_zombie_code(pid: int, start_time: int) -> int | None:
    try:
        fields = read_stat(pid)
        if fields[0] == "Z" and int(fields[19]) == start_time:
            return decode_status(int(fields[49]))
    except (OSError, IndexError, ValueError):
        pass
    return None


def read_pidfd_code(pidfd: int) -> int | None:
    """Return the exit code of a process that somebody else reaped; kernels before 6.15 cannot tell."""
    info = bytearray(64)
    struct.pack_into("=Q", info, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = struct.unpack_from("=Q", info, 0)[0], struct.unpack_from("=i", info, 60)[0]
    return decode_status(status) if mask & PIDFD_INFO_EXIT else None


def oom_killed(path: str) -> bool:
    """Say whether the kernel killed something in the cgroup whose oom file (v1 or v2) this is."""
    try:
        with open(path) as file:
            return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in file)
    except OSError:
        return False


def write_json(path: str, value: dict[str, Any]) -> None:
    temporary = path + ".new"
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.rename(temporary, path)


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


def main(socket_path: str, state_directories: list[str]) -> None:
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


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
