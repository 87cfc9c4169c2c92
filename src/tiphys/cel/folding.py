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
from tiphys.cel.selecting import shown_key
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


def _sized(loop: Loop) -> Callable[[Frame], tuple[Iterable[Value], int]]:
    """Return what reads the range: elements or keys, or with two variables pairs with indices or values; how many."""
    read, pairs = loop.range.run, loop.second != 0

    def run(frame: Frame) -> tuple[Iterable[Value], int]:
        value = read(frame)
        if isinstance(value, list):
            return enumerate(value) if pairs else value, len(value)
        if isinstance(value, dict):
            return value.items() if pairs else value, len(value)
        raise EvaluationError("no such overload")

    return run


def _quantifier(loop: Loop) -> Run:
    """Plan `all` (false decides) or `exists` (true decides); an error counts only if nothing decides."""
    assert loop.body is not None
    decisive = loop.kind == "exists"
    read, body, slot, second = _sized(loop), loop.body.run, loop.slot, loop.second
    cost = _BODY_COST[loop.kind] + loop.body.cost
    cost_of_end = 3 if decisive else 2

    def run(frame: Frame) -> Value:
        failure: EvaluationError | None = None
        elements, left = read(frame)
        for element in elements:
            left -= 1
            frame[SPENT] += cost
            if frame[SPENT] > frame[LIMIT]:
                raise BudgetExceeded
            if second:
                frame[slot], frame[second] = element
            else:
                frame[slot] = element
            try:
                value = body(frame)
            except EvaluationError as error:
                failure = failure or error
                continue
            if value is decisive:
                frame[SPENT] += cost_of_end if left else 0
                return decisive
            if value.__class__ is not bool:
                failure = failure or EvaluationError("no such overload")
        if failure is not None:
            raise failure
        return not decisive

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
    read, body, cost, slot, second = _sized(loop), loop.body.run, loop.body.cost, loop.slot, loop.second

    def run(frame: Frame) -> Value:
        count = 0
        for element in read(frame)[0]:
            spend(frame, cost)
            if second:
                frame[slot], frame[second] = element
            else:
                frame[slot] = element
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
    read, slot, second = _sized(loop), loop.slot, loop.second
    selected, condition_cost = _selected(loop)
    body = loop.body.run if loop.body is not None else None
    body_cost = _APPEND + (loop.body.cost if loop.body is not None else 1)

    def run(frame: Frame) -> Value:
        result: list[Value] = []
        for element in read(frame)[0]:
            spend(frame, condition_cost)
            if second:
                frame[slot], frame[second] = element
            else:
                frame[slot] = element
            if selected(frame):
                spend(frame, body_cost)
                result.append(element if body is None else body(frame))
        return result

    return run


def _map(loop: Loop) -> Run:
    """Plan what makes a map of the same keys, or of the entries that the body's values are."""
    assert loop.body is not None
    read, body, slot, second = _sized(loop), loop.body.run, loop.slot, loop.second
    selected, condition_cost = _selected(loop)
    body_cost = _BODY_COST[loop.kind] + loop.body.cost
    entries = loop.kind == "transformMapEntry"

    def run(frame: Frame) -> Value:
        result: dict[Value, Value] = {}
        for element in read(frame)[0]:
            spend(frame, condition_cost)
            frame[slot], frame[second] = element
            if not selected(frame):
                continue
            spend(frame, body_cost)
            value = body(frame)
            if entries:
                _insert(result, value)
            else:
                result[element[0]] = value
        return result

    return run


def _insert(result: dict[Value, Value], entries: Value) -> None:
    """Put entries into a map that must not have their keys."""
    if not isinstance(entries, dict):
        raise EvaluationError("no such overload")
    for key, value in entries.items():
        if key in result:
            raise EvaluationError(f"insert failed: key {shown_key(key)} already exists")
        result[key] = value


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
