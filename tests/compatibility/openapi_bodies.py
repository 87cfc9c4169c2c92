"""Bodies made from an OpenAPI v3 schema: such as it allows, and such as it does not. Test support.

Everything comes from one `random.Random`, so a seed gives the same bodies again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
DEPTH = 7
"""Below this only what is required is made: some schemas contain themselves."""
_TEXTS = (
    "",
    "a",
    "web",
    "-",
    "A b",
    "x" * 70,
    "1",
    "10.0.0.1",
    "example.com/x",
    "é\u0000",
    "/tmp",
    "{}",
    "2026-01-01T00:00:00Z",
)
_INTEGERS = (0, 1, -1, 2, 80, 65536, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))
_WRONG: tuple[Any, ...] = (None, True, 7, -1.5, "text", [], {}, [[]], {"a": {"b": []}}, 1e300, 2**64)


class Bodies:
    """Makes bodies for the schemas of one document. `components` are its components.schemas."""

    def __init__(self, components: Mapping[str, Schema], seed: int) -> None:
        self._components = components
        self._random = random.Random(seed)

    def resolve(self, schema: Schema) -> Schema:
        """Follow references and single allOf lists."""
        while True:
            if "$ref" in schema:
                schema = self._components[schema["$ref"].rpartition("/")[2]]
            elif len(schema.get("allOf", ())) == 1:
                schema = schema["allOf"][0]
            else:
                return schema

    def allowed(self, schema: Schema, depth: int = 0) -> Any:
        """Return a value that the schema allows."""
        schema = self.resolve(schema)
        chance = self._random
        if "oneOf" in schema:
            return self.allowed(chance.choice(schema["oneOf"]), depth)
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                size = 0 if depth > DEPTH else chance.randint(0, 2)
                return [self.allowed(schema.get("items", {}), depth + 1) for _ in range(size)]
            case "string":
                return self._string(schema)
            case "integer":
                value = chance.choice(_INTEGERS)
                return value if schema.get("format") != "int32" else max(-(2**31), min(value, 2**31 - 1))
            case "number":
                return chance.choice((0, 0.5, -3, 1e9))
            case "boolean":
                return chance.random() < 0.5
        return {}

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        result: dict[str, Any] = {}
        keep = 0.5 if depth < 2 else 0.25
        for name, child in schema.get("properties", {}).items():
            if name in required or (depth <= DEPTH and self._random.random() < keep):
                result[name] = self.allowed(child, depth + 1)
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and depth <= DEPTH:
            for _ in range(self._random.randint(0, 2)):
                result[self._random.choice(_TEXTS)] = self.allowed(values, depth + 1)
        return result

    def _string(self, schema: Schema) -> str:
        chance = self._random
        if "enum" in schema and chance.random() < 0.8:
            return str(chance.choice(schema["enum"]))
        match schema.get("format"):
            case "date-time":
                return chance.choice(("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z"))
            case "byte":
                return chance.choice(("", "YQ==", "AAAA"))
            case "int-or-string":
                return chance.choice(("1", "50%", "http"))
        return chance.choice(_TEXTS)

    def broken(self, value: Any) -> Any:
        """Return a copy of a value with something wrong at one place in it."""
        chance = self._random
        if isinstance(value, dict) and value and chance.random() < 0.85:
            key = chance.choice(list(value))
            return {**value, key: self.broken(value[key])}
        if isinstance(value, list) and value and chance.random() < 0.85:
            at = chance.randrange(len(value))
            return [*value[:at], self.broken(value[at]), *value[at + 1 :]]
        return chance.choice(_WRONG)
