"""Objects of built-in kinds with every field of their schema set, for tests of encodings."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kind

SCHEMA_DEPTH = 2
"""JSON schemas within JSON schemas."""
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."


class Filler:
    """Fills objects of one Kubernetes version. `turn` chooses between forms: a number or a text, one item or two."""

    def __init__(self, version: tuple[int, int], turn: int = 0) -> None:
        self._definitions = load_definitions(version)
        self._count = turn
        self._depth = 0

    def whole(self, kind: Kind) -> dict[str, Any]:
        """Return an object of a kind."""
        obj: dict[str, Any] = self._named(kind.definition)
        return {**obj, "apiVersion": kind.api_version, "kind": kind.kind}

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _named(self, name: str) -> Any:
        number = self._next()
        short = name.rpartition(".")[2]
        match short:
            case "Quantity":
                return f"{number}m"
            case "IntOrString":
                return number if number % 2 else f"{number}%"
            case "Time":
                return f"2026-11-21T21:{number % 60:02}:{number % 59:02}Z"
            case "MicroTime":
                return f"1987-01-02T03:04:{number % 60:02}.{number % 1_000_000:06}Z"
            case "FieldsV1" | "RawExtension" | "JSON":
                return {"f:spec": {"n": number, "ü": [None, 1.5, "x"]}}
        if not name.startswith(f"{_EXTENSIONS}JSONSchemaProps"):
            return self._object(self._definitions[name])
        if self._depth >= SCHEMA_DEPTH:
            return {"type": "string", "x-kubernetes-embedded-resource": True}
        self._depth += 1
        try:
            return self._json_schema(short, number)
        finally:
            self._depth -= 1

    def _json_schema(self, short: str, number: int) -> Any:
        schema = f"{_EXTENSIONS}JSONSchemaProps"
        match short:
            case "JSONSchemaPropsOrArray" if number % 2:
                return [self._named(schema), {}]
            case "JSONSchemaPropsOrBool" if number % 2:
                return bool(number % 4 > 1)
            case "JSONSchemaPropsOrStringArray" if number % 2:
                return ["a", ""]
        return self._object(self._definitions[schema])

    def _object(self, definition: Mapping[str, Any]) -> dict[str, Any]:
        # The type of an object within another is told in JSON only.
        told = ("apiVersion", "kind") if "x-kubernetes-group-version-kind" in definition else ()
        properties = definition.get("properties") or {}
        return {name: self._value(schema) for name, schema in properties.items() if name not in told}

    def _value(self, schema: Mapping[str, Any]) -> Any:
        reference = schema.get("$ref")
        if reference:
            return self._named(reference.rpartition("/")[2])
        number = self._next()
        match schema.get("type"):
            case "string" if schema.get("format") == "byte":
                return base64.b64encode(bytes(number % 256 for _ in range(number % 200))).decode() or "AA=="
            case "string":
                return f"text {number} ä€" if number % 5 else "long " * 50 + str(number)
            case "integer":
                return (number, -number, 2**31 - number, number << 7)[number % 4]
            case "number":
                return number + 0.25
            case "boolean":
                return True
            case "array":
                return [self._value(schema["items"]) for _ in range(1 + number % 2)]
            case "object" if "additionalProperties" in schema:
                return {key: self._value(schema["additionalProperties"]) for key in ("z", "a/b", "Ä")[: 1 + number % 3]}
        raise AssertionError(f"the filler does not know {schema}")


def pruned(value: Any, randomness: random.Random, depth: int = 0) -> Any:
    """Return a part of an object: fields are missing, lists and maps shorter, numbers zero, booleans false."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not depth or randomness.random() > 0.4}
        return {key: pruned(item, randomness, depth + 1) for key, item in kept.items()}
    if isinstance(value, list):
        return [pruned(item, randomness, depth + 1) for item in value if randomness.random() > 0.2]
    if isinstance(value, bool):
        return randomness.random() > 0.5
    if isinstance(value, int) and randomness.random() < 0.2:
        return 0
    return value
