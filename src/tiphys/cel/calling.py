"""Calls of functions: which overload the values choose, what it costs, what happens if none fits.

The planner asks for closures. Where types decide, the one overload is called at once; where something is dyn, the
classes of the values choose, and the choice is remembered. Invariant: an overload that is called has values of the
classes it declared, or null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tiphys.cel.code import Code, Frame, Run, spend
from tiphys.cel.declarations import Overload
from tiphys.cel.equality import runtime_name, runtime_type
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type
from tiphys.cel.values import Value

_ANYTHING: Final = frozenset({"dyn", "parameter"})
_NUMBERS: Final = frozenset({"double", "int", "uint"})
_ORDERED: Final = _NUMBERS | {"bool", "bytes", "duration", "string", "timestamp"}
_EVERYTHING: Final = _ORDERED | {"list", "map", "null", "object", "opaque", "optional", "type"}
_ABLE: Final = {
    "_+_": _NUMBERS | {"bytes", "duration", "list", "string", "timestamp"},
    "_-_": _NUMBERS | {"duration", "timestamp"},
    "_*_": _NUMBERS,
    "_/_": _NUMBERS,
    "_%_": frozenset({"int", "uint"}),
    "-_": frozenset({"double", "int"}),
    "!_": frozenset({"bool", "double", "int"}),
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _ORDERED),
    "size": frozenset({"bytes", "list", "map", "string"}),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), _EVERYTHING),
}
"""Which kinds of values know an operator. Upstream's message names the operator for others, and nothing for these."""


def call(function: str, overloads: Sequence[Overload], arguments: list[Code], dynamic: bool) -> Code:
    """Return a call. `dynamic` says that the types of the arguments do not decide everything."""
    cost = sum(argument.cost for argument in arguments)
    if not dynamic and len(overloads) == 1:
        overload = overloads[0]
        if overload.cost is None:
            return Code(_static(function, overload, arguments), cost + 1)
        return Code(_counted(function, overload, arguments), cost)
    if all(overload.cost is None for overload in overloads):
        return Code(_dispatched(function, overloads, arguments, counted=False), cost + 1)
    return Code(_dispatched(function, overloads, arguments, counted=True), cost)


def _static(function: str, overload: Overload, arguments: list[Code]) -> Run:
    perform = overload.call
    runs = [argument.run for argument in arguments]
    if len(runs) == 1:
        (only,) = runs

        def one(frame: Frame) -> Value:
            value = only(frame)
            try:
                return perform(value)
            except (TypeError, AttributeError) as error:
                raise _failure(function, overload, [value], error) from error

        return one
    if len(runs) == 2:
        first, second = runs

        def two(frame: Frame) -> Value:
            value, other = first(frame), second(frame)
            try:
                return perform(value, other)
            except (TypeError, AttributeError) as error:
                raise _failure(function, overload, [value, other], error) from error

        return two
    return _many(function, overload, runs)


def _many(function: str, overload: Overload, runs: list[Run]) -> Run:
    perform = overload.call

    def many(frame: Frame) -> Value:
        values = [run(frame) for run in runs]
        try:
            return perform(*values)
        except (TypeError, AttributeError) as error:
            raise _failure(function, overload, values, error) from error

    return many


def _counted(function: str, overload: Overload, arguments: list[Code]) -> Run:
    runs = [argument.run for argument in arguments]
    perform = overload.call
    assert overload.cost is not None
    actual = overload.cost.actual
    if len(runs) == 2:
        first, second = runs

        def two(frame: Frame) -> Value:
            values = (first(frame), second(frame))
            try:
                result = perform(*values)
                spend(frame, actual(values, result))
            except (TypeError, AttributeError) as error:
                raise _failure(function, overload, values, error) from error
            return result

        return two

    def run(frame: Frame) -> Value:
        values = [each(frame) for each in runs]
        try:
            result = perform(*values)
            spend(frame, actual(values, result))
        except (TypeError, AttributeError) as error:
            raise _failure(function, overload, values, error) from error
        return result

    return run


def _dispatched(function: str, overloads: Sequence[Overload], arguments: list[Code], counted: bool) -> Run:
    runs = [argument.run for argument in arguments]
    chosen: dict[tuple[type, ...], Overload] = {}

    def run(frame: Frame) -> Value:
        values = [each(frame) for each in runs]
        classes = tuple([value.__class__ for value in values])
        overload = chosen.get(classes)
        if overload is None:
            overload = chosen[classes] = choose(function, overloads, values)
        try:
            result = overload.call(*values)
            if counted:
                spend(frame, 1 if overload.cost is None else overload.cost.actual(values, result))
        except (TypeError, AttributeError) as error:
            raise _failure(function, overload, values, error) from error
        return result

    return run


def choose(function: str, overloads: Sequence[Overload], values: Sequence[Value]) -> Overload:
    """Return the overload that the classes of values fit; raises EvaluationError."""
    for overload in overloads:
        if accepts(overload, values):
            return overload
    raise EvaluationError(no_overload(function, values))


def accepts(overload: Overload, values: Sequence[Value]) -> bool:
    """Return whether an overload takes these values, as far as their classes tell."""
    return all(_fits(value, wanted) for value, wanted in zip(values, overload.arguments, strict=True))


def _fits(value: Value, wanted: Type) -> bool:
    if wanted.kind in _ANYTHING:
        return True
    found = runtime_type(value)
    if wanted.kind == "object":
        return found.kind == "map"
    return found.kind == wanted.kind and (found.kind != "opaque" or found.name == wanted.name)


def _failure(function: str, overload: Overload, values: Sequence[Value], error: Exception) -> Exception:
    """Return what a failed call means: data that is not what its type says, or a fault of the function.

    Null and the insides of lists and maps are not looked at before a call; scalars of the right class cannot fail so.
    """
    open_ended = any(value is None or isinstance(value, list | dict) for value in values)
    if accepts(overload, values) and not open_ended:
        return error
    return EvaluationError(no_overload(function, values))


def no_overload(function: str, values: Sequence[Value]) -> str:
    """Return the message for values that a function does not take."""
    able = _ABLE.get(function)
    if able is not None:
        return "no such overload" if runtime_type(values[0]).kind in able else f"no such overload: {function}"
    return f"no such overload: {function}({', '.join([runtime_name(value) for value in values])})"
