"""One connection of the HTTP/1.1 server: bytes to requests, answers to bytes.

Decides the order of answers (that of the requests), what malformed bytes get, and when reading stops. `HttpServer`
makes one for each socket; the handler is called from here and never sees it. Invariants: one request is answered at a
time, at most `Limits.pipelined_requests` wait besides what one read of the socket held; a handler's failure becomes an
answer, never a traceback at the client; a stream's stop function is called exactly once.

This is the request boundary: `except Exception` stands here, and in streams.py for what goes on after an upgrade.
The file is long because parsing, the order of answers and deadlines are one state machine.

Spec: RFC 9112; RFC 9110 section 10.1.1 (Expect), 7.8 (Upgrade).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import httptools

from tiphys.base.errors import ApiError, internal, too_large
from tiphys.wire.bodystream import BodyStream
from tiphys.wire.encoding import (
    CONTINUE,
    GZIP_FROM_BYTES,
    Target,
    decode_target,
    encode_head,
    encode_whole,
    error_response,
    gzip_body,
    text_response,
)
from tiphys.wire.lost import LOST
from tiphys.wire.message import Answer, Headers, Peer, Request, Response, Stream, Upgrade
from tiphys.wire.sink import StreamSink
from tiphys.wire.upgraded import UpgradedConnection

if TYPE_CHECKING:
    from tiphys.wire.server import HttpServer

log = logging.getLogger(__name__)

_REPEATABLE_BYTES = 8 * 1024
_ONCE = frozenset(("host", "content-length", "transfer-encoding"))
"""Headers that two servers on the way may read differently when they are there twice: such requests are refused."""
_WITH_BODY = frozenset((200, 201))
"""Most answers: they have a body, and nothing about them is special."""
_PIECE_BYTES = 192 * 1024
"""Parts of a body are joined up to this size: fewer TLS records, no second copy of a huge list."""
_PIECES_A_TURN = 8
"""Pieces of a large body that are encrypted in one turn of the loop: about 4 ms."""


# What the connection is doing, which says the deadline that counts. Plain numbers: an enum's members cost a look-up each.
_IDLE = 0
"""Between requests."""
_HEAD = 1
"""A request line or headers are incomplete."""
_BODY = 2
"""A request's body is incomplete."""
_BUSY = 3
"""A handler works, or its answer is being taken by the client."""
_LINGER = 4
"""The last answer is out; what still comes is dropped."""
_RAW = 5
"""Upgraded: the bytes belong to a session."""


class HttpConnection(asyncio.BufferedProtocol):
    """See the module's docstring."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._peer = Peer()
        self._phase = _HEAD
        self._since = server.tick
        """Tick of the last change of phase."""
        self._waiting: deque[tuple[Request | Response, bool]] = deque()
        """Requests, or answers to what was no request, with "keep the connection alive after it"."""
        self._busy = False
        """An answer is being made or sent."""
        self._keep_alive = True
        """Of the request being answered."""
        self._method = ""
        self._accepts_gzip = False
        self._http_1_0 = False
        self._task: asyncio.Task[Answer] | None = None
        self._stream: StreamSink | None = None
        self._rest: Iterator[bytes] | None = None
        """What is still to be sent of a large answer."""
        self._raw: UpgradedConnection | None = None
        self._raw_task: asyncio.Task[None] | None = None
        self._reading_paused = False
        self.writing_paused = False
        self._broken = False
        """The bytes that follow are not parsed any more."""
        self._continue_owed = False
        self._upgrade_rest = b""
        # The request being parsed
        self._url = b""
        self._headers = Headers()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0
        """Of the names and values parsed so far."""
        self._head_bytes_read = 0
        """Read from the socket while the head was incomplete."""
        self._body_stream: BodyStream | None = None
        """Where the body goes that comes now, when its request does not wait for all of it."""
        self._answered_stream: BodyStream | None = None
        """That of the request being answered."""
        self._in_message = False
        self._in_head = False
        self._completed = 0
        """Requests completed by the current read of the socket."""
        # The headers of the last GET as bytes and parsed: clients repeat them word for word
        self._repeat_block: bytes | None = None
        self._repeat_headers = Headers()
        self._repeat_accepts_gzip = False

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _peer_of(self._transport)
        self._server.add(self)
        self._since = self._server.tick
        if self._server.stopping:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.remove(self)
        self._broken = True
        self._parser = None
        self._rest = None
        self._waiting.clear()
        if self._body_stream is not None:
            self._body_stream.lose()
        if self._task is not None:
            self._task.cancel()
        # The transport leads back here, past what it forgets: what it holds would wait for the garbage collector.
        self._transport = LOST
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.lost()
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.feed_eof()

    def eof_received(self) -> bool | None:
        if self._raw is not None:
            self._raw.feed_eof()
            # Half-open: the session may still write. TLS has no such thing.
            return self._transport.get_extra_info("ssl_object") is None
        return None

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._since = self._server.tick
        if self._raw is not None:
            self._raw.pause_writing()
        elif self._stream is not None:
            self._stream.paused()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._since = self._server.tick
        if self._raw is not None:
            self._raw.resume_writing()
        elif self._stream is not None:
            self._stream.flush()
        elif self._rest is not None:
            self._go_on_sending()
        elif not self._busy:
            self._next()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the server's buffer: it is filled and emptied within one callback, so all connections share it.

        The plain protocol would have the TLS layer allocate 256 KiB for each read, which costs more than a request.
        """
        return self._server.read_view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._server.read_view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        block = self._repeat_block
        if block is not None and self._phase is _IDLE and data.endswith(block) and not self._waiting:
            target = self._server.decode_get(data[: -len(block)])
            if target is not None:
                self._simple_get(target)
                return
        if self._raw is not None:
            self._raw.feed(data)
        elif not self._broken:
            self._parse(data)

    # Parsing

    def _parse(self, data: bytes) -> None:
        was_idle = self._phase is _IDLE or self._phase is _HEAD
        fresh = was_idle and not self._in_message
        if self._phase is _IDLE:
            self._become(_HEAD)
        self._completed = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_rest = data[upgrade.args[0] :]
            self._broken = True
        except httptools.HttpParserError:
            self._refuse(text_response(400, "400 Bad Request"))
        else:
            if self._in_head:
                self._head_bytes_read += len(data)
                self._check_header_size()
            elif fresh and self._completed == 1:
                self._remember_block(data)
        if not self._busy:
            self._next()
        if len(self._waiting) >= self._limits.pipelined_requests:
            self._pause_reading()

    def _remember_block(self, data: bytes) -> None:
        """Keep the header bytes of a lone GET: a request with the same ones need not be parsed again."""
        self._repeat_block = None
        if (
            len(data) <= _REPEATABLE_BYTES
            and data.startswith(b"GET ")
            and data.endswith(b"\r\n\r\n")
            and not self._broken
            and not self._in_message
            and self._headers.keys().isdisjoint(("content-length", "transfer-encoding", "expect", "upgrade"))
            and self._headers.get("connection", "keep-alive").lower() == "keep-alive"
        ):
            self._repeat_block = data[data.index(b"\r\n") :]
            self._repeat_headers = self._headers
            self._repeat_accepts_gzip = _accepts_gzip(self._headers)

    def _simple_get(self, target: Target) -> None:
        """Answer a GET with the same headers as the one before: at once if its handler can, else as any other."""
        path, query, raw_path = target
        server = self._server
        self._http_1_0 = False
        self._busy = True
        request = Request("GET", path, query, self._repeat_headers, b"", self._peer, raw_path)
        try:
            response = server.quick(request) if server.quick is not None else None
        except Exception as error:  # noqa: BLE001 - `_failure` logs it
            response = _failure(error, request)
        if response is None:
            self._handle(request, True)
        else:
            self._method = "GET"
            self._keep_alive = not server.stopping
            self._accepts_gzip = self._repeat_accepts_gzip
            self._send(response)
        if not self._busy and self._waiting:
            self._next()

    def on_message_begin(self) -> None:
        self._in_message = self._in_head = True
        self._head_bytes_read = 0
        self._url = b""
        self._headers = Headers()
        self._body = []
        self._body_bytes = 0
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers = self._headers
        if self._header_bytes > self._limits.header_bytes:
            self._check_header_size()
            return
        if key not in headers:
            headers[key] = text
        elif key in _ONCE:
            self._refuse(text_response(400, f"400 Bad Request: more than one {key} header"))
        elif key.startswith("impersonate-"):
            headers[key] = f"{headers[key]}\n{text}"  # a group's name may hold a comma
        else:
            headers[key] = f"{headers[key]}, {text}"

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._check_header_size()
        if self._broken:
            return
        headers = self._headers
        if "host" not in headers and self._parser.get_http_version() == "1.1":
            self._refuse(text_response(400, "400 Bad Request: missing required Host header"))
            return
        coding = headers.get("transfer-encoding")
        if coding is not None and (coding.strip().lower() != "chunked" or self._parser.get_http_version() != "1.1"):
            self._refuse(text_response(501, "501 Not Implemented: the only transfer encoding here is chunked"))
            return
        length = headers.get("content-length")
        large = length is not None and length.isdigit() and int(length) > self._limits.body_bytes
        if (large or coding is not None) and self._server.streams is not None and self._streams_body(length):
            return
        if large:
            self._refuse_body()
            return
        if length is not None or "transfer-encoding" in headers:
            if not self._busy:
                self._become(_BODY)
            if headers.get("expect", "").lower() == "100-continue":
                if self._busy or self._waiting:
                    self._continue_owed = True
                else:
                    self._transport.write(CONTINUE)

    def on_body(self, data: bytes) -> None:
        if self._broken:
            return
        if self._body_stream is not None:
            if self._body_stream.feed(data):
                self._pause_reading()
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse_body()
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._in_message = False
        if self._broken:
            return
        if self._body_stream is not None:
            self._body_stream.end()
            self._body_stream = None
            return
        parser = self._parser
        try:
            path, query, raw_path = decode_target(self._url)
        except ValueError:
            self._refuse(text_response(400, "400 Bad Request"))
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method = parser.get_method().decode("ascii")
        request = Request(method, path, query, self._headers, body, self._peer, raw_path)
        self._completed += 1
        self._continue_owed = False
        self._http_1_0 = parser.get_http_version() != "1.1"
        if not self._busy:
            self._become(_HEAD)
        # After an offer to upgrade the parser reads no further request, so one that is not taken up ends the connection.
        self._waiting.append((request, parser.should_keep_alive() and not parser.should_upgrade()))

    def _streams_body(self, length: str | None) -> bool:
        """Hand on the request whose head is complete if its body is to be streamed; tell whether it is."""
        assert self._server.streams is not None
        parser = self._parser
        try:
            path, query, raw_path = decode_target(self._url)
        except ValueError:
            return False  # it is refused when it is complete
        method = parser.get_method().decode("ascii")
        request = Request(method, path, query, self._headers, b"", self._peer, raw_path)
        if "upgrade" in self._headers or not self._server.streams(request):
            return False
        self._continue_owed = self._headers.get("expect", "").lower() == "100-continue"
        size = None if length is None else int(length)
        request.stream = self._body_stream = BodyStream(size, self._limits.body_timeout_s, self._body_wanted)
        self._completed += 1
        self._http_1_0 = False
        self._waiting.append((request, parser.should_keep_alive()))
        return True

    def _body_wanted(self) -> None:
        """Somebody waits for more of a streamed body."""
        if self._continue_owed:
            self._continue_owed = False
            self._transport.write(CONTINUE)
        if self._reading_paused and self._parser is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _check_header_size(self) -> None:
        if max(self._header_bytes, self._head_bytes_read) > self._limits.header_bytes and not self._broken:
            self._refuse(text_response(431, "431 Request Header Fields Too Large"))

    def _refuse_body(self) -> None:
        limit = self._limits.body_bytes
        self._refuse(error_response(too_large(f"Request entity too large: limit is {limit}")))

    def _refuse(self, answer: Response) -> None:
        """Queue the last answer of this connection; nothing more is parsed."""
        if not self._broken:
            self._broken = True
            self._waiting.append((answer, False))

    # Answering

    def _next(self) -> None:
        """Start on waiting requests until one suspends or the client does not take its answers."""
        while self._waiting and not self._busy and not self.writing_paused:
            item, keep_alive = self._waiting.popleft()
            self._busy = True
            self._become(_BUSY)
            if isinstance(item, Request):
                self._handle(item, keep_alive)
            else:
                self._method, self._keep_alive, self._accepts_gzip = "GET", keep_alive, False
                self._send(item)
        if self._reading_paused and len(self._waiting) < self._limits.pipelined_requests and not self._broken:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._continue_owed and not self._busy and not self._waiting:
            self._continue_owed = False
            self._transport.write(CONTINUE)

    def _handle(self, request: Request, keep_alive: bool) -> None:
        self._method = request.method
        self._answered_stream = cast("BodyStream | None", request.stream)
        self._keep_alive = keep_alive and not self._server.stopping
        self._accepts_gzip = _accepts_gzip(request.headers)
        try:
            answer, task = self._server.stepper.start(self._server.handler(request), "request")  # type: ignore[arg-type]
        except asyncio.CancelledError:
            self._transport.abort()
            return
        except Exception as error:  # noqa: BLE001 - `_failure` logs it
            self._send(_failure(error, request))
            return
        if task is None:
            self._answer(answer, request)  # type: ignore[arg-type]
            return
        self._phase = _BUSY
        self._task = task
        task.add_done_callback(lambda task: self._on_done(task, request))

    def _on_done(self, task: asyncio.Task[Answer], request: Request) -> None:
        self._task = None
        if task.cancelled():
            self._transport.close()
            return
        error = task.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        if self._parser is None:
            if error is None:
                self._let_go(task.result())
            elif not isinstance(error, ApiError | OSError):
                _failure(error, request)
            return
        if error is not None:
            self._send(_failure(error, request))
        else:
            self._answer(task.result(), request)
        if not self._busy:
            self._next()

    def _let_go(self, answer: Answer) -> None:
        """End an answer that came when its client was gone already: what stands behind it is to be closed."""
        if isinstance(answer, Stream):
            sink = StreamSink(self._server, self, self._transport, False)
            sink.lost()
            sink.started(answer.start(sink))
        elif isinstance(answer, Upgrade):
            raw = UpgradedConnection(self._transport)
            raw.feed_eof()
            self._raw_task = self._server.loop.create_task(self._run_raw(answer, raw))

    def _answer(self, answer: Answer, request: Request) -> None:
        if isinstance(answer, Response):
            self._send(answer)
        elif isinstance(answer, Stream):
            self._send_stream(answer, request)
        else:
            self._upgrade(answer)

    def _send(self, response: Response) -> None:
        body = response.body
        usual = response.status in _WITH_BODY and self._keep_alive and self._method != "HEAD" and not self._http_1_0
        if usual and isinstance(body, bytes) and 0 < len(body) < GZIP_FROM_BYTES:
            self._transport.write(encode_whole(response, body, self._server.date))
            self._finished()
            return
        size = len(body) if isinstance(body, bytes) else sum(map(len, body))
        if (
            size >= GZIP_FROM_BYTES
            and self._accepts_gzip
            and not any(name.lower() == "content-encoding" for name, _ in response.headers)
        ):
            self._phase = _BUSY
            packing = self._server.loop.run_in_executor(None, gzip_body, body)
            packing.add_done_callback(lambda packed: self._on_packed(packed, response))
            return
        head = encode_head(response.status, response.content_type, response.headers, self._server.date)
        if response.status != 304 and response.status != 204 and not self._tells_length(response):
            head += b"Content-Length: %d\r\n" % size
        head += b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n"
        if self._http_1_0 and self._keep_alive:
            head = head[:-2] + b"Connection: keep-alive\r\n\r\n"
        if size == 0 or self._method == "HEAD" or response.status in (204, 304):
            self._transport.write(head)
        elif size <= _PIECE_BYTES:
            self._transport.write(head + body if isinstance(body, bytes) else b"".join((head, *body)))
        else:
            self._rest = _pieces([head, body] if isinstance(body, bytes) else [head, *body])
            if not self._send_rest():
                self._phase = _BUSY
                return
        self._finished()

    def _tells_length(self, response: Response) -> bool:
        """Return whether an answer to HEAD says itself how long its body would be: that of another server does."""
        return self._method == "HEAD" and any(name.lower() == "content-length" for name, _ in response.headers)

    def _send_rest(self) -> bool:
        """Write more of a large body, as the client takes it and not too much in one turn; return whether it is all."""
        assert self._rest is not None
        for _ in range(_PIECES_A_TURN):
            if self.writing_paused:
                return False  # `resume_writing` goes on
            piece = next(self._rest, None)
            if piece is None:
                self._rest = None
                return True
            self._transport.write(piece)
        if not self.writing_paused:
            self._server.loop.call_soon(self._go_on_sending)
        return False

    def _go_on_sending(self) -> None:
        if self._parser is None or self._rest is None:
            return
        if self._send_rest():
            self._finished()
            if not self._busy:
                self._next()

    def _on_packed(self, packed: asyncio.Future[bytes], response: Response) -> None:
        if self._parser is None:
            return
        headers = (*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
        self._send(Response(response.status, packed.result(), response.content_type, headers))
        if not self._busy:
            self._next()

    def _finished(self) -> None:
        """The answer is written (or the transport holds the rest of it)."""
        self._busy = False
        if self._answered_stream is not None:
            self._leave_body(self._answered_stream)
        if not self._keep_alive:
            self._end()
        elif self._in_message:
            self._become(_HEAD if self._in_head else _BODY)
        else:
            self._become(_IDLE)

    def _leave_body(self, stream: BodyStream) -> None:
        """A request is answered: if not all of its body has come, what still comes is dropped and the connection ends."""
        self._answered_stream = None
        if not stream.ended:
            stream.lose()
            self._body_stream = None
            self._keep_alive, self._broken, self._continue_owed = False, True, False

    def _end(self) -> None:
        """After the last answer: close, at once when all of the request was read, else after its rest was dropped."""
        self._waiting.clear()
        if self._broken and self._parser is not None and not self._transport.is_closing():
            self._become(_LINGER)
            if self._reading_paused:
                self._reading_paused = False
                self._transport.resume_reading()
            return
        self._broken = True
        self._transport.close()

    def _send_stream(self, stream: Stream, request: Request) -> None:
        chunked = not self._http_1_0
        if not chunked:
            self._keep_alive = False
        head = encode_head(stream.status, stream.content_type, stream.headers, self._server.date)
        if chunked:
            head += b"Transfer-Encoding: chunked\r\n"
        head += b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n"
        self._transport.write(head)
        if self._method == "HEAD":
            self._finished()
            return
        self._phase = _BUSY
        sink = self._stream = StreamSink(self._server, self, self._transport, chunked)
        try:
            sink.started(stream.start(sink))
        except Exception as error:  # noqa: BLE001 - `_failure` logs it
            _failure(error, request)
            self._stream = None
            self._transport.abort()

    def stream_ended(self) -> None:
        """Called by the sink when its last chunk is written."""
        self._stream = None
        self._finished()
        if not self._busy:
            self._next()

    def _upgrade(self, upgrade: Upgrade) -> None:
        head = encode_head(101, "", (("Upgrade", upgrade.protocol), *upgrade.headers), b"")
        self._transport.write(head + b"Connection: Upgrade\r\n\r\n")
        self._become(_RAW)
        self._waiting.clear()
        raw = self._raw = UpgradedConnection(self._transport, self._upgrade_rest)
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        if self.writing_paused:
            raw.pause_writing()
        self._raw_task = self._server.loop.create_task(self._run_raw(upgrade, raw), name=f"session-{upgrade.protocol}")

    async def _run_raw(self, upgrade: Upgrade, raw: UpgradedConnection) -> None:
        try:
            await upgrade.run(raw)
        except OSError as error:
            log.debug("a %s session ended: %s", upgrade.protocol, error)
        except Exception:
            log.exception("a %s session failed; its connection is closed", upgrade.protocol)
        finally:
            raw.close()

    # Deadlines and the end

    def _become(self, phase: int) -> None:
        self._phase = phase
        self._since = self._server.tick

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def check_deadline(self, tick: int) -> None:
        """Close the connection if it has been too long in its phase. A streaming client is the business of the stream,
        until that has ended."""
        limits, phase = self._limits, self._phase
        allowed_s: float
        if phase is _IDLE:
            allowed_s = limits.send_timeout_s if self.writing_paused else limits.idle_timeout_s
        elif phase is _HEAD:
            allowed_s = limits.header_timeout_s
        elif phase is _BODY:
            allowed_s = limits.body_timeout_s
        elif phase is _LINGER:
            allowed_s = limits.linger_s
        elif self.writing_paused and (self._rest is not None or (self._stream is not None and self._stream.closed)):
            allowed_s = limits.send_timeout_s
        else:
            return
        if tick - self._since > allowed_s:
            self._transport.abort()

    def shut(self) -> None:
        """End streams and idle connections; a request that is worked on is answered first."""
        self._keep_alive = False
        if self._stream is not None:
            self._stream.close()
        elif self._raw_task is not None:
            self._raw_task.cancel()
        elif not self._busy:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        if self._raw_task is not None:
            self._raw_task.cancel()
        self._transport.abort()


def _accepts_gzip(headers: Mapping[str, str]) -> bool:
    accepted = headers.get("accept-encoding")
    return accepted is not None and "gzip" in accepted


def _failure(error: BaseException, request: Request) -> Response:
    """Return the answer for a handler's failure; log it once unless it is the API's own way of saying no."""
    if isinstance(error, ApiError):
        return error_response(error)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_response(internal(f"{type(error).__name__}: {error}"))


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    """Yield the parts of a body in pieces of about _PIECE_BYTES: small ones joined, large ones cut."""
    group: list[bytes] = []
    size = 0
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            piece = part[start : start + _PIECE_BYTES] if len(part) > _PIECE_BYTES else part
            group.append(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                yield b"".join(group)
                group, size = [], 0
    if group:
        yield b"".join(group)


def _peer_of(transport: asyncio.Transport) -> Peer:
    address = transport.get_extra_info("peername")
    text = str(address[0]) if isinstance(address, tuple) and address else ""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return Peer(address=text)
    names = _attributes(certificate, "subject")
    common, issuer = names.get("commonName"), _attributes(certificate, "issuer").get("commonName")
    digest = hashlib.sha256(transport.get_extra_info("ssl_object").getpeercert(True)).hexdigest()
    return Peer(
        text,
        common[-1] if common else None,
        tuple(names.get("organizationName", ())),
        certificate_sha256=digest,
        issuer=issuer[-1] if issuer else "",
    )


def _attributes(certificate: Mapping[str, Any], part: str) -> dict[str, list[str]]:
    """Return the attributes of a certificate's subject or issuer."""
    names: dict[str, list[str]] = {}
    for attributes in certificate.get(part, ()):
        for key, value in attributes:
            names.setdefault(key, []).append(value)
    return names
