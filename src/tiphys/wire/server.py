"""The HTTP/1.1 server: listens, watches deadlines, stops in order. One connection is connection.py's business.

Decides when a connection has been quiet for too long and what happens to it at a stop. Works with `handler` alone (see
message.py); TLS comes from the context that it is given. Bounds are in `Limits`.

Spec: RFC 9110 and 9112; limits and timeouts are those of Kubernetes API servers where it states any.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiphys.base.clock import Clock, SystemClock
from tiphys.wire.connection import HttpConnection
from tiphys.wire.encoding import Target, decode_target, encode_chunk
from tiphys.wire.message import Handler, QuickHandler, Streams
from tiphys.wire.sink import StreamSink
from tiphys.wire.step import Stepper

if TYPE_CHECKING:
    from tiphys.wire.broadcast import Broadcast

log = logging.getLogger(__name__)

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SIMPLE_GET = re.compile(rb"GET (/[!-~]*) HTTP/1\.1")
REMEMBERED_LINES = 4096
REMEMBERED_LINE_BYTES = 512
READ_BYTES = 64 * 1024
FLUSHED_A_TURN = 256
"""Streams that are encrypted and written in one turn of the loop, fewer if they are sent much: about 5 ms."""
TICK_S = 1.0
"""How often deadlines are looked at; they are that exact."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the server, and for how long it may take its time."""

    body_bytes: int = 3 * 1024 * 1024
    header_bytes: int = 128 * 1024
    """Request line and headers together."""
    pipelined_requests: int = 16
    """Requests read ahead of the one being answered; then the socket is not read any more."""
    handshake_timeout_s: float = 10.0
    header_timeout_s: float = 32.0
    """From the first byte of a request (or from the handshake) to the end of its headers: as upstream's."""
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    """Between an answer and the next request."""
    linger_s: float = 2.0
    """How long a refused request's rest is read and dropped, so that the client sees the answer."""
    send_timeout_s: float = 120.0
    """How long a client may take nothing of a whole answer."""


class HttpServer:
    """Serves one handler on any number of sockets. Not restartable."""

    def __init__(
        self,
        handler: Handler,
        *,
        quick: QuickHandler | None = None,
        streams: Streams | None = None,
        ssl_context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self.handler = handler
        self.quick = quick
        self.streams = streams
        self.limits = limits if limits is not None else Limits()
        self.read_view = memoryview(bytearray(READ_BYTES))
        self._ssl_context = ssl_context
        self._servers: list[asyncio.Server] = []
        self.connections: dict[HttpConnection, None] = {}
        """All open connections, oldest first."""
        self.tick = 0
        """Seconds since the start, for deadlines: cheaper than asking the clock at each request."""
        self.date = b""
        """The Date header's line as of the last tick."""
        self._ticker: asyncio.TimerHandle | None = None
        self._targets: dict[bytes, Target] = {}
        """Targets by request line, of those seen lately."""
        self._chunked = (b"", b"")
        """The buffer that was sent last in this turn, and its chunk."""
        self._dirty: deque[StreamSink | Broadcast] = deque()
        """What has something to send, flushed together once per turn of the loop."""
        self._flushing = False
        """A flush is due, or runs."""
        self.stopping = False
        self._empty: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen on an address and return the port (that the machine chose when `port` is 0).

        Raises OSError when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._begin(loop)
        server = await loop.create_server(self._connection, host, port, **self._options())
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on sockets that were bound before, e.g. by a parent process."""
        loop = asyncio.get_running_loop()
        self._begin(loop)
        for bound in sockets:
            bound.setblocking(False)
            self._servers.append(await loop.create_server(self._connection, sock=bound, **self._options()))

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, end streams, let running requests finish for `grace_s`, then cut what is left. Idempotent."""
        self.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.shut()
        if self.connections and grace_s > 0:
            await self._until_empty(grace_s)
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._until_empty(1.0)
        self._servers.clear()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    async def _until_empty(self, timeout_s: float) -> None:
        self._empty = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._empty], timeout=timeout_s)
        self._empty = None

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"backlog": 1024}
        if self._ssl_context is not None:
            options["ssl"] = self._ssl_context
            options["ssl_handshake_timeout"] = self.limits.handshake_timeout_s
            options["ssl_shutdown_timeout"] = self.limits.linger_s
        return options

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ticker is not None:
            return
        self.loop = loop
        self.stepper = Stepper(loop)
        self._set_date()
        self._ticker = loop.call_later(TICK_S, self._on_tick)

    def _connection(self) -> HttpConnection:
        return HttpConnection(self)

    def _on_tick(self) -> None:
        self.tick += 1
        self._set_date()
        for connection in list(self.connections):
            connection.check_deadline(self.tick)
        self._ticker = self.loop.call_later(TICK_S, self._on_tick)

    def _set_date(self) -> None:
        # Names are written out: strftime's follow the locale.
        now = time.gmtime(self._clock.now_s())
        text = (
            f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {time.strftime('%Y %H:%M:%S', now)} GMT"
        )
        self.date = f"Date: {text}\r\n".encode()

    # For connections

    def add(self, connection: HttpConnection) -> None:
        self.connections[connection] = None

    def remove(self, connection: HttpConnection) -> None:
        self.connections.pop(connection, None)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    def decode_get(self, line: bytes) -> Target | None:
        """Return the target of a request line if it is that of a well-formed GET; clients repeat theirs."""
        target = self._targets.get(line)
        if target is None:
            match = _SIMPLE_GET.fullmatch(line)
            if match is None:
                return None
            try:
                target = decode_target(match[1])
            except ValueError:
                return None
            if len(line) <= REMEMBERED_LINE_BYTES:
                if len(self._targets) >= REMEMBERED_LINES:
                    self._targets.clear()
                self._targets[line] = target
        return target

    def flush_soon(self, sink: StreamSink | Broadcast) -> None:
        """Flush a stream, or many, at the end of this turn of the loop, or of one of the next when there are many."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)
        self._dirty.append(sink)

    def chunk_of(self, data: bytes) -> bytes:
        """Return data as a chunk; a thousand streams that send the same buffer in one turn share it."""
        if data is not self._chunked[0]:
            self._chunked = (data, encode_chunk(data))
        return self._chunked[1]

    def _flush(self) -> None:
        dirty, room = self._dirty, FLUSHED_A_TURN
        while dirty and room > 0:
            sink = dirty.popleft()
            try:
                room -= sink.flush(room)
            except RuntimeError as error:  # its socket was closed in this very turn; the connection is told next
                log.debug("a stream ends while it is written: %s", error)
            if not sink.done:
                dirty.append(sink)
        self._flushing = bool(dirty)
        if dirty:
            self.loop.call_soon(self._flush)
        else:
            self._chunked = (b"", b"")
