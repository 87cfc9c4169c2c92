"""The protobuf form of an OpenAPI v2 document, which Go clients ask for and which they cannot do without.

The message types are those of the public OpenAPI v2 protobuf description; the fields that documents of API servers use
are written. Protobuf is simple enough to write by hand: a field is a tag (number and wire type) and its value; a message
inside a message is bytes with their length. Input: the document as JSON objects. Output: bytes.

Spec: Protocol Buffers documentation, "Encoding"; OpenAPI Specification 2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

_Json = Mapping[str, Any]

_SCHEMA_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13, "discriminator": 26}
_SCHEMA_NUMBERS = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_SCHEMA_COUNTS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17}
_SCHEMA_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}
_OPERATIONS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
_PLACES = {"header": 1, "formData": 2, "query": 3, "path": 4}
"""Fields of the message of a parameter that is not the body; those of forms and queries have their type one later."""


def encode_v2(document: _Json) -> bytes:
    """Return the document as protobuf."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(_message(2, _named(path, _path_item(item))) for path, item in document["paths"].items())
    definitions = b"".join(_message(1, _named(n, _schema(s))) for n, s in document["definitions"].items())
    return b"".join((_text(1, document["swagger"]), _message(2, info), _message(8, paths), _message(9, definitions)))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode()) if value else b""


def _flag(field: int, value: bool) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def _number(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _count(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value > 0 else b""


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _any(value: Any) -> bytes:
    """Return a free value: YAML text, of which JSON is a part."""
    return _text(2, orjson.dumps(value).decode())


def _extensions(field: int, node: _Json) -> bytes:
    return b"".join(_message(field, _named(k, _any(v))) for k, v in node.items() if k.startswith("x-"))


def _schema(schema: _Json) -> bytes:
    parts = [_text(number, schema[key]) for key, number in _SCHEMA_TEXTS.items() if key in schema]
    parts += [_number(number, schema[key]) for key, number in _SCHEMA_NUMBERS.items() if key in schema]
    parts += [_count(number, schema[key]) for key, number in _SCHEMA_COUNTS.items() if key in schema]
    parts += [_flag(number, schema[key]) for key, number in _SCHEMA_FLAGS.items() if key in schema]
    if "default" in schema:
        parts.append(_message(5, _any(schema["default"])))
    parts.append(_count(18, schema.get("minProperties", 0)))
    parts += (_text(19, name) for name in schema.get("required") or ())
    parts += (_message(20, _any(value)) for value in schema.get("enum") or ())
    additional = schema.get("additionalProperties")
    if isinstance(additional, bool):
        parts.append(_message(21, _flag(2, additional)))
    elif additional is not None:
        parts.append(_message(21, _message(1, _schema(additional))))
    if schema.get("type"):
        types = schema["type"]
        parts.append(_message(22, b"".join(_text(1, t) for t in ([types] if isinstance(types, str) else types))))
    if "items" in schema:
        items = schema["items"]
        parts.append(
            _message(23, b"".join(_message(1, _schema(i)) for i in (items if isinstance(items, list) else [items])))
        )
    parts += (_message(24, _schema(each)) for each in schema.get("allOf") or ())
    properties = schema.get("properties") or {}
    if properties:
        parts.append(_message(25, b"".join(_message(1, _named(n, _schema(p))) for n, p in properties.items())))
    if "example" in schema:
        parts.append(_message(30, _any(schema["example"])))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _path_item(item: _Json) -> bytes:
    operations = [_message(number, _operation(item[verb])) for verb, number in _OPERATIONS.items() if verb in item]
    return b"".join((*operations, _parameters(9, item.get("parameters") or ()), _extensions(10, item)))


def _operation(operation: _Json) -> bytes:
    answers = b"".join(_message(1, _named(code, _answer(a))) for code, a in operation.get("responses", {}).items())
    parts = [_text(1, tag) for tag in operation.get("tags") or ()]
    parts += [_text(3, operation.get("description", "")), _text(5, operation.get("operationId", ""))]
    parts += (_text(6, media_type) for media_type in operation.get("produces") or ())
    parts += (_text(7, media_type) for media_type in operation.get("consumes") or ())
    parts += [_parameters(8, operation.get("parameters") or ()), _message(9, answers)]
    parts += (_text(10, scheme) for scheme in operation.get("schemes") or ())
    parts += [_flag(11, operation.get("deprecated", False)), _extensions(13, operation)]
    return b"".join(parts)


def _answer(answer: _Json) -> bytes:
    schema = _message(2, _message(1, _schema(answer["schema"]))) if "schema" in answer else b""
    return _message(1, _text(1, answer.get("description", "")) + schema)


def _parameters(field: int, parameters: Iterable[_Json]) -> bytes:
    return b"".join(_message(field, _parameter(parameter)) for parameter in parameters)


def _parameter(parameter: _Json) -> bytes:
    if "$ref" in parameter:
        return _message(2, _text(1, parameter["$ref"]))
    required = bool(parameter.get("required"))
    description, name, place = parameter.get("description", ""), parameter["name"], parameter["in"]
    if place == "body":
        head = _text(1, description) + _text(2, name) + _text(3, place) + _flag(4, required)
        return _message(1, _message(1, head + _message(5, _schema(parameter.get("schema") or {}))))
    head = _flag(1, required) + _text(2, place) + _text(3, description) + _text(4, name)
    type_at = 6 if place in ("query", "formData") else 5
    return _message(1, _message(2, _message(_PLACES[place], head + _text(type_at, parameter.get("type", "")))))
