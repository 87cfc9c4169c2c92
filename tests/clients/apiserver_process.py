"""A real API server process for tests: its own directory, real TLS, and nothing else of a cluster.

The parent binds the socket and keeps it over restarts, so that the address stays and no port is guessed. `kill` is
kill -9; what was acknowledged before must be there after `start`. Run as a program, this file is the child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

NAME = "t"
ANSWER_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Reply:
    """One answer, with its body whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def is_status(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json") and self.json["kind"] == "Status"


class Wire:
    """One TLS connection, for well-formed requests and for any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that closed meanwhile is no failure."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def request(
        self, method: str, path: str, body: bytes | Any = b"", type_: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        lines = {"Host": "localhost", "Content-Length": str(len(data)), "Content-Type": type_ or "application/json"}
        lines |= headers or {}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v) + "\r\n"
        await self.send(head.encode("latin-1") + data)
        reply = await self.reply(head_only=method == "HEAD")
        assert reply is not None, f"{method} {path[:100]}: the connection was closed without an answer"
        return reply

    async def head(self) -> tuple[int, dict[str, str]] | None:
        """Return status and headers of the next answer, None at the end of the connection."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        return int(text[0].split()[1]), {k.lower(): v for k, _, v in (t.partition(": ") for t in text[1:] if t)}

    async def reply(self, *, head_only: bool = False) -> Reply | None:
        """Return the next answer, None at the end of the connection."""
        head = await self.head()
        if head is None:
            return None
        status, headers = head
        body = b""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            if head_only or status in (204, 304, 101, 100):
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while piece := await self.chunk():
                    body += piece
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(status, headers, body)

    async def chunk(self) -> bytes:
        """Return the next chunk, b"" for the last one. Raises IncompleteReadError when the connection broke."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:size]

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a watch whose head was read, until it ends."""
        rest = b""
        while piece := await self.chunk():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield orjson.loads(line)

    async def end(self) -> bytes:
        """Return all that comes until the server closes."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self.reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class ApiServerProcess:
    """The process and where to reach it."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    socket: socket.socket = field(default_factory=socket.socket)
    log_path: Path | None = None
    """Where the log is if not in the home directory."""

    def __post_init__(self) -> None:
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(1024)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def root(self) -> Path:
        return self.home / NAME

    @property
    def store(self) -> Path:
        return self.root / "store.db"

    @property
    def log(self) -> Path:
        return self.log_path or self.home / "apiserver.log"

    def start(self, *, expect_ready: bool = True) -> None:
        """Start the process and wait until it says that it is ready (or ends)."""
        reader, writer = os.pipe()
        environment = {**os.environ, "TIPHYS_HOME": str(self.home)}
        arguments = [sys.executable, __file__, str(self.socket.fileno()), str(writer)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                arguments, env=environment, pass_fds=(self.socket.fileno(), writer), stdout=log, stderr=log
            )
        os.close(writer)
        with open(reader, "rb") as pipe:
            line = pipe.readline()
        if expect_ready:
            assert line == b"ready\n", f"the API server did not start:\n{self.log.read_text()[-4000:]}"
        else:
            assert not line, "the API server started"

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.socket.close()

    def rss_bytes(self) -> int:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has no VmRSS")

    def descriptors(self) -> int:
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def complaints(self, start: int = 0) -> str:
        """Return what the log says of defects since an offset: tracebacks and lines of level ERROR."""
        text = self.log.read_bytes()[start:].decode(errors="replace")
        bad = ("Traceback (most recent call last)", " ERROR ", " CRITICAL ", "never awaited", "never retrieved")
        return text if any(word in text for word in bad) else ""

    def context(self, *, anonymous: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.root / "pki" / "ca.crt"))
        if not anonymous:
            context.load_cert_chain(self.root / "pki" / "admin.crt", self.root / "pki" / "admin.key")
        return context

    @asynccontextmanager
    async def wire(self, context: ssl.SSLContext | None = None, *, limit: int = 2**26) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or self.context(), limit=limit
        )
        wire = Wire(reader, writer)
        try:
            yield wire
        finally:
            wire.close()

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Wire]:
        """A TCP connection without TLS."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        wire = Wire(reader, writer)
        try:
            yield wire
        finally:
            wire.close()


def _child(descriptor: int, ready: int) -> None:
    from tiphys.base.errors import TiphysError
    from tiphys.cluster import processes
    from tiphys.cluster.config import ClusterConfig, Files
    from tiphys.cluster.pki import ensure_pki

    bound = socket.socket(fileno=descriptor)
    config = ClusterConfig(
        name=NAME,
        kubernetes_version=(1, 37),
        api_port=bound.getsockname()[1],
        kubelet_port=1,
        node_name="node",
        node_address="127.0.0.1",
        pod_cidr="10.244.0.0/16",
        service_cidr="10.96.0.0/16",
        simulated=True,
    )
    Files.of(NAME).make()
    pki = ensure_pki(config)

    def notify(_: str) -> None:
        os.write(ready, b"ready\n")
        os.close(ready)

    try:
        processes.run_until_stopped(lambda: processes.run_apiserver(config, pki, [bound], notify))
    except TiphysError as error:  # as the guardian tells it
        sys.exit(str(error))


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]))
