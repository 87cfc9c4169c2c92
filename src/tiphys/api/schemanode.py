"""The compiled form of a schema: a tree of nodes, one for each place a value can stand.

schema.py makes nodes from OpenAPI definitions and structural.py from CustomResourceDefinitions; decoding, strategic
patches (strategic.py) and field ownership (fieldset.py, apply.py) walk them. A node knows the shape of its value, how
patches merge it, and `decode`, which checks one value and returns what to keep.

Decoding behaves like Go's JSON decoder over Kubernetes' structs: the first type error is the one reported, null means
absent (or the zero value inside lists and maps), an empty list or map that may be left out is left out, unknown fields
are dropped and told by path.

The file is long because nodes decode each other's values: they are one recursion, read together or not at all.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.causes import go_float
from tiphys.api.quantity import canonical_quantity
from tiphys.api.timestamps import canonical_micro_time, canonical_time

Path = tuple[Any, ...]
"""A path as a linked list: () or (parent, step). A step is a field name, an index, or a MapKey."""

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)


class MapKey(str):
    """A step into a map: shown in paths of unknown fields, not in Go's names of struct fields."""

    __slots__ = ()


def path_text(path: Path) -> str:
    """Return `spec.containers[0].name`."""
    steps: list[str] = []
    while path:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).removeprefix(".")


def _go_path(path: Path) -> str:
    steps: list[str] = []
    while path:
        path, step = path
        if isinstance(step, str) and not isinstance(step, MapKey):
            steps.append(step)
    return ".".join(reversed(steps))


def json_type(value: Any) -> str:
    """Return the name that Go's decoder gives to a JSON value."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case None:
            return "null"
        case _:
            return "object"


@dataclass(slots=True)
class Findings:
    """What one decode found. `struct` is the Go name of the struct around the value being decoded."""

    errors: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    struct: str = ""

    def mismatch(self, value: str, path: Path, go_type: str) -> None:
        """Record that a JSON value of one type stands where another belongs."""
        where = _go_path(path)
        if where:
            self.errors.append(
                f"json: cannot unmarshal {value} into Go struct field {self.struct}.{where} of type {go_type}"
            )
        else:
            self.errors.append(f"json: cannot unmarshal {value} into Go value of type {go_type}")


class Node:
    """A value of any kind that is left alone (raw extensions). Base of the others.

    `exact`: a Python type that needs no further check, so that decoding a struct can skip the call.
    `patch_strategies`, `merge_key`: how strategic patches merge it.
    `list_type` (atomic, set, map), `list_keys`, `atomic`: how server-side apply owns it.
    """

    __slots__ = ("atomic", "definition", "exact", "list_keys", "list_type", "merge_key", "patch_strategies")

    go_type = "interface {}"
    shape = "raw"

    def __init__(self, definition: Mapping[str, Any] | None = None) -> None:
        self.definition: Mapping[str, Any] = definition or {}
        self.exact: type | None = None
        self.patch_strategies: frozenset[str] = frozenset()
        self.merge_key: str = ""
        self.list_type: str = "atomic"
        self.list_keys: tuple[str, ...] = ()
        self.atomic = False
        self._read_extensions(self.definition)

    def _read_extensions(self, definition: Mapping[str, Any]) -> None:
        strategies = definition.get("x-kubernetes-patch-strategy")
        if strategies:
            self.patch_strategies = frozenset(strategies.split(","))
        self.merge_key = definition.get("x-kubernetes-patch-merge-key") or self.merge_key
        self.list_type = definition.get("x-kubernetes-list-type") or self.list_type
        self.list_keys = tuple(definition.get("x-kubernetes-list-map-keys") or self.list_keys)
        if definition.get("x-kubernetes-map-type") == "atomic":
            self.atomic = True

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        """Check a value that is not null; return it, or what to put in its place."""
        return value

    def zero(self) -> Any:
        """Return what null inside a list or map becomes."""
        return None

    def field(self, name: str) -> Node | None:
        """Return the node of a field or map value, None where the schema has none."""
        return None

    def item_node(self) -> Node | None:
        """Return the node of a list's items."""
        return None


class StringNode(Node):
    __slots__ = ("go_type",)
    shape = "scalar"

    def __init__(self, definition: Mapping[str, Any] | None = None, go_type: str = "string") -> None:
        super().__init__(definition)
        self.exact = str
        self.go_type = go_type

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not str:
            found.mismatch(json_type(value), path, self.go_type)
        return value

    def zero(self) -> Any:
        return ""


class BoolNode(Node):
    __slots__ = ()
    shape = "scalar"
    go_type = "bool"

    def __init__(self, definition: Mapping[str, Any] | None = None) -> None:
        super().__init__(definition)
        self.exact = bool

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not bool:
            found.mismatch(json_type(value), path, "bool")
        return value

    def zero(self) -> Any:
        return False


class IntegerNode(Node):
    __slots__ = ("go_type", "limits")
    shape = "scalar"

    def __init__(self, definition: Mapping[str, Any] | None = None) -> None:
        super().__init__(definition)
        narrow = self.definition.get("format") == "int32"
        self.go_type = "int32" if narrow else "int64"
        self.limits = INT32 if narrow else INT64

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is int:
            if not self.limits[0] <= value <= self.limits[1]:
                found.mismatch(f"number {value}", path, self.go_type)
        elif type(value) is float:
            found.mismatch(f"number {value!r}", path, self.go_type)
        else:
            found.mismatch(json_type(value), path, self.go_type)
        return value

    def zero(self) -> Any:
        return 0


class FloatNode(Node):
    __slots__ = ()
    shape = "scalar"
    go_type = "float64"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) not in (int, float):
            found.mismatch(json_type(value), path, "float64")
        return value

    def zero(self) -> Any:
        return 0


class BytesNode(Node):
    """Base64 text."""

    __slots__ = ()
    shape = "scalar"
    go_type = "[]uint8"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not str:
            found.mismatch(json_type(value), path, "[]uint8")
            return value
        text = value.replace("\n", "").replace("\r", "")
        try:
            binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            found.errors.append(f"illegal base64 data at input byte {_base64_fault(text)}")
        return text

    def zero(self) -> Any:
        return ""


def _base64_fault(text: str) -> int:
    """Return the index at which Go's decoder gives up."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for index, char in enumerate(text):
        if char not in alphabet:
            if char == "=" and len(text) % 4 == 0 and index >= len(text) - 2 and set(text[index:]) == {"="}:
                return max(len(text) - 2, 0)
            return index
    return len(text) - len(text) % 4


def base64_bytes(text: str) -> bytes:
    """Return the bytes of a checked base64 field."""
    return base64.b64decode(text)


class ConvertedNode(Node):
    """A text with a grammar of its own that is stored in canonical form (quantities, times)."""

    __slots__ = ("convert", "go_type", "numbers", "zero_value")
    shape = "scalar"

    def __init__(self, convert: Callable[[Any], str], zero_value: Any, numbers: bool = False) -> None:
        super().__init__()
        self.convert = convert
        self.zero_value = zero_value
        self.numbers = numbers
        self.go_type = "string"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        kind = type(value)
        if kind is not str and not self.numbers:
            found.mismatch(json_type(value), path, "string")
            return value
        if kind is not str and (kind is bool or kind not in (int, float)):
            value = "!"
        try:
            return self.convert(value)
        except ValueError as error:
            found.errors.append(str(error))
            return value

    def zero(self) -> Any:
        return self.zero_value


def quantity_node() -> Node:
    return ConvertedNode(canonical_quantity, "0", numbers=True)


def time_node() -> Node:
    return ConvertedNode(canonical_time, None)


def micro_time_node() -> Node:
    return ConvertedNode(canonical_micro_time, None)


class IntOrStringNode(Node):
    __slots__ = ()
    shape = "scalar"

    def __init__(self, definition: Mapping[str, Any] | None = None) -> None:
        super().__init__(definition)
        self.exact = str

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is int:
            if not INT32[0] <= value <= INT32[1]:
                found.mismatch(f"number {value}", path, "int32")
        elif type(value) is float:
            found.mismatch(f"number {go_float(value)}", path, "int32")
        elif type(value) is not str:
            found.mismatch(json_type(value), path, "int32")
        return value

    def zero(self) -> Any:
        return 0


class ListNode(Node):
    __slots__ = ("item",)
    shape = "list"

    def __init__(self, definition: Mapping[str, Any], item: Node) -> None:
        super().__init__(definition)
        self.item = item

    @property
    def go_type(self) -> str:  # type: ignore[override]
        return f"[]{self.item.go_type}"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not list:
            found.mismatch(json_type(value), path, self.go_type)
            return value
        item = self.item
        exact = item.exact
        for index, element in enumerate(value):
            if type(element) is exact:
                continue
            kept = item.zero() if element is None else item.decode(element, (path, index), found)
            if kept is not element:
                value[index] = kept
        return value

    def zero(self) -> Any:
        return []

    def item_node(self) -> Node | None:
        return self.item


class MapNode(Node):
    __slots__ = ("value",)
    shape = "map"

    def __init__(self, definition: Mapping[str, Any], value: Node) -> None:
        super().__init__(definition)
        self.value = value

    @property
    def go_type(self) -> str:  # type: ignore[override]
        return f"map[string]{self.value.go_type}"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not dict:
            found.mismatch(json_type(value), path, self.go_type)
            return value
        node = self.value
        exact = node.exact
        for key, element in value.items():
            if type(element) is exact:
                continue
            kept = node.zero() if element is None else node.decode(element, (path, MapKey(key)), found)
            if kept is not element:
                value[key] = kept
        return value

    def zero(self) -> Any:
        return {}

    def field(self, name: str) -> Node | None:
        return self.value


class ObjectOrElseNode(Node):
    """A value that may be an object of a known type, a list of such, or something else, which is left alone."""

    __slots__ = ("node",)

    def __init__(self, definition: Mapping[str, Any], node: Node) -> None:
        super().__init__(definition)
        self.node = node
        self.atomic = True

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is dict:
            return self.node.decode(value, path, found)
        if type(value) is list:
            for index, element in enumerate(value):
                if type(element) is dict:
                    self.node.decode(element, (path, index), found)
        return value


EMBEDDED_STRUCTS = frozenset(
    (
        "metadata",
        "spec",
        "status",
        "template",
        "strategy",
        "updateStrategy",
        "jobTemplate",
        "resources",
        "loadBalancer",
        "daemonEndpoints",
        "nodeInfo",
    )
)
"""Fields that hold a struct by value in Go, so that they are there (empty) even when JSON leaves them out."""


SHOWN_EMPTY = frozenset(
    (
        ("ClusterRole", "rules"),
        ("EndpointSlice", "endpoints"),
        ("HorizontalPodAutoscalerStatus", "currentMetrics"),
        ("Role", "rules"),
    )
)
"""Optional lists that upstream tells nevertheless when they are empty, by struct and field."""


class StructType:
    """The fields of one definition, compiled when first needed and shared by every place that refers to it.

    `always`: fields that Go's zero value of the struct has; field ownership counts them as never added or removed.
    `omitted`: lists and maps that are left out when they are empty (known once `fields` were built).
    """

    __slots__ = ("_build", "_fields", "always", "definition", "go_name", "omitted", "package")

    def __init__(self, package: str, go_name: str, definition: Mapping[str, Any], build: Callable[[], dict[str, Node]]):
        self.package = package
        self.go_name = go_name
        self.definition = definition
        self.always = EMBEDDED_STRUCTS.union(definition.get("required") or ())
        self.omitted: frozenset[str] = frozenset()
        self._build = build
        self._fields: dict[str, Node] | None = None

    @property
    def fields(self) -> dict[str, Node]:
        if self._fields is None:
            self._fields = self._build()
            empty = {name for name, node in self._fields.items() if node.shape in ("list", "map")}
            kept = {name for struct, name in SHOWN_EMPTY if struct == self.go_name}
            self.omitted = frozenset(empty.difference(self.definition.get("required") or (), kept))
        return self._fields


class StructNode(Node):
    __slots__ = ("go_type", "struct")
    shape = "struct"

    def __init__(self, struct: StructType, usage: Mapping[str, Any] | None = None) -> None:
        super().__init__(struct.definition)
        if usage:
            self._read_extensions(usage)
        self.struct = struct
        self.go_type = f"{struct.package}.{struct.go_name}"

    def decode(self, value: Any, path: Path, found: Findings) -> Any:
        if type(value) is not dict:
            found.mismatch(json_type(value), path, self.go_type)
            return value
        outer, found.struct = found.struct, self.struct.go_name
        fields = self.struct.fields
        omitted = self.struct.omitted
        dropped: list[str] = []
        for key, element in value.items():
            node = fields.get(key)
            if node is None:
                found.unknown.append(path_text((path, key)))
                dropped.append(key)
            elif element is None:
                dropped.append(key)
            elif type(element) is not node.exact:
                kept = node.decode(element, (path, key), found)
                if not kept and key in omitted:
                    dropped.append(key)
                elif kept is not element:
                    value[key] = kept
        for key in dropped:
            del value[key]
        found.struct = outer
        return value

    def zero(self) -> Any:
        return {}

    def field(self, name: str) -> Node | None:
        return self.struct.fields.get(name)


def walk(node: Node, names: Iterator[str]) -> Node | None:
    """Return the node at a path of field names; lists are entered without naming an index."""
    current: Node | None = node
    for name in names:
        while current is not None and current.shape == "list":
            current = current.item_node()
        current = current.field(name) if current is not None else None
    return current


def root_of(schema: Any) -> Node:
    """Return the node tree of a `Schema`. One without a tree (Scale) is plain JSON: maps merge, lists are replaced."""
    root = getattr(schema, "root", None)
    return root if isinstance(root, Node) else Node()
