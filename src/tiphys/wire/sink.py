"""The body of a streamed answer (watch, followed logs) on its way to the socket.

Decides what shares a chunk and a TLS record: all that is sent within one turn of the loop. Made by connection.py;
written to by handlers through `message.Sink`. Invariant: the stop function is called exactly once, whoever ends the
stream. What a slow client does not take waits here unencrypted; the sender watches `pending_bytes` and closes, or
waits in `drain` before it sends more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tiphys.wire.encoding import LAST_CHUNK, encode_chunk

if TYPE_CHECKING:
    from tiphys.wire.broadcast import Broadcast
    from tiphys.wire.connection import HttpConnection
    from tiphys.wire.server import HttpServer


COSTLY_BYTES = 8 * 1024
"""So many bytes take about as long to encrypt and to send as a stream takes by itself."""


def flush_cost(size_bytes: int) -> int:
    """Return what it costs to write to one stream: the server spends so much in a turn of the loop."""
    return 1 + size_bytes // COSTLY_BYTES


class StreamSink:
    """Implements `message.Sink`: gathers what is sent within one turn of the loop into one chunk and one write.

    While the socket takes nothing, data waits here unencrypted, and `pending_bytes` tells it.
    """

    __slots__ = (
        "_chunked",
        "_closed",
        "_connection",
        "_ended",
        "_parts",
        "_size",
        "_stop",
        "_transport",
        "_waiting",
        "broadcast",
        "server",
        "write",
    )

    def __init__(
        self, server: HttpServer, connection: HttpConnection, transport: asyncio.Transport, chunked: bool
    ) -> None:
        self.server = server
        self._connection = connection
        self._transport = transport
        self.write = transport.write
        """Writes a chunk past what waits here: for the broadcast alone."""
        self.broadcast: Broadcast | None = None
        """Where this stands together with others: what is sent there comes before all that is sent here from now."""
        self._chunked = chunked
        self._parts: list[bytes] = []
        self._size = 0
        self._stop: Callable[[], None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        """Senders that wait until the client has taken what they sent."""
        self._closed = False
        """No more data is taken; what is queued is still sent."""
        self._ended = False
        """The last chunk is written, or the peer is gone."""

    def started(self, stop: Callable[[], None]) -> None:
        if self._ended or self._closed:
            stop()
        else:
            self._stop = stop

    def send(self, data: bytes) -> None:
        if self._closed or not data:
            return
        if self.broadcast is not None:
            self.broadcast.part(self)
        if not self._parts:
            self.server.flush_soon(self)
        self._parts.append(data)
        self._size += len(data)

    @property
    def even(self) -> bool:
        """Return whether the client has taken all that was sent, and could be written to directly."""
        return not self._parts and self._chunked and not self._closed and not self._connection.writing_paused

    def paused(self) -> None:
        """The socket takes nothing now."""
        if self.broadcast is not None:
            self.broadcast.part(self)

    def pending_bytes(self) -> int:
        return 0 if self._ended else self._size + self._transport.get_write_buffer_size()

    @property
    def closed(self) -> bool:
        """Return whether the sender has ended the stream; what it sent may still wait for the client."""
        return self._closed

    async def drain(self) -> None:
        while not self._ended and (self._parts or self._connection.writing_paused):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        if self._closed:
            return
        if self.broadcast is not None:
            self.broadcast.part(self)
        self._closed = True
        self._call_stop()
        if not self._parts:
            self.server.flush_soon(self)

    def flush(self, room: int = 1) -> int:
        """Write what is queued, unless the socket takes nothing now. Return what it cost, as `flush_cost` tells it."""
        if self._ended or self._connection.writing_paused:
            return 1
        parts, cost = self._parts, flush_cost(self._size)
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size = 0
            if self._closed:
                self._transport.write((encode_chunk(data) + LAST_CHUNK) if self._chunked else data)
            else:
                self._transport.write(self.server.chunk_of(data) if self._chunked else data)
        elif self._closed and self._chunked:
            self._transport.write(LAST_CHUNK)
        if self._closed:
            self._ended = True
            self._connection.stream_ended()
        if self._waiting and (self._ended or not self._connection.writing_paused):
            self._wake()
        return cost

    @property
    def done(self) -> bool:
        """Whether no flush is due: what the socket does not take now is written when it does."""
        return True

    def lost(self) -> None:
        """The peer is gone."""
        self._ended = self._closed = True
        if self.broadcast is not None:
            self.broadcast.discard(self)
        self._parts.clear()
        self._size = 0
        self._wake()
        self._call_stop()

    def _call_stop(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
