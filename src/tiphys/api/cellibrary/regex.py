"""The regex library: find and findAll, in RE2's dialect and in linear time.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes regex library".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tiphys.api.cellibrary.costs import actual_size
from tiphys.api.pattern import find_matches, pattern_problem
from tiphys.cel import types
from tiphys.cel.cost import ONE, REGEX_FACTOR, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import Value


def _actual(values: Sequence[Value], result: Value) -> int:
    text = math.ceil((1 + actual_size(values[0])) * STRING_FACTOR)
    return text * math.ceil(actual_size(values[1]) * REGEX_FACTOR)


def _estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    text = operands[0].size
    cost = (text + ONE).times(STRING_FACTOR) * operands[1].size.times(REGEX_FACTOR)
    return cost, CostRange(0, text.max)


_COST = CallCost(_actual, _estimate)


def _matches(text: str, pattern: str, limit: int) -> list[str]:
    problem = pattern_problem(pattern)
    if problem:
        raise EvaluationError(f"Illegal regex: {problem}")
    return find_matches(pattern, text, limit)


def _find(text: str, pattern: str) -> str:
    found = _matches(text, pattern, 1)
    return found[0] if found else ""


def _find_all(text: str, pattern: str) -> list[str]:
    return _matches(text, pattern, -1)


_S = types.STRING
_TEXTS = types.list_of(types.STRING)

LIBRARY: Library = (
    Function("find", (Overload("string_find_string", (_S, _S), _S, _find, member=True, cost=_COST),)),
    Function(
        "findAll",
        (
            Overload("string_find_all_string", (_S, _S), _TEXTS, _find_all, member=True, cost=_COST),
            Overload("string_find_all_string_int", (_S, _S, types.INT), _TEXTS, _matches, member=True, cost=_COST),
        ),
    ),
)
