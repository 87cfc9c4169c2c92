"""Macros: calls that are other trees. `has`, the ones that walk over lists and maps, `cel.bind`, and those of optionals.

The parser asks for every call; an answer of None means that it is a call of a function. `cel.bind` is one only where the environment says so: in Kubernetes, in the selectors of
devices. Invariant: a macro is known by
its name, the number of its arguments and whether it has a target, and by nothing else, so functions may have its name
with other arguments.

Spec: cel-spec, "Language Definition", the chapter "Macros"; cel-go's documentation of two-variable comprehensions,
bindings and optional types.
"""

from __future__ import annotations

from typing import Protocol

from tiphys.cel.syntax import Bind, Call, Fold, Ident, Literal, MapNode, Node, OptMap, Select, StructNode

ACCUMULATORS = ("__result__", "@result")
_FOLDS = {"all", "exists", "exists_one", "existsOne", "filter"}
_TRANSFORMS = {"transformList", "transformMap", "transformMapEntry"}


class Expansion(Protocol):
    """What the parser does for macros."""

    bindings: bool
    """`cel.bind` is known."""

    def refuse(self, offset: int, message: str) -> Node:
        """Note an error."""

    def made(self, node: Node) -> Node:
        """Return the node with its depth."""


def expand_global(parser: Expansion, offset: int, name: str, arguments: list[Node]) -> Node | None:
    """Return what a call without a target stands for, or None."""
    if name != "has" or len(arguments) != 1:
        return None
    field = arguments[0]
    if not isinstance(field, Select) or field.test:
        return parser.refuse(field.offset, "invalid argument to has() macro")
    return parser.made(Select(offset, field.operand, field.field, test=True))


def expand_member(parser: Expansion, offset: int, target: Node, name: str, arguments: list[Node]) -> Node | None:
    """Return what a call with a target stands for, or None."""
    count = len(arguments)
    if name in _FOLDS and count == 2:
        message = "argument is not an identifier" if name == "filter" else "argument must be a simple name"
        return _fold(parser, offset, name, target, arguments, 1, message)
    if name == "map" and count in (2, 3):
        return _fold(parser, offset, name, target, arguments, 1, "argument is not an identifier")
    if (name in _FOLDS and name not in ("exists_one", "filter") and count == 3) or (
        name in _TRANSFORMS and count in (3, 4)
    ):
        return _fold(parser, offset, name, target, arguments, 2, "argument must be a simple name")
    if name == "bind" and count == 3 and parser.bindings and isinstance(target, Ident) and target.name == "cel":
        return _bind(parser, offset, arguments)
    if name == "sortBy" and count == 2:
        return _sort_by(parser, offset, target, arguments)
    if name in ("optMap", "optFlatMap") and count == 2:
        return _opt_map(parser, offset, target, name, arguments)
    return None


def _fold(
    parser: Expansion, offset: int, kind: str, target: Node, arguments: list[Node], variables: int, message: str
) -> Node:
    names: list[str] = []
    for each in arguments[:variables]:
        if not isinstance(each, Ident):
            return parser.refuse(each.offset, message)
        if each.name in ACCUMULATORS:
            return parser.refuse(each.offset, "iteration variable overwrites accumulator variable")
        names.append(each.name)
    if len(set(names)) < len(names):
        return parser.refuse(arguments[1].offset, f"duplicate variable name: {names[0]}")
    kind = "exists_one" if kind == "existsOne" else kind
    rest = arguments[variables:]
    condition = rest[0] if len(rest) == 2 or kind == "filter" else None
    body = None if kind == "filter" else rest[-1]
    second = names[1] if variables == 2 else None
    return parser.made(Fold(offset, kind, target, names[0], second, condition, body))


def _bind(parser: Expansion, offset: int, arguments: list[Node]) -> Node:
    variable = arguments[0]
    if not isinstance(variable, Ident):
        return parser.refuse(variable.offset, "cel.bind() variable names must be simple identifiers")
    return parser.made(Bind(offset, variable.name, arguments[1], arguments[2]))


def _sort_by(parser: Expansion, offset: int, target: Node, arguments: list[Node]) -> Node:
    """Bind the list to a name that nobody can write, and sort it by the keys that the body makes of its elements."""
    if isinstance(target, Literal | MapNode | StructNode):
        what = "a list, identifier, comprehension, call or select expression"
        return parser.refuse(target.offset, f"sortBy can only be applied to {what}")
    hidden = "@__sortBy_input__"
    keys = expand_member(parser, offset, Ident(offset, hidden), "map", arguments)
    assert keys is not None
    call = parser.made(Call(offset, "@sortByAssociatedKeys", [Ident(offset, hidden), keys], member=True))
    return parser.made(Bind(offset, hidden, target, call))


def _opt_map(parser: Expansion, offset: int, target: Node, name: str, arguments: list[Node]) -> Node:
    variable = arguments[0]
    if not isinstance(variable, Ident):
        return parser.refuse(variable.offset, f"{name}() variable name must be a simple identifier")
    return parser.made(OptMap(offset, target, variable.name, arguments[1], flat=name == "optFlatMap"))
