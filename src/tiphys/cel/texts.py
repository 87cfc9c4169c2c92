"""Functions of strings: those of the standard library, and of cel-go's extension `strings` in version 2.

Invariant: positions and lengths count characters (code points), never bytes; no result is longer than
`TEXT_MAXIMUM`, whatever `replace` and `join` are asked for.

Spec: cel-spec, "List of Standard Definitions"; cel-go's documentation of the extension "Strings"; costs are those of
Kubernetes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tiphys.cel import formatting, patterns, types
from tiphys.cel.code import size_of, traversal, work
from tiphys.cel.cost import COST_MAXIMUM, ONE, REGEX_FACTOR, STRING_FACTOR, CallCost, CostRange, Operand, string_cost
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import BudgetExceeded, EvaluationError
from tiphys.cel.types import BOOL, DYN, INT, STRING
from tiphys.cel.values import Value

TEXT_MAXIMUM: Final = 64 * 2**20
_STRINGS: Final = types.list_of(STRING)
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


def contains(text: str, part: str) -> bool:
    """Tell whether a part is anywhere in a text."""
    if text.__class__ is not str:
        raise TypeError
    return part in text


def char_at(text: str, index: int) -> str:
    """Return a character, or nothing right behind the last one."""
    if not 0 <= index <= len(text):
        raise EvaluationError(f"index out of range: {index}")
    return text[index : index + 1]


def index_of(text: str, part: str, offset: int = 0) -> int:
    """Return where a part is first, from an offset on, or -1."""
    if not part:
        return offset
    if not text and offset == 0:
        return -1
    if not 0 <= offset < len(text):
        raise EvaluationError(f"index out of range: {offset}")
    return text.find(part, offset)


def last_index_of(text: str, part: str, offset: int | None = None) -> int:
    """Return where a part is last, beginning at an offset at most, or -1."""
    if offset is None:
        return text.rfind(part)
    if not part:
        return offset
    if not 0 <= offset < len(text):
        raise EvaluationError(f"index out of range: {offset}")
    return text.rfind(part, 0, offset + len(part))


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """Replace a part, everywhere or so often; raises BudgetExceeded for what would be far too long."""
    found = len(text) + 1 if not old else text.count(old)
    if count >= 0:
        found = min(found, count)
    if len(text) + found * (len(new) - len(old)) > TEXT_MAXIMUM:
        raise BudgetExceeded
    return text.replace(old, new, count if count >= 0 else -1)


def split(text: str, separator: str, count: int = -1) -> list[str]:
    """Split, into so many parts at most; an empty separator splits into characters."""
    if count == 0:
        return []
    if not separator:
        if count < 0 or count >= len(text):
            return list(text)
        return [*text[: count - 1], text[count - 1 :]]
    return text.split(separator, -1 if count < 0 else count - 1)


def substring(text: str, start: int, end: int | None = None) -> str:
    """Return the characters from start up to end."""
    stop = len(text) if end is None else end
    if end is not None and start > end:
        raise EvaluationError(f"invalid substring range. start: {start}, end: {end}")
    for index in (start, stop):
        if not 0 <= index <= len(text):
            raise EvaluationError(f"index out of range: {index}")
    return text[start:stop]


def join(parts: list[str], separator: str = "") -> str:
    """Put texts together."""
    if len(separator) * len(parts) > TEXT_MAXIMUM:
        raise BudgetExceeded
    return separator.join(parts)


def format_text(text: str, arguments: list[Value]) -> str:
    """Replace the clauses of a text."""
    return formatting.formatted(text, arguments)


# Costs


def _fixed_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[1]))


def _fixed_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[1].size.times(STRING_FACTOR), None


def _contains_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[0])) * traversal(size_of(values[1]))


def _contains_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR) * operands[1].size.times(STRING_FACTOR), None


def matches_actual(values: Sequence[Value], result: Value) -> int:
    """Return what a search for a pattern costs."""
    return traversal(1 + size_of(values[0])) * string_cost(size_of(values[1]), REGEX_FACTOR)


def matches_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """Return what a search for a pattern costs."""
    text = (operands[0].size + ONE).times(STRING_FACTOR)
    return text * operands[1].size.times(REGEX_FACTOR), None


def _read_actual(values: Sequence[Value], result: Value) -> int:
    return traversal(size_of(values[0]))


def _read_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR), operands[0].size


def _search_actual(values: Sequence[Value], result: Value) -> int:
    return int(len(values[0].encode()) * STRING_FACTOR)


def _search_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR), None


def _made_actual(values: Sequence[Value], result: Value) -> int:
    return math.ceil(size_of(values[0]) * 2 * STRING_FACTOR)


def _replace_actual(values: Sequence[Value], result: Value) -> int:
    return max(_made_actual(values, result), work(len(result) // 4))


def _replace_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    """Return the cost, and as size the longest and the shortest text that replacing may make."""
    text, old, new = operands[0].size, operands[1].size, operands[2].size
    if old.min == 0:
        most, kept_most = min(text.max + 1, COST_MAXIMUM), text.max
    elif new.max <= old.min:
        most, kept_most = 0, text.max
    else:
        most, kept_most = math.ceil(text.max / old.min), 0
    if old.max == 0:
        least, kept_least = text.min + 1, text.min
    elif old.max <= new.min:
        least, kept_least = 0, text.min
    else:
        least, kept_least = math.ceil(text.min / old.max), 0
    size = CostRange(least, most) * new + CostRange(kept_least, kept_most)
    return text.times(2 * STRING_FACTOR), size


def _split_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = operands[0].size
    most = operands[2].constant if len(operands) > 2 and isinstance(operands[2].constant, int) else size.max
    return size.times(2 * STRING_FACTOR), CostRange(0, most if most >= 0 else COST_MAXIMUM)


def _join_actual(values: Sequence[Value], result: Value) -> int:
    return math.ceil(size_of(result) * 2 * STRING_FACTOR)


def _join_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    count = operands[0].size
    size = count * (operands[0].element_size or CostRange(0, COST_MAXIMUM))
    if len(operands) > 1:
        size = size + operands[1].size * CostRange(max(0, count.min - 1), max(0, count.max - 1))
    return size.times(STRING_FACTOR), size


def _quote_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    size = operands[0].size
    return size.times(STRING_FACTOR), CostRange(size.min, size.max) * CostRange(1, 2) + CostRange(2, 2)


def _format_actual(values: Sequence[Value], result: Value) -> int:
    return max(_read_actual(values, result), work(len(result) // 4))


def _format_estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[0].size.times(STRING_FACTOR), None


FIXED_COST: Final = CallCost(_fixed_actual, _fixed_estimate)
CONTAINS_COST: Final = CallCost(_contains_actual, _contains_estimate)
MATCHES_COST: Final = CallCost(matches_actual, matches_estimate)
READ_COST: Final = CallCost(_read_actual, _read_estimate)
SEARCH_COST: Final = CallCost(_search_actual, _search_estimate)
REPLACE_COST: Final = CallCost(_replace_actual, _replace_estimate)
SPLIT_COST: Final = CallCost(_made_actual, _split_estimate)
JOIN_COST: Final = CallCost(_join_actual, _join_estimate)
QUOTE_COST: Final = CallCost(_read_actual, _quote_estimate)
FORMAT_COST: Final = CallCost(_format_actual, _format_estimate)

LIBRARY: Final[Library] = (
    Function("contains", (Overload("contains_string", (STRING, STRING), BOOL, contains, True, CONTAINS_COST),)),
    Function("startsWith", (Overload("starts_with_string", (STRING, STRING), BOOL, str.startswith, True, FIXED_COST),)),
    Function("endsWith", (Overload("ends_with_string", (STRING, STRING), BOOL, str.endswith, True, FIXED_COST),)),
    Function(
        "matches",
        (
            Overload("matches", (STRING, STRING), BOOL, patterns.matches, False, MATCHES_COST),
            Overload("matches_string", (STRING, STRING), BOOL, patterns.matches, True, MATCHES_COST),
        ),
    ),
    Function("charAt", (Overload("string_char_at_int", (STRING, INT), STRING, char_at, True),)),
    Function(
        "indexOf",
        (
            Overload("string_index_of_string", (STRING, STRING), INT, index_of, True, SEARCH_COST),
            Overload("string_index_of_string_int", (STRING, STRING, INT), INT, index_of, True, SEARCH_COST),
        ),
    ),
    Function(
        "lastIndexOf",
        (
            Overload("string_last_index_of_string", (STRING, STRING), INT, last_index_of, True, SEARCH_COST),
            Overload("string_last_index_of_string_int", (STRING, STRING, INT), INT, last_index_of, True, SEARCH_COST),
        ),
    ),
    Function(
        "lowerAscii",
        (Overload("string_lower_ascii", (STRING,), STRING, lambda text: text.translate(_LOWER), True, READ_COST),),
    ),
    Function(
        "upperAscii",
        (Overload("string_upper_ascii", (STRING,), STRING, lambda text: text.translate(_UPPER), True, READ_COST),),
    ),
    Function("trim", (Overload("string_trim", (STRING,), STRING, lambda text: text.strip(_SPACE), True, READ_COST),)),
    Function(
        "replace",
        (
            Overload("string_replace_string_string", (STRING, STRING, STRING), STRING, replace, True, REPLACE_COST),
            Overload(
                "string_replace_string_string_int", (STRING, STRING, STRING, INT), STRING, replace, True, REPLACE_COST
            ),
        ),
    ),
    Function(
        "split",
        (
            Overload("string_split_string", (STRING, STRING), _STRINGS, split, True, SPLIT_COST),
            Overload("string_split_string_int", (STRING, STRING, INT), _STRINGS, split, True, SPLIT_COST),
        ),
    ),
    Function(
        "substring",
        (
            Overload("string_substring_int", (STRING, INT), STRING, substring, True, READ_COST),
            Overload("string_substring_int_int", (STRING, INT, INT), STRING, substring, True, READ_COST),
        ),
    ),
    Function(
        "join",
        (
            Overload("list_join", (_STRINGS,), STRING, join, True, JOIN_COST),
            Overload("list_join_string", (_STRINGS, STRING), STRING, join, True, JOIN_COST),
        ),
    ),
    Function("strings.quote", (Overload("strings_quote", (STRING,), STRING, formatting.quoted, False, QUOTE_COST),)),
    Function(
        "format", (Overload("string_format", (STRING, types.list_of(DYN)), STRING, format_text, True, FORMAT_COST),)
    ),
)
