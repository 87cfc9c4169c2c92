"""Reading: variables, fields, elements, and whether they are there.

The planner asks for closures; types say how JSON data becomes values. Invariant: what is not there raises
`no such key` or `index out of bounds`, or is an absent optional where the expression asks with a question mark.

Spec: cel-spec, "Language Definition", "Field Selection"; cel-go's documentation of optional types.
"""

from __future__ import annotations

from typing import Final

from tiphys.cel.code import CONVERTED, Frame, Run
from tiphys.cel.conversions import format_double
from tiphys.cel.data import Converter
from tiphys.cel.equality import runtime_name
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import NONE, Lazy, Optional, UInt, Value

_MISSING: Final = object()
_LARGE: Final = 16


def variable(slot: int, name: str, convert: Converter | None) -> Run:
    """Read a variable of the program, which may be lazy."""

    def run(frame: Frame) -> Value:
        value = frame[slot]
        if value.__class__ is Lazy:
            value = value.compute()
            if convert is not None:
                value = convert(value)
            frame[slot] = value
        elif value is _MISSING:
            raise EvaluationError(f"no such attribute(s): {name}")
        return value

    return run


def unbound() -> object:
    """Return what stands in the place of a variable without a binding."""
    return _MISSING


def local(slot: int) -> Run:
    """Read a variable of a macro."""
    return lambda frame: frame[slot]


def path(root: Run, keys: tuple[str, ...], convert: Converter | None) -> Run:
    """Read a field of a field: each but the last is a map."""
    if len(keys) == 1 and convert is None:
        (key,) = keys

        def one(frame: Frame) -> Value:
            value = root(frame)
            try:
                return value[key]
            except (KeyError, TypeError, IndexError) as error:
                raise _unreadable(value, key) from error

        return one

    def run(frame: Frame) -> Value:
        value = root(frame)
        key = ""
        try:
            for key in keys:
                value = value[key]
        except (KeyError, TypeError, IndexError) as error:
            raise _unreadable(value, key) from error
        return value if convert is None else _converted(frame, convert, value)

    return run


def _unreadable(value: Value, key: Value) -> EvaluationError:
    """Return the error of a field that is not there; null and scalars have none."""
    if isinstance(value, list):
        if key.__class__ is float:
            return EvaluationError(f"unsupported index value {format_double(key)} in list")
        return EvaluationError(f"unsupported index type '{runtime_name(key)}' in list")
    return EvaluationError(f"no such key: {shown_key(key)}")


def shown_key(key: Value) -> str:
    """Return a key as messages have it."""
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(int(key)) if isinstance(key, UInt) else str(key)


def field_of(operand: Run, name: str) -> Run:
    """Read a field of a value of which nothing is known."""

    def run(frame: Frame) -> Value:
        value = operand(frame)
        if isinstance(value, dict):
            found = value.get(name, _MISSING)
            if found is _MISSING:
                raise EvaluationError(f"no such key: {name}")
            return found
        if value.__class__ is Optional:
            return _inside(frame, value, name, None)
        raise _unreadable(value, name)

    return run


def optional_field(operand: Run, key: str, convert: Converter | None) -> Run:
    """Read `operand.?key`, or a field of what is optional itself."""

    def run(frame: Frame) -> Value:
        value = operand(frame)
        if value.__class__ is Optional:
            return _inside(frame, value, key, convert)
        return _present(frame, value, key, convert)

    return run


def _converted(frame: Frame, convert: Converter, value: Value) -> Value:
    """Convert; large lists and maps only once in an evaluation, however often a loop reads them."""
    if not isinstance(value, list | dict) or len(value) < _LARGE:
        return convert(value)
    if frame[CONVERTED] is None:
        frame[CONVERTED] = {}
    memory: dict[tuple[int, int], tuple[Value, Value]] = frame[CONVERTED]
    key = (id(value), id(convert))
    if key not in memory:
        memory[key] = (value, convert(value))
    return memory[key][1]


def _inside(frame: Frame, optional: Optional, key: Value, convert: Converter | None) -> Value:
    return _present(frame, optional.value, key, convert) if optional.present else NONE


def _present(frame: Frame, value: Value, key: Value, convert: Converter | None) -> Optional:
    if isinstance(value, dict):
        found = _lookup(value, key)
        if found is _MISSING:
            return NONE
    elif isinstance(value, list):
        index = _index(key)
        if index is None:
            raise _unreadable(value, key)
        if not 0 <= index < len(value):
            return NONE
        found = value[index]
    else:
        return NONE
    return Optional(found if convert is None else _converted(frame, convert, found))


def presence(operand: Run, key: str) -> Run:
    """Tell whether a field is there."""

    def run(frame: Frame) -> Value:
        value = operand(frame)
        if isinstance(value, dict):
            return key in value
        if value.__class__ is Optional:
            return _inside(frame, value, key, None).present
        if isinstance(value, list):
            raise _unreadable(value, key)
        return False

    return run


def element(operand: Run, index: Run) -> Run:
    """Read `operand[index]`."""

    def run(frame: Frame) -> Value:
        return at(frame, operand(frame), index(frame))

    return run


def optional_element(operand: Run, index: Run) -> Run:
    """Read `operand[?index]`, or an element of what is optional itself."""

    def run(frame: Frame) -> Value:
        value = operand(frame)
        key = index(frame)
        if value.__class__ is Optional:
            return _inside(frame, value, key, None)
        return _present(frame, value, key, None)

    return run


def at(frame: Frame, value: Value, key: Value) -> Value:
    """Return an element of a list, a map or an optional one."""
    if isinstance(value, list):
        place = _index(key)
        if place is None:
            raise _unreadable(value, key)
        if 0 <= place < len(value):
            return value[place]
        raise EvaluationError(f"index out of bounds: {place}")
    if isinstance(value, dict):
        found = _lookup(value, key)
        if found is _MISSING:
            raise EvaluationError(f"no such key: {shown_key(key)}")
        return found
    if value.__class__ is Optional:
        return _inside(frame, value, key, None)
    raise _unreadable(value, key)


def _index(key: Value) -> int | None:
    if key.__class__ is int or key.__class__ is UInt:
        return int(key)
    if key.__class__ is float and key.is_integer():
        return int(key)
    return None


def _lookup(value: dict[Value, Value], key: Value) -> Value:
    if key.__class__ is bool:
        if key not in value:
            return _MISSING
        return next((found for each, found in value.items() if each is key), _MISSING)
    try:
        if key in value:
            return value[key]
    except TypeError as error:
        raise EvaluationError("no such overload") from error
    return _MISSING
