"""Paths into a schema, such as `.spec.names['a.b']`: those of `fieldPath` and of selectable fields.

A path names properties and keys of maps only; what is no path, or leads to nothing that the schema has, is told.

Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", "Field path" and "Selectable
fields".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|[.\[\]]|[^.\[\]]+")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


class BadSchemaPath(ValueError):
    """The text leads nowhere in the schema; the message says why."""


def resolve_schema_path(text: str, schema: Schema, *, brackets: bool = True) -> tuple[str, Schema]:
    """Return the path as errors show it (`spec.names[a.b]`), and the schema there. Raises BadSchemaPath."""
    tokens = iter(_TOKEN.findall(text))
    shown = ""
    for token in tokens:
        if token == "[":
            if not brackets:
                raise BadSchemaPath("array notation is not allowed")
            name = _quoted(_next(tokens))
            shown, schema = _step(shown, schema, name)
            closing = _next(tokens)
            if closing != "]":
                raise BadSchemaPath(f"expected ] but got {closing}")
        elif token == ".":
            shown, schema = _step(shown, schema, _next(tokens))
        else:
            raise BadSchemaPath(f"expected [ or . but got: {token}")
    return shown, schema


def _next(tokens: Iterator[str]) -> str:
    token = next(tokens, None)
    if token is None:
        raise BadSchemaPath("unexpected end of JSON path")
    return token


def _quoted(token: str) -> str:
    if len(token) < 2 or token[0] != "'" or token[-1] != "'":
        raise BadSchemaPath(f"expected single quoted string but got {token}")
    bad = next((match for match in _ESCAPE.finditer(token[1:-1]) if match[1] not in _ESCAPES), None)
    if bad is not None:
        raise BadSchemaPath(f"invalid string literal: invalid escape char {bad[0]}")
    return _ESCAPE.sub(lambda match: _ESCAPES[match[1]], token[1:-1])


def _step(shown: str, schema: Schema, name: str) -> tuple[str, Schema]:
    properties, additional = schema.get("properties"), schema.get("additionalProperties")
    if properties:
        if name not in properties:
            raise BadSchemaPath("does not refer to a valid field")
        return (f"{shown}.{name}" if shown else name), properties[name]
    if isinstance(additional, Mapping):
        return f"{shown}[{name}]", additional
    raise BadSchemaPath("does not refer to a valid field")
