"""Conversions between types, `size`, `type`, and the parts of timestamps and durations.

A library of functions. Invariant: a conversion has the value that was meant or fails; nothing wraps around.

Spec: cel-spec, "Language Definition", "List of Standard Definitions".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

from tiphys.cel import times, types
from tiphys.cel.code import size_of, traversal
from tiphys.cel.cost import COST_MAXIMUM, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.equality import runtime_name
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import BOOL, BYTES, DOUBLE, DURATION, DYN, INT, STRING, TIMESTAMP, UINT, Type
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, UINT_MAXIMUM, Duration, Timestamp, TypeValue, UInt, Value

_A: Final = types.parameter("A")
_B: Final = types.parameter("B")
_INT_TEXT: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_UINT_TEXT: Final = re.compile(r"[0-9]+", re.ASCII)
_DOUBLE_TEXT: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity|nan|0x[0-9a-f]*\.?[0-9a-f]*p[+-]?[0-9]+)",
    re.ASCII | re.IGNORECASE,
)
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


def same(value: Value) -> Value:
    """Return the value as it is."""
    return value


def int_of_double(value: float) -> int:
    """Cut off the fraction."""
    if math.isnan(value) or not -(2.0**63) < value < 2.0**63:
        raise EvaluationError("integer overflow")
    return int(value)


def int_of_uint(value: UInt) -> int:
    """Return the same number with a sign."""
    if value > INT_MAXIMUM:
        raise EvaluationError("integer overflow")
    return int(value)


def int_of_text(text: str) -> int:
    """Read a decimal number."""
    if not _INT_TEXT.fullmatch(text):
        raise EvaluationError("type conversion error from 'string' to 'int'")
    number = int(text) if len(text) < 40 else INT_MAXIMUM * 2
    if not INT_MINIMUM <= number <= INT_MAXIMUM:
        raise EvaluationError("type conversion error from 'string' to 'int'")
    return number


def uint_of_int(value: int) -> UInt:
    """Return the same number without a sign."""
    if value < 0:
        raise EvaluationError("unsigned integer overflow")
    return UInt(value)


def uint_of_double(value: float) -> UInt:
    """Cut off the fraction."""
    if math.isnan(value) or not 0 <= value < 2.0**64:
        raise EvaluationError("unsigned integer overflow")
    return UInt(int(value))


def uint_of_text(text: str) -> UInt:
    """Read a decimal number."""
    number = int(text) if len(text) < 40 and _UINT_TEXT.fullmatch(text) else -1
    if not 0 <= number <= UINT_MAXIMUM:
        raise EvaluationError("type conversion error from 'string' to 'uint'")
    return UInt(number)


def double_of_text(text: str) -> float:
    """Read a number."""
    if not _DOUBLE_TEXT.fullmatch(text):
        raise EvaluationError("type conversion error from 'string' to 'double'")
    number = float.fromhex(text) if "x" in text.lower() else float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise EvaluationError("type conversion error from 'string' to 'double'")
    return number


def bool_of_text(text: str) -> bool:
    """Read a truth value."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise EvaluationError("type conversion error from 'string' to 'bool'")


def format_double(value: float) -> str:
    """Return a double as Go's shortest form that reads back."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    digits = mantissa.removesuffix(".0")
    if exponent:
        magnitude = int(exponent)
    if -4 <= magnitude < 6:
        return _plain(digits, magnitude, bool(exponent))
    if not exponent:
        digits, magnitude = _scientific(digits)
    return f"{digits}e{'-' if magnitude < 0 else '+'}{abs(magnitude):02}"


def _plain(digits: str, magnitude: int, scientific: bool) -> str:
    """Write digits without an exponent."""
    if not scientific:
        return digits
    sign = "-" if digits.startswith("-") else ""
    bare = digits.lstrip("-").replace(".", "")
    if magnitude < 0:
        return f"{sign}0.{'0' * (-magnitude - 1)}{bare}"
    if len(bare) <= magnitude + 1:
        return sign + bare.ljust(magnitude + 1, "0")
    return f"{sign}{bare[: magnitude + 1]}.{bare[magnitude + 1 :]}"


def _scientific(digits: str) -> tuple[str, int]:
    """Return digits with one before the point, and the exponent, of a number written without one."""
    sign = "-" if digits.startswith("-") else ""
    whole, _, fraction = digits.lstrip("-").partition(".")
    if whole.strip("0"):
        bare = (whole + fraction).rstrip("0")
        exponent = len(whole) - 1
    else:
        bare = fraction.lstrip("0")
        exponent = -(len(fraction) - len(bare)) - 1
    return f"{sign}{bare[0]}{'.' + bare[1:] if len(bare) > 1 else ''}", exponent


def text_of_bool(value: bool) -> str:
    """Return `true` or `false`."""
    return "true" if value else "false"


def text_of_int(value: int) -> str:
    """Return decimal digits."""
    return str(int(value))


def text_of_bytes(value: bytes) -> str:
    """Decode UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from error


def duration_of_text(text: str) -> Duration:
    """Read a duration such as `1h30m`."""
    found = times.parse_duration(text)
    if found is None:
        raise EvaluationError("type conversion error from 'string' to 'google.protobuf.Duration'")
    return found


def timestamp_of_text(text: str) -> Timestamp:
    """Read RFC 3339."""
    found = times.parse_timestamp(text)
    if found is None:
        raise EvaluationError("type conversion error from 'string' to 'google.protobuf.Timestamp'")
    return found


def size(value: Value) -> int:
    """Return the number of characters, bytes, elements or entries."""
    return len(value)


def type_value(value: Value) -> TypeValue:
    """Return the type of a value."""
    return TypeValue(runtime_name(value))


# Times

_GETTERS: Final[tuple[tuple[str, Callable[..., int]], ...]] = (
    ("getFullYear", lambda moment: moment.year),
    ("getMonth", lambda moment: moment.month - 1),
    ("getDayOfYear", lambda moment: moment.timetuple().tm_yday - 1),
    ("getDayOfMonth", lambda moment: moment.day - 1),
    ("getDate", lambda moment: moment.day),
    ("getDayOfWeek", lambda moment: moment.isoweekday() % 7),
    ("getHours", lambda moment: moment.hour),
    ("getMinutes", lambda moment: moment.minute),
    ("getSeconds", lambda moment: moment.second),
)
_DURATION_UNITS: Final = {"getHours": 3600 * times.SECOND, "getMinutes": 60 * times.SECOND, "getSeconds": times.SECOND}


def _getter(name: str, part: Callable[..., int]) -> Function:
    def in_zone(moment: Timestamp, zone: str = "") -> int:
        return part(times.local(moment, zone))

    overloads = [
        Overload(f"timestamp_to_{name}", (TIMESTAMP,), INT, in_zone, member=True),
        Overload(f"timestamp_to_{name}_with_tz", (TIMESTAMP, STRING), INT, in_zone, member=True),
    ]
    if name in _DURATION_UNITS:
        overloads.append(_duration_getter(name, _DURATION_UNITS[name]))
    return Function(name, tuple(overloads))


def _duration_getter(name: str, unit: int) -> Overload:
    def whole(duration: Duration) -> int:
        count = abs(duration.nanoseconds) // unit
        return -count if duration.nanoseconds < 0 else count

    return Overload(f"duration_to_{name}", (DURATION,), INT, whole, member=True)


def milliseconds_of_timestamp(moment: Timestamp, zone: str = "") -> int:
    """Return the milliseconds of the running second."""
    times.local(moment, zone)
    return moment.nanoseconds % times.SECOND // 1_000_000


def milliseconds_of_duration(duration: Duration) -> int:
    """Return the whole duration in milliseconds."""
    count = abs(duration.nanoseconds) // 1_000_000
    return -count if duration.nanoseconds < 0 else count


# Costs


def _read_first(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[0]))


def _bytes_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """A character becomes up to four bytes."""
    size = operands[0].size
    return size.times(STRING_FACTOR), CostRange(size.min, min(size.max * 4, COST_MAXIMUM))


def _text_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = operands[0].size
    return size.times(STRING_FACTOR), CostRange(size.min // 4, size.max)


_COSTS: Final = {
    ("bytes", "string"): CallCost(_read_first, _bytes_estimate),
    ("string", "bytes"): CallCost(_read_first, _text_estimate),
}


def _conversion(name: str, result: Type, forms: Sequence[tuple[Type, str, Callable[[Value], Value]]]) -> Function:
    overloads = []
    for type_, label, call in forms:
        cost = _COSTS.get((name, label))
        overloads.append(Overload(f"{label}_to_{name}", (type_,), result, call, cost=cost))
    return Function(name, tuple(overloads))


LIBRARY: Final[Library] = (
    _conversion("bool", BOOL, ((BOOL, "bool", same), (STRING, "string", bool_of_text))),
    _conversion(
        "int",
        INT,
        (
            (INT, "int64", same),
            (UINT, "uint64", int_of_uint),
            (DOUBLE, "double", int_of_double),
            (STRING, "string", int_of_text),
            (TIMESTAMP, "timestamp", lambda moment: moment.nanoseconds // times.SECOND),
            (DURATION, "duration", lambda duration: duration.nanoseconds),
        ),
    ),
    _conversion(
        "uint",
        UINT,
        (
            (UINT, "uint64", same),
            (INT, "int64", uint_of_int),
            (DOUBLE, "double", uint_of_double),
            (STRING, "string", uint_of_text),
        ),
    ),
    _conversion(
        "double",
        DOUBLE,
        ((DOUBLE, "double", same), (INT, "int64", float), (UINT, "uint64", float), (STRING, "string", double_of_text)),
    ),
    _conversion(
        "string",
        STRING,
        (
            (STRING, "string", same),
            (BOOL, "bool", text_of_bool),
            (BYTES, "bytes", text_of_bytes),
            (DOUBLE, "double", format_double),
            (DURATION, "duration", times.format_duration),
            (INT, "int64", text_of_int),
            (TIMESTAMP, "timestamp", times.format_timestamp),
            (UINT, "uint64", text_of_int),
        ),
    ),
    _conversion("bytes", BYTES, ((BYTES, "bytes", same), (STRING, "string", lambda text: text.encode()))),
    _conversion(
        "duration",
        DURATION,
        ((DURATION, "duration", same), (INT, "int64", times.checked_duration), (STRING, "string", duration_of_text)),
    ),
    _conversion(
        "timestamp",
        TIMESTAMP,
        (
            (TIMESTAMP, "timestamp", same),
            (INT, "int64", lambda seconds: times.checked_timestamp(seconds * times.SECOND)),
            (STRING, "string", timestamp_of_text),
        ),
    ),
    Function("dyn", (Overload("to_dyn", (_A,), DYN, same),)),
    Function("type", (Overload("type", (_A,), types.type_of(_A), type_value),)),
    Function(
        "size",
        tuple(
            overload
            for type_, label in (
                (BYTES, "bytes"),
                (types.list_of(_A), "list"),
                (types.map_of(_A, _B), "map"),
                (STRING, "string"),
            )
            for overload in (
                Overload(f"size_{label}", (type_,), INT, size),
                Overload(f"{label}_size", (type_,), INT, size, member=True),
            )
        ),
    ),
    *(_getter(name, part) for name, part in _GETTERS),
    Function(
        "getMilliseconds",
        (
            Overload("timestamp_to_milliseconds", (TIMESTAMP,), INT, milliseconds_of_timestamp, member=True),
            Overload(
                "timestamp_to_milliseconds_with_tz", (TIMESTAMP, STRING), INT, milliseconds_of_timestamp, member=True
            ),
            Overload("duration_to_milliseconds", (DURATION,), INT, milliseconds_of_duration, member=True),
        ),
    ),
)
