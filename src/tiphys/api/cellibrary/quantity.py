"""The quantity library: amounts such as `500m` or `1Gi`, compared and added exactly.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes quantity library".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tiphys.api.cellibrary.costs import CHEAP, PARSED
from tiphys.api.quantity import NANOS, Quantity, parse_quantity
from tiphys.cel import types
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, Value

QUANTITY = types.opaque("kubernetes.Quantity")


@dataclass(frozen=True, slots=True)
class QuantityValue:
    """A quantity in an expression. Equal by value: `quantity('1000m') == quantity('1')`."""

    amount: Quantity
    cel_type: ClassVar[Type] = QUANTITY


def _quantity(text: str) -> QuantityValue:
    try:
        return QuantityValue(parse_quantity(text))
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def _is_integer(value: QuantityValue) -> bool:
    nanos = value.amount.nanos
    return nanos % NANOS == 0 and INT_MINIMUM <= nanos // NANOS <= INT_MAXIMUM


def _as_integer(value: QuantityValue) -> int:
    if not _is_integer(value):
        raise EvaluationError("cannot convert value to integer")
    return value.amount.nanos // NANOS


def _sign(value: QuantityValue) -> int:
    return (value.amount.nanos > 0) - (value.amount.nanos < 0)


def _compare(left: QuantityValue, right: QuantityValue) -> int:
    return (left.amount > right.amount) - (left.amount < right.amount)


def _add(left: QuantityValue, right: QuantityValue) -> QuantityValue:
    return QuantityValue(left.amount + right.amount)


def _sub(left: QuantityValue, right: QuantityValue) -> QuantityValue:
    return QuantityValue(left.amount - right.amount)


def _whole(number: int) -> QuantityValue:
    return QuantityValue(Quantity(number * NANOS))


def _member(overload: str, others: tuple[Type, ...], result: Type, call: Callable[..., Value]) -> Overload:
    return Overload(overload, (QUANTITY, *others), result, call, member=True, cost=CHEAP)


def _text(name: str, result: Type, call: Callable[..., Value]) -> Function:
    overload = Overload(f"string_to_{name}", (types.STRING,), result, call, cost=PARSED)
    return Function(name, (overload,))


_Q = (QUANTITY,)

LIBRARY: Library = (
    _text("quantity", QUANTITY, _quantity),
    _text("isQuantity", types.BOOL, _is_quantity),
    Function("sign", (_member("quantity_sign", (), types.INT, _sign),)),
    Function("isInteger", (_member("quantity_is_integer", (), types.BOOL, _is_integer),)),
    Function("asInteger", (_member("quantity_as_integer", (), types.INT, _as_integer),)),
    Function(
        "asApproximateFloat",
        (_member("quantity_as_float", (), types.DOUBLE, lambda value: value.amount.nanos / NANOS),),
    ),
    Function(
        "isGreaterThan",
        (_member("quantity_is_greater_than", _Q, types.BOOL, lambda left, right: left.amount > right.amount),),
    ),
    Function(
        "isLessThan",
        (_member("quantity_is_less_than", _Q, types.BOOL, lambda left, right: left.amount < right.amount),),
    ),
    Function("compareTo", (_member("quantity_compare_to", _Q, types.INT, _compare),)),
    Function(
        "add",
        (
            _member("quantity_add", _Q, QUANTITY, _add),
            _member("quantity_add_int", (types.INT,), QUANTITY, lambda left, right: _add(left, _whole(right))),
        ),
    ),
    Function(
        "sub",
        (
            _member("quantity_sub", _Q, QUANTITY, _sub),
            _member("quantity_sub_int", (types.INT,), QUANTITY, lambda left, right: _sub(left, _whole(right))),
        ),
    ),
)
