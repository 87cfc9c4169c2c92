"""A small HTTP/1.1 client on one address: pooled requests, streamed answers, upgrades.

Decides which connection a request takes and when one is thrown away. Used by client/http.py, by the API server towards
kubelets and webhooks, and by probes. Invariants: a connection carries one exchange at a time; one whose exchange did
not end cleanly (error, cancellation, unread body) is closed, never pooled. Bounds: `connections` exchanges at once
(more wait), `IDLE_LIMIT` idle connections, `BUFFER_BYTES` of a stream read ahead.

Failures: `ConnectionError` (or another OSError) when the server cannot be reached or breaks off, `TimeoutError` when it
is too slow. Statuses are returned, whatever they are.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools

from tiphys.wire.bodystream import begin_sending
from tiphys.wire.encoding import RequestHeaders, encode_request
from tiphys.wire.message import IncomingBody
from tiphys.wire.upgraded import UpgradedConnection

IDLE_LIMIT = 32
BUFFER_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
_REPEATABLE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer with its whole body. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerTooLarge(ConnectionError):
    """The body of an answer passed the limit of its request; the connection was closed."""


class ClientConnection(asyncio.BufferedProtocol):
    """One connection and its current exchange."""

    def __init__(self, read_view: memoryview) -> None:
        self._read_view = read_view
        """The pool's buffer: it is filled and emptied within one callback, so all its connections share it."""
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.closed = False
        self.raw: UpgradedConnection | None = None
        self.writing_paused = False
        self._writable: asyncio.Future[None] | None = None
        """What waits until the server takes more of a body."""
        self._parser: Any = None
        self._begin("GET", None, None)

    def send(self, method: str, data: bytes) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
        """Send a request; return the futures of the answer's head and of its end. The end never fails before the
        head does."""
        loop = asyncio.get_running_loop()
        head: asyncio.Future[None] = loop.create_future()
        end: asyncio.Future[None] = loop.create_future()
        self._begin(method, head, end)
        if self.closed or self.transport.is_closing():
            self._fail(ConnectionResetError("the server closed the connection"))
        else:
            self._parser = httptools.HttpResponseParser(self)
            self.transport.write(data)
        return head, end

    async def write(self, data: bytes) -> None:
        """Send more of a request's body; waits while the server is slow. Raises ConnectionError when it is gone."""
        if self.closed or self.transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self.transport.write(data)
        if self.writing_paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _begin(self, method: str, head: asyncio.Future[None] | None, end: asyncio.Future[None] | None) -> None:
        self._method = method
        self._head = head
        self._end = end
        self.status = 0
        self.headers: dict[str, str] = {}
        self.header_lines: list[tuple[str, str]] = []
        """The headers as they came, for those who pass them on: names may repeat."""
        self.body: list[bytes] = []
        self.keep_alive = False
        self.answered = False
        """A byte of the answer has come."""
        self.limit_bytes = 0
        """What the body of the answer may hold; 0 for no limit."""
        self._buffered = 0
        self._streaming = False
        self._reading_paused = False
        self._wake: asyncio.Future[None] | None = None

    @property
    def ended_cleanly(self) -> bool:
        end = self._end
        done = end is not None and end.done() and not end.cancelled() and end.exception() is None
        return done and not self._reading_paused

    async def read(self) -> bytes:
        """Return the next bytes of a streamed body, b"" at its end. Raises ConnectionError when it breaks off."""
        self._streaming = True
        end = cast("asyncio.Future[None]", self._end)
        while not self.body:
            if end.done():
                end.result()
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        data = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body.clear()
        self._buffered = 0
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        return data

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._read_view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw.feed(data)
            return
        if self._parser is None:
            self.transport.close()
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.raw = UpgradedConnection(self.transport, data[upgrade.args[0] :])
            if self.writing_paused:
                self.raw.pause_writing()
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the server's answer is not HTTP: {error}"))
            self.transport.abort()

    def eof_received(self) -> bool | None:
        if self.raw is not None:
            self.raw.feed_eof()
            # Half-open: the session may still write. TLS has no such thing.
            return self.transport.get_extra_info("ssl_object") is None
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.resume_writing()
        if self.raw is not None:
            self.raw.feed_eof()
        until_close = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        if self._head is not None and self._head.done() and until_close and error is None:
            self._finish()
        else:
            where = " in the middle of its answer" if self.answered else ""
            self._fail(ConnectionResetError(f"the server closed the connection{where}{f': {error}' if error else ''}"))

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.raw is not None:
            self.raw.pause_writing()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.raw is not None:
            self.raw.resume_writing()

    # The parser's calls

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
        self.header_lines.append((name.decode("latin-1"), text))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200 and self.status != 101:
            self.headers = {}
            self.header_lines = []
            return
        self.keep_alive = self._parser.should_keep_alive()
        if self._head is not None and not self._head.done():
            self._head.set_result(None)
        if self._method == "HEAD":
            self.keep_alive = False
            self._finish()

    def on_body(self, data: bytes) -> None:
        self.body.append(data)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self.limit_bytes:
            self._buffered += len(data)
            if self._buffered > self.limit_bytes:
                self._fail(AnswerTooLarge(f"the answer has more than {self.limit_bytes} bytes"))
                self.transport.abort()
        if self._streaming:
            self._buffered += len(data)
            if self._buffered > BUFFER_BYTES and not self._reading_paused:
                self._reading_paused = True
                self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status >= 200 or self.status == 101:
            self._finish()

    def _finish(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _fail(self, error: Exception) -> None:
        for future in (self._head, self._end):
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # read, so that an exchange nobody waits for any more logs nothing
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class StreamedAnswer:
    """An answer whose body comes over time, on a connection of its own. The owner closes it."""

    def __init__(self, connection: ClientConnection, release: Callable[[ClientConnection], None] | None = None) -> None:
        """`release` takes the connection when the answer is closed; without it the connection is closed."""
        self._connection = connection
        self._release = release
        self._closed = False
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self.header_lines: Sequence[tuple[str, str]] = connection.header_lines

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises ConnectionError when the server breaks off."""
        return await self._connection.read()

    async def read_all(self) -> bytes:
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection, or give it back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._release is None or self._connection.body:
            self._connection.transport.abort()
        else:
            self._release(self._connection)


class HttpPool:
    """Requests to one host and port; see the module's docstring. For one event loop."""

    def __init__(
        self,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None = None,
        *,
        server_name: str = "",
        connections: int = 64,
    ) -> None:
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._server_name = server_name or host
        self._idle: list[ClientConnection] = []
        self._streams: set[ClientConnection] = set()
        self._slots = asyncio.Semaphore(connections)
        self._host_line = f"Host: {f'[{host}]' if ':' in host else host}:{port}\r\n"
        self._closed = False
        self._read_view = memoryview(bytearray(READ_BYTES))

    async def request(
        self,
        method: str,
        target: str,
        headers: RequestHeaders | None = None,
        body: bytes | None = None,
        *,
        timeout_s: float = 30.0,
        repeatable: bool = False,
        limit_bytes: int = 0,
    ) -> WholeAnswer:
        """Send a request and return the whole answer. Cancellation closes the connection.

        `repeatable`: the request may be sent again over a new connection when a pooled one turns out to be closed; GET
        and HEAD always are. Raises AnswerTooLarge for a body of more than `limit_bytes`, when they are given.
        """
        repeatable = repeatable or method in _REPEATABLE
        data = encode_request(method, target, self._host_line, headers, body)
        async with asyncio.timeout(timeout_s), self._slots:
            while True:
                connection, reused = await self._take()
                try:
                    _, end = connection.send(method, data)
                    connection.limit_bytes = limit_bytes
                    await end
                except ConnectionError:
                    # An idle connection may have been closed while the request was on its way.
                    if reused and not connection.answered and repeatable:
                        continue
                    raise
                finally:
                    self._give_back(connection)
                return WholeAnswer(connection.status, connection.headers, b"".join(connection.body))

    async def stream(
        self, method: str, target: str, headers: RequestHeaders | None = None, *, timeout_s: float = 30.0
    ) -> StreamedAnswer:
        """Send a request without body and return its answer when the head is in (within `timeout_s`)."""
        connection = await self._open(method, target, headers, timeout_s)
        return StreamedAnswer(connection)

    async def exchange(
        self,
        method: str,
        target: str,
        headers: RequestHeaders | None = None,
        body: bytes | IncomingBody | None = None,
        *,
        timeout_s: float | None = None,
    ) -> StreamedAnswer:
        """Send a request and return its answer when the head is in; its connection goes back when it was read to the
        end and closed. For proxies: as many at once as there are, so watches do not keep others waiting.

        A request that may not be sent twice takes a new connection: an idle one may just be closed by the server. A body
        that comes as it is read is sent so; `timeout_s` counts from its end then, or from the last that was sent."""
        data = encode_request(method, target, self._host_line, headers, body)
        if body is not None and not isinstance(body, bytes):
            return await self._exchange_stream(data, method, body, timeout_s)
        async with asyncio.timeout(timeout_s):
            while True:
                connection, reused = await self._take() if method in _REPEATABLE else (await self._connect(), False)
                self._track(connection)
                try:
                    head, _ = connection.send(method, data)
                    await head
                except ConnectionError:
                    connection.transport.abort()
                    if reused and not connection.answered:
                        continue
                    raise
                except BaseException:
                    connection.transport.abort()
                    raise
                return StreamedAnswer(connection, self._give_back)

    async def _exchange_stream(
        self, data: bytes, method: str, body: IncomingBody, timeout_s: float | None
    ) -> StreamedAnswer:
        connection = await self._connect()
        self._track(connection)
        head, _ = connection.send(method, data)
        sending = begin_sending(body, connection.write)

        def release(connection: ClientConnection) -> None:
            if not sending.done():  # answered before it was all sent
                sending.cancel()
                connection.transport.abort()
            self._give_back(connection)

        try:
            await asyncio.wait((sending, head), return_when=asyncio.FIRST_COMPLETED)
            if not head.done():
                sending.result()
                async with asyncio.timeout(timeout_s):
                    await head
            head.result()
        except BaseException:
            sending.cancel()
            connection.transport.abort()
            raise
        return StreamedAnswer(connection, release)

    async def open_upgrade(
        self, method: str, target: str, headers: RequestHeaders, *, timeout_s: float = 30.0
    ) -> tuple[int, Mapping[str, str], UpgradedConnection | bytes]:
        """Ask for another protocol (`headers` hold Connection and Upgrade).

        Return status 101, its headers and the raw connection, which the caller owns; or what the server answered
        instead: status, headers, body.
        """
        connection = await self._open(method, target, headers, timeout_s)
        if connection.status == 101 and connection.raw is not None:
            return 101, connection.headers, connection.raw
        answer = StreamedAnswer(connection)
        try:
            async with asyncio.timeout(timeout_s):
                return connection.status, connection.headers, await answer.read_all()
        finally:
            answer.close()

    @property
    def busy(self) -> bool:
        """Whether a stream or a session is under way."""
        return any(not stream.closed for stream in self._streams)

    def drop_idle(self) -> None:
        """Close the connections that nothing uses."""
        for connection in self._idle:
            connection.transport.abort()
        self._idle.clear()

    async def close(self) -> None:
        """Close idle connections and streams; requests under way fail. Idempotent."""
        self._closed = True
        for connection in [*self._idle, *self._streams]:
            connection.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _open(
        self, method: str, target: str, headers: RequestHeaders | None, timeout_s: float
    ) -> ClientConnection:
        data = encode_request(method, target, self._host_line, headers, None)
        async with asyncio.timeout(timeout_s):
            connection = await self._connect()
            self._track(connection)
            try:
                head, _ = connection.send(method, data)
                await head
            except BaseException:
                connection.transport.abort()
                raise
            return connection

    def _track(self, connection: ClientConnection) -> None:
        self._streams = {stream for stream in self._streams if not stream.closed} | {connection}

    async def _take(self) -> tuple[ClientConnection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection, True
        return await self._connect(), False

    async def _connect(self) -> ClientConnection:
        if self._closed:
            raise ConnectionError(f"the client of {self.host}:{self.port} is closed")
        options: dict[str, Any] = {}
        if self._ssl_context is not None:
            options = {"ssl": self._ssl_context, "server_hostname": self._server_name}
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: ClientConnection(self._read_view), self.host, self.port, **options
            )
        _keep_alive(connection.transport)
        return connection

    def _give_back(self, connection: ClientConnection) -> None:
        self._streams.discard(connection)
        if (
            connection.ended_cleanly
            and connection.keep_alive
            and connection.raw is None
            and not connection.closed
            and not self._closed
            and len(self._idle) < IDLE_LIMIT
        ):
            self._idle.append(connection)
        else:
            connection.transport.abort()


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel notice a server that vanished, for watches where nothing may be sent for long."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 3)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
