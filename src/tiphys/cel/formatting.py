"""`format`: texts with clauses such as `%s` or `%.2f`, and quoting.

Called by the string library with values, and by the check of literals with types. Invariant: a text is read the same
way by both, so what the check lets pass fails at run time only for values of type dyn.

Spec: cel-go's documentation of the extension "Strings", version 2, with the locale en_US: thousands are grouped in `%f`,
and `%e` writes a power of ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Final

from tiphys.base.gotext import GO_ESCAPES, go_quote
from tiphys.cel import times
from tiphys.cel.conversions import format_double, text_of_bytes
from tiphys.cel.equality import runtime_name
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import Duration, Timestamp, TypeValue, Value

PRECISION_DEFAULT: Final = 6
PRECISION_MAXIMUM: Final = 1000
_CLAUSE: Final = re.compile(r"%(?:(%)|(\.[0-9]*)?(.?))", re.DOTALL)
_SUPERSCRIPT: Final = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_NAMED_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
_WANTED: Final = {
    "s": "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, "
    "and timestamps",
    "d": "decimal clause can only be used on integers",
    "f": "fixed-point clause can only be used on doubles",
    "e": "scientific clause can only be used on doubles",
    "b": "only integers and bools can be formatted as binary",
    "x": "only integers, byte buffers, and strings can be formatted as hex",
    "X": "only integers, byte buffers, and strings can be formatted as hex",
    "o": "octal clause can only be used on integers",
}
KINDS: Final = {
    "s": frozenset(
        {
            "list",
            "map",
            "int",
            "uint",
            "double",
            "bool",
            "string",
            "timestamp",
            "bytes",
            "duration",
            "type",
            "null",
            "object",
        }
    ),
    "d": frozenset({"int", "uint"}),
    "f": frozenset({"double", "string"}),
    "e": frozenset({"double", "string"}),
    "b": frozenset({"int", "uint", "bool"}),
    "x": frozenset({"int", "uint", "string", "bytes"}),
    "X": frozenset({"int", "uint", "string", "bytes"}),
    "o": frozenset({"int", "uint"}),
}
"""The kinds of types that each clause takes."""


def refusal(clause: str, name: str) -> str:
    """Return the message for a value that a clause does not take."""
    return f"error during formatting: {_WANTED[clause]}, was given {name}"


def clauses(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield the text before each clause, the clause and its precision; raises EvaluationError.

    The last one has no clause.
    """
    position = 0
    before = ""
    for match in _CLAUSE.finditer(text):
        before += text[position : match.start()]
        position = match.end()
        if match[1]:
            before += "%"
            continue
        yield before, *_clause(match[2], match[3])
        before = ""
    yield before + text[position:], "", 0


def _clause(precision: str | None, letter: str) -> tuple[str, int]:
    if not letter:
        if precision is not None:
            raise EvaluationError(
                "could not parse formatting clause: error while parsing precision: could not find end of precision specifier"
            )
        raise EvaluationError("unexpected end of string")
    digits = PRECISION_DEFAULT
    if precision is not None:
        if not precision[1:] or len(precision) > 5 or int(precision[1:]) > PRECISION_MAXIMUM:
            raise EvaluationError(
                "could not parse formatting clause: error while parsing precision: error while converting precision to "
                f'integer: strconv.Atoi: parsing "{precision[1:]}": invalid syntax'
            )
        digits = int(precision[1:])
    if letter not in _WANTED:
        raise EvaluationError(f'could not parse formatting clause: unrecognized formatting clause "{letter}"')
    return letter, digits


def formatted(text: str, arguments: list[Value]) -> str:
    """Return the text with its clauses replaced by arguments; raises EvaluationError."""
    parts: list[str] = []
    for index, (before, clause, precision) in enumerate(clauses(text)):
        parts.append(before)
        if not clause:
            break
        if index >= len(arguments):
            raise EvaluationError(f"index {index} out of range")
        value = arguments[index]
        found = _FORMATTERS[clause](value, precision)
        if found is None:
            raise EvaluationError(refusal(clause, runtime_name(value)))
        parts.append(found)
    return "".join(parts)


def _string(value: Value, precision: int) -> str | None:
    simple = _simple(value)
    if simple is not None:
        return simple
    if isinstance(value, float):
        return format_double(value)
    if isinstance(value, Timestamp):
        return times.format_timestamp(value)
    if isinstance(value, Duration):
        return times.format_duration(value)
    if isinstance(value, list):
        return f"[{', '.join([_inner(each) for each in value])}]"
    if isinstance(value, dict):
        return _map(value)
    return None


def _simple(value: Value) -> str | None:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return text_of_bytes(value)
    return value.name if isinstance(value, TypeValue) else None


def _inner(value: Value) -> str:
    """Return a value inside of a list or a map: as an expression would say it."""
    if isinstance(value, str):
        return go_quote(value)
    if isinstance(value, bytes):
        return "b" + go_quote(text_of_bytes(value))
    if isinstance(value, Timestamp):
        return f"timestamp({go_quote(times.format_timestamp(value))})"
    if isinstance(value, Duration):
        return f"duration({go_quote(times.format_duration(value))})"
    if isinstance(value, float):
        return f"{value:.6f}" if math.isfinite(value) else go_quote(format_double(value))
    found = _string(value, 0)
    if found is None:
        raise EvaluationError(f"error during formatting: no formatting function for {runtime_name(value)}")
    return found


def _map(value: dict[Value, Value]) -> str:
    entries = []
    for key, each in value.items():
        if not isinstance(key, str | bool | int):
            message = f"error during formatting: no formatting function for map key of type {runtime_name(key)}"
            raise EvaluationError(message)
        entries.append((_inner(key), _inner(each)))
    return "{" + ", ".join([f"{key}:{each}" for key, each in sorted(entries, key=lambda entry: entry[0])]) + "}"


def _decimal(value: Value, precision: int) -> str | None:
    return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Value) -> float | None:
    if isinstance(value, float):
        return value
    return float(value) if isinstance(value, str) and value in _NAMED_NUMBERS else None


def _fixed(value: Value, precision: int) -> str | None:
    number = _number(value)
    if number is None:
        return None
    return f"{number:,.{precision}f}" if math.isfinite(number) else _infinite(number)


def _scientific(value: Value, precision: int) -> str | None:
    number = _number(value)
    if number is None:
        return None
    if not math.isfinite(number):
        return _infinite(number)
    mantissa, _, exponent = f"{number:.{precision}e}".partition("e")
    sign = "-" if exponent.startswith("-") else ""
    return f"{mantissa}\u202f×\u202f10{(sign + exponent[1:]).translate(_SUPERSCRIPT)}"


def _infinite(number: float) -> str:
    return "NaN" if math.isnan(number) else "∞" if number > 0 else "-∞"


def _binary(value: Value, precision: int) -> str | None:
    return f"{int(value):b}" if isinstance(value, int) else None


def _octal(value: Value, precision: int) -> str | None:
    return f"{int(value):o}" if isinstance(value, int) and not isinstance(value, bool) else None


def _hex(value: Value, precision: int) -> str | None:
    if isinstance(value, str):
        return value.encode().hex()
    if isinstance(value, bytes):
        return value.hex()
    return f"{int(value):x}" if isinstance(value, int) and not isinstance(value, bool) else None


def _upper_hex(value: Value, precision: int) -> str | None:
    found = _hex(value, precision)
    return None if found is None else found.upper()


def quoted(text: str) -> str:
    """Return a text in double quotes, with its quotes, backslashes and control characters that have a letter escaped."""
    return f'"{"".join([GO_ESCAPES.get(character, character) for character in text])}"'


_FORMATTERS: Final[dict[str, Callable[[Value, int], str | None]]] = {
    "s": _string,
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "x": _hex,
    "X": _upper_hex,
    "o": _octal,
}
