"""The extensions that Kubernetes enables: expressions, and the value or the error that each has."""

from __future__ import annotations

import pytest
from cel_rows import check_error, check_value

from tiphys.cel.values import Optional, Value

VALUES: list[tuple[str, Value]] = [
    # Macros with two variables
    ("[1, 2, 3].all(i, v, v > i)", True),
    ("[1, 2, 3].all(i, v, v > 1)", False),
    ("{'a': 1}.all(k, v, k == 'a' && v == 1)", True),
    ("[1, 2, 3].exists(i, v, i == 2 && v == 3)", True),
    ("{'a': 1}.exists(k, v, v == 2)", False),
    ("[1, 2, 3].existsOne(i, v, v == 3)", True),
    ("{'a': 1, 'b': 1}.existsOne(k, v, v == 1)", False),
    ("[1, 2, 3].existsOne(v, v == 3)", True),
    ("[1, 2, 3].transformList(i, v, i * v)", [0, 2, 6]),
    ("[1, 2, 3].transformList(i, v, v > 1, i * v)", [2, 6]),
    ("{'a': 1}.transformList(k, v, k)", ["a"]),
    ("[1, 2, 3].transformMap(i, v, v * v)", {0: 1, 1: 4, 2: 9}),
    ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", {"b": 20}),
    ("{'a': 'x', 'b': 'y'}.transformMapEntry(k, v, {v: k})", {"x": "a", "y": "b"}),
    ("['a', 'b'].transformMapEntry(i, v, v == 'b', {v: i})", {"b": 1}),
    # Formats
    ("'%s'.format(['a'])", "a"),
    ("'%s and %s'.format(['a', 'b'])", "a and b"),
    ("'%s'.format([1])", "1"),
    ("'%s'.format([1u])", "1"),
    ("'%s'.format([1.5])", "1.5"),
    ("'%s'.format([1000000.0])", "1e+06"),
    ("'%s'.format([true])", "true"),
    ("'%s'.format([null])", "null"),
    ("'%s'.format([b'abc'])", "abc"),
    ("'%s'.format([[1, 2]])", "[1, 2]"),
    ("'%s'.format([['a', 'b']])", '["a", "b"]'),
    ("'%s'.format([{'a': 1, 'b': 2}])", '{"a":1, "b":2}'),
    ("'%s'.format([{2: 'x', 1: 'y'}])", '{1:"y", 2:"x"}'),
    ("'%s'.format([[1.5]])", "[1.500000]"),
    ("'%s'.format([duration('90s')])", "90s"),
    ("'%s'.format([[duration('90s')]])", '[duration("90s")]'),
    ("'%s'.format([timestamp('2020-01-02T03:04:05Z')])", "2020-01-02T03:04:05Z"),
    ("'%s'.format([[timestamp('2020-01-02T03:04:05Z')]])", '[timestamp("2020-01-02T03:04:05Z")]'),
    ("'%s'.format([type(1)])", "int"),
    ("'%d'.format([42])", "42"),
    ("'%d'.format([42u])", "42"),
    ("'%d'.format([-5])", "-5"),
    ("'%f'.format([1.5])", "1.500000"),
    ("'%.1f'.format([1.25])", "1.2"),
    ("'%.0f'.format([2.5])", "2"),
    ("'%f'.format([12345678.9])", "12,345,678.900000"),
    ("'%.3f'.format([-1234.5])", "-1,234.500"),
    ("'%e'.format([1052.032911275])", "1.052033\u202f×\u202f10⁰³"),
    ("'%.2e'.format([0.00012345])", "1.23\u202f×\u202f10⁻⁰⁴"),
    ("'%b'.format([5])", "101"),
    ("'%b'.format([-5])", "-101"),
    ("'%b'.format([true])", "1"),
    ("'%x'.format([255])", "ff"),
    ("'%X'.format([255])", "FF"),
    ("'%x'.format([-255])", "-ff"),
    ("'%x'.format(['hi'])", "6869"),
    ("'%X'.format(['kiz'])", "6B697A"),
    ("'%x'.format([b'hi'])", "6869"),
    ("'%o'.format([8])", "10"),
    ("'%%'.format([])", "%"),
    ("'100%%'.format([])", "100%"),
    ("'%s'.format([dyn([])])", "[]"),
    ("'%f'.format(['NaN'])", "NaN"),
    ("'%f'.format(['Infinity'])", "∞"),
    ("'%f'.format(['-Infinity'])", "-∞"),
    ("'%f'.format([1.0 / 0.0])", "∞"),
    ("'%s'.format([[1.0 / 0.0]])", '["+Inf"]'),
    ("dyn('%d%%').format([5])", "5%"),
    # Quotes
    ("strings.quote('a\"b')", '"a\\"b"'),
    ("strings.quote('a\\nb\\\\c')", '"a\\nb\\\\c"'),
    ("strings.quote('é')", '"é"'),
    # Sets
    ("sets.contains([1, 2, 3], [2, 3])", True),
    ("sets.contains([1], [1, 2])", False),
    ("sets.contains([], [])", True),
    ("sets.contains([], [1])", False),
    ("sets.equivalent([1, 2, 2], [2, 1])", True),
    ("sets.equivalent([1], [2])", False),
    ("sets.intersects([1, 2], [2, 3])", True),
    ("sets.intersects([1], [2])", False),
    ("sets.intersects([], [])", False),
    ("sets.contains([[1], [2]], [[2]])", True),
    # Lists
    ("[1, 2, 3, 4].slice(1, 3)", [2, 3]),
    ("[1, 2, 3].slice(0, 0)", []),
    ("[[1, 2], [3]].flatten()", [1, 2, 3]),
    ("[[[1], [2]], [[3]]].flatten(2)", [1, 2, 3]),
    ("[[[1]]].flatten()", [[1]]),
    ("[3, 1, 2].sort()", [1, 2, 3]),
    ("['b', 'a'].sort()", ["a", "b"]),
    ("[true, false].sort()", [False, True]),
    ("[3, 1, 2].sortBy(e, -e)", [3, 2, 1]),
    ("['bbb', 'a', 'cc'].sortBy(e, size(e))", ["a", "cc", "bbb"]),
    ("[1, 2, 1, 3].distinct()", [1, 2, 3]),
    ("[].distinct()", []),
    ("[1, 2, 3].reverse()", [3, 2, 1]),
    ("[].reverse()", []),
    ("lists.range(3)", [0, 1, 2]),
    ("lists.range(0)", []),
    ("lists.range(-1)", []),
    ("[1, 2].first()", Optional(1)),
    ("[1, 2].first().value()", 1),
    ("[].first().hasValue()", False),
    ("[1, 2].last().value()", 2),
    ("optional.unwrap([optional.of(1), optional.none()])", [1]),
    ("[optional.of(1), optional.none()].unwrapOpt()", [1]),
]

ERRORS: list[tuple[str, str]] = [
    # Macros with two variables
    ("{'a': 'x', 'b': 'x'}.transformMapEntry(k, v, {v: k})", "insert failed: key x already exists"),
    # Formats
    (
        "'%d'.format([dyn(1.5)])",
        "error during formatting: decimal clause can only be used on integers, was given double",
    ),
    (
        "'%d'.format([dyn('a')])",
        "error during formatting: decimal clause can only be used on integers, was given string",
    ),
    ("'%f'.format([dyn(1)])", "error during formatting: fixed-point clause can only be used on doubles, was given int"),
    (
        "'%b'.format([dyn(1.5)])",
        "error during formatting: only integers and bools can be formatted as binary, was given double",
    ),
    (
        "'%x'.format([dyn(1.5)])",
        "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was given double",
    ),
    ("'%o'.format([dyn('a')])", "error during formatting: octal clause can only be used on integers, was given string"),
    (
        "'%e'.format([dyn('a')])",
        "error during formatting: scientific clause can only be used on doubles, was given string",
    ),
    (
        "'%s'.format([dyn(optional.of(1))])",
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given optional_type",
    ),
    ("dyn('%q').format([1])", 'could not parse formatting clause: unrecognized formatting clause "q"'),
    ("dyn('%').format([])", "unexpected end of string"),
    ("dyn('%s %s').format(['a'])", "index 1 out of range"),
    (
        "dyn('%.f').format([1.5])",
        'could not parse formatting clause: error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing "": invalid syntax',
    ),
    (
        "dyn('%.2').format([1.5])",
        "could not parse formatting clause: error while parsing precision: could not find end of precision specifier",
    ),
    (
        "dyn('%.99999f').format([1.5])",
        'could not parse formatting clause: error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing "99999": invalid syntax',
    ),
    # Lists
    ("[1, 2, 3].slice(2, 1)", "cannot slice(2, 1), start index must be less than or equal to end index"),
    ("[1, 2, 3].slice(-1, 1)", "cannot slice(-1, 1), negative indexes not supported"),
    ("[1, 2, 3].slice(0, 4)", "cannot slice(0, 4), list is length 3"),
    ("[[1]].flatten(-1)", "level must be non-negative"),
]


@pytest.mark.parametrize(("text", "wanted"), VALUES, ids=[text for text, _ in VALUES])
def test_value(text: str, wanted: Value) -> None:
    check_value(text, wanted)


@pytest.mark.parametrize(("text", "wanted"), ERRORS, ids=[text for text, _ in ERRORS])
def test_error(text: str, wanted: str) -> None:
    check_error(text, wanted)
