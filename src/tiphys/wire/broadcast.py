"""Streams that are sent the same bytes: one chunk is made for all of them, and written to all in one loop.

Decides who is written to directly. A stream that has taken everything stands *together* with the others and costs one
call of its transport for each chunk; one that is behind, or was sent something of its own, stands *apart*, is handed
each piece by itself and comes back when it has taken all. The fan-out of watches makes one of these for each group.

Invariant: each stream gets every piece that is sent while it is a member, once and in order with what it is sent
alone, whoever pauses, closes or leaves in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiphys.wire.message import Sink
from tiphys.wire.sink import StreamSink, flush_cost

if TYPE_CHECKING:
    from tiphys.wire.server import HttpServer


class Broadcast:
    """See the module's docstring. Sinks that are no `StreamSink` of one server stand apart for ever."""

    __slots__ = ("_apart", "_at", "_data", "_dirty", "_parts", "_queue", "_server", "_together")

    def __init__(self) -> None:
        self._server: HttpServer | None = None
        self._together: dict[StreamSink, None] = {}
        self._apart: dict[Sink, None] = {}
        self._parts: list[bytes] = []
        """Sent to those together, not yet begun to be written."""
        self._queue: list[StreamSink] = []
        """Who gets `_data`: those before `_at` have it."""
        self._at = 0
        self._data = b""
        self._dirty = False
        """A flush is due."""

    def __len__(self) -> int:
        return len(self._together) + len(self._apart)

    def add(self, sink: Sink) -> None:
        """Take in a sink; it gets what is sent from now on."""
        self._apart[sink] = None
        if isinstance(sink, StreamSink):
            self._server = self._server or sink.server

    def discard(self, sink: Sink) -> None:
        """Let a sink go; it still gets what was sent before. Idempotent."""
        if sink in self._together:
            self.part(sink)
        self._apart.pop(sink, None)

    def send(self, data: bytes) -> None:
        """Send one buffer to all."""
        for sink in self._apart:
            sink.send(data)
        if self._together:
            self._parts.append(data)
        if not self._dirty and self._server is not None:
            self._dirty = True
            self._server.flush_soon(self)

    def part(self, sink: StreamSink) -> None:
        """Put a sink apart, with what it has not got yet: it is behind, or is about to be sent something of its own."""
        del self._together[sink]
        sink.broadcast = None
        self._apart[sink] = None
        owed = self._parts.copy()
        if self._at < len(self._queue) and sink in self._queue[self._at :]:
            del self._queue[self._queue.index(sink, self._at)]
            owed.insert(0, self._data)
        for data in owed:
            sink.send(data)

    def flush(self, room: int) -> int:
        """Write to as many as `room` allows, one at least, and return what it cost (`flush_cost`). Called by the server,
        again until `done`."""
        if self._at >= len(self._queue):
            self._begin()
        at = self._at
        cost = flush_cost(len(self._data))
        some = self._queue[at : at + max(1, room // cost)]
        # Advanced before anything is written: a write may pause its own sink, which then parts and has this data.
        self._at = at + len(some)
        chunk = self._server.chunk_of(self._data) if some and self._server is not None else b""
        for sink in some:
            try:
                sink.write(chunk)
            except RuntimeError:  # its socket was closed in this very turn; the connection is told next
                continue
        if self._at >= len(self._queue):
            self._queue, self._data, self._at = [], b"", 0
            self._dirty = bool(self._parts)
        return len(some) * cost or 1

    @property
    def done(self) -> bool:
        """Whether no flush is due."""
        return not self._dirty

    def _begin(self) -> None:
        """Take what was sent, and who gets it; then bring together again who has taken everything."""
        parts = self._parts
        if parts:
            self._data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._queue, self._at = list(self._together), 0
            self._parts = []
        for sink in [sink for sink in self._apart if isinstance(sink, StreamSink) and sink.even]:
            if sink.server is self._server:
                del self._apart[sink]
                self._together[sink] = None
                sink.broadcast = self
