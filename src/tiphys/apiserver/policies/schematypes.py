"""Types of whole kinds for the type check of policies: from OpenAPI definitions, field by field as they are asked for.

Rules of custom resources have types of their own (api/celtypes.py), which show less of metadata and know sizes; a type
check only wants to know what a field is. A schema without type (an integer or text, a raw extension) is of any type,
so that it gives no false alarm.

Spec: Kubernetes documentation, "Validating Admission Policy" (type checking); "Validation rules" (the table of types).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tiphys.api.celtypes import escape_name
from tiphys.api.definitions import INT_OR_STRING, OBJECT_META, Definitions, referenced
from tiphys.api.kind import Kind
from tiphys.cel import types
from tiphys.cel.types import ObjectType, Type

_TEXTS = {"byte": types.BYTES, "date": types.TIMESTAMP, "date-time": types.TIMESTAMP, "duration": types.DURATION}
_SCALARS = {"boolean": types.BOOL, "integer": types.INT, "number": types.DOUBLE}
_METADATA = {"$ref": f"#/definitions/{OBJECT_META}"}
_TEXT = {"type": "string"}


class _Fields(Mapping[str, Type]):
    """The fields of an object, typed when first asked for: definitions may contain themselves."""

    def __init__(self, properties: Mapping[str, Any], type_of: Callable[[Mapping[str, Any], str], Type]) -> None:
        self._properties = {said: (name, properties[name]) for name in properties if (said := escape_name(name))}
        self._type_of = type_of
        self._types: dict[str, Type] = {}

    def __getitem__(self, said: str) -> Type:
        found = self._types.get(said)
        if found is None:
            name, schema = self._properties[said]
            found = self._types[said] = self._type_of(schema, name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)


def type_of_kind(kind: Kind, definitions: Definitions) -> Type | None:
    """Return the type of the objects of a kind, None if its schema is not known."""
    if kind.published_schema is not None:
        schema: Mapping[str, Any] = kind.published_schema
    elif kind.definition in definitions:
        schema = definitions[kind.definition]
    else:
        return None
    properties = {**(schema.get("properties") or {}), "apiVersion": _TEXT, "kind": _TEXT, "metadata": _METADATA}
    return _object({**schema, "properties": properties}, kind.kind, definitions)


def _type(schema: Mapping[str, Any], path: str, definitions: Definitions) -> Type:
    reference = referenced(dict(schema))
    if reference is not None:
        if reference == INT_OR_STRING or reference not in definitions:
            return types.DYN
        schema = definitions[reference]
    if schema.get("x-kubernetes-int-or-string"):
        return types.DYN
    match schema.get("type"):
        case "string":
            return _TEXTS.get(schema.get("format", ""), types.STRING)
        case "array":
            return types.list_of(_type(schema.get("items") or {}, f"{path}.@idx", definitions))
        case "object" if isinstance(schema.get("additionalProperties"), Mapping):
            values = schema["additionalProperties"]
            return types.map_of(types.STRING, _type(values, f"{path}.@elem", definitions))
        case "object" if schema.get("properties"):
            return _object(schema, path, definitions)
        case kind:
            return _SCALARS.get(kind or "", types.DYN)


def _object(schema: Mapping[str, Any], path: str, definitions: Definitions) -> ObjectType:
    def type_of(child: Mapping[str, Any], name: str) -> Type:
        return _type(child, f"{path}.{name}", definitions)

    return ObjectType(path, _Fields(schema.get("properties") or {}, type_of))
