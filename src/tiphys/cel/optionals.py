"""Optionals: values that may be absent, without errors and without null.

A library of functions, and the closures of `or` and `orValue`, which look at their second side only if they need it.

Spec: cel-go's documentation of optional types; cel-spec proposal 246.
"""

from __future__ import annotations

from typing import Final

from tiphys.cel import types
from tiphys.cel.code import SPENT, Code, Frame, spend
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import BOOL, STRING, optional_of
from tiphys.cel.values import NONE, Duration, Optional, Timestamp, TypeValue, Value

_T: Final = types.parameter("T")
_K: Final = types.parameter("K")
_OPTIONAL: Final = optional_of(_T)


def either(first: Code, second: Code) -> Code:
    """Plan `first.or(second)`."""
    one, other, cost = first.run, second.run, second.cost

    def run(frame: Frame) -> Value:
        value = one(frame)
        if value.__class__ is not Optional:
            raise EvaluationError("no such overload")
        if value.present:
            return value
        frame[SPENT] += cost
        value = other(frame)
        if value.__class__ is not Optional:
            raise EvaluationError("no such overload")
        return value

    return Code(run, first.cost)


def value_or(first: Code, second: Code) -> Code:
    """Plan `first.orValue(second)`."""
    one, other, cost = first.run, second.run, second.cost

    def run(frame: Frame) -> Value:
        value = one(frame)
        if value.__class__ is not Optional:
            raise EvaluationError("no such overload")
        if value.present:
            return value.value
        frame[SPENT] += cost
        return other(frame)

    return Code(run, first.cost)


def mapped(target: Code, slot: int, body: Code, flat: bool) -> Code:
    """Plan `target.optMap(variable, body)`.

    Upstream writes the target twice, for `hasValue` and for `value`; here it is evaluated once, and counted twice.
    """
    read, compute, target_cost = target.run, body.run, target.cost
    present_cost = target_cost + 1 + body.cost + (0 if flat else 1)

    def run(frame: Frame) -> Value:
        before = frame[SPENT]
        value = read(frame)
        if value.__class__ is not Optional:
            raise EvaluationError("no such overload")
        if not value.present:
            frame[SPENT] += 1
            return NONE
        spend(frame, frame[SPENT] - before + present_cost)
        frame[slot] = value.value
        found = compute(frame)
        return found if flat else Optional(found)

    return Code(run, target_cost + 1)


def of_non_zero(value: Value) -> Optional:
    """Return an optional that is absent for the empty value of a type."""
    return NONE if is_zero(value) else Optional(value)


def is_zero(value: Value) -> bool:
    """Return whether a value is the one that stands for nothing of its type."""
    if isinstance(value, Duration):
        return value.nanoseconds == 0
    if isinstance(value, Timestamp):
        return False
    if isinstance(value, Optional):
        return not value.present
    if isinstance(value, TypeValue):
        return False
    return value is None or (isinstance(value, bool | int | float | str | bytes | list | dict) and not value)


def value_of(optional: Optional) -> Value:
    """Return the value; raises EvaluationError if there is none."""
    if not optional.present:
        raise EvaluationError("optional.none() dereference")
    return optional.value


def first_of(elements: list[Value]) -> Optional:
    """Return the first element, if there is one."""
    return Optional(elements[0]) if elements else NONE


def last_of(elements: list[Value]) -> Optional:
    """Return the last element, if there is one."""
    return Optional(elements[-1]) if elements else NONE


def unwrapped(elements: list[Optional]) -> list[Value]:
    """Return the values of those that are there."""
    return [each.value for each in elements if each.present]


def _never(*values: Value) -> Value:
    raise AssertionError(f"planned in another way: {values}")


LIBRARY: Final[Library] = (
    Function("optional.of", (Overload("optional_of", (_T,), _OPTIONAL, Optional),)),
    Function("optional.ofNonZeroValue", (Overload("optional_ofNonZeroValue", (_T,), _OPTIONAL, of_non_zero),)),
    Function("optional.none", (Overload("optional_none", (), _OPTIONAL, lambda: NONE),)),
    Function(
        "optional.unwrap", (Overload("optional_unwrap", (types.list_of(_OPTIONAL),), types.list_of(_T), unwrapped),)
    ),
    Function(
        "unwrapOpt",
        (Overload("optional_unwrapOpt", (types.list_of(_OPTIONAL),), types.list_of(_T), unwrapped, member=True),),
    ),
    Function("first", (Overload("list_first", (types.list_of(_T),), _OPTIONAL, first_of, member=True),)),
    Function("last", (Overload("list_last", (types.list_of(_T),), _OPTIONAL, last_of, member=True),)),
    Function("value", (Overload("optional_value", (_OPTIONAL,), _T, value_of, member=True),)),
    Function("hasValue", (Overload("optional_hasValue", (_OPTIONAL,), BOOL, lambda each: each.present, member=True),)),
    Function("or", (Overload("optional_or_optional", (_OPTIONAL, _OPTIONAL), _OPTIONAL, _never, member=True),)),
    Function("orValue", (Overload("optional_orValue_value", (_OPTIONAL, _T), _T, _never, member=True),)),
    Function("_?._", (Overload("select_optional_field", (types.DYN, STRING), optional_of(types.DYN), _never),)),
    Function(
        "_[?_]",
        (
            Overload("list_optindex_optional_int", (types.list_of(_T), types.INT), _OPTIONAL, _never),
            Overload(
                "optional_list_optindex_optional_int", (optional_of(types.list_of(_T)), types.INT), _OPTIONAL, _never
            ),
            Overload("map_optindex_optional_value", (types.map_of(_K, _T), _K), _OPTIONAL, _never),
            Overload(
                "optional_map_optindex_optional_value", (optional_of(types.map_of(_K, _T)), _K), _OPTIONAL, _never
            ),
        ),
    ),
    Function(
        "_[_]",
        (
            Overload("optional_list_index_int", (optional_of(types.list_of(_T)), types.INT), _OPTIONAL, _never),
            Overload("optional_map_index_value", (optional_of(types.map_of(_K, _T)), _K), _OPTIONAL, _never),
        ),
    ),
)
