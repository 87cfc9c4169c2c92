"""A raw connection after an upgrade: what exec, attach and port-forward sessions run on, at both ends.

Decides when reading is paused. An asyncio protocol feeds it; `Upgrade.run` and the HTTP client's `open_upgrade` own
it. Invariant: at most `READ_LIMIT_BYTES` and one read of the socket are buffered; bytes keep their order.
"""

from __future__ import annotations

import asyncio

READ_LIMIT_BYTES = 256 * 1024


class UpgradedConnection:
    """Implements `message.Connection`. One reader and one writer at a time."""

    def __init__(self, transport: asyncio.Transport, first: bytes = b"") -> None:
        self._transport = transport
        self._buffer = bytearray(first)
        self._eof = False
        self._error: Exception | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []

    # Called by the owner of the connection

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end. A connection that broke counts as ended."""
        while not self._buffer:
            if self._eof:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._reading_paused and not self._eof:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the peer is slow. Raises ConnectionError when it is gone."""
        if self._eof or self._transport.is_closing():
            raise ConnectionResetError("the peer closed the connection")
        if data:
            self._transport.write(data)
        while self._writing_paused and not self._eof:
            writer = asyncio.get_running_loop().create_future()
            self._writers.append(writer)
            await writer

    def close(self) -> None:
        """Close the connection after what was written. Idempotent."""
        self._transport.close()

    # Called by the protocol

    def feed(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > READ_LIMIT_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def feed_eof(self) -> None:
        self._eof = True
        self._wake_reader()
        self._wake_writers()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake_writers()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
        self._writers.clear()
