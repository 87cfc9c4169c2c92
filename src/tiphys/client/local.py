"""The client in the server's own process: calls its handler, without sockets, TLS or HTTP.

Decides nothing; see interface.py for what callers get and calls.py for the calls. The identity is asserted, so this
must only ever be given to the process's own components. Bound: a watch holds what its reader has not taken;
`pending_bytes` tells the server, which ends a watch that is too far behind, as it does with any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from urllib.parse import unquote

from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError, internal
from tiphys.base.orderedset import OrderedSet
from tiphys.client.calls import ApiCalls, error_of
from tiphys.wire.message import Answer, Handler, Peer, Request, Response, Stream

log = logging.getLogger(__name__)

QUEUE_LIMIT_BYTES = 64 * 1024 * 1024
"""A stream that holds more is ended by the sink itself, whatever its sender does."""


class LocalClient(ApiCalls):
    """Implements `client.interface.Client` over a handler."""

    def __init__(
        self, handler: Handler, user: str, groups: Sequence[str] = (), *, randomness: Randomness | None = None
    ) -> None:
        super().__init__(randomness)
        self._handler = handler
        self._peer = Peer(address="127.0.0.1", trusted_user=(user, tuple(groups)))
        self._sinks: OrderedSet[_QueueSink] = OrderedSet()

    async def close(self) -> None:
        for sink in list(self._sinks):
            sink.close()

    async def _call(self, method: str, path: str, query: str, body: bytes | None, content_type: str) -> Answer:
        headers = {"accept": "application/json", "user-agent": "tiphys"}
        if body is not None:
            headers["content-type"] = content_type
            headers["content-length"] = str(len(body))
        request = Request(method, unquote(path), query, headers, body or b"", self._peer, path)
        try:
            return await self._handler(request)
        except (ApiError, OSError):
            raise
        except Exception as error:
            # The request boundary, as in wire/connection.py.
            log.exception("%s %s failed", method, path)
            raise internal(f"{type(error).__name__}: {error}") from error

    async def _send(
        self, method: str, path: str, query: str, body: bytes | None, content_type: str, timeout_s: float
    ) -> bytes:
        async with asyncio.timeout(timeout_s):
            answer = await self._call(method, path, query, body, content_type)
            if isinstance(answer, Response):
                if answer.status >= 300:
                    raise error_of(answer.status, answer.body_bytes())
                return answer.body_bytes()
            if isinstance(answer, Stream):
                return b"".join([data async for data in self._drain(answer)])
        raise ConnectionError(f"{method} {path} asks for an upgrade, which only the HTTP client can do")

    async def _open_watch(self, path: str, query: str) -> AsyncGenerator[bytes, None]:
        answer = await self._call("GET", path, query, None, "")
        if isinstance(answer, Response):
            if answer.status >= 300:
                raise error_of(answer.status, answer.body_bytes())
            yield answer.body_bytes()
        elif isinstance(answer, Stream):
            stream = self._drain(answer)
            try:
                async for data in stream:
                    yield data
            finally:
                await stream.aclose()

    async def _drain(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        sink = _QueueSink()
        self._sinks.add(sink)
        stop = stream.start(sink)
        try:
            while data := await sink.take():
                yield data
        finally:
            sink.close()
            self._sinks.discard(sink)
            stop()


class _QueueSink:
    """Implements `message.Sink` into memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._closed = False
        self._wake: asyncio.Future[None] | None = None
        self._taken: list[asyncio.Future[None]] = []
        """Senders that wait until the reader has taken what they sent."""

    def send(self, data: bytes) -> None:
        if self._closed:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > QUEUE_LIMIT_BYTES:
            self._closed = True
        self._notify()

    def pending_bytes(self) -> int:
        return self._size

    async def drain(self) -> None:
        if self._parts and not self._closed:
            taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._taken.append(taken)
            await taken

    def close(self) -> None:
        self._closed = True
        self._notify()
        self._tell_taken()

    def _tell_taken(self) -> None:
        waiting, self._taken = self._taken, []
        for taken in waiting:
            if not taken.done():
                taken.set_result(None)

    async def take(self) -> bytes:
        """Return all that was sent since the last call, b"" at the end."""
        while not self._parts:
            if self._closed:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._tell_taken()
        return data

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
