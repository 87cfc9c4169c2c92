"""JSON objects to Kubernetes' protocol buffers encoding: byte for byte what upstream's generated code writes.

Each message of the table becomes one function when it is first needed. It begins with what an empty message is (fields
that are no pointers are written though they are zero), puts the fields that the object has into their places, and joins
them: so fields stand in the order of their numbers, whatever the order in JSON. Maps are sorted by key.

An object that passed its schema is expected; fields that the table does not have are left out.

Spec: Protocol Buffers encoding documentation; Kubernetes API concepts, "Kubernetes Protobuf encoding".
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

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

Encode = Callable[[Any], bytes]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_UINT64 = (1 << 64) - 1
_NUMBERS = tuple(bytes((number,)) for number in range(0x80))
_pack_double = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """Return a number as protocol buffers write it; negative ones as 64-bit two's complement."""
    if 0 <= number < 0x80:
        return _NUMBERS[number]
    number &= _UINT64
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def sized(tag: bytes, data: bytes) -> bytes:
    """Return a field that is told with its length."""
    return tag + varint(len(data)) + data


def encode_message(message: str, obj: Any) -> bytes:
    """Return the bytes of one message of the table, without an envelope. Raises KeyError for an unknown message."""
    return _encoders[message](obj)


class _Encoders(dict[str, Encode]):
    """The function of each message, made when it is first asked for. Messages may contain each other."""

    def __missing__(self, message: str) -> Encode:
        made = self[message] = _SPECIAL.get(message) or _message_encoder(messages()[message])
        return made


_encoders = _Encoders()


def _message_encoder(fields: tuple[Field, ...]) -> Encode:
    places: dict[str, tuple[int, Encode]] = {}
    inlines: list[tuple[int, Encode]] = []
    for place, field in enumerate(fields):
        if field.inline:
            inlines.append((place, _writer(field)))
        else:
            places[field.name] = (place, _writer(field))
    empty = [_absent(field) for field in fields]
    find = places.get

    def encode(obj: Any) -> bytes:
        parts = empty.copy()
        for name, value in obj.items():
            found = find(name)
            if found is not None and value is not None:
                place, write = found
                parts[place] = write(value)
        for place, write in inlines:
            parts[place] = write(obj)
        return b"".join(parts)

    return encode


def _tag(number: int, wire: int = _BYTES) -> bytes:
    return varint(number << 3 | wire)


def _absent(field: Field) -> bytes:
    """Return what is written for a field that the object does not have."""
    if field.pointer or field.repeated or field.mapped or field.kind == "b":
        return b""
    if field.kind in "io":
        return _tag(field.number, _VARINT) + b"\x00"
    if field.kind == "d":
        return _tag(field.number, _FIXED64) + bytes(8)
    if field.kind == "s":
        return _tag(field.number) + b"\x00"
    if field.kind in _SPECIAL:
        return sized(_tag(field.number), _EMPTY.get(field.kind, b""))
    return sized(_tag(field.number), encode_message(field.kind, {}))


def _writer(field: Field) -> Encode:
    """Return the function that writes a field, with its number, of a value."""
    if field.mapped:
        return _map_writer(_tag(field.number), field.kind)
    wire = {"i": _VARINT, "o": _VARINT, "d": _FIXED64}.get(field.kind, _BYTES)
    write = _value_writer(_tag(field.number, wire), field.kind)
    if field.repeated:
        return lambda values: b"".join([write(value) for value in values])
    return write


@cache
def _heads(tag: bytes) -> tuple[bytes, ...]:
    """Return the tag with each of the lengths that take one byte."""
    return tuple([tag + size for size in _NUMBERS])


@cache
def _value_writer(tag: bytes, kind: str) -> Encode:
    if kind == "i":
        return lambda value: tag + varint(value)
    if kind == "o":
        yes, no = tag + b"\x01", tag + b"\x00"
        return lambda value: yes if value else no
    if kind == "d":
        return lambda value: tag + _pack_double(value)
    heads = _heads(tag)

    def write_text(value: str) -> bytes:
        data = value.encode()
        size = len(data)
        return heads[size] + data if size < 0x80 else tag + varint(size) + data

    def write_message(value: Any) -> bytes:
        data = _encoders[kind](value)
        size = len(data)
        return heads[size] + data if size < 0x80 else tag + varint(size) + data

    if kind == "s":
        return write_text
    if kind == "b":
        return lambda value: sized(tag, b64decode(value))
    if kind in _FEW_VALUES:
        encode = _SPECIAL[kind]
        return lru_cache(maxsize=512)(lambda value: sized(tag, encode(value)))
    return write_message


def _map_writer(tag: bytes, kind: str) -> Encode:
    write_key, write_value, heads = _value_writer(b"\x0a", "s"), _value_writer(b"\x12", kind), _heads(tag)

    def write(value: dict[str, Any]) -> bytes:
        parts: list[bytes] = []
        for key in sorted(value):
            name, data = write_key(key), write_value(value[key])
            size = len(name) + len(data)
            parts += (heads[size] if size < 0x80 else tag + varint(size), name, data)
        return b"".join(parts)

    return write


# Messages whose JSON is not an object of their fields


@lru_cache(maxsize=4096)
def _time(text: str) -> bytes:
    seconds = (datetime.fromisoformat(text) - _EPOCH) // _SECOND
    return b"\x08" + varint(seconds) + b"\x10\x00" if seconds > ZERO_TIME_S else b""


@lru_cache(maxsize=1024)
def _micro_time(text: str) -> bytes:
    seconds, rest = divmod(datetime.fromisoformat(text) - _EPOCH, _SECOND)
    if seconds <= ZERO_TIME_S and not rest:
        return b""
    return b"\x08" + varint(seconds) + b"\x10" + varint(rest.microseconds * 1000)


def _quantity(value: str | int | float) -> bytes:
    return sized(b"\x0a", str(value).encode())


def _int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + sized(b"\x1a", value.encode())
    return b"\x08\x00\x10" + varint(value) + b"\x1a\x00"


def _raw_json(value: Any) -> bytes:
    return sized(b"\x0a", orjson.dumps(value))


def _string_list(items: list[str]) -> bytes:
    return b"".join([sized(b"\x0a", item.encode()) for item in items])


_SCHEMA = f"{EXTENSIONS}.JSONSchemaProps"


def _schema_or_schemas(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join([sized(b"\x12", encode_message(_SCHEMA, item)) for item in value])
    return sized(b"\x0a", encode_message(_SCHEMA, value))


def _schema_or_bool(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x08\x01" if value else b"\x08\x00"
    return b"\x08\x01" + sized(b"\x12", encode_message(_SCHEMA, value))


def _schema_or_strings(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join([sized(b"\x12", item.encode()) for item in value])
    return sized(b"\x0a", encode_message(_SCHEMA, value))


_SPECIAL: dict[str, Encode] = {
    f"{META}.Time": _time,
    f"{META}.MicroTime": _micro_time,
    f"{META}.FieldsV1": _raw_json,
    RAW_EXTENSION: _raw_json,
    QUANTITY: _quantity,
    INT_OR_STRING: _int_or_string,
    f"{EXTENSIONS}.JSON": _raw_json,
    f"{EXTENSIONS}.JSONSchemaPropsOrArray": _schema_or_schemas,
    f"{EXTENSIONS}.JSONSchemaPropsOrBool": _schema_or_bool,
    f"{EXTENSIONS}.JSONSchemaPropsOrStringArray": _schema_or_strings,
    **dict.fromkeys(STRING_LISTS, _string_list),
}
_FEW_VALUES = frozenset({f"{META}.Time", QUANTITY})
"""Messages of which the same ones are written again and again."""
_EMPTY = {QUANTITY: _quantity("0"), INT_OR_STRING: _int_or_string(0)}
"""What stands in absent values that are no pointers; in the other special messages it is nothing."""
