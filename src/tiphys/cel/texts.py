"""Functions of strings: those of the standard library, and of cel-go's extension `strings`.

Invariant: positions and lengths count characters (code points), never bytes.

Spec: cel-spec, "List of Standard Definitions"; cel-go's documentation of the extension "Strings"; costs are those of
Kubernetes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tiphys.cel import patterns, types
from tiphys.cel.code import size_of, traversal
from tiphys.cel.cost import REGEX_FACTOR, STRING_FACTOR, CallCost, CostRange, Operand, string_cost
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.types import BOOL, STRING
from tiphys.cel.values import Value

_STRINGS: Final = types.list_of(STRING)


def contains(text: str, part: str) -> bool:
    """Tell whether a part is anywhere in a text."""
    if text.__class__ is not str:
        raise TypeError
    return part in text


def _fixed_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[1]))


def _fixed_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[1].size.times(STRING_FACTOR), None


def _contains_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[0])) * traversal(size_of(values[1]))


def _contains_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR) * operands[1].size.times(STRING_FACTOR), None


def matches_actual(values: Sequence[Value], result: Value) -> int:
    """Return what a search for a pattern costs."""
    return traversal(1 + size_of(values[0])) * string_cost(size_of(values[1]), REGEX_FACTOR)


def matches_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """Return what a search for a pattern costs."""
    text = (operands[0].size + CostRange(1, 1)).times(STRING_FACTOR)
    return text * operands[1].size.times(REGEX_FACTOR), None


FIXED_COST: Final = CallCost(_fixed_actual, _fixed_estimate)
CONTAINS_COST: Final = CallCost(_contains_actual, _contains_estimate)
MATCHES_COST: Final = CallCost(matches_actual, matches_estimate)

LIBRARY: Final[Library] = (
    Function("contains", (Overload("contains_string", (STRING, STRING), BOOL, contains, True, CONTAINS_COST),)),
    Function("startsWith", (Overload("starts_with_string", (STRING, STRING), BOOL, str.startswith, True, FIXED_COST),)),
    Function("endsWith", (Overload("ends_with_string", (STRING, STRING), BOOL, str.endswith, True, FIXED_COST),)),
    Function(
        "matches",
        (
            Overload("matches", (STRING, STRING), BOOL, patterns.matches, False, MATCHES_COST),
            Overload("matches_string", (STRING, STRING), BOOL, patterns.matches, True, MATCHES_COST),
        ),
    ),
)
