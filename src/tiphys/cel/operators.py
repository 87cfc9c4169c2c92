"""The operators as functions: what types they take, what they do, what errors they have.

`&&`, `||`, `?:`, `==`, `!=`, `in` and indexing are planned in `logic.py` and `selecting.py`; here are their types.
Invariant: a number of 64 bits never becomes one of more; that is an overflow.

Spec: cel-spec, "Language Definition", "List of Standard Definitions".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Final

from tiphys.cel import times, types
from tiphys.cel.code import size_of, traversal, work
from tiphys.cel.cost import STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.equality import KeyedList, concatenated
from tiphys.cel.errors import EvaluationError
from tiphys.cel.logic import ORDERS, mixed_order
from tiphys.cel.types import BOOL, BYTES, DOUBLE, DURATION, INT, STRING, TIMESTAMP, UINT, Type
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, UINT_MAXIMUM, Duration, Timestamp, UInt, Value

_A: Final = types.parameter("A")
_B: Final = types.parameter("B")
_LIST: Final = types.list_of(_A)
_MAP: Final = types.map_of(_A, _B)


def bounded_int(number: int) -> int:
    """Return a number that is within 64 bits; raises EvaluationError."""
    if INT_MINIMUM <= number <= INT_MAXIMUM:
        return number
    raise EvaluationError("integer overflow")


def bounded_uint(number: int) -> UInt:
    """Return a number that is within 64 bits without sign; raises EvaluationError."""
    if 0 <= number <= UINT_MAXIMUM:
        return UInt(number)
    raise EvaluationError("unsigned integer overflow")


def add_int(one: int, other: int) -> int:
    """Add."""
    result = one + other
    if INT_MINIMUM <= result <= INT_MAXIMUM:
        return result
    raise EvaluationError("integer overflow")


def subtract_int(one: int, other: int) -> int:
    """Subtract."""
    return bounded_int(one - other)


def multiply_int(one: int, other: int) -> int:
    """Multiply."""
    return bounded_int(one * other)


def divide_int(one: int, other: int) -> int:
    """Divide, towards zero."""
    if other == 0:
        raise EvaluationError("division by zero")
    quotient = abs(one) // abs(other)
    return bounded_int(quotient if (one < 0) == (other < 0) else -quotient)


def modulo_int(one: int, other: int) -> int:
    """Return the rest of a division; it has the sign of the dividend."""
    if other == 0:
        raise EvaluationError("modulus by zero")
    if one == INT_MINIMUM and other == -1:
        raise EvaluationError("integer overflow")
    rest = abs(one) % abs(other)
    return -rest if one < 0 else rest


def divide_uint(one: int, other: int) -> UInt:
    """Divide."""
    if other == 0:
        raise EvaluationError("division by zero")
    return UInt(int(one) // int(other))


def modulo_uint(one: int, other: int) -> UInt:
    """Return the rest of a division."""
    if other == 0:
        raise EvaluationError("modulus by zero")
    return UInt(int(one) % int(other))


def divide_double(one: float, other: float) -> float:
    """Divide; by zero there is infinity, or no number."""
    if other != 0:
        return one / other
    if one == 0 or math.isnan(one):
        return math.nan
    return math.copysign(math.inf, one) * math.copysign(1.0, other)


def multiply_double(one: float, other: float) -> float:
    """Multiply."""
    return one * other


def add_timestamp(one: Timestamp | Duration, other: Timestamp | Duration) -> Timestamp:
    """Add a duration to a moment, in either order."""
    return times.checked_timestamp(one.nanoseconds + other.nanoseconds)


def add_duration(one: Duration, other: Duration) -> Duration:
    """Add."""
    return times.checked_duration(one.nanoseconds + other.nanoseconds)


def subtract_duration(one: Duration | Timestamp, other: Duration | Timestamp) -> Duration:
    """Return the time between."""
    return times.checked_duration(one.nanoseconds - other.nanoseconds)


def subtract_from_timestamp(one: Timestamp, other: Duration) -> Timestamp:
    """Return the moment before."""
    return times.checked_timestamp(one.nanoseconds - other.nanoseconds)


def join(one: Value, other: Value) -> Value:
    """Concatenate texts or bytes; other classes raise TypeError."""
    if one.__class__ is not other.__class__:
        raise TypeError
    return one + other


def _never(*values: Value) -> Value:
    raise AssertionError(f"planned in another way: {values}")


# Costs


def _join_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[0]) + size_of(values[1]))


def _join_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = operands[0].size + operands[1].size
    return size.times(STRING_FACTOR), size


def _list_actual(values: Sequence[Value], result: Value) -> int:
    return 1 + work(len(result) if isinstance(result, KeyedList) else len(result) // 16)


def _list_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return CostRange(1, 1), operands[0].size + operands[1].size


def _order_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(min(size_of(values[0]), size_of(values[1])))


def order_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """Return what comparing two values costs: at most the smaller one is read."""
    smaller = min(operands[0].size.max, operands[1].size.max)
    return CostRange(min(smaller, 1), smaller).times(STRING_FACTOR), None


def _in_list_actual(values: Sequence[Value], result: Value) -> int:
    return size_of(values[1])


def _in_list_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[1].size, None


JOIN_COST: Final = CallCost(_join_actual, _join_estimate)
LIST_COST: Final = CallCost(_list_actual, _list_estimate)
ORDER_COST: Final = CallCost(_order_actual, order_estimate)
IN_LIST_COST: Final = CallCost(_in_list_actual, _in_list_estimate)


def _arithmetic(
    symbol: str, name: str, by_type: Sequence[tuple[Type, str, Callable[..., Value]]], extra: tuple[Overload, ...] = ()
) -> Function:
    overloads = [
        Overload(f"{name}_{label}", (type_, type_), type_, call, cost=JOIN_COST if type_ in (STRING, BYTES) else None)
        for type_, label, call in by_type
    ]
    return Function(f"_{symbol}_", (*overloads, *extra))


def _orders() -> tuple[Function, ...]:
    names = {"_<_": "less", "_<=_": "less_equals", "_>_": "greater", "_>=_": "greater_equals"}
    numbers = ((INT, "int64"), (UINT, "uint64"), (DOUBLE, "double"))
    functions = []
    for symbol, compare in ORDERS.items():
        prefix = names[symbol]
        overloads = [Overload(f"{prefix}_bool", (BOOL, BOOL), BOOL, compare)]
        for one, label in numbers:
            for other, second in numbers:
                suffix = label if one is other else f"{label}_{second}"
                numeric = mixed_order(compare) if one is not other and DOUBLE in (one, other) else compare
                overloads.append(Overload(f"{prefix}_{suffix}", (one, other), BOOL, numeric))
        for type_, label in ((STRING, "string"), (BYTES, "bytes")):
            overloads.append(Overload(f"{prefix}_{label}", (type_, type_), BOOL, compare, cost=ORDER_COST))
        for type_, label in ((TIMESTAMP, "timestamp"), (DURATION, "duration")):
            overloads.append(Overload(f"{prefix}_{label}", (type_, type_), BOOL, compare))
        functions.append(Function(symbol, tuple(overloads)))
    return tuple(functions)


LIBRARY: Final[Library] = (
    Function("_&&_", (Overload("logical_and", (BOOL, BOOL), BOOL, _never),)),
    Function("_||_", (Overload("logical_or", (BOOL, BOOL), BOOL, _never),)),
    Function("_?_:_", (Overload("conditional", (BOOL, _A, _A), _A, _never),)),
    Function("!_", (Overload("logical_not", (BOOL,), BOOL, operator.not_),)),
    Function("_==_", (Overload("equals", (_A, _A), BOOL, _never, cost=ORDER_COST),)),
    Function("_!=_", (Overload("not_equals", (_A, _A), BOOL, _never, cost=ORDER_COST),)),
    Function(
        "@in",
        (
            Overload("in_list", (_A, _LIST), BOOL, _never, cost=IN_LIST_COST),
            Overload("in_map", (_A, _MAP), BOOL, _never),
        ),
    ),
    Function(
        "_[_]",
        (
            Overload("index_list", (_LIST, INT), _A, _never),
            Overload("index_map", (_MAP, _A), _B, _never),
        ),
    ),
    Function(
        "-_",
        (
            Overload("negate_int64", (INT,), INT, lambda one: bounded_int(-one)),
            Overload("negate_double", (DOUBLE,), DOUBLE, operator.neg),
        ),
    ),
    _arithmetic(
        "+",
        "add",
        (
            (INT, "int64", add_int),
            (UINT, "uint64", lambda one, other: bounded_uint(int(one) + int(other))),
            (DOUBLE, "double", operator.add),
            (STRING, "string", join),
            (BYTES, "bytes", join),
        ),
        (
            Overload("add_list", (_LIST, _LIST), _LIST, concatenated, cost=LIST_COST),
            Overload("add_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, add_timestamp),
            Overload("add_duration_timestamp", (DURATION, TIMESTAMP), TIMESTAMP, add_timestamp),
            Overload("add_duration_duration", (DURATION, DURATION), DURATION, add_duration),
        ),
    ),
    _arithmetic(
        "-",
        "subtract",
        (
            (INT, "int64", subtract_int),
            (UINT, "uint64", lambda one, other: bounded_uint(int(one) - int(other))),
            (DOUBLE, "double", operator.sub),
        ),
        (
            Overload("subtract_timestamp_timestamp", (TIMESTAMP, TIMESTAMP), DURATION, subtract_duration),
            Overload("subtract_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, subtract_from_timestamp),
            Overload("subtract_duration_duration", (DURATION, DURATION), DURATION, subtract_duration),
        ),
    ),
    _arithmetic(
        "*",
        "multiply",
        (
            (INT, "int64", multiply_int),
            (UINT, "uint64", lambda one, other: bounded_uint(int(one) * int(other))),
            (DOUBLE, "double", multiply_double),
        ),
    ),
    _arithmetic(
        "/", "divide", ((INT, "int64", divide_int), (UINT, "uint64", divide_uint), (DOUBLE, "double", divide_double))
    ),
    _arithmetic("%", "modulo", ((INT, "int64", modulo_int), (UINT, "uint64", modulo_uint))),
    *_orders(),
)
