"""Decisions: `&&`, `||`, `?:`, comparisons, `in`.

The planner asks for closures. Invariant: `&&` and `||` have the same value whichever side fails: an error counts only
where the other side does not decide.

Spec: cel-spec, "Language Definition", the chapter "Logical Operators".
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

from tiphys.cel.calling import no_overload
from tiphys.cel.code import SPENT, Code, Frame, Run, size_of, spend, traversal, work
from tiphys.cel.equality import contains, equals
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import Value

_SCALARS: Final = frozenset({"bool", "int", "uint", "double", "null", "duration", "timestamp", "type"})
_NUMBERS: Final = frozenset({"int", "uint", "double"})
_SETTABLE: Final = (str, int, float, bool)
ORDERS: Final[dict[str, Callable[[Value, Value], bool]]] = {
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}


def logical(terms: list[Code], decisive: bool) -> Code:
    """Return `&&` (false decides) or `||` (true decides) over terms."""
    runs = [(term.run, term.cost) for term in terms[1:]]
    first = terms[0].run
    if len(runs) == 1:
        return Code(_pair(first, *runs[0], decisive), terms[0].cost)
    return Code(_chain([(first, 0), *runs], decisive), terms[0].cost)


def _pair(left: Run, right: Run, cost: int, decisive: bool) -> Run:
    def run(frame: Frame) -> Value:
        try:
            one = left(frame)
        except EvaluationError as failure:
            frame[SPENT] += cost
            if _decides(right, frame, decisive):
                return decisive
            raise failure from None
        if one is decisive:
            return decisive
        frame[SPENT] += cost
        other = right(frame)
        if other is decisive:
            return decisive
        if one.__class__ is bool and other.__class__ is bool:
            return other
        raise EvaluationError("no such overload")

    return run


def _decides(term: Run, frame: Frame, decisive: bool) -> bool:
    try:
        return term(frame) is decisive
    except EvaluationError:
        return False


def _chain(terms: list[tuple[Run, int]], decisive: bool) -> Run:
    def run(frame: Frame) -> Value:
        failure: EvaluationError | None = None
        for term, cost in terms:
            frame[SPENT] += cost
            try:
                value = term(frame)
            except EvaluationError as error:
                failure = failure or error
                continue
            if value is decisive:
                return decisive
            if value.__class__ is not bool:
                failure = failure or EvaluationError("no such overload")
        if failure is not None:
            raise failure
        return not decisive

    return run


def conditional(condition: Code, then: Code, otherwise: Code) -> Code:
    """Return `condition ? then : otherwise`."""
    test, first, second = condition.run, then.run, otherwise.run
    first_cost = then.cost - then.attribute
    second_cost = otherwise.cost - otherwise.attribute

    def run(frame: Frame) -> Value:
        decided = test(frame)
        if decided is True:
            frame[SPENT] += first_cost
            return first(frame)
        if decided is False:
            frame[SPENT] += second_cost
            return second(frame)
        raise EvaluationError("no such overload")

    return Code(run, condition.cost)


def equality(left: Code, right: Code, kinds: tuple[str, str], wanted: bool) -> Code:
    """Return `==`, or `!=` where the wanted outcome is false."""
    one, other = left.run, right.run
    cost = left.cost + right.cost
    if set(kinds) & _SCALARS:
        return Code(_scalar_equality(left, right, kinds, wanted), cost + 1)
    if kinds == ("string", "string"):
        return Code(_string_equality(left, right, wanted), cost)

    def run(frame: Frame) -> Value:
        a, b = one(frame), other(frame)
        meter = [0]
        equal = equals(a, b, meter)
        spend(frame, traversal(min(size_of(a), size_of(b))) + work(meter[0]))
        return equal is wanted

    return Code(run, cost)


def _scalar_equality(left: Code, right: Code, kinds: tuple[str, str], wanted: bool) -> Run:
    one, other = left.run, right.run
    if set(kinds) <= _NUMBERS and (kinds[0] == kinds[1] or "double" not in kinds):
        if right.constant:
            value = right.value
            return lambda frame: (one(frame) == value) is wanted
        return lambda frame: (one(frame) == other(frame)) is wanted
    return lambda frame: equals(one(frame), other(frame)) is wanted


def _string_equality(left: Code, right: Code, wanted: bool) -> Run:
    one, other = left.run, right.run

    def run(frame: Frame) -> Value:
        a, b = one(frame), other(frame)
        if a is None or b is None:
            frame[SPENT] += 1
        else:
            frame[SPENT] += traversal(min(len(a), len(b)))
        return (a == b) is wanted

    return run


def order(left: Code, right: Code, function: str, kinds: tuple[str, str]) -> Code | None:
    """Return a comparison of numbers, or None where the types do not say that both are."""
    if not set(kinds) <= _NUMBERS:
        return None
    compare = mixed_order(ORDERS[function]) if "double" in kinds and kinds[0] != kinds[1] else ORDERS[function]
    one, other = left.run, right.run
    if right.constant:
        value = right.value

        def with_constant(frame: Frame) -> Value:
            found = one(frame)
            try:
                return compare(found, value)
            except TypeError as error:
                raise EvaluationError(no_overload(function, [found])) from error

        return Code(with_constant, left.cost + 1)

    def run(frame: Frame) -> Value:
        a, b = one(frame), other(frame)
        try:
            return compare(a, b)
        except TypeError as error:
            raise EvaluationError(no_overload(function, [a])) from error

    return Code(run, left.cost + right.cost + 1)


def mixed_order(compare: Callable[[Value, Value], bool]) -> Callable[[Value, Value], bool]:
    """Return the comparison of a double with a number of another type: both are taken as doubles."""
    return lambda one, other: compare(float(one), float(other))


def membership(value: Code, elements: Code) -> Code:
    """Return `value in elements`."""
    one, other = value.run, elements.run
    if elements.constant and isinstance(elements.value, list):
        found = _constant_membership(one, elements.value)
        if found is not None:
            return Code(found, value.cost)

    def run(frame: Frame) -> Value:
        a, b = one(frame), other(frame)
        if isinstance(b, list):
            meter = [0]
            found = contains(b, a, meter)
            spend(frame, len(b) + work(meter[0]))
            return found
        if isinstance(b, dict):
            frame[SPENT] += 1
            return _has_key(b, a)
        raise EvaluationError("no such overload")

    return Code(run, value.cost + elements.cost)


def _has_key(value: dict[Value, Value], key: Value) -> bool:
    try:
        return key in value and (key.__class__ is not bool or any(each is key for each in value))
    except TypeError:
        return False


def _constant_membership(value: Run, elements: list[Value]) -> Run | None:
    """Return a look into a set, for scalars. It costs nothing, as with upstream's optimizer."""
    if not all(isinstance(each, _SETTABLE) for each in elements):
        return None
    members = frozenset([(each.__class__ is bool, each) for each in elements])

    def run(frame: Frame) -> Value:
        candidate = value(frame)
        return isinstance(candidate, _SETTABLE) and (candidate.__class__ is bool, candidate) in members

    return run
