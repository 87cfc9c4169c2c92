"""What evaluating costs: a budget at run time, and ranges of sizes and costs before.

Costs are counted in upstream's units, where reading a field or a simple call is 1. Written by the evaluator and by
`estimate.py`; libraries state the costs of their functions with `CallCost`; rules and policies refuse by the results.
Invariant: costs and sizes are between 0 and 2^64 - 1 and stay there instead of overflowing.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", the part "Resource constraints".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.cel.errors import BudgetExceeded
from tiphys.cel.types import Type
from tiphys.cel.values import Value

COST_MAXIMUM: Final = 2**64 - 1
STRING_FACTOR: Final = 0.1
"""Of a call that reads a string, for each of its characters."""
REGEX_FACTOR: Final = 0.25
"""Of a regular expression, for each of its characters."""
LIST_BASE: Final = 10
MAP_BASE: Final = 30
STRUCT_BASE: Final = 40


class Budget:
    """What an evaluation may cost, and what it and those before it with the same budget did cost."""

    __slots__ = ("limit", "spent")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0

    @property
    def left(self) -> int:
        """Return what may still be spent; never below 0."""
        return max(0, self.limit - self.spent)

    def spend(self, cost: int) -> None:
        """Count a cost; raises BudgetExceeded when all together is over the limit."""
        self.spent += cost
        if self.spent > self.limit:
            raise BudgetExceeded


@dataclass(frozen=True, slots=True)
class CostRange:
    """The least and the most that something costs, or how large it is. Both ends are reached."""

    min: int
    max: int

    def __add__(self, other: CostRange) -> CostRange:
        return CostRange(_bounded(self.min + other.min), _bounded(self.max + other.max))

    def __mul__(self, other: CostRange) -> CostRange:
        return CostRange(_bounded(self.min * other.min), _bounded(self.max * other.max))

    def times(self, factor: float) -> CostRange:
        """Return both ends times the factor, rounded up."""
        return CostRange(_scaled(self.min, factor), _scaled(self.max, factor))

    def union(self, other: CostRange) -> CostRange:
        """Return the range that covers both."""
        return CostRange(min(self.min, other.min), max(self.max, other.max))


NO_COST: Final = CostRange(0, 0)
ONE: Final = CostRange(1, 1)
ANY_SIZE: Final = CostRange(0, COST_MAXIMUM)

Sizes = Callable[[tuple[str, ...]], CostRange | None]
"""Returns how large the data at a path may be (characters, elements), or None where that is not known.

A path begins with a variable; then come fields, `@items` for elements of a list, `@keys` and `@values` for those of a map.
"""


@dataclass(frozen=True, slots=True)
class Operand:
    """An argument of a call as its cost is estimated; for a member function the target is the first one."""

    type: Type
    size: CostRange
    """`ANY_SIZE` where nothing is known."""
    path: tuple[str, ...] = ()
    """Where in the data it comes from; empty for what was computed."""
    element_size: CostRange | None = None
    """For lists: how large an element is at most, where that is known."""
    constant: Value = None
    """The value of a literal, or None."""


@dataclass(frozen=True, slots=True)
class CallCost:
    """What a call of an overload costs, without its arguments."""

    actual: Callable[[Sequence[Value], Value], int]
    """From the arguments and the result."""
    estimate: Callable[[Sequence[Operand]], tuple[CostRange, CostRange | None]]
    """Returns the cost, and the size of the result or None where it has none or any."""


def _bounded(cost: int) -> int:
    return min(cost, COST_MAXIMUM)


def _scaled(cost: int, factor: float) -> int:
    return _bounded(math.ceil(cost * factor))


def string_cost(size: int, factor: float = STRING_FACTOR) -> int:
    """Return what reading so many characters costs."""
    return math.ceil(size * factor)
