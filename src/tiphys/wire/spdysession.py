"""SPDY streams over a connection: what remote-command and port-forward sessions read and write.

Decides when reading stops: while one stream holds `STREAM_LIMIT_BYTES` that its reader has not taken, nothing more is
read from the connection (SPDY's windows are not used, see spdy.py). Invariant: after `run` returned, every stream has
ended, so no reader waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tiphys.wire.message import Connection
from tiphys.wire.spdy import (
    STREAMS_LIMIT,
    DataReceived,
    Event,
    SpdyError,
    SpdyFraming,
    StreamOpened,
    StreamReplied,
    StreamReset,
)

STREAM_LIMIT_BYTES = 256 * 1024


class SpdyStream:
    """One stream. Reading and writing end independently."""

    def __init__(self, session: SpdySession, stream_id: int, headers: Mapping[str, str]) -> None:
        self.id = stream_id
        self.headers = headers
        self.was_reset = False
        """The peer wants neither more nor has it more."""
        self._session = session
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._finished = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end (also after a reset or the loss of the connection)."""
        while not self._parts:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._room.set()
        return data

    async def write(self, data: bytes, *, fin: bool = False) -> None:
        """Send bytes; with `fin`, end this direction. Does nothing after the end. Raises ConnectionError."""
        if self._finished:
            return
        self._finished = fin
        await self._session.send(self._session.framing.data(self.id, data, fin=fin))

    async def finish(self) -> None:
        """End this direction. Idempotent."""
        await self.write(b"", fin=True)

    async def reset(self) -> None:
        """End both directions at once."""
        self.end()
        if not self._finished:
            self._finished = True
            await self._session.send(self._session.framing.reset(self.id))

    async def feed(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)
            self._changed.set()
        if self._size > STREAM_LIMIT_BYTES and not self._ended:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._changed.set()
        self._room.set()


class SpdySession:
    """The streams of one connection. `run` must be running for anything to arrive."""

    def __init__(self, connection: Connection, *, client: bool) -> None:
        self.framing = SpdyFraming(client=client)
        self._connection = connection
        self._streams: dict[int, SpdyStream] = {}
        self._opened: asyncio.Queue[SpdyStream | None] = asyncio.Queue()

    async def open_stream(self, headers: Mapping[str, str]) -> SpdyStream:
        stream_id, frame = self.framing.open_stream(headers)
        stream = self._streams[stream_id] = SpdyStream(self, stream_id, headers)
        await self.send(frame)
        return stream

    async def accept(self) -> SpdyStream | None:
        """Return the next stream that the peer opened (already answered), None after the end of the connection."""
        return await self._opened.get()

    async def send(self, frames: bytes) -> None:
        await self._connection.write(frames)

    async def run(self) -> None:
        """Read frames until the connection ends. Raises SpdyError when the peer breaks the protocol."""
        try:
            while data := await self._connection.read():
                events = self.framing.receive(data)
                if self.framing.replies:
                    replies = bytes(self.framing.replies)
                    self.framing.replies.clear()
                    await self.send(replies)
                for event in events:
                    await self._handle(event)
        finally:
            for stream in self._streams.values():
                stream.end()
            self._opened.put_nowait(None)

    async def _handle(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            if len(self._streams) >= STREAMS_LIMIT:
                raise SpdyError(f"a SPDY peer opened more than {STREAMS_LIMIT} streams")
            stream = self._streams[event.stream_id] = SpdyStream(self, event.stream_id, event.headers)
            if event.fin:
                stream.end()
            await self.send(self.framing.reply(event.stream_id))
            self._opened.put_nowait(stream)
            return
        if isinstance(event, DataReceived | StreamReplied | StreamReset):
            found = self._streams.get(event.stream_id)
            if found is None:
                return
            if isinstance(event, DataReceived):
                await found.feed(event.data)
            if isinstance(event, StreamReset):
                found.was_reset = True
                found.end()
            elif event.fin:
                found.end()

    def forget(self, stream: SpdyStream) -> None:
        """Drop a stream that is done with, so that long sessions do not gather them."""
        stream.end()
        self._streams.pop(stream.id, None)
