"""Kubernetes' protocol buffers encoding to JSON objects: what a Go client would have sent had it written JSON.

Each message of the table becomes one function when it is first needed; it walks over one buffer without copying it.
Go writes fields that are no pointers even when they are zero, and its JSON leaves most of those out: the table says
which, so nothing is guessed. Unknown fields are those of a newer client and are skipped.

Anything may come in: every failure is a ValueError that says what is wrong; time and depth are bounded by the input's
size and DEPTH_LIMIT.

Spec: Protocol Buffers encoding documentation.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tiphys.api.protobuftable import (
    EXTENSIONS,
    INT_OR_STRING,
    META,
    QUANTITY,
    RAW_EXTENSION,
    STRING_LISTS,
    ZERO_TIME_S,
    Field,
    messages,
)
from tiphys.base.clock import format_time

DEPTH_LIMIT = 128
"""Messages within messages, each of which is at least one level of JSON."""
_CUT_OFF = "unexpected EOF"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Read = Callable[[bytes, int, int, int], Any]
"""(buffer, begin, end, depth) -> value of what stands between begin and end."""


def decode_message(message: str, data: bytes) -> dict[str, Any]:
    """Return the JSON object of one message of the table. Raises ValueError."""
    try:
        decoded: dict[str, Any] = _readers[message](data, 0, len(data), 0)
    except (IndexError, struct.error):
        raise ValueError(_CUT_OFF) from None
    except OverflowError as error:
        raise ValueError(str(error)) from None
    return decoded


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (number, where it ends). Raises ValueError and IndexError."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("proto: integer overflow")


def read_size(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return (begin, end) of what is told with its length."""
    size, at = read_varint(data, at)
    if at + size > end:
        raise ValueError(_CUT_OFF)
    return at, at + size


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_TEXT, _SINGLE, _LIST, _MAP, _INLINE, _PACKED = range(6)


class _Place(NamedTuple):
    """How a field is read, by its key (number and wire type)."""

    form: int
    name: str
    read: Read
    keeps_zero: bool
    """JSON tells it though it is zero."""


class _Readers(dict[str, Read]):
    """The function of each message, made when it is first asked for. Messages may contain each other."""

    def __missing__(self, message: str) -> Read:
        read = _SPECIAL.get(message)
        if read is None:
            fields = messages().get(message)
            if fields is None:
                raise ValueError(f"{message} is not in the table of messages")
            read = _message_reader(fields)
        self[message] = read
        return read


_readers = _Readers()


def _message_reader(fields: tuple[Field, ...]) -> Read:
    """Return the function of a message. It is long for speed: a field costs one turn of its loop and no calls but one."""
    places = {key: place for field in fields for key, place in _places(field)}
    names = {field.number: field.name for field in fields}
    find = places.get

    def read_message(data: bytes, at: int, end: int, depth: int) -> dict[str, Any]:
        if depth > DEPTH_LIMIT:
            raise ValueError("messages are nested too deeply")
        result: dict[str, Any] = {}
        while at < end:
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = read_varint(data, at - 1)
            place = find(key)
            if key & 7 == _BYTES:
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = read_varint(data, at - 1)
                begin = at
                at += size
                if at > end:
                    raise ValueError(_CUT_OFF)
            else:
                begin, at = at, _skip(data, at, end, key)
            if place is None:
                if key >> 3 in names:
                    raise ValueError(f"proto: wrong wireType = {key & 7} for field {names[key >> 3]}")
                continue
            form, name, read, keeps_zero = place
            if form == _TEXT:
                if begin < at or keeps_zero:
                    result[name] = data[begin:at].decode()
            elif form == _SINGLE:
                value = read(data, begin, at, depth + 1)
                if value or (keeps_zero and value is not None):
                    result[name] = value
            else:
                _put(result, place, data, begin, at, depth)
        return result

    return read_message


def _places(field: Field) -> Iterator[tuple[int, _Place]]:
    """Yield (key, place) of a field."""
    wire = {"i": _VARINT, "o": _VARINT, "d": _FIXED64}.get(field.kind, _BYTES)
    keeps_zero = field.pointer or field.shown or len(field.kind) > 1
    form = _TEXT if field.kind == "s" else _SINGLE
    read = _value_reader(field.kind)
    if field.mapped:
        form, read = _MAP, _map_entry(field.kind)
    elif field.repeated:
        form = _LIST
        if wire == _VARINT:
            yield field.number << 3 | _BYTES, _Place(_PACKED, field.name, read, True)
    elif field.inline:
        form = _INLINE
    yield field.number << 3 | wire, _Place(form, field.name, read, keeps_zero)


def _put(result: dict[str, Any], place: _Place, data: bytes, begin: int, end: int, depth: int) -> None:
    """Read one field that may come several times, or whose fields are those of the outer message."""
    form, name, read, _ = place
    if form == _INLINE:
        result.update(read(data, begin, end, depth + 1))
    elif form == _MAP:
        key, value = read(data, begin, end, depth)
        result.setdefault(name, {})[key] = value
    elif form == _LIST:
        result.setdefault(name, []).append(read(data, begin, end, depth + 1))
    else:
        values = result.setdefault(name, [])
        while begin < end:
            stop = _skip(data, begin, end, _VARINT)
            values.append(read(data, begin, stop, depth))
            begin = stop


def _skip(data: bytes, at: int, end: int, key: int) -> int:
    """Return where a value ends of which nothing is known but its key. Raises ValueError."""
    wire = key & 7
    if wire == _VARINT:
        while data[at] >= 0x80:
            at += 1
        at += 1
    elif wire == _BYTES:
        at = read_size(data, at, end)[1]
    elif wire in (_FIXED64, _FIXED32):
        at += 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"proto: illegal wireType {wire}")
    if at > end:
        raise ValueError(_CUT_OFF)
    return at


# Values. Each is read from between begin and end


def _value_reader(kind: str) -> Read:
    special = _SCALARS.get(kind) or _SPECIAL.get(kind)
    if special is not None:
        return special
    return lambda data, at, end, depth: _readers[kind](data, at, end, depth)


def _text(data: bytes, at: int, end: int, depth: int) -> str:
    return data[at:end].decode()


def _bytes(data: bytes, at: int, end: int, depth: int) -> str:
    return base64.b64encode(data[at:end]).decode()


def _integer(data: bytes, at: int, end: int, depth: int) -> int:
    value = data[at]
    return value if value < 0x80 else _signed(read_varint(data, at)[0])


def _boolean(data: bytes, at: int, end: int, depth: int) -> bool:
    return read_varint(data, at)[0] != 0


def _double(data: bytes, at: int, end: int, depth: int) -> float:
    return float(struct.unpack_from("<d", data, at)[0])


_SCALARS: dict[str, Read] = {"s": _text, "b": _bytes, "i": _integer, "o": _boolean, "d": _double}
_ZERO = {"s": "", "b": "", "i": 0, "o": False, "d": 0.0}


def _map_entry(kind: str) -> Read:
    read_value = _value_reader(kind)

    def read(data: bytes, at: int, end: int, depth: int) -> tuple[str, Any]:
        key, value = "", _ZERO.get(kind, {})
        while at < end:
            tag, at = read_varint(data, at)
            begin, at = read_size(data, at, end) if tag & 7 == _BYTES else (at, _skip(data, at, end, tag))
            if tag == 0x0A:
                key = data[begin:at].decode()
            elif tag == 0x12:
                value = read_value(data, begin, at, depth + 1)
        return key, value

    return read


# Messages whose JSON is not an object of their fields


def _parts(data: bytes, at: int, end: int) -> list[tuple[int, int | bytes]]:
    """Return (number, value) of each field of a small message: an int or bytes."""
    found: list[tuple[int, int | bytes]] = []
    while at < end:
        key, at = read_varint(data, at)
        if key & 7 == _BYTES:
            begin, at = read_size(data, at, end)
            found.append((key >> 3, data[begin:at]))
        else:
            begin, at = at, _skip(data, at, end, key)
            found.append((key >> 3, _integer(data, begin, at, 0) if key & 7 == _VARINT else 0))
    return found


def _number(parts: dict[int, int | bytes], number: int) -> int:
    value = parts.get(number, 0)
    if isinstance(value, bytes):
        raise ValueError(f"proto: wrong wireType = 2 for field {number}")
    return value


def _blob(parts: dict[int, int | bytes], number: int) -> bytes:
    value = parts.get(number, b"")
    if isinstance(value, int):
        raise ValueError(f"proto: wrong wireType = 0 for field {number}")
    return value


def _time(data: bytes, at: int, end: int, depth: int) -> str | None:
    return _time_text(data[at:end]) if at < end else None


@lru_cache(maxsize=1024)
def _time_text(data: bytes) -> str | None:
    seconds = _number(dict(_parts(data, 0, len(data))), 1)
    return format_time(_in_range(seconds)) if seconds > ZERO_TIME_S else None


def _micro_time(data: bytes, at: int, end: int, depth: int) -> str | None:
    parts = dict(_parts(data, at, end))
    seconds = _number(parts, 1)
    if at == end or seconds <= ZERO_TIME_S:
        return None
    whole = format_time(_in_range(seconds))
    return f"{whole[:-1]}.{_number(parts, 2) % 1_000_000_000 // 1000:06}Z"


def _in_range(seconds: int) -> int:
    """Return the seconds of a time that JSON can tell. Raises ValueError."""
    if seconds > 253_402_300_799:
        raise ValueError("a time behind the year 9999")
    return seconds


def _int_or_string(data: bytes, at: int, end: int, depth: int) -> int | str:
    parts = dict(_parts(data, at, end))
    return _blob(parts, 3).decode() if _number(parts, 1) else _number(parts, 2)


def _quantity(data: bytes, at: int, end: int, depth: int) -> str:
    return _blob(dict(_parts(data, at, end)), 1).decode() or "0"


def _raw_json(data: bytes, at: int, end: int, depth: int) -> Any:
    raw = _blob(dict(_parts(data, at, end)), 1)
    return orjson.loads(raw) if raw else None


def _string_list(data: bytes, at: int, end: int, depth: int) -> list[str]:
    return [value.decode() for number, value in _parts(data, at, end) if number == 1 and isinstance(value, bytes)]


def _schema_or(data: bytes, at: int, end: int, depth: int) -> Any:
    """Read a schema, a list of schemas, or a list of strings; the first stands in field 1, lists in field 2."""
    parts = _parts(data, at, end)
    blobs = [(number, value) for number, value in parts if isinstance(value, bytes)]
    single = [value for number, value in blobs if number == 1]
    if single:
        return _schema(single[-1], depth)
    return [_schema(value, depth) for number, value in blobs if number == 2]


def _schema_or_strings(data: bytes, at: int, end: int, depth: int) -> Any:
    parts = _parts(data, at, end)
    single = [value for number, value in parts if number == 1 and isinstance(value, bytes)]
    if single:
        return _schema(single[-1], depth)
    return [value.decode() for number, value in parts if number == 2 and isinstance(value, bytes)]


def _schema_or_bool(data: bytes, at: int, end: int, depth: int) -> Any:
    parts = dict(_parts(data, at, end))
    return _schema(_blob(parts, 2), depth) if 2 in parts else _number(parts, 1) != 0


def _schema(data: bytes, depth: int) -> Any:
    return _readers[f"{EXTENSIONS}.JSONSchemaProps"](data, 0, len(data), depth)


_SPECIAL: dict[str, Read] = {
    f"{META}.Time": _time,
    f"{META}.MicroTime": _micro_time,
    f"{META}.FieldsV1": _raw_json,
    RAW_EXTENSION: _raw_json,
    QUANTITY: _quantity,
    INT_OR_STRING: _int_or_string,
    f"{EXTENSIONS}.JSON": _raw_json,
    f"{EXTENSIONS}.JSONSchemaPropsOrArray": _schema_or,
    f"{EXTENSIONS}.JSONSchemaPropsOrBool": _schema_or_bool,
    f"{EXTENSIONS}.JSONSchemaPropsOrStringArray": _schema_or_strings,
    **dict.fromkeys(STRING_LISTS, _string_list),
}
