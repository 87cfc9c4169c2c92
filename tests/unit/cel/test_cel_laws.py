"""Laws that hold for all values: of arithmetic, equality, texts, times and macros."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tiphys.base.gotext import go_quote
from tiphys.cel import lexer, times, types
from tiphys.cel.conversions import double_of_text, format_double, int_of_text, text_of_int
from tiphys.cel.environment import Environment
from tiphys.cel.equality import equals, frozen
from tiphys.cel.errors import CompileError, EvaluationError
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, Duration, Timestamp

INTS = st.integers(INT_MINIMUM, INT_MAXIMUM)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ENVIRONMENT = Environment(
    {
        "a": types.INT,
        "b": types.INT,
        "s": types.STRING,
        "t": types.STRING,
        "l": types.list_of(types.INT),
        "d": types.DYN,
        "e": types.DYN,
        "p": types.BOOL,
        "q": types.BOOL,
    }
)
PROGRAMS = {
    text: ENVIRONMENT.compile(text)
    for text in (
        "a + b",
        "a - b",
        "a * b",
        "a / b * b + a % b == a",
        "d == e",
        "(s + t).startsWith(s) && (s + t).endsWith(t) && (s + t).size() == s.size() + t.size()",
        "s.split(t).join(t) == s",
        "s.substring(0, a) + s.substring(a) == s",
        "s.indexOf(t) == -1 ? !s.contains(t) : s.substring(s.indexOf(t)).startsWith(t)",
        "s.lastIndexOf(t) == -1 ? !s.contains(t) : s.substring(s.lastIndexOf(t)).startsWith(t)",
        "l.all(x, x > a) == !l.exists(x, !(x > a))",
        "l.filter(x, x > a).size() + l.filter(x, !(x > a)).size() == l.size()",
        "l.exists_one(x, x == a) == (l.filter(x, x == a).size() == 1)",
        "l.map(x, x > a, x) == l.filter(x, x > a)",
        "l.transformList(i, x, x) == l && l.all(i, x, l[i] == x)",
        "l.sort() == l.sort().sort() && l.sort() == l.reverse().sort() && sets.equivalent(l, l.distinct())",
        "[l].flatten() == l && l.slice(0, l.size()) == l",
        "(p && q) == !(!p || !q) && (p || q) == (q || p)",
        "optional.of(a).optMap(x, x).value() == a && optional.none().orValue(a) == a",
        "int(string(a)) == a && uint(1) == 1u",
    )
}


def evaluated(text: str, **data: Any) -> Any:
    return PROGRAMS[text].evaluate(data)


@given(INTS, INTS)
def test_arithmetic_is_exact_or_an_overflow(a: int, b: int) -> None:
    for text, exact in (("a + b", a + b), ("a - b", a - b), ("a * b", a * b)):
        try:
            assert evaluated(text, a=a, b=b) == exact
            assert INT_MINIMUM <= exact <= INT_MAXIMUM
        except EvaluationError as error:
            assert str(error) == "integer overflow"
            assert not INT_MINIMUM <= exact <= INT_MAXIMUM


@given(INTS, INTS.filter(bool))
def test_division_and_rest_belong_together(a: int, b: int) -> None:
    if (a, b) != (INT_MINIMUM, -1):
        assert evaluated("a / b * b + a % b == a", a=a, b=b) is True


@given(JSON, JSON)
def test_equality_is_that_of_json_with_numbers_and_booleans_apart(d: Any, e: Any) -> None:
    assert evaluated("d == e", d=d, e=e) is equals(e, d)
    assert equals(d, d)
    assert equals(d, e) is (frozen(d) == frozen(e))


@given(TEXTS, TEXTS, st.integers(0, 30))
def test_texts(s: str, t: str, a: int) -> None:
    assert evaluated("(s + t).startsWith(s) && (s + t).endsWith(t) && (s + t).size() == s.size() + t.size()", s=s, t=t)
    assert evaluated("s.split(t).join(t) == s", s=s, t=t)
    assert evaluated("s.substring(0, a) + s.substring(a) == s", s=s, a=min(a, len(s)))
    assert evaluated("s.indexOf(t) == -1 ? !s.contains(t) : s.substring(s.indexOf(t)).startsWith(t)", s=s, t=t)
    assert evaluated("s.lastIndexOf(t) == -1 ? !s.contains(t) : s.substring(s.lastIndexOf(t)).startsWith(t)", s=s, t=t)


@given(st.lists(st.integers(-3, 3), max_size=6), st.integers(-3, 3))
def test_macros_and_lists(data: list[int], a: int) -> None:
    for text in PROGRAMS:
        if "l." in text or "[l]" in text:
            assert evaluated(text, l=data, a=a) is True, text


@given(st.booleans(), st.booleans(), INTS)
def test_logic_optionals_and_conversions(p: bool, q: bool, a: int) -> None:
    assert evaluated("(p && q) == !(!p || !q) && (p || q) == (q || p)", p=p, q=q)
    assert evaluated("optional.of(a).optMap(x, x).value() == a && optional.none().orValue(a) == a", a=a)
    assert evaluated("int(string(a)) == a && uint(1) == 1u", a=a)
    assert int_of_text(text_of_int(a)) == a


@given(st.floats(allow_nan=False))
def test_doubles_read_back(value: float) -> None:
    text = format_double(value)
    assert double_of_text(text) == value
    assert re.fullmatch(r"-?[0-9](\.[0-9]*[1-9])?e[+-][0-9]{2,3}|-?[0-9]{1,6}(\.[0-9]+)?|-?0\.[0-9]+|[+-]Inf", text)


@given(st.integers(INT_MINIMUM, INT_MAXIMUM))
def test_durations_read_back(nanoseconds: int) -> None:
    duration = Duration(nanoseconds)
    assert times.parse_duration(times.format_duration(duration)) == duration


@given(st.integers(times.EARLIEST, times.LATEST))
def test_timestamps_read_back(nanoseconds: int) -> None:
    timestamp = Timestamp(nanoseconds)
    assert times.parse_timestamp(times.format_timestamp(timestamp)) == timestamp


@given(TEXTS)
def test_quoted_texts_are_literals(text: str) -> None:
    assert lexer.string_value(go_quote(text)) == text


@given(st.binary(max_size=20))
def test_bytes_are_literals(data: bytes) -> None:
    literal = "b'" + "".join(f"\\x{byte:02x}" for byte in data) + "'"
    assert Environment({}).compile(literal).evaluate({}) == data


WORDS = [
    "a",
    "l",
    "s",
    "1",
    "2u",
    "1.5",
    "'x'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "?",
    ":",
    "&&",
    "||",
    "!",
    "-",
    "+",
]
WORDS += [
    "==",
    "<",
    "in",
    "true",
    "null",
    "size",
    "map",
    "all",
    "x",
    "has",
    "optional",
    "of",
    "@",
    "'",
    "\\",
    " ",
    "\n",
]


@given(st.lists(st.sampled_from(WORDS), max_size=14).map("".join))
def test_every_text_has_a_meaning_or_an_error(text: str) -> None:
    try:
        program = ENVIRONMENT.compile(text)
        program.evaluate({"a": 1, "b": 2, "s": "x", "t": "y", "l": [1], "d": {}, "e": None, "p": True, "q": False})
    except CompileError as error:
        assert error.issues
        assert str(error).startswith("ERROR: <input>:")
    except EvaluationError as error:
        assert str(error)


RIGHT = (
    "a > 1 && s.startsWith('a')",
    "l.all(i, i > 0) || p",
    "has(d.k) ? d.k : 2",
    "{'a': 1}['a'] + d.?b.orValue(3)",
    "[1, 2, ?optional.of(3)][a - 5] <= -1",
    "size(s) + (a * 2) % 3",
    "!(a in [1, 2]) && -a < 3u",
)
PIECES = [token.text for text in RIGHT for token in lexer.tokens_of(text)[0][:-1]] + ["=", "@", "}", "{", "'"]


@given(
    st.sampled_from(RIGHT),
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["out", "in", "other", "end"]), st.sampled_from(PIECES)),
        max_size=3,
    ),
)
def test_texts_that_are_nearly_right_have_an_error(text: str, slips: list[tuple[int, str, str]]) -> None:
    pieces = [token.text for token in lexer.tokens_of(text)[0][:-1]]
    for place, slip, piece in slips:
        at = place % max(1, len(pieces))
        if slip == "end":
            pieces = pieces[:at]
        elif slip == "in":
            pieces.insert(at, piece)
        else:
            pieces[at : at + 1] = [piece] if slip == "other" else []
    try:
        ENVIRONMENT.compile(" ".join(pieces))
    except CompileError as error:
        assert error.issues
