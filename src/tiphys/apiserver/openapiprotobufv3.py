"""The protobuf form of an OpenAPI v3 document, which some Go clients ask for instead of JSON.

The message types are those of the public OpenAPI v3 protobuf description; the fields that documents of API servers use
are written, with the primitives of openapiprotobuf.py. Input: the document as JSON objects. Output: bytes. A default
that is an object has no place in that description and is told as an empty one, as upstream does.

Spec: Protocol Buffers documentation, "Encoding"; OpenAPI Specification 3.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.apiserver.openapiprotobuf import (
    count_field,
    extensions,
    flag_field,
    free_value,
    message,
    named,
    number_field,
    text_field,
)

_Json = Mapping[str, Any]
_FLAGS = {"nullable": 1, "readOnly": 3, "writeOnly": 4, "deprecated": 8, "exclusiveMaximum": 12, "exclusiveMinimum": 14}
_NUMBERS = {"multipleOf": 10, "maximum": 11, "minimum": 13}
_COUNTS = {
    "maxLength": 15, "minLength": 16, "maxItems": 18, "minItems": 19, "maxProperties": 21, "minProperties": 22
}  # fmt: skip
_TEXTS = {"title": 9, "pattern": 17, "type": 25, "description": 34, "format": 35}
_COMBINED = {"allOf": 26, "oneOf": 27, "anyOf": 28}
_OPERATIONS = {"get": 4, "put": 5, "post": 6, "delete": 7, "options": 8, "head": 9, "patch": 10, "trace": 11}


def encode_v3(document: _Json) -> bytes:
    """Return the document as protobuf."""
    info = text_field(1, document["info"]["title"]) + text_field(6, document["info"]["version"])
    paths = b"".join(message(1, named(path, _path_item(item))) for path, item in document["paths"].items())
    schemas = (document.get("components") or {}).get("schemas") or {}
    parts = [text_field(1, document["openapi"]), message(2, info), message(4, paths)]
    return b"".join([*parts, message(5, message(1, _schemas(schemas)))])


def _schemas(schemas: _Json) -> bytes:
    return b"".join(message(1, named(name, _schema(schema))) for name, schema in schemas.items())


def _schema(schema: _Json) -> bytes:
    """Return a schema or a reference to one."""
    if "$ref" in schema:
        return message(2, text_field(1, schema["$ref"]))
    return message(1, _own_schema(schema))


def _own_schema(schema: _Json) -> bytes:
    parts = [flag_field(number, schema[key]) for key, number in _FLAGS.items() if key in schema]
    parts += [text_field(number, schema[key]) for key, number in _TEXTS.items() if key in schema]
    parts += [number_field(number, schema[key]) for key, number in _NUMBERS.items() if key in schema]
    parts += [count_field(number, schema[key]) for key, number in _COUNTS.items() if key in schema]
    parts.append(flag_field(20, schema.get("uniqueItems", False)))
    parts += (text_field(23, name) for name in schema.get("required") or ())
    parts += (message(24, free_value(value)) for value in schema.get("enum") or ())
    for key, number in _COMBINED.items():
        parts += (message(number, _schema(each)) for each in schema.get(key) or ())
    if "not" in schema:
        parts.append(message(29, _own_schema(schema["not"])))
    if "items" in schema:
        parts.append(message(30, message(1, _schema(schema["items"]))))
    if schema.get("properties"):
        parts.append(message(31, _schemas(schema["properties"])))
    additional = schema.get("additionalProperties")
    if isinstance(additional, bool):
        parts.append(message(32, flag_field(2, additional)))
    elif additional is not None:
        parts.append(message(32, message(1, _schema(additional))))
    if "default" in schema:
        parts.append(message(33, _default(schema["default"])))
    if "example" in schema:
        parts.append(message(7, free_value(schema["example"])))
    return b"".join([*parts, extensions(36, schema)])


def _default(value: Any) -> bytes:
    if isinstance(value, bool):
        return flag_field(2, value)
    if isinstance(value, int | float):
        return number_field(1, value)
    return text_field(3, value) if isinstance(value, str) else b""


def _path_item(item: _Json) -> bytes:
    operations = [message(number, _operation(item[verb])) for verb, number in _OPERATIONS.items() if verb in item]
    return b"".join([*operations, _parameters(13, item.get("parameters") or ()), extensions(14, item)])


def _operation(operation: _Json) -> bytes:
    parts = [text_field(1, tag) for tag in operation.get("tags") or ()]
    parts += [text_field(3, operation.get("description", "")), text_field(5, operation.get("operationId", ""))]
    parts.append(_parameters(6, operation.get("parameters") or ()))
    body = operation.get("requestBody")
    if body is not None:
        told = text_field(1, body.get("description", "")) + _content(2, body) + flag_field(3, body.get("required"))
        parts.append(message(7, message(1, told)))
    answers = operation.get("responses") or {}
    parts.append(message(8, b"".join(message(2, named(code, _answer(each))) for code, each in answers.items())))
    return b"".join([*parts, flag_field(10, operation.get("deprecated")), extensions(13, operation)])


def _answer(answer: _Json) -> bytes:
    return message(1, text_field(1, answer.get("description", "")) + _content(3, answer))


def _content(field: int, node: _Json) -> bytes:
    content = node.get("content") or {}
    if not content:
        return b""
    types = (
        named(name, message(1, _schema(each["schema"])) if "schema" in each else b"") for name, each in content.items()
    )
    return message(field, b"".join(message(1, each) for each in types))


def _parameters(field: int, parameters: Iterable[_Json]) -> bytes:
    return b"".join(message(field, message(1, _parameter(parameter))) for parameter in parameters)


def _parameter(parameter: _Json) -> bytes:
    parts = [text_field(1, parameter["name"]), text_field(2, parameter["in"])]
    parts += [text_field(3, parameter.get("description", "")), flag_field(4, parameter.get("required"))]
    if "schema" in parameter:
        parts.append(message(10, _schema(parameter["schema"])))
    return b"".join(parts)
