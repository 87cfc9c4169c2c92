"""The protobuf form of an OpenAPI v2 document, which Go clients ask for and which they cannot do without; the primitives
are those of v3 as well (openapiprotobufv3.py).

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
    info = text_field(1, document["info"]["title"]) + text_field(2, document["info"]["version"])
    paths = b"".join(message(2, named(path, _path_item(item))) for path, item in document["paths"].items())
    definitions = b"".join(message(1, named(n, _schema(s))) for n, s in document["definitions"].items())
    return b"".join((text_field(1, document["swagger"]), message(2, info), message(8, paths), message(9, definitions)))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def text_field(field: int, value: str) -> bytes:
    return message(field, value.encode()) if value else b""


def flag_field(field: int, value: Any) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def number_field(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def count_field(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value > 0 else b""


def named(name: str, value: bytes) -> bytes:
    return text_field(1, name) + message(2, value)


def free_value(value: Any) -> bytes:
    """Return a free value: YAML text, of which JSON is a part."""
    return text_field(2, orjson.dumps(value).decode())


def extensions(field: int, node: _Json) -> bytes:
    return b"".join(message(field, named(k, free_value(v))) for k, v in node.items() if k.startswith("x-"))


def _schema(schema: _Json) -> bytes:
    parts = [text_field(number, schema[key]) for key, number in _SCHEMA_TEXTS.items() if key in schema]
    parts += [number_field(number, schema[key]) for key, number in _SCHEMA_NUMBERS.items() if key in schema]
    parts += [count_field(number, schema[key]) for key, number in _SCHEMA_COUNTS.items() if key in schema]
    parts += [flag_field(number, schema[key]) for key, number in _SCHEMA_FLAGS.items() if key in schema]
    if "default" in schema:
        parts.append(message(5, free_value(schema["default"])))
    parts.append(count_field(18, schema.get("minProperties", 0)))
    parts += (text_field(19, name) for name in schema.get("required") or ())
    parts += (message(20, free_value(value)) for value in schema.get("enum") or ())
    additional = schema.get("additionalProperties")
    if isinstance(additional, bool):
        parts.append(message(21, flag_field(2, additional)))
    elif additional is not None:
        parts.append(message(21, message(1, _schema(additional))))
    if schema.get("type"):
        types = schema["type"]
        parts.append(message(22, b"".join(text_field(1, t) for t in ([types] if isinstance(types, str) else types))))
    if "items" in schema:
        items = schema["items"]
        parts.append(
            message(23, b"".join(message(1, _schema(i)) for i in (items if isinstance(items, list) else [items])))
        )
    parts += (message(24, _schema(each)) for each in schema.get("allOf") or ())
    properties = schema.get("properties") or {}
    if properties:
        parts.append(message(25, b"".join(message(1, named(n, _schema(p))) for n, p in properties.items())))
    if "example" in schema:
        parts.append(message(30, free_value(schema["example"])))
    parts.append(extensions(31, schema))
    return b"".join(parts)


def _path_item(item: _Json) -> bytes:
    operations = [message(number, _operation(item[verb])) for verb, number in _OPERATIONS.items() if verb in item]
    return b"".join((*operations, _parameters(9, item.get("parameters") or ()), extensions(10, item)))


def _operation(operation: _Json) -> bytes:
    answers = b"".join(message(1, named(code, _answer(a))) for code, a in operation.get("responses", {}).items())
    parts = [text_field(1, tag) for tag in operation.get("tags") or ()]
    parts += [text_field(3, operation.get("description", "")), text_field(5, operation.get("operationId", ""))]
    parts += (text_field(6, media_type) for media_type in operation.get("produces") or ())
    parts += (text_field(7, media_type) for media_type in operation.get("consumes") or ())
    parts += [_parameters(8, operation.get("parameters") or ()), message(9, answers)]
    parts += (text_field(10, scheme) for scheme in operation.get("schemes") or ())
    parts += [flag_field(11, operation.get("deprecated", False)), extensions(13, operation)]
    return b"".join(parts)


def _answer(answer: _Json) -> bytes:
    schema = message(2, message(1, _schema(answer["schema"]))) if "schema" in answer else b""
    return message(1, text_field(1, answer.get("description", "")) + schema)


def _parameters(field: int, parameters: Iterable[_Json]) -> bytes:
    return b"".join(message(field, _parameter(parameter)) for parameter in parameters)


def _parameter(parameter: _Json) -> bytes:
    if "$ref" in parameter:
        return message(2, text_field(1, parameter["$ref"]))
    required = bool(parameter.get("required"))
    description, name, place = parameter.get("description", ""), parameter["name"], parameter["in"]
    if place == "body":
        head = text_field(1, description) + text_field(2, name) + text_field(3, place) + flag_field(4, required)
        return message(1, message(1, head + message(5, _schema(parameter.get("schema") or {}))))
    head = flag_field(1, required) + text_field(2, place) + text_field(3, description) + text_field(4, name)
    type_at = 6 if place in ("query", "formData") else 5
    return message(1, message(2, message(_PLACES[place], head + text_field(type_at, parameter.get("type", "")))))
