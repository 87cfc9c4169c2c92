"""The supervisor's event loop: clients and their requests, children and their exits, streams and what they fill.

One thread, epoll, no timers. Whatever is called here returns at once; what cannot be taken stays in a buffer whose bound
is kept by not reading (`update` is where). A little long, because all of it changes the same few tables.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from tiphys.runtime.supervisor.children import (
    decode_status,
    hold_pid_namespace,
    oom_killed,
    read_pidfd_code,
    read_start_time,
    read_zombie_code,
    spawn,
)
from tiphys.runtime.supervisor.logfile import Log
from tiphys.runtime.supervisor.processes import Connection, Consoles, Process, make_fifo, write_json
from tiphys.runtime.supervisor.protocol import (
    FRAME_LIMIT_BYTES,
    HEADER,
    JSON,
    STDERR,
    STDIN,
    STDIN_END,
    STDOUT,
)

BACKLOG_BYTES = 256 << 10
ATTACH_LIMIT_BYTES = 4 << 20
READ_BYTES = 64 << 10
DRAIN_READS = 64


class Supervisor:
    """The event loop and all its state."""

    def __init__(self, socket_path: str) -> None:
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
        self.consoles = Consoles(os.path.dirname(socket_path))
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
            if length > FRAME_LIMIT_BYTES:
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
            argv = [self.consoles.listen(process.id) if word == "{console}" else word for word in argv]
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
        self.read_from(process, os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), name)

    def read_from(self, process: Process, fd: int, name: bytes) -> None:
        process.fds[fd] = name
        self.watch(fd, select.EPOLLIN, lambda _: self.read_output(process, fd))

    def take_console(self, process: Process, *, failed: bool) -> None:
        """Read the terminal that the OCI runtime handed over, if the process has one."""
        for fd in self.consoles.take(process.id, failed=failed):
            process.stdin = fd if process.has_stdin else -1
            self.read_from(process, fd, b"stdout")

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
            code = decode_status(status)
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
