"""What a planned part of an expression is: a closure over a frame, and what it costs whenever it is evaluated.

A frame is a list: what was spent, what may be spent, lists and maps that were converted, then one place for each
variable. Costs that are the same each time
are added by whoever decides whether a part is evaluated at all (a branch, a loop, the program), so that straight code
counts once; closures add only what depends on values. Invariant: a closure raises EvaluationError, BudgetExceeded, or
what a lazy binding raises, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tiphys.cel.cost import STRING_FACTOR
from tiphys.cel.errors import BudgetExceeded
from tiphys.cel.values import Optional, Value

Frame = list[Any]
Run = Callable[[Frame], Value]

SPENT: Final = 0
LIMIT: Final = 1
CONVERTED: Final = 2
FIRST_VARIABLE: Final = 3
_FREE_WORK: Final = 256
_WORK_OF_ONE: Final = 4

_SIZED: Final = frozenset({str, bytes, list, dict})
_TABLE: Final = tuple(math.ceil(size * STRING_FACTOR) for size in range(1024))


@dataclass(slots=True)
class Code:
    """A planned part."""

    run: Run
    cost: int = 0
    constant: bool = False
    """It is `value`, always."""
    value: Value = None
    attribute: bool = False
    """It only reads variables and fields. Upstream does not count the reading of such a branch's variable."""


def constant(value: Value) -> Code:
    """Return code that is a value."""
    return Code(lambda frame: value, 0, True, value)


def traversal(size: int) -> int:
    """Return what reading so many characters costs."""
    return _TABLE[size] if size < 1024 else math.ceil(size * STRING_FACTOR)


def size_of(value: Value) -> int:
    """Return the size by which costs are counted: characters, elements, or 1."""
    if value.__class__ in _SIZED or isinstance(value, list | dict):
        return len(value)
    if value.__class__ is Optional:
        return size_of(value.value) if value.present else 1
    return 1


def work(nodes: int) -> int:
    """Return what going through so many elements costs, beyond what upstream counts; few of them are free.

    Python is slower than Go: without it a call that is cheap for upstream could be made a million times over large data.
    """
    return 0 if nodes < _FREE_WORK else nodes // _WORK_OF_ONE


def deep_size(value: Value) -> int:
    """Return how many elements and entries are in a value, at any depth."""
    if isinstance(value, dict):
        return len(value) + sum(map(deep_size, value.values()))
    if isinstance(value, list):
        return len(value) + sum([deep_size(each) for each in value if isinstance(each, list | dict)])
    return 0


def spend(frame: Frame, cost: int) -> None:
    """Count a cost and stop if it is too much."""
    frame[SPENT] += cost
    if frame[SPENT] > frame[LIMIT]:
        raise BudgetExceeded
