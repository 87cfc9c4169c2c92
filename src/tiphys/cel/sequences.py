"""Functions of lists: cel-go's extensions `sets` and `lists` (in version 3).

Invariant: membership is decided by `equality.frozen`, so nothing here takes more than linear time, though upstream's
costs, which are counted, are quadratic.

Spec: cel-go's documentation of the extensions "Sets" and "Lists".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tiphys.cel import types
from tiphys.cel.code import deep_size, size_of, work
from tiphys.cel.cost import COST_MAXIMUM, LIST_BASE, ONE, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.equality import frozen, runtime_type
from tiphys.cel.errors import BudgetExceeded, EvaluationError
from tiphys.cel.types import BOOL, BYTES, DOUBLE, DURATION, DYN, INT, STRING, TIMESTAMP, UINT
from tiphys.cel.values import Value

RANGE_MAXIMUM: Final = 1_000_000
_T: Final = types.parameter("T")
_LIST: Final = types.list_of(_T)
_ORDERED: Final = (INT, UINT, DOUBLE, BOOL, DURATION, TIMESTAMP, STRING, BYTES)


# Sets


def covers(one: list[Value], other: list[Value]) -> bool:
    """Tell whether all elements of the other list are in the one."""
    members = {frozen(each) for each in one}
    return all(frozen(each) in members for each in other)


def intersects(one: list[Value], other: list[Value]) -> bool:
    """Tell whether the lists have an element in common."""
    members = {frozen(each) for each in one}
    return any(frozen(each) in members for each in other)


def equivalent(one: list[Value], other: list[Value]) -> bool:
    """Tell whether the lists have the same elements, in any order and number."""
    return covers(one, other) and covers(other, one)


# Lists


def sliced(elements: list[Value], start: int, end: int) -> list[Value]:
    """Return the elements from start up to end."""
    call = f"cannot slice({start}, {end}), "
    if start < 0 or end < 0:
        raise EvaluationError(call + "negative indexes not supported")
    if start > end:
        raise EvaluationError(call + "start index must be less than or equal to end index")
    if len(elements) < end:
        raise EvaluationError(f"{call}list is length {len(elements)}")
    return elements[start:end]


def flattened(elements: list[Value], depth: int = 1) -> list[Value]:
    """Put the elements of inner lists in their place, down to a depth."""
    if depth < 0:
        raise EvaluationError("level must be non-negative")
    result = elements
    for _ in range(min(depth, 256)):
        if not any(isinstance(each, list) for each in result):
            break
        result = [inner for each in result for inner in (each if isinstance(each, list) else [each])]
    return list(result)


def numbers(count: int) -> list[int]:
    """Return the numbers from 0 up to a count; raises BudgetExceeded for more than any budget allows."""
    if count > RANGE_MAXIMUM:
        raise BudgetExceeded
    return list(range(count))


def distinct(elements: list[Value]) -> list[Value]:
    """Return each element once, where it is first."""
    seen: dict[Value, Value] = {}
    for each in elements:
        seen.setdefault(frozen(each), each)
    return list(seen.values())


def sort(elements: list[Value]) -> list[Value]:
    """Sort elements of one type."""
    return sort_by(elements, elements)


def sort_by(elements: list[Value], keys: list[Value]) -> list[Value]:
    """Sort elements by keys of one type, one for each."""
    if not keys:
        return []
    first = runtime_type(keys[0])
    if first not in _ORDERED:
        raise EvaluationError("list elements must be comparable")
    if any(runtime_type(key) != first for key in keys):
        raise EvaluationError("list elements must have the same type")
    return [elements[index] for index in sorted(range(len(elements)), key=keys.__getitem__)]


# Costs


def _read(values: Sequence[Value]) -> int:
    """Return what reading everything within lists costs beyond what upstream counts."""
    return work(sum(map(deep_size, values)))


def _sets_cost(factor: int) -> CallCost:
    def actual(values: Sequence[Value], result: Value) -> int:
        return 1 + size_of(values[0]) * size_of(values[1]) * factor + _read(values)

    def estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
        return (operands[0].size * operands[1].size).times(factor) + ONE, None

    return CallCost(actual, estimate)


def _made(factor: float, size: CostRange) -> tuple[CostRange, CostRange | None]:
    return size.times(factor) + CostRange(1 + LIST_BASE, 1 + LIST_BASE), size


def _output_actual(values: Sequence[Value], result: Value) -> int:
    return size_of(result) + 1 + LIST_BASE


def _constant(operand: Operand, default: int) -> int:
    value = operand.constant
    return max(0, value) if value.__class__ is int else default


def _slice_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = _constant(operands[2], operands[0].size.max) - _constant(operands[1], 0)
    size %= COST_MAXIMUM + 1
    return _made(1, CostRange(size, size))


def _range_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = _constant(operands[0], COST_MAXIMUM)
    return _made(1, CostRange(size, size))


def _reverse_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return _made(1, operands[0].size)


def _flatten_actual(values: Sequence[Value], result: Value) -> int:
    depth = values[1] if len(values) > 1 else 1
    return max(int(size_of(values[0]) * depth) + 1 + LIST_BASE, work(size_of(result)))


def _flatten_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return _made(_constant(operands[1], COST_MAXIMUM) if len(operands) > 1 else 1, operands[0].size)


def _compared(index: int) -> Callable[[Sequence[Value], Value], int]:
    """Return the cost of comparing all elements of an argument with each other."""

    def actual(values: Sequence[Value], result: Value) -> int:
        elements = values[index]
        factor = 2.0
        if elements and isinstance(elements[0], str | bytes):
            factor += STRING_FACTOR
        return int(len(elements) ** 2 * factor) + 1 + LIST_BASE + _read(elements)

    return actual


def _distinct_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return _made(2, operands[0].size * operands[0].size)


def _sort_cost(index: int, type_: types.Type) -> CallCost:
    factor = 2 + (STRING_FACTOR if type_ in (STRING, BYTES) else 0)

    def estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
        return _made(factor, operands[index].size * operands[index].size)

    return CallCost(_compared(index), estimate)


LIBRARY: Final[Library] = (
    Function("sets.contains", (Overload("list_sets_contains_list", (_LIST, _LIST), BOOL, covers, cost=_sets_cost(1)),)),
    Function(
        "sets.intersects",
        (Overload("list_sets_intersects_list", (_LIST, _LIST), BOOL, intersects, cost=_sets_cost(1)),),
    ),
    Function(
        "sets.equivalent",
        (Overload("list_sets_equivalent_list", (_LIST, _LIST), BOOL, equivalent, cost=_sets_cost(2)),),
    ),
    Function(
        "slice",
        (Overload("list_slice", (_LIST, INT, INT), _LIST, sliced, True, CallCost(_output_actual, _slice_estimate)),),
    ),
    Function(
        "flatten",
        (
            Overload(
                "list_flatten",
                (types.list_of(_LIST),),
                _LIST,
                flattened,
                True,
                CallCost(_flatten_actual, _flatten_estimate),
            ),
            Overload(
                "list_flatten_int",
                (types.list_of(DYN), INT),
                types.list_of(DYN),
                flattened,
                True,
                CallCost(_flatten_actual, _flatten_estimate),
            ),
        ),
    ),
    Function(
        "lists.range",
        (
            Overload(
                "lists_range", (INT,), types.list_of(INT), numbers, False, CallCost(_output_actual, _range_estimate)
            ),
        ),
    ),
    Function(
        "reverse",
        (
            Overload(
                "list_reverse",
                (_LIST,),
                _LIST,
                lambda each: each[::-1],
                True,
                CallCost(_output_actual, _reverse_estimate),
            ),
        ),
    ),
    Function(
        "distinct",
        (Overload("list_distinct", (_LIST,), _LIST, distinct, True, CallCost(_compared(0), _distinct_estimate)),),
    ),
    Function(
        "sort",
        tuple(
            Overload(
                f"list_{each.name}_sort", (types.list_of(each),), types.list_of(each), sort, True, _sort_cost(0, each)
            )
            for each in _ORDERED
        ),
    ),
    Function(
        "@sortByAssociatedKeys",
        tuple(
            Overload(
                f"list_{each.name}_sortByAssociatedKeys",
                (_LIST, types.list_of(each)),
                _LIST,
                sort_by,
                True,
                _sort_cost(1, each),
            )
            for each in _ORDERED
        ),
    ),
)
