"""Trees of expressions: what the parser makes, the checker annotates, and the planner and the cost estimate read.

Macros are nodes of their own here (`Fold`, `Bind`); everything else that is written with operators is a `Call` with
the operator's name, such as `_+_`. Invariant: `depth` of a tree is at most `parser.DEPTH_MAXIMUM`, so recursion over
trees is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tiphys.cel.types import DYN, Type
from tiphys.cel.values import Value

if TYPE_CHECKING:
    from tiphys.cel.declarations import Overload


@dataclass(slots=True, eq=False)
class Node:
    """A part of an expression."""

    offset: int
    """Where messages point to: the operator, the parenthesis of a call, or the first character."""
    type: Type = field(default=DYN, init=False)
    """Set by the checker."""
    depth: int = field(default=1, init=False)
    """Levels of nodes from here down."""


@dataclass(slots=True, eq=False)
class Literal(Node):
    """null, a boolean, number, string or bytes."""

    value: Value


@dataclass(slots=True, eq=False)
class Ident(Node):
    """A name: a variable, or a type."""

    name: str


@dataclass(slots=True, eq=False)
class Select(Node):
    """`operand.field`, or with `test` whether it is there: `has(operand.field)`."""

    operand: Node
    field: str
    test: bool = False
    constant: Value = None
    """Set by the checker where the whole is the name of a type."""
    variable: str = ""
    """Set by the checker where the whole is the name of a variable, such as `authorizer.requestResource`."""


@dataclass(slots=True, eq=False)
class Call(Node):
    """A call of a function, member function or operator."""

    function: str
    arguments: list[Node]
    """With the target of a member call first."""
    member: bool = False
    overloads: tuple[Overload, ...] = ()
    """Set by the checker: those that may be meant; the values decide between several."""


@dataclass(slots=True, eq=False)
class ListNode(Node):
    """`[a, ?b]`."""

    elements: list[Node]
    optional: frozenset[int]
    """Indices of the elements that are left out when they are absent."""


@dataclass(slots=True, eq=False)
class Entry:
    """One entry of a map or an object, at its colon."""

    offset: int
    key: Node
    value: Node
    optional: bool


@dataclass(slots=True, eq=False)
class MapNode(Node):
    """`{a: b, ?c: d}`."""

    entries: list[Entry]


@dataclass(slots=True, eq=False)
class StructNode(Node):
    """`Name{field: value}`; the keys of the entries are literals."""

    name: str
    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Fold(Node):
    """A macro that walks over a list or a map."""

    kind: str
    """all, exists, exists_one, map, filter, transformList, transformMap, transformMapEntry."""
    range: Node
    variable: str
    second: str | None
    """The value's variable, where `variable` is for the index or key."""
    condition: Node | None
    """Elements for which it is false are passed over: `filter`, and the forms of the transforming ones with it."""
    body: Node | None
    """What decides or is put into the result. None for `filter`."""


@dataclass(slots=True, eq=False)
class Bind(Node):
    """`cel.bind(variable, value, body)`."""

    variable: str
    value: Node
    body: Node


@dataclass(slots=True, eq=False)
class OptMap(Node):
    """`target.optMap(variable, body)`, or `optFlatMap` where the body is an optional itself."""

    target: Node
    variable: str
    body: Node
    flat: bool


def qualified_name(node: Node) -> str | None:
    """Return `a.b.c` of a chain of names, or None."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test:
        prefix = qualified_name(node.operand)
        return f"{prefix}.{node.field}" if prefix else None
    return None
