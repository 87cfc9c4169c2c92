"""What an expression may name, and the way from its text to a program.

Made by whoever has expressions (rules of definitions, policies, match conditions): variables with their types, and
libraries. `compile` parses, checks and plans; the program is kept and evaluated for every write. Invariant: neither
environments nor programs change, so both may be shared.

Spec: cel-spec, "Language Definition"; Kubernetes documentation, "Common Expression Language in Kubernetes".
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tiphys.cel import checker, selecting, standard
from tiphys.cel.code import LIMIT, SPENT, Code, Frame
from tiphys.cel.cost import COST_MAXIMUM, Budget, CostRange, Sizes
from tiphys.cel.data import Converter, converter
from tiphys.cel.declarations import Library, Overload
from tiphys.cel.errors import BudgetExceeded
from tiphys.cel.parser import parse
from tiphys.cel.planner import Planner
from tiphys.cel.source import Source
from tiphys.cel.syntax import Node
from tiphys.cel.types import ObjectType, Type
from tiphys.cel.values import Lazy, Value

_SHALLOW: Final = 60
"""Levels of a tree, and tokens that may make one, for which Python's usual stack is enough."""
_NESTING: Final = "([{?:.+-*/%<>=!"
_DEEP_STACK: Final = 5000
"""Frames for trees of `parser.DEPTH_MAXIMUM` levels: the parser takes most, five a level."""


@contextmanager
def _deep_stack() -> Iterator[None]:
    """Allow recursion over the deepest trees. Frames of Python take no stack of the machine."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEEP_STACK))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Program:
    """A compiled expression."""

    __slots__ = ("_code", "_frame_size", "_names", "_tree", "result_type", "text")

    def __init__(self, text: str, tree: Node, code: Code, planner: Planner, variables: Mapping[str, Type]) -> None:
        self.text: Final = text
        self.result_type: Final = tree.type
        self._tree: Final = tree
        self._code: Final = code
        self._frame_size: Final = planner.frame_size
        names = planner.slots.items()
        self._names: Final[list[tuple[str, int, Converter | None]]] = [
            (name, slot, converter(variables[name])) for name, slot in names
        ]

    @property
    def variables(self) -> frozenset[str]:
        """Return the names of the variables that the expression reads."""
        return frozenset(name for name, _, _ in self._names)

    def evaluate(self, bindings: Mapping[str, Value], budget: Budget | None = None) -> Value:
        """Return the value for these variables; JSON data becomes values as the variables' types say.

        Raises EvaluationError, and BudgetExceeded when the evaluation costs more than is left; what it cost is
        counted in the budget in every case.
        """
        limit = COST_MAXIMUM if budget is None else budget.limit - budget.spent
        frame: Frame = [self._code.cost, limit] + [None] * (self._frame_size - LIMIT - 1)
        try:
            for name, slot, convert in self._names:
                frame[slot] = _bound(bindings, name, convert)
            if self._tree.depth <= _SHALLOW:
                value = self._code.run(frame)
            else:
                with _deep_stack():
                    value = self._code.run(frame)
        finally:
            if budget is not None:
                budget.spent += frame[SPENT]
        if frame[SPENT] > frame[LIMIT] or (budget is not None and budget.spent > budget.limit):
            raise BudgetExceeded
        return value

    def estimate_cost(self, sizes: Sizes | None = None) -> CostRange:
        """Return the least and the most that an evaluation costs, with data of the sizes that are known."""
        from tiphys.cel.estimate import estimate

        return estimate(self._tree, sizes or (lambda path: None))


def _bound(bindings: Mapping[str, Value], name: str, convert: Converter | None) -> Value:
    try:
        value = bindings[name]
    except KeyError:
        return selecting.unbound()
    return value if convert is None or value.__class__ is Lazy else convert(value)


class Environment:
    """Variables and functions. The standard library, with strings, sets, lists and optionals, is always in it."""

    __slots__ = ("_names", "bindings", "libraries", "structs", "variables")

    def __init__(
        self,
        variables: Mapping[str, Type],
        libraries: tuple[Library, ...] = (),
        structs: Mapping[str, ObjectType] | None = None,
        bindings: bool = False,
    ) -> None:
        self.variables: Final = dict(variables)
        self.libraries: Final = libraries
        self.structs: Final = structs or {}
        """Objects that an expression may make: `Name{field: value}`. They may be made when they are asked for."""
        self.bindings: Final = bindings
        """`cel.bind(name, value, expression)` is a macro. Upstream knows it in selectors of devices only."""
        self._names: checker.Names | None = None

    def extend(
        self,
        variables: Mapping[str, Type] | None = None,
        libraries: tuple[Library, ...] = (),
        structs: Mapping[str, ObjectType] | None = None,
    ) -> Environment:
        """Return an environment with more in it; a variable of the same name replaces that of this one."""
        both = {**self.structs, **structs} if structs and self.structs else structs or self.structs
        extended = Environment(
            {**self.variables, **(variables or {})},
            self.libraries + libraries,
            both,
            self.bindings,
        )
        if not libraries:
            shared = self._known()
            extended._names = checker.Names(extended.variables, shared.functions, extended.structs, shared.type_names)
        return extended

    def compile(self, text: str) -> Program:
        """Return the program of an expression; raises CompileError."""
        source = Source(text)
        if sum(map(text.count, _NESTING)) <= _SHALLOW:
            return self._program(source)
        with _deep_stack():
            return self._program(source)

    def _program(self, source: Source) -> Program:
        tree = parse(source, self.bindings)
        checker.check(source, tree, self._known())
        planner = Planner(self.variables)
        code = planner.plan(tree)
        return Program(source.text, tree, code, planner, self.variables)

    def _known(self) -> checker.Names:
        if self._names is None:
            libraries = standard.LIBRARIES + self.libraries
            functions: dict[str, tuple[Overload, ...]] = {}
            for function in (function for library in libraries for function in library):
                functions[function.name] = functions.get(function.name, ()) + function.overloads
            type_names = {**standard.TYPE_NAMES, **{each.name: each for each in _opaque_types(functions.values())}}
            self._names = checker.Names(self.variables, functions, self.structs, type_names)
        return self._names


def _opaque_types(functions: Iterable[tuple[Overload, ...]]) -> Iterator[Type]:
    """Return the types that libraries bring: their names are types as values."""
    for overloads in functions:
        for overload in overloads:
            for type_ in (*overload.arguments, overload.result):
                if type_.kind == "opaque":
                    yield type_
