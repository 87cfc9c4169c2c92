"""Selectors of the authorizer library: a check may be limited to what a list with these selectors would show.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes authorizer library".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tiphys.api.cellibrary.authorizer import RESOURCE_CHECK, with_part
from tiphys.api.cellibrary.costs import actual_size
from tiphys.cel import types
from tiphys.cel.cost import LIST_BASE, STRING_FACTOR, STRUCT_BASE, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.values import Value

_REQUIREMENTS_A_CHARACTER = 0.5
"""The shortest requirement takes two characters."""
_REQUIREMENT = float(LIST_BASE + STRUCT_BASE)


def _cost(size: CostRange) -> CostRange:
    parsing = size.times(STRING_FACTOR)
    requirements = size.times(_REQUIREMENTS_A_CHARACTER).times(_REQUIREMENT)
    return CostRange(LIST_BASE, LIST_BASE) + parsing + requirements


def _actual(values: Sequence[Value], result: Value) -> int:
    size = math.ceil(actual_size(values[1]))
    return _cost(CostRange(size, size)).max


def _estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return _cost(operands[1].size), None


_COST = CallCost(_actual, _estimate)


def _selector(name: str, field: str) -> Function:
    arguments = (RESOURCE_CHECK, types.STRING)
    overload = Overload(
        f"authorizer_{name.lower()}", arguments, RESOURCE_CHECK, with_part(field), member=True, cost=_COST
    )
    return Function(name, (overload,))


LIBRARY: Library = (_selector("fieldSelector", "field_selector"), _selector("labelSelector", "label_selector"))
