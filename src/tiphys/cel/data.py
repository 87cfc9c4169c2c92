"""How JSON data becomes values, by the type that was declared for it.

The planner asks for a converter for each selection from declared data; most types need none. What is inside of objects
is converted when it is selected, scalars inside of lists and maps at once. Converters leave values as they are, so it
does no harm to convert twice; null stays null everywhere.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", the table of OpenAPI types and CEL types.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from tiphys.cel.equality import KeyedList, runtime_name
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import ListType, Type
from tiphys.cel.values import Duration, Timestamp, UInt, Value

Converter = Callable[[Value], Value]


def converter(type_: Type) -> Converter | None:
    """Return what makes a value of the type of JSON data, or None where that is nothing."""
    if type_.kind in _SCALARS:
        return _SCALARS[type_.kind]
    if isinstance(type_, ListType):
        return _list_converter(type_)
    if type_.kind == "map":
        inner = _inner(type_.parameters[1])
        return None if inner is None else lambda data: _converted_map(data, inner)
    return None


def _inner(type_: Type) -> Converter | None:
    """Return the converter of elements; what needs no change is not looked at one by one."""
    return None if type_.kind in ("string", "bool") else converter(type_)


def _list_converter(type_: ListType) -> Converter | None:
    inner = _inner(type_.parameters[0])
    if type_.unique or type_.keys:
        keys = type_.keys
        return lambda data: KeyedList(_converted_list(data, inner), keys) if data.__class__ is list else data
    return None if inner is None else lambda data: _converted_list(data, inner)


def _converted_list(data: Value, inner: Converter | None) -> Value:
    if not isinstance(data, list) or inner is None:
        return data
    return [inner(each) for each in data]


def _converted_map(data: Value, inner: Converter) -> Value:
    return {key: inner(value) for key, value in data.items()} if isinstance(data, dict) else data


def _int(data: Value) -> Value:
    if data.__class__ is int or data is None:
        return data
    if data.__class__ is float and data.is_integer():
        return int(data)
    return _refused(data, "int")


def _uint(data: Value) -> Value:
    if data.__class__ is UInt or data is None:
        return data
    if data.__class__ in (int, float) and data >= 0 and data == int(data):
        return UInt(data)
    return _refused(data, "uint")


def _double(data: Value) -> Value:
    if data.__class__ is float or data is None:
        return data
    return float(data) if data.__class__ is int else _refused(data, "double")


def _string(data: Value) -> Value:
    return data if data.__class__ is str or data is None else _refused(data, "string")


def _bool(data: Value) -> Value:
    return data if data.__class__ is bool or data is None else _refused(data, "bool")


def _bytes(data: Value) -> Value:
    if data.__class__ is not str:
        return data if data.__class__ is bytes or data is None else _refused(data, "bytes")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvaluationError(f"error decoding byte formatted string: {error}") from error


def _duration(data: Value) -> Value:
    if data.__class__ is not str:
        return data if data.__class__ is Duration or data is None else _refused(data, "duration")
    from tiphys.cel import times

    found = times.parse_schema_duration(data)
    if found is None:
        raise EvaluationError(f'Invalid duration {data}: time: invalid duration "{data}"')
    return found


def _timestamp(data: Value) -> Value:
    if data.__class__ is not str:
        return data if data.__class__ is Timestamp or data is None else _refused(data, "timestamp")
    from tiphys.cel import times

    found = times.parse_timestamp(data) or times.parse_date(data)
    if found is None:
        raise EvaluationError(f"Invalid date-time {data}")
    return found


def _refused(data: Value, wanted: str) -> Value:
    raise EvaluationError(f"invalid data, expected {wanted}, got {runtime_name(data)}")


_SCALARS: Final[dict[str, Converter]] = {
    "int": _int,
    "uint": _uint,
    "double": _double,
    "string": _string,
    "bool": _bool,
    "bytes": _bytes,
    "duration": _duration,
    "timestamp": _timestamp,
}
