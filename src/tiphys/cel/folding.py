"""Macros that walk over lists and maps, as loops.

The planner gives the closures of range, condition and body, and the places of the variables. What an iteration costs is
what upstream's expansion of the macro costs: reading and writing the accumulator included. Invariant: the budget is
looked at before each iteration, so a loop over much data ends soon after the budget does.

Spec: cel-spec, "Language Definition", the chapter "Macros".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tiphys.cel.code import LIMIT, SPENT, Code, Frame, Run, spend
from tiphys.cel.errors import BudgetExceeded, EvaluationError
from tiphys.cel.values import Value

_APPEND: Final = 12
"""Reading the list so far, making a list of one element, and adding both."""
_INSERT: Final = 3
"""Reading the map so far and the key, and inserting."""
_BODY_COST: Final = {
    "all": 3,
    "exists": 4,
    "exists_one": 0,
    "map": _APPEND,
    "filter": 0,
    "transformList": _APPEND,
    "transformMap": _INSERT,
    "transformMapEntry": 2,
}
"""Of an iteration, in addition to condition and body."""
_RESULT_COST: Final = {"exists_one": 2}


@dataclass(slots=True)
class Loop:
    """A macro, planned."""

    kind: str
    range: Code
    slot: int
    second: int
    """The place of the second variable, or 0."""
    condition: Code | None
    body: Code | None


def fold(loop: Loop) -> Code:
    """Return the code of a loop."""
    run = _FOLDS[loop.kind](loop)
    return Code(run, loop.range.cost + _RESULT_COST.get(loop.kind, 1))


def _pairs(loop: Loop, frame: Frame) -> Iterable[tuple[Value, Value]]:
    value = loop.range.run(frame)
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, dict):
        return value.items()
    raise EvaluationError(f"got '{value.__class__.__name__}', expected iterable type")


def _elements(loop: Loop, frame: Frame) -> Iterable[Value]:
    value = loop.range.run(frame)
    if isinstance(value, list | dict):
        return value
    raise EvaluationError("no such overload")


def _binder(loop: Loop) -> Callable[[Frame], Iterable[Value]]:
    """Return what walks over the range, and for each element sets the variables."""
    slot, second = loop.slot, loop.second
    if not second:

        def singles(frame: Frame) -> Iterable[Value]:
            for element in _elements(loop, frame):
                frame[slot] = element
                yield element

        return singles

    def pairs(frame: Frame) -> Iterable[Value]:
        for key, value in _pairs(loop, frame):
            frame[slot] = key
            frame[second] = value
            yield key

    return pairs


def _quantifier(loop: Loop) -> Run:
    """Plan `all` (false decides) or `exists` (true decides); an error counts only if nothing decides."""
    assert loop.body is not None
    decisive = loop.kind == "exists"
    walk, body = _binder(loop), loop.body.run
    cost = _BODY_COST[loop.kind] + loop.body.cost

    def run(frame: Frame) -> Value:
        failure: EvaluationError | None = None
        for _ in walk(frame):
            frame[SPENT] += cost
            if frame[SPENT] > frame[LIMIT]:
                raise BudgetExceeded
            try:
                value = body(frame)
            except EvaluationError as error:
                failure = failure or error
                continue
            if value is decisive:
                frame[SPENT] += cost_of_end
                return decisive
            if value.__class__ is not bool:
                failure = failure or EvaluationError("no such overload")
        if failure is not None:
            raise failure
        return not decisive

    cost_of_end = 3 if decisive else 2
    return run


def _selected(loop: Loop) -> tuple[Callable[[Frame], bool], int]:
    """Return what tells whether an element is taken, and what that costs."""
    if loop.condition is None:
        return (lambda frame: True), 0
    condition = loop.condition.run

    def selected(frame: Frame) -> bool:
        value = condition(frame)
        if value.__class__ is not bool:
            raise EvaluationError("no such overload")
        return bool(value)

    return selected, loop.condition.cost


def _count(loop: Loop) -> Run:
    assert loop.body is not None
    walk, body, cost = _binder(loop), loop.body.run, loop.body.cost

    def run(frame: Frame) -> Value:
        count = 0
        for _ in walk(frame):
            spend(frame, cost)
            value = body(frame)
            if value is True:
                count += 1
                frame[SPENT] += 2
            elif value is not False:
                raise EvaluationError("no such overload")
        return count == 1

    return run


def _list(loop: Loop) -> Run:
    """Plan what makes a list of the body's values, or of the elements themselves."""
    walk = _binder(loop)
    selected, condition_cost = _selected(loop)
    body = loop.body.run if loop.body is not None else None
    body_cost = _APPEND + (loop.body.cost if loop.body is not None else 1)

    def run(frame: Frame) -> Value:
        result: list[Value] = []
        for element in walk(frame):
            spend(frame, condition_cost)
            if selected(frame):
                frame[SPENT] += body_cost
                result.append(element if body is None else body(frame))
        return result

    return run


def _map(loop: Loop) -> Run:
    """Plan what makes a map of the same keys, or of the entries that the body's values are."""
    assert loop.body is not None
    walk, body = _binder(loop), loop.body.run
    selected, condition_cost = _selected(loop)
    body_cost = _BODY_COST[loop.kind] + loop.body.cost
    entries = loop.kind == "transformMapEntry"

    def run(frame: Frame) -> Value:
        result: dict[Value, Value] = {}
        for key in walk(frame):
            spend(frame, condition_cost)
            if not selected(frame):
                continue
            frame[SPENT] += body_cost
            value = body(frame)
            if not entries:
                result[key] = value
                continue
            if not isinstance(value, dict):
                raise EvaluationError("no such overload")
            for each, inner in value.items():
                if each in result:
                    raise EvaluationError(f"insert failed: key {each} already exists")
                result[each] = inner
        return result

    return run


_FOLDS: Final[dict[str, Callable[[Loop], Run]]] = {
    "all": _quantifier,
    "exists": _quantifier,
    "exists_one": _count,
    "map": _list,
    "filter": _list,
    "transformList": _list,
    "transformMap": _map,
    "transformMapEntry": _map,
}
