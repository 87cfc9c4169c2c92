"""Types of expressions, as the checker sees them: scalars, lists, maps, objects with fields, opaque values.

They come from whoever declares variables and functions (schemas, libraries), and go to the checker and to the planner,
which reads from them how JSON data becomes values. Invariant: two types are the same exactly if they are equal; names
decide for objects, so a type may contain itself.

Spec: cel-spec, "Language Definition", the chapters "Values" and "Gradual Type Checking".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


class Type:
    """A type: its kind, its name, and for lists, maps, optionals and types of types the types inside."""

    __slots__ = ("kind", "name", "parameters")

    def __init__(self, kind: str, name: str, parameters: tuple[Type, ...] = ()) -> None:
        self.kind: Final = kind
        """One of bool, int, uint, double, string, bytes, null, dyn, duration, timestamp, list, map, optional, opaque,
        object, type, parameter, error."""
        self.name: Final = name
        """As `type(x)` prints it."""
        self.parameters: Final = parameters

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Type):
            return NotImplemented
        return self.kind == other.kind and self.name == other.name and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash((self.kind, self.name, self.parameters))

    def __str__(self) -> str:
        """Return it as messages of the checker show it, such as `map(string, list(int))`."""
        if self.parameters and self.kind != "object":
            return f"{self.name}({', '.join(map(str, self.parameters))})"
        return self.name

    def __repr__(self) -> str:
        return f"<{self}>"


class ListType(Type):
    """A list. `unique` and `keys` say that it is a set, or a map by the fields `keys` of its elements (JSON names)."""

    __slots__ = ("keys", "unique")

    def __init__(self, element: Type, unique: bool = False, keys: tuple[str, ...] = ()) -> None:
        super().__init__("list", "list", (element,))
        self.unique: Final = unique
        """Order is nothing to `==`, and `+` adds only what is not there: x-kubernetes-list-type `set`."""
        self.keys: Final = keys
        """The same by these fields, and `+` overwrites: x-kubernetes-list-type `map`."""


class ObjectType(Type):
    """A JSON object with known fields. Objects with the same name are the same type."""

    __slots__ = ("fields", "json_names")

    def __init__(self, name: str, fields: Mapping[str, Type], json_names: Mapping[str, str] | None = None) -> None:
        super().__init__("object", name)
        self.fields: Final = fields
        """By the name that an expression says. It may be filled later, for types that contain themselves."""
        self.json_names: Final = json_names or {}
        """The key in the data for each field whose name differs from it (`__namespace__` for `namespace`)."""


BOOL: Final = Type("bool", "bool")
INT: Final = Type("int", "int")
UINT: Final = Type("uint", "uint")
DOUBLE: Final = Type("double", "double")
STRING: Final = Type("string", "string")
BYTES: Final = Type("bytes", "bytes")
NULL: Final = Type("null", "null")
DYN: Final = Type("dyn", "dyn")
DURATION: Final = Type("duration", "google.protobuf.Duration")
TIMESTAMP: Final = Type("timestamp", "google.protobuf.Timestamp")
ERROR: Final = Type("error", "*error*")
"""The type of what was refused already: it fits everywhere, so that one mistake is told once."""


def list_of(element: Type, *, unique: bool = False, keys: tuple[str, ...] = ()) -> Type:
    """Return the type of lists of `element`, see `ListType`."""
    return ListType(element, unique, keys)


def map_of(key: Type, value: Type) -> Type:
    """Return the type of maps."""
    return Type("map", "map", (key, value))


def optional_of(value: Type) -> Type:
    """Return the type of values that may be absent."""
    return Type("optional", "optional_type", (value,))


def opaque(name: str, *parameters: Type) -> Type:
    """Return the type of values that only functions look into, such as `kubernetes.Quantity`.

    Their Python class says its type in a class attribute `cel_type`, and compares with `__eq__` and `__hash__`.
    """
    return Type("opaque", name, parameters)


def type_of(value: Type) -> Type:
    """Return the type of a type, as `type(x)` has."""
    return Type("type", "type", (value,))


def parameter(name: str) -> Type:
    """Return a type parameter of an overload: every use of the name in one call is the same type."""
    return Type("parameter", name)


def type_name(type_: Type) -> str:
    """Return the name of a type as `type(x)` prints it."""
    return "null_type" if type_.kind == "null" else type_.name
