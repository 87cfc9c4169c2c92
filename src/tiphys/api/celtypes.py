"""What expressions know of a value that has a schema: its type, how large it may be, how small its JSON is.

`declare` maps a structural schema (or an OpenAPI v3 schema without references) to a `Declared`; `sizes_of` makes of it
what cost estimates ask. Values that a schema does not describe are not shown to expressions: unknown fields, and lists
and maps of such. Invariant: a name that an expression can say stands for exactly one property; one that has no such
name (`a b`) is left out.

Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", "Validation rules" (the
table of types, escaping of property names) and "Resource use by validation functions".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiphys.cel import types
from tiphys.cel.cost import CostRange, Sizes
from tiphys.cel.types import ObjectType, Type

Schema = Mapping[str, Any]

MAX_REQUEST_BYTES = 3 * 1024 * 1024
_TIME_MAX, _DATE_SIZE, _DATE_TIME_MIN, _DURATION_MIN = 32, 12, 21, 3
_MIN_LIST = _MIN_MAP = _MIN_OBJECT = 2

_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    )
)
_NAME = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
_ESCAPED = re.compile(r"__|[-./]")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_TEXT = {"type": "string"}
_ROOT_PROPERTIES: Mapping[str, Schema] = {
    "apiVersion": _TEXT,
    "kind": _TEXT,
    "metadata": {"type": "object", "properties": {"name": _TEXT, "generateName": _TEXT}},
}


@dataclass(frozen=True, slots=True)
class Declared:
    """A value as expressions see it."""

    type: Type
    max_elements: int = 0
    """Characters of a text, elements of a list or map, at most; 0 for what has no size."""
    min_bytes: int = 1
    """Size of the smallest JSON."""
    element: Declared | None = None
    """Of lists, and the values of maps."""
    fields: Mapping[str, Declared] = field(default_factory=dict)
    """Of objects, by the names that expressions say."""

    def at(self, step: str) -> Declared | None:
        """Return what a step of a path leads to; map keys are texts of unknown size, which count as empty."""
        if step in ("@items", "@values"):
            return self.element
        if step == "@keys":
            return _KEY if self.type.kind == "map" else None
        return self.fields.get(step)


_KEY = Declared(types.STRING, 0, 2)


def escape_name(name: str) -> str | None:
    """Return how an expression says the name of a property, None if it cannot."""
    if name in _RESERVED:
        return f"__{name}__"
    if _NAME.fullmatch(name) is None:
        return None
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], name)


def declare(schema: Schema, root: bool = False, name: str = "selfType") -> Declared | None:
    """Return what expressions see of a value of the schema; None if nothing.

    `root` True: the root of a resource, whose type and names are always there.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return Declared(types.DYN, _max_length(schema))
    kind = "object" if root else schema.get("type")
    match kind:
        case "array":
            return _list(schema, name)
        case "object":
            return _map(schema, name) if _has_values(schema) and not root else _object(schema, root, name)
        case "string":
            return _text(schema)
        case "boolean":
            return Declared(types.BOOL, 0, 4)
        case "number":
            return Declared(types.DOUBLE)
        case "integer":
            return Declared(types.INT)
    return None


def _has_values(schema: Schema) -> bool:
    return isinstance(schema.get("additionalProperties"), Mapping)


def _child(schema: Schema, name: str) -> Declared | None:
    return declare(schema, bool(schema.get("x-kubernetes-embedded-resource")), name)


def _list(schema: Schema, name: str) -> Declared | None:
    items = schema.get("items")
    element = _child(items, f"{name}.@idx") if isinstance(items, Mapping) else None
    if element is None:
        return None
    most = schema.get("maxItems")
    if most is None:
        most = (MAX_REQUEST_BYTES - 2) // (element.min_bytes + 1)
    list_type = schema.get("x-kubernetes-list-type")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if list_type == "map" else ()
    type_ = types.list_of(element.type, unique=list_type == "set", keys=keys)
    return Declared(type_, max(0, most), _MIN_LIST, element)


def _map(schema: Schema, name: str) -> Declared | None:
    value = _child(schema["additionalProperties"], f"{name}.@elem")
    if value is None:
        return None
    most = schema.get("maxProperties")
    if most is None:
        most = (MAX_REQUEST_BYTES - 2) // (value.min_bytes + 6)
    return Declared(types.map_of(types.STRING, value.type), max(0, most), _MIN_MAP, value)


def _object(schema: Schema, root: bool, name: str) -> Declared:
    properties = dict(schema.get("properties") or {})
    if root:
        properties.update(_ROOT_PROPERTIES)
    required = set(schema.get("required") or ())
    fields: dict[str, Declared] = {}
    json_names: dict[str, str] = {}
    min_bytes = _MIN_OBJECT
    for key, child in properties.items():
        declared = _child(child, f"{name}.{key}")
        if declared is None:
            continue
        said = escape_name(key)
        if said is not None:
            fields[said] = declared
            if said != key:
                json_names[said] = key
        if key in required and child.get("default") is None:
            min_bytes += len(key) + declared.min_bytes + 4
    type_ = ObjectType(name, {said: declared.type for said, declared in fields.items()}, json_names)
    return Declared(type_, 0, min_bytes, None, fields)


def _text(schema: Schema) -> Declared:
    match schema.get("format"):
        case "byte":
            most = schema.get("maxLength")
            return Declared(types.BYTES, MAX_REQUEST_BYTES - 2 if most is None else max(0, most), 2)
        case "duration":
            return Declared(types.DURATION, _TIME_MAX, _DURATION_MIN)
        case "date":
            return Declared(types.TIMESTAMP, _DATE_SIZE, _DATE_SIZE)
        case "date-time":
            return Declared(types.TIMESTAMP, _TIME_MAX, _DATE_TIME_MIN)
    if schema.get("maxLength") is None and schema.get("enum"):
        return Declared(types.STRING, max((len(v) for v in schema["enum"] if isinstance(v, str)), default=0), 2)
    return Declared(types.STRING, _max_length(schema), 2)


def _max_length(schema: Schema) -> int:
    """Return how many bytes a text may have: `maxLength` counts characters, of up to four bytes."""
    most = schema.get("maxLength")
    return MAX_REQUEST_BYTES - 2 if most is None else max(0, most) * 4


def sizes_of(declared: Declared) -> Sizes:
    """Return the sizes of data below a variable of this type, whatever the variable is called."""

    def sizes(path: tuple[str, ...]) -> CostRange | None:
        current: Declared | None = declared
        for step in path[1:]:
            current = current.at(step) if current is not None else None
        return CostRange(0, current.max_elements) if current is not None and path else None

    return sizes


def max_cardinality(min_bytes: int) -> int:
    """Return how often a value of this size fits into one request."""
    return MAX_REQUEST_BYTES // (min_bytes + 1)
