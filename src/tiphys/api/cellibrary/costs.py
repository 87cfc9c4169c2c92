"""Costs of calls that several libraries share, in upstream's units.

Each is a `CallCost` or makes one: `actual` counts what a call did, `estimate` what one may do at most. A size is
characters of a text, elements of a list, bytes of an address; a value without a size counts 1.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Resource constraints".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tiphys.cel.cost import ONE, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.values import Value


def actual_size(value: Any) -> int:
    """Return how large a value is: what `size(value)` tells, 1 where there is no size."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    size = getattr(value, "cel_size", None)
    return size if isinstance(size, int) else 1


def fixed(cost: int) -> CallCost:
    """Return the cost of a call that costs the same for all arguments."""
    price = CostRange(cost, cost)
    return CallCost(lambda values, result: cost, lambda operands: (price, None))


CHEAP = fixed(1)


def _read_first(values: Sequence[Value], result: Value) -> int:
    return math.ceil(actual_size(values[0]) * STRING_FACTOR)


def _estimate_one(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return ONE, None


def _estimate_first(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR), operands[0].size


PARSED = CallCost(_read_first, _estimate_one)
"""A text is read into a value; upstream estimates such calls as 1, whatever their size."""
TRAVERSED = CallCost(_read_first, _estimate_first)
"""A text is read, and the result has its size."""


def traversal(value: Any) -> int:
    """Return the cost of walking over a value with all that is in it."""
    match value:
        case str():
            return int(len(value.encode("utf-8", "surrogatepass")) * STRING_FACTOR)
        case bytes():
            return int(len(value) * STRING_FACTOR)
        case list():
            return sum(map(traversal, value))
        case dict():
            return sum(traversal(key) + traversal(item) for key, item in value.items())
    return 1
