"""Remembered bodies of whole lists, so that a repeated list costs no joining and no compression.

A list's items stay the same as long as its resource did not change, while its resourceVersion moves on with every
write to anything. So the items are remembered apart from the head. For gzip, head and items are compressed apart too:
deflate blocks can be put one after another, and the checksum of the whole is computed from those of the parts.

Invariant: the kept bytes never exceed `limit_bytes`; the least recently used go first.
Spec: RFC 1952 (gzip: trailer of CRC-32 and size), RFC 1951 (deflate blocks end on byte boundaries after a full flush).
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_CRC_POLYNOMIAL = 0xEDB88320


@dataclass(slots=True)
class Packed:
    """Deflated items: the stream's last part, with what is needed to compute the checksum of the whole."""

    deflated: bytes
    crc: int
    size_bytes: int
    shift: int
    """x to the power of 8 * size, modulo the CRC's polynomial."""


@dataclass(slots=True)
class Memo:
    """A list's items at `changed_at`; `tail` ends the JSON."""

    changed_at: int
    items: bytes
    packed: Packed | None = None

    def size_bytes(self) -> int:
        return len(self.items) + (len(self.packed.deflated) if self.packed else 0)


class ListMemos:
    """Memos by what tells lists apart."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._memos: OrderedDict[Hashable, Memo] = OrderedDict()
        self._size_bytes = 0

    def get(self, key: Hashable, changed_at: int) -> Memo | None:
        """Return the memo of a list if its resource did not change since."""
        memo = self._memos.get(key)
        if memo is None or memo.changed_at != changed_at:
            return None
        self._memos.move_to_end(key)
        return memo

    def put(self, key: Hashable, memo: Memo) -> None:
        """Remember a list, in place of the same list earlier."""
        self._drop(key)
        if memo.size_bytes() > self._limit_bytes:
            return
        self._memos[key] = memo
        self._size_bytes += memo.size_bytes()
        while self._size_bytes > self._limit_bytes:
            self._drop(next(iter(self._memos)))

    def _drop(self, key: Hashable) -> None:
        memo = self._memos.pop(key, None)
        if memo is not None:
            self._size_bytes -= memo.size_bytes()

    def add_packed(self, key: Hashable, memo: Memo, packed: Packed) -> None:
        """Keep the compressed items beside the plain ones."""
        kept = self._memos.get(key) is memo
        if kept:
            self._drop(key)
        memo.packed = packed
        if kept:
            self.put(key, memo)


def pack(parts: Sequence[bytes]) -> Packed:
    """Deflate the last parts of a body. Slow for large ones and free of the interpreter lock: call it in a thread."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    crc = size = 0
    deflated = []
    for part in parts:
        deflated.append(compressor.compress(part))
        crc = zlib.crc32(part, crc)
        size += len(part)
    deflated.append(compressor.flush(zlib.Z_FINISH))
    return Packed(b"".join(deflated), crc, size, _power_of_x(8 * size))


def gzip_with_head(head: bytes, rest: Packed) -> list[bytes]:
    """Return the gzip stream of `head` followed by what was packed."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    deflated = compressor.compress(head) + compressor.flush(zlib.Z_FULL_FLUSH)
    crc = _multiply(rest.shift, zlib.crc32(head)) ^ rest.crc
    size = (len(head) + rest.size_bytes) & 0xFFFFFFFF
    return [_GZIP_HEADER + deflated, rest.deflated, crc.to_bytes(4, "little") + size.to_bytes(4, "little")]


def _multiply(a: int, b: int) -> int:
    """Multiply two polynomials modulo the CRC's; bit 31 is the coefficient of x^0 (the CRC's reflected order)."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ _CRC_POLYNOMIAL if b & 1 else b >> 1
    return product


def _power_of_x(exponent: int) -> int:
    """Return x^exponent modulo the CRC's polynomial."""
    result, square = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        exponent >>= 1
    return result
