"""SPDY/3.1 framing without I/O: bytes in, events out; calls in, bytes out. For both ends of a connection.

Decides what is a legal frame and which streams exist. spdysession.py moves the bytes. Invariant: header blocks are
compressed and expanded in the order of their frames, since both directions share one dictionary window. Bounds: frames
of 1 MiB, header blocks of 64 KiB expanded, 4,096 streams open at once.

DIFFERS: windows are neither kept nor enforced. The peers of exec and port-forward (every Kubernetes client) never send
WINDOW_UPDATE and would stall after 64 KiB; back pressure is that of the TCP connection, as with upstream's servers.

Spec: SPDY protocol draft 3.1, sections 2.2 (framing), 2.6 (control frames).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRAME_LIMIT_BYTES = 1024 * 1024
HEADERS_LIMIT_BYTES = 64 * 1024
STREAMS_LIMIT = 4096
DATA_BYTES = 32 * 1024
"""Largest data frame that is sent."""

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 1
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5
_VERSION = 3
_CONTROL = 0x80000000 | _VERSION << 16
_WORD = 0x7FFFFFFF

# The preset dictionary of header compression: words with their length in four bytes, then running text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status|200 OK|version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [word for part in _WORDS.split("|") for word in ([part] if part == "200 OK" else part.split(" ")) if word]
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words) + _TEXT.encode()


DICTIONARY = _dictionary()


class SpdyError(ConnectionError):
    """The peer broke the protocol; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    stream_id: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReplied:
    stream_id: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    stream_id: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens no more streams and answers none opened after `last_stream_id`."""

    last_stream_id: int
    status: int


Event = StreamOpened | StreamReplied | DataReceived | StreamReset | GoneAway


class SpdyFraming:
    """State of one connection: buffers, header compression, which streams are open in which direction."""

    def __init__(self, *, client: bool) -> None:
        self._buffer = bytearray()
        self._next_id = 1 if client else 2
        self._last_peer_id = 0
        self._peer_parity = 0 if client else 1
        self._receiving: set[int] = set()
        """Streams on which the peer may still send."""
        self._deflate = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self.replies = bytearray()
        """What has to be sent in answer to frames (pings, refusals): the owner sends and clears it."""

    # Sending

    def open_stream(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return the new stream's id and its SYN_STREAM frame."""
        stream_id = self._next_id
        self._next_id += 2
        self._receiving.add(stream_id)
        payload = struct.pack(">IIBB", stream_id, 0, 0, 0) + self._pack_headers(headers)
        return stream_id, _control(SYN_STREAM, 0, payload)

    def reply(self, stream_id: int, headers: Mapping[str, str] | None = None) -> bytes:
        return _control(SYN_REPLY, 0, struct.pack(">I", stream_id) + self._pack_headers(headers or {}))

    def data(self, stream_id: int, data: bytes, *, fin: bool = False) -> bytes:
        """Return the frames that carry `data`; with `fin`, nothing more is sent on the stream."""
        parts = [data[i : i + DATA_BYTES] for i in range(0, len(data), DATA_BYTES)] or [b""]
        frames = []
        for index, part in enumerate(parts):
            flags = FLAG_FIN if fin and index == len(parts) - 1 else 0
            frames.append(struct.pack(">II", stream_id, flags << 24 | len(part)) + part)
        return b"".join(frames)

    def reset(self, stream_id: int, status: int = CANCEL) -> bytes:
        self._receiving.discard(stream_id)
        return _control(RST_STREAM, 0, struct.pack(">II", stream_id, status))

    def ping(self, number: int) -> bytes:
        return _control(PING, 0, struct.pack(">I", number))

    def go_away(self) -> bytes:
        return _control(GOAWAY, 0, struct.pack(">II", self._last_peer_id, 0))

    # Receiving

    def receive(self, data: bytes) -> Sequence[Event]:
        """Return the events of all frames that are complete now. Raises SpdyError."""
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        offset = 0
        while len(buffer) - offset >= 8:
            first, second = struct.unpack_from(">II", buffer, offset)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > FRAME_LIMIT_BYTES:
                raise SpdyError(f"a SPDY frame of {length} bytes; at most {FRAME_LIMIT_BYTES} are taken")
            if len(buffer) - offset - 8 < length:
                break
            payload = bytes(buffer[offset + 8 : offset + 8 + length])
            offset += 8 + length
            event = self._control(first, flags, payload) if first >> 31 else self._data(first, flags, payload)
            if event is not None:
                events.append(event)
        del buffer[:offset]
        return events

    def _data(self, stream_id: int, flags: int, payload: bytes) -> Event | None:
        if stream_id not in self._receiving:
            # Data that crossed our reset, or nonsense: neither is worth the other streams.
            return None
        if flags & FLAG_FIN:
            self._receiving.discard(stream_id)
        return DataReceived(stream_id, payload, bool(flags & FLAG_FIN))

    def _control(self, first: int, flags: int, payload: bytes) -> Event | None:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"SPDY version {version}; only 3.1 is spoken")
        try:
            return self._event(kind, flags, payload)
        except struct.error:
            raise SpdyError(f"a SPDY control frame of type {kind} is too short") from None

    def _event(self, kind: int, flags: int, payload: bytes) -> Event | None:
        fin = bool(flags & FLAG_FIN)
        if kind == SYN_STREAM:
            return self._syn_stream(payload, fin)
        if kind in (SYN_REPLY, HEADERS):
            stream_id = struct.unpack_from(">I", payload)[0] & _WORD
            headers = self._unpack_headers(payload[4:])
            if fin:
                self._receiving.discard(stream_id)
            return StreamReplied(stream_id, headers, fin)
        if kind == RST_STREAM:
            stream_id, status = struct.unpack_from(">II", payload)
            self._receiving.discard(stream_id & _WORD)
            return StreamReset(stream_id & _WORD, status)
        if kind == GOAWAY:
            last, status = struct.unpack_from(">II", payload)
            return GoneAway(last & _WORD, status)
        if kind == PING:
            number = struct.unpack_from(">I", payload)[0]
            if number % 2 == self._peer_parity:
                self.replies += self.ping(number)
        return None

    def _syn_stream(self, payload: bytes, fin: bool) -> Event | None:
        stream_id = struct.unpack_from(">I", payload)[0] & _WORD
        headers = self._unpack_headers(payload[10:])
        if stream_id % 2 != self._peer_parity or stream_id <= self._last_peer_id:
            raise SpdyError(f"a SPDY peer opened stream {stream_id} after {self._last_peer_id}")
        self._last_peer_id = stream_id
        if len(self._receiving) >= STREAMS_LIMIT:
            self.replies += self.reset(stream_id, REFUSED_STREAM)
            return None
        if not fin:
            self._receiving.add(stream_id)
        return StreamOpened(stream_id, headers, fin)

    def _pack_headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            texts = (name.lower().encode("latin-1"), value.encode("latin-1"))
            parts += [struct.pack(">I", len(text)) + text for text in texts]
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _unpack_headers(self, packed: bytes) -> dict[str, str]:
        try:
            block = self._inflate.decompress(packed, HEADERS_LIMIT_BYTES)
        except zlib.error as error:
            raise SpdyError(f"a SPDY header block cannot be expanded: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a SPDY header block of more than {HEADERS_LIMIT_BYTES} bytes")
        count = struct.unpack_from(">I", block)[0]
        offset = 4
        texts: list[str] = []
        for _ in range(min(count, HEADERS_LIMIT_BYTES) * 2):
            size = struct.unpack_from(">I", block, offset)[0]
            if offset + 4 + size > len(block):
                raise SpdyError("a SPDY header block ends too early")
            texts.append(block[offset + 4 : offset + 4 + size].decode("latin-1"))
            offset += 4 + size
        return {name.lower(): value.replace("\0", ", ") for name, value in zip(texts[::2], texts[1::2], strict=True)}


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">II", _CONTROL | kind, flags << 24 | len(payload)) + payload
