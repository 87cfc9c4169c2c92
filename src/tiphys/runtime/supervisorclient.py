"""The node agent's side of the supervisor: starts it, talks to it, starts it again when it was killed.

One control connection carries requests, answers and exits; each exec and attach has a connection of its own, so a slow
reader holds up nobody else. Protocol: supervisor/protocol.py. Invariant: every request ends with an answer or with
SupervisorLost; after a loss `on_restart` is told what the new supervisor found running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiphys.base.errors import TiphysError
from tiphys.runtime.supervisor import protocol
from tiphys.runtime.supervisor.main import command

Json = dict[str, Any]
ANSWER_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 10.0
STREAM_LIMIT_BYTES = 1 << 20
CONNECT_ATTEMPTS = 5
REAP_ATTEMPTS = 500
REPEATABLE = frozenset({"hello", "signal", "reopen", "resize"})
RETRY_S = 0.1
RETRY_LIMIT_S = 5.0
log = logging.getLogger(__name__)


class SupervisorLost(TiphysError):
    """The supervisor went away while a request was under way."""


class Connection:
    """One framed connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: Path) -> Connection:
        return cls(*await asyncio.open_unix_connection(str(path), limit=STREAM_LIMIT_BYTES))

    async def send(self, kind: int, payload: bytes) -> None:
        self._writer.write(protocol.HEADER.pack(kind, len(payload)) + payload)
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Return the next frame. Raises SupervisorLost at the end."""
        try:
            kind, length = protocol.HEADER.unpack(await self._reader.readexactly(protocol.HEADER.size))
            return kind, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise SupervisorLost("the container supervisor closed the connection; it is started again") from error

    def close(self) -> None:
        self._writer.close()


class SupervisorClient:
    """See the module's docstring. `on_exit` gets each exit record; `on_restart` the ids that run after a loss."""

    def __init__(
        self,
        run_dir: Path,
        state_directories: Sequence[Path],
        on_exit: Callable[[Json], None],
        on_restart: Callable[[Mapping[str, int]], Awaitable[None]],
    ) -> None:
        self._run_dir = run_dir
        self._socket = run_dir / "supervisor.sock"
        self._state_directories = state_directories
        self._on_exit = on_exit
        self._on_restart = on_restart
        self._control: Connection | None = None
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._number = 0
        self._listener: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        """Set while there is a control connection; requests wait for it."""
        self._restart: asyncio.Task[None] | None = None
        self._child = 0
        """Pid of the supervisor while it is our child, to be reaped when it ends."""
        self.pid = 0

    async def start(self) -> Mapping[str, int]:
        """Connect, starting a supervisor if none answers; return what runs (id -> pid)."""
        for _ in range(CONNECT_ATTEMPTS - 1):
            with contextlib.suppress(SupervisorLost):  # one that was killed accepts for a moment longer
                return await self._connect()
        return await self._connect()

    async def _connect(self) -> Mapping[str, int]:
        try:
            control = await Connection.open(self._socket)
        except OSError:
            await self._spawn()
            control = await Connection.open(self._socket)
        try:
            await control.send(protocol.JSON, b'{"op":"hello","n":0}')
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                _, payload = await control.receive()
        except (OSError, SupervisorLost) as error:
            control.close()
            raise SupervisorLost(f"the container supervisor went away while it was greeted: {error}") from error
        hello = json.loads(payload)
        self.pid = hello["pid"]
        self._control = control
        self._listener = asyncio.create_task(self._listen(control), name="supervisor answers")
        self._up.set()
        return dict(hello["running"])

    async def stop(self) -> None:
        """Close the connection; the supervisor goes on."""
        await self._stop_tasks()
        if self._control:
            self._control.close()
            self._control = None

    async def shutdown(self) -> None:
        """End the supervisor too. Only when nothing runs any more."""
        await self._stop_tasks()
        if self._control:
            with contextlib.suppress(OSError, SupervisorLost):
                await self._control.send(protocol.JSON, b'{"op":"shutdown"}')
                while True:
                    await self._control.receive()
            self._control.close()
            self._control = None
        await self._reap()
        for name in ("supervisor.sock", "supervisor.lock", "supervisor.log"):
            (self._run_dir / name).unlink(missing_ok=True)

    async def _stop_tasks(self) -> None:
        tasks = [task for task in (self._listener, self._restart) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connected(self) -> bool:
        return self._control is not None

    async def request(self, operation: str, **fields: Any) -> Json:
        """Send a request on the control connection; return the answer, which may hold `error`. What may be said twice
        is said again when the supervisor was killed meanwhile; for the rest SupervisorLost is raised."""
        if operation in REPEATABLE:
            with contextlib.suppress(SupervisorLost):
                return await self._request_once(operation, **fields)
        return await self._request_once(operation, **fields)

    async def _request_once(self, operation: str, **fields: Any) -> Json:
        control = await self._wait_until_up()
        self._number += 1
        number = self._number
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            await control.send(protocol.JSON, json.dumps({"op": operation, "n": number, **fields}).encode())
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await future
        except (TimeoutError, OSError) as error:
            if not isinstance(error, TimeoutError):
                self._give_up(control)
            raise SupervisorLost(f"the container supervisor did not answer to {operation}: {error}") from error
        finally:
            self._answers.pop(number, None)
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen: sending may have failed first

    def _give_up(self, control: Connection) -> None:
        """Let nobody else use a connection that takes nothing more. Its listener, which may hear of it later, connects
        anew; the next request waits for that."""
        if self._control is control:
            self._control = None
            self._up.clear()
            control.close()

    async def _wait_until_up(self) -> Connection:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._up.wait()
        except TimeoutError:
            pass
        if self._control is None:
            raise SupervisorLost(f"the container supervisor does not start: see {self._run_dir}/supervisor.log")
        return self._control

    async def signal(self, process_id: str, number: int) -> bool:
        """Send a signal; say whether the process was there."""
        return "error" not in await self.request("signal", id=process_id, signal=int(number))

    async def open_stream(self, operation: str, **fields: Any) -> SupervisedStream:
        """Start an exec or attach on a connection of its own. Raises ProcessRefused when it cannot start."""
        await self._wait_until_up()
        connection = await Connection.open(self._socket)
        try:
            await connection.send(protocol.JSON, json.dumps({"op": operation, "n": 1, **fields}).encode())
            stream = SupervisedStream(connection, fields["id"])
            answer = await stream.receive_answer()
        except BaseException:
            connection.close()
            raise
        if "error" in answer:
            connection.close()
            raise ProcessRefused(answer["error"], answer.get("output", ""))
        stream.pid = answer.get("pid", 0)
        stream.request = self.request
        return stream

    async def _listen(self, control: Connection) -> None:
        try:
            while True:
                _, payload = await control.receive()
                message = json.loads(payload)
                if message.get("ev") == "exit":
                    self._on_exit(message)
                elif (future := self._answers.get(message.get("re", 0))) and not future.done():
                    future.set_result(message)
        except SupervisorLost as lost:
            self._control = None
            self._up.clear()
            control.close()
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(lost)
        await self._reap()
        self._restart = asyncio.create_task(self._recover(), name="supervisor restart")

    async def _recover(self) -> None:
        delay_s = RETRY_S
        while True:
            try:
                running = await self.start()
                break
            except (OSError, TiphysError) as error:
                log.error("the container supervisor cannot be started again, next try in %.1f s: %s", delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
        await self._on_restart(running)

    async def _spawn(self) -> None:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await asyncio.to_thread(self._spawn_and_wait)

    def _spawn_and_wait(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        log = str(self._run_dir / "supervisor.log")
        try:
            self._child = os.posix_spawn(
                sys.executable,
                command(str(self._socket), *map(str, self._state_directories)),
                {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "TZ": "UTC"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write, 1),
                    (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                ],
                setsid=True,
            )
            os.close(write)
            write = -1
            said = os.read(read, 16)
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)
        if said != b"ready\n":
            raise TiphysError(f"the container supervisor did not start: see {log}")

    async def _reap(self) -> None:
        """Collect the supervisor's exit: its socket closes a moment before it can be waited for."""
        for _ in range(REAP_ATTEMPTS):
            if not self._child or _has_ended(self._child):
                break
            await asyncio.sleep(0.002)
        self._child = 0

    def kill(self) -> None:
        """kill -9 the supervisor (crash tests)."""
        os.kill(self.pid, signal.SIGKILL)


def _has_ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


class ProcessRefused(TiphysError):
    """The OCI runtime could not start a process; `output` is what it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class SupervisedStream:
    """ProcessStream over a supervisor connection."""

    def __init__(self, connection: Connection, process_id: str) -> None:
        self._connection = connection
        self._id = process_id
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.Lock()
        self._unread: list[tuple[int, bytes]] = []
        self.pid = 0
        self.request: Callable[..., Awaitable[Json]] | None = None
        self.on_close: Callable[[], None] = lambda: None

    async def receive_answer(self) -> Json:
        """Return the answer to the request that opened the stream; output may come before it."""
        while True:
            kind, payload = await self._connection.receive()
            if kind != protocol.JSON:
                self._unread.append((kind, payload))
                continue
            message: Json = json.loads(payload)
            if "re" in message:
                return message

    async def write_stdin(self, data: bytes) -> None:
        if self._exit.done():
            raise BrokenPipeError("the process has exited")
        try:
            for start in range(0, len(data), 1 << 20):
                await self._connection.send(protocol.STDIN, data[start : start + (1 << 20)])
        except OSError as error:
            raise BrokenPipeError("the process has exited") from error

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            await self._connection.send(protocol.STDIN_END, b"")

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            async with self._reading:
                item = self._unread.pop(0) if self._unread else await self._next()
            if item is None:
                return
            yield item

    async def _next(self) -> tuple[int, bytes] | None:
        while not self._exit.done():
            try:
                kind, payload = await self._connection.receive()
            except SupervisorLost:
                self._exit.set_result(137)
                return None
            if kind != protocol.JSON:
                return kind, payload
            message = json.loads(payload)
            if "exit" in message:
                self._exit.set_result(message["exit"])
        return None

    async def resize(self, width: int, height: int) -> None:
        if self.request and not self._exit.done():
            await self.request("resize", id=self._id, width=width, height=height)

    async def wait(self) -> int:
        """Return the exit code. Output that nobody reads meanwhile is kept for `output`."""
        while not self._exit.done():
            async with self._reading:
                if not self._exit.done() and (item := await self._next()) is not None:
                    self._unread.append(item)
        return self._exit.result()

    async def close(self) -> None:
        self._connection.close()
        if not self._exit.done():
            self._exit.set_result(137)
        self.on_close()
