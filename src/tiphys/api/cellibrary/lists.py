"""The list library: isSorted, sum, min, max, indexOf, lastIndexOf.

Overloads are for lists of one comparable type each, so that a list of objects is refused by the checker; they share
their implementation. `sum` of an empty list is the type's zero, `min` and `max` of one is an error.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes list library".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tiphys.api.cellibrary.costs import traversal
from tiphys.cel import types
from tiphys.cel.cost import ONE, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, UINT_MAXIMUM, Duration, UInt, Value

_NAMES: dict[str, Type] = {
    "int": types.INT,
    "uint": types.UINT,
    "double": types.DOUBLE,
    "bool": types.BOOL,
    "duration": types.DURATION,
    "timestamp": types.TIMESTAMP,
    "string": types.STRING,
    "bytes": types.BYTES,
}
_ZEROS: dict[str, Value] = {"int": 0, "uint": UInt(0), "double": 0.0, "duration": Duration(0)}


def _estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """Return one for each element, and for texts what reading them adds."""
    target = operands[0]
    if target.type.kind == "string":
        return target.size.times(STRING_FACTOR), None
    each = ONE
    element = target.type.parameters[0] if target.type.parameters else None
    if element is not None and element.kind in ("string", "bytes"):
        size = target.element_size or CostRange(0, 2**64 - 1)
        each = each + size.times(STRING_FACTOR)
    return target.size * each, None


_COST = CallCost(lambda values, result: traversal(values[0]), _estimate)


def _is_sorted(values: list[Any]) -> bool:
    try:
        return all(not later < earlier for earlier, later in pairwise(values))
    except TypeError:
        raise EvaluationError("no such overload") from None


def _least(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("min called on empty list")
    try:
        return min(values)
    except TypeError:
        raise EvaluationError("no such overload") from None


def _greatest(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("max called on empty list")
    try:
        return max(values)
    except TypeError:
        raise EvaluationError("no such overload") from None


def _sum(zero: Value) -> Callable[[list[Any]], Any]:
    def add(values: list[Any]) -> Any:
        total: Any = values[0] if values else zero
        for value in values[1:]:
            total = _added(total, value)
        return total

    return add


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, Duration) and isinstance(right, Duration):
        nanoseconds = left.nanoseconds + right.nanoseconds
        if not INT_MINIMUM <= nanoseconds <= INT_MAXIMUM:
            raise EvaluationError("duration overflow")
        return Duration(nanoseconds)
    if isinstance(left, UInt) and isinstance(right, UInt):
        if left + right > UINT_MAXIMUM:
            raise EvaluationError("unsigned integer overflow")
        return UInt(left + right)
    plain = (int, float)
    if type(left) is not type(right) or type(left) not in plain:
        raise EvaluationError("no such overload")
    if isinstance(left, int) and not INT_MINIMUM <= left + right <= INT_MAXIMUM:
        raise EvaluationError("integer overflow")
    return left + right


def _same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal for expressions: booleans are no numbers."""
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _index_of(values: list[Any], wanted: Any) -> int:
    return next((index for index, value in enumerate(values) if _same(value, wanted)), -1)


def _last_index_of(values: list[Any], wanted: Any) -> int:
    return next((index for index in reversed(range(len(values))) if _same(values[index], wanted)), -1)


def _each(name: str, result: Type | None, call: Callable[..., Any]) -> Function:
    """Return a function with an overload for each comparable type. `result` None: the type of the elements."""
    overloads = (
        Overload(f"list_{kind}_{name}", (types.list_of(type_),), result or type_, call, member=True, cost=_COST)
        for kind, type_ in _NAMES.items()
    )
    return Function(name, tuple(overloads))


_T = types.parameter("T")


def _find(name: str, overload: str, call: Callable[..., Any]) -> Function:
    arguments = (types.list_of(_T), _T)
    return Function(name, (Overload(overload, arguments, types.INT, call, member=True, cost=_COST),))


LIBRARY: Library = (
    _each("isSorted", types.BOOL, _is_sorted),
    Function(
        "sum",
        tuple(
            Overload(f"list_{kind}_sum", (types.list_of(_NAMES[kind]),), _NAMES[kind], _sum(zero), True, _COST)
            for kind, zero in _ZEROS.items()
        ),
    ),
    _each("min", None, _least),
    _each("max", None, _greatest),
    _find("indexOf", "list_a_indexOf_int", _index_of),
    _find("lastIndexOf", "list_a_lastIndexOf_int", _last_index_of),
)
