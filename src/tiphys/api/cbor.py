"""JSON values as CBOR, the way Kubernetes' clients write and read it.

Texts are byte strings, and a whole object begins with the tag of self-described CBOR. Byte fields stay the base64 text
that they are in JSON: a byte string without a tag is read as that. In what clients send, tags 21 to 23 say that a byte
string is to become base64url, base64 or hexadecimal text, and tag 0 marks a time's text. Of a tag that Kubernetes gives
no meaning the content counts. Lengths may come before what they are of, or be left open until a break.

Anything may come in: every failure is a ValueError that says what is wrong; depth is bounded.
DIFFERS: upstream serves CBOR only where its alpha feature CBORServingAndStorage is on; it is served always here, but not
named among the accepted media types.
Spec: RFC 8949; KEP-4222.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

SELF_DESCRIBED = b"\xd9\xd9\xf7"
ITEMS_BEGIN, ITEMS_END = b"\x9f", b"\xff"
"""A list whose length is not told before its items."""
DEPTH_LIMIT = 128

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_LATER: dict[int, Callable[[bytes], bytes]] = {
    21: lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    22: base64.b64encode,
    23: lambda data: data.hex().encode(),
}
"""Tags that tell what a byte string becomes in JSON."""
_NUMBERS_AS_TAGS = (1, 2, 3)
"""Times as numbers and integers of any size: JSON has no place for them."""
_OPEN, _BREAK = 31, 0xFF
_CONSTANTS = {20: False, 21: True, 22: None, 23: None}


def encode_cbor(value: Any) -> bytes:
    """Return a JSON value as a whole CBOR object."""
    return SELF_DESCRIBED + encode_item(value)


def encode_item(value: Any) -> bytes:
    """Return a JSON value as it stands within another."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _head(major: int, number: int) -> bytes:
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes((major << 5 | number,))
        if number < 1 << 8 * size:
            return bytes((major << 5 | code,)) + number.to_bytes(size, "big")
    raise ValueError("a number of more than 64 bits")


def _encode(value: Any, out: bytearray) -> None:
    if isinstance(value, str):
        data = value.encode()
        out += _head(_BYTES, len(data))
        out += data
    elif isinstance(value, dict):
        out += _head(_MAP, len(value))
        for key, item in value.items():
            _encode(key, out)
            _encode(item, out)
    elif isinstance(value, list):
        out += _head(_ARRAY, len(value))
        for item in value:
            _encode(item, out)
    elif value is None or isinstance(value, bool):
        out.append(0xF6 if value is None else 0xF5 if value else 0xF4)
    elif isinstance(value, int):
        out += _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    else:
        out += b"\xfb" + struct.pack(">d", value)


def decode_cbor(data: bytes) -> Any:
    """Return the JSON value of one CBOR item. Raises ValueError."""
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except (IndexError, struct.error):
        raise ValueError("unexpected EOF") from None
    if reader.at != len(data):
        raise ValueError(f"cbor: {len(data) - reader.at} bytes of extraneous data starting at index {reader.at}")
    return value


class _Reader:
    """A position in a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self, depth: int) -> Any:
        """Read one item. Raises ValueError, IndexError and struct.error."""
        if depth > DEPTH_LIMIT:
            raise ValueError(f"cbor: exceeded max nested level {DEPTH_LIMIT}")
        major, info = divmod(self._data[self.at], 32)
        self.at += 1
        if major == _SIMPLE:
            return self._simple(info)
        if major in (_BYTES, _TEXT):
            return self._string(major, info).decode()
        if major == _ARRAY:
            return [self.value(depth + 1) for _ in self._times(info)]
        if major == _MAP:
            return self._map(info, depth)
        number = self._number(info)
        if major == _TAG:
            return self._tagged(number, depth)
        if number >= 1 << 63:
            raise ValueError("cbor: a number that does not fit into 64 bits")
        return number if major == _UNSIGNED else -1 - number

    def _number(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise ValueError(f"cbor: invalid additional information {info}")
        size = 1 << info - 24
        return int.from_bytes(self._take(size), "big")

    def _times(self, info: int) -> Iterator[None]:
        """Yield once for each item or entry that is to be read."""
        if info != _OPEN:
            for _ in range(self._number(info)):
                yield None
            return
        while self._data[self.at] != _BREAK:
            yield None
        self.at += 1

    def _string(self, major: int, info: int) -> bytes:
        if info != _OPEN:
            return self._take(self._number(info))
        chunks = []
        for _ in self._times(info):
            chunk, size = divmod(self._data[self.at], 32)
            if chunk != major or size == _OPEN:
                raise ValueError("cbor: a string in parts must be of strings of its own type and a known length")
            self.at += 1
            chunks.append(self._take(self._number(size)))
        return b"".join(chunks)

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise IndexError
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def _map(self, info: int, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for _ in self._times(info):
            if self._data[self.at] >> 5 not in (_BYTES, _TEXT):
                raise ValueError("cbor: a map's key must be a string")
            key = self.value(depth + 1)
            if key in entries:
                raise ValueError(f'cbor: found duplicate map key "{key}"')
            entries[key] = self.value(depth + 1)
        return entries

    def _tagged(self, tag: int, depth: int) -> Any:
        later = _LATER.get(tag)
        if later is None:
            if tag in _NUMBERS_AS_TAGS:
                raise ValueError(f"cbor: tag {tag} is not used by Kubernetes")
            return self.value(depth + 1)
        major, info = divmod(self._data[self.at], 32)
        self.at += 1
        if major != _BYTES:
            raise ValueError(f"cbor: tag {tag} must be on a byte string")
        return later(self._string(major, info)).decode()

    def _simple(self, info: int) -> Any:
        if info in _CONSTANTS:
            return _CONSTANTS[info]
        if info not in (25, 26, 27):
            raise ValueError(f"cbor: simple value {info} is not used by Kubernetes")
        layout, size = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}[info]
        value = float(struct.unpack(layout, self._take(size))[0])
        if not math.isfinite(value):
            raise ValueError("cbor: a number must be finite")
        return value
