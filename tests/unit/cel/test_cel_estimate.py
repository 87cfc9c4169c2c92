"""Static costs. The numbers are upstream's: they decide which definitions a server accepts."""

from __future__ import annotations

import pytest

from tiphys.cel import types
from tiphys.cel.cost import COST_MAXIMUM, CostRange
from tiphys.cel.environment import Environment
from tiphys.cel.types import BOOL, BYTES, DOUBLE, DURATION, INT, STRING, TIMESTAMP, ObjectType, Type, list_of, map_of

OBJECT = ObjectType("object", {"count": INT, "name": STRING})
OBJECTS = list_of(OBJECT)
NESTED = map_of(STRING, map_of(STRING, OBJECT))

Case = tuple[str, dict[str, Type], dict[str, int], tuple[int, int]]
CASES: list[Case] = [
    ("'Hello World!'", {}, {}, (0, 0)),
    ("input", {"input": list_of(INT)}, {}, (1, 1)),
    ("input['key']", {"input": map_of(STRING, STRING)}, {}, (2, 2)),
    ("input.count", {"input": OBJECT}, {}, (2, 2)),
    ("has(input.count)", {"input": OBJECT}, {}, (1, 1)),
    ("has(input.one.two)", {"input": NESTED}, {}, (2, 2)),
    ("input.getFullYear()", {"input": TIMESTAMP}, {}, (2, 2)),
    ("[1, 2, 3]", {}, {}, (10, 10)),
    ("{'a': 1, 'b': 2}", {}, {}, (30, 30)),
    ("input.all(x, true)", {"input": OBJECTS}, {"input": 100}, (2, 302)),
    ("input.all(x, x.all(y, true))", {"input": list_of(OBJECTS)}, {"input": 50, "input.@items": 10}, (2, 1752)),
    ("[1, 2, 3].all(x, true)", {}, {}, (20, 20)),
    ("input.matches('[0-9]')", {"input": STRING}, {"input": 500}, (3, 103)),
    ("'123'.matches('[0-9]')", {}, {}, (2, 2)),
    ("true || false", {}, {}, (0, 0)),
    ("a || b || c || d", dict.fromkeys("abcd", BOOL), {}, (1, 4)),
    ("a && b && c && d", dict.fromkeys("abcd", BOOL), {}, (1, 4)),
    ("1 < 2", {}, {}, (1, 1)),
    ("1 == 2", {}, {}, (1, 1)),
    ("2 in [1, 2, 3]", {}, {}, (13, 13)),
    ("1 + 1", {}, {}, (1, 1)),
    ("1 % 1", {}, {}, (1, 1)),
    ("true ? 1 : 2", {}, {}, (0, 0)),
    ("size('123')", {}, {}, (1, 1)),
    ("string(input)", {"input": BYTES}, {"input": 500}, (1, 51)),
    ("string(input) == string(input)", {"input": BYTES}, {"input": 500}, (3, 152)),
    ("bytes(input)", {"input": STRING}, {"input": 500}, (1, 51)),
    ("bytes(input) == bytes(input)", {"input": STRING}, {"input": 500}, (3, 302)),
    ("string(1)", {}, {}, (1, 1)),
    ("input.contains(other)", {"input": STRING, "other": STRING}, {"input": 500, "other": 500}, (2, 2502)),
    ("input.matches('\\\\d+a\\\\d+b')", {"input": STRING}, {"input": 500}, (3, 103)),
    ("input.startsWith(other)", {"input": STRING, "other": STRING}, {"other": 500}, (2, 52)),
    ("input.endsWith(other)", {"input": STRING, "other": STRING}, {"other": 500}, (2, 52)),
    ("input.size()", {"input": STRING}, {}, (2, 2)),
    ("size(input)", {"input": STRING}, {}, (2, 2)),
    (
        "(x > 2 ? one : two).all(y, true)",
        {"x": INT, "one": OBJECTS, "two": OBJECTS},
        {"one": 1, "two": 1},
        (4, 7),
    ),
    ("input.all(k, input[k].count > 3)", {"input": map_of(STRING, OBJECT)}, {"input": 10}, (2, 82)),
    ("input.all(k, input[k].all(x, true))", {"input": NESTED}, {"input": 5, "input.@values": 10}, (2, 187)),
    ("input.all(k, k.contains(k))", {"input": NESTED}, {"input": 5, "input.@keys": 10}, (2, 32)),
    (
        "input.all(k, input[k].all(k, true) && k.contains(k))",
        {"input": NESTED},
        {"input": 2, "input.@values": 2, "input.@keys": 5},
        (2, 34),
    ),
    ("(one + two).all(x, true)", {"one": list_of(INT), "two": list_of(INT)}, {"one": 10, "two": 10}, (4, 64)),
    ("'abcdefg'.contains(one + two)", {"one": STRING, "two": STRING}, {"one": 10, "two": 10}, (2, 6)),
    ("one.size() == two.size()", {"one": list_of(INT), "two": list_of(INT)}, {}, (5, 5)),
    (
        "x > y ? one.size() : two.size()",
        {"x": INT, "y": INT, "one": list_of(INT), "two": list_of(INT)},
        {},
        (5, 5),
    ),
    (
        "one.endsWith('abcdefghijklmnopqrstuvwxyz') == two.endsWith('abcdefghijklmnopqrstuvwxyz')",
        {"one": STRING, "two": STRING},
        {},
        (9, 9),
    ),
    ("((5 != 6) == (1 == 2)) == ((3 <= 4) == (9 != 9))", {}, {}, (7, 7)),
    ("string(one) == string(two)", {"one": TIMESTAMP, "two": TIMESTAMP}, {}, (5, 1844674407370955268)),
    ("one == two", {"one": TIMESTAMP, "two": TIMESTAMP}, {}, (3, 3)),
    ("one != two", {"one": DURATION, "two": DURATION}, {}, (3, 3)),
    (
        "([x, y] + one + two).size()",
        {"x": INT, "y": INT, "one": list_of(INT), "two": list_of(INT)},
        {"one": 10, "two": 20},
        (17, 17),
    ),
    (
        "[one, two].exists(l, l.exists(v, v.startsWith('hi')))",
        {"one": list_of(STRING), "two": list_of(STRING)},
        {"one": 10, "one.@items": 64, "two": 20, "two.@items": 128},
        (21, 265),
    ),
    ("[1,2,3,4,5].filter(x, x % 2 == 0)", {}, {}, (41, 101)),
    ("[1,2,3,4,5].map(x, x)", {}, {}, (86, 86)),
    ("[1,2,3,4,5].map(x, x).filter(x, x % 2 == 0)", {}, {}, (117, 177)),
    ("[1,2,3,4,5].map(x, x).exists(x, x == 5) == true", {}, {}, (108, 118)),
    ("[1,2,3,4,5].map(x, x).map(x, x)", {}, {}, (162, 162)),
    ("[1,2,3,4,5].map(x, x)[4]", {}, {}, (87, 87)),
    ("[[1,2],[1,2],[1,2],[1,2],[1,2]][4]", {}, {}, (61, 61)),
    ("{'a': [1,2], 'b': [1,2], 'c': [1,2], 'd': [1,2], 'e': [1,2]}.b", {}, {}, (81, 81)),
    ("[[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]].all(y, y.all(y, y == 1))", {}, {}, (76, 136)),
    ("[1,2,3,4,5].map(x, [x, x]).all(y, y.all(y, y == 1))", {}, {}, (157, 217)),
    (
        "['a', 'ab', 'abc', 'abcd', 'abcde'].map(x, [x, x]).all(y, y.all(y, y.startsWith('a')))",
        {},
        {},
        (157, 217),
    ),
    (
        "input.map(x, [x, x]).all(y, y.all(y, y.startsWith('a')))",
        {"input": list_of(STRING)},
        {"input": 5, "input.@items": 10},
        (13, 208),
    ),
    ("[1,2,3,4,5].map(x, x).map(x, x) + [1]", {}, {}, (173, 173)),
    ("[1,2,3].all(i, i in [1,2,3].map(j, j + j))", {}, {}, (20, 230)),
    ("dyn([1,2,3]).all(i, i in dyn([1,2,3]).map(j, j + j))", {}, {}, (21, 234)),
    ("{'hello': 'hi'}['hello'] != {'hello': 'bye'}['hello']", {}, {}, (63, 63)),
    ("['hello', 'hi'][0] != ['hello', 'bye'][1]", {}, {}, (23, 23)),
    ("type(1)", {}, {}, (1, 1)),
    ("type(self.one)", {"self": map_of(STRING, INT)}, {}, (3, 3)),
    ("type(self.one) == int", {"self": map_of(STRING, INT)}, {}, (5, 1844674407370955268)),
    ("type(1) == int", {}, {}, (3, 1844674407370955266)),
    ("self.one == 1.0", {"self.one": DOUBLE}, {}, (2, 2)),
    ("self.one == 1.0", {"self": map_of(STRING, DOUBLE)}, {}, (3, 3)),
    (
        "self.one == timestamp('2011-08-18T00:00:00.000+01:00') + duration('19h3m37s10ms')",
        {"self": map_of(STRING, TIMESTAMP)},
        {},
        (6, 6),
    ),
    ("self.one != self.two", {"self": map_of(STRING, BOOL)}, {}, (5, 5)),
    ("self.one != true", {"self": map_of(STRING, BOOL)}, {}, (3, 3)),
]


@pytest.mark.parametrize(("text", "variables", "hints", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_costs_are_upstreams(
    text: str, variables: dict[str, Type], hints: dict[str, int], wanted: tuple[int, int]
) -> None:
    def sizes(path: tuple[str, ...]) -> CostRange | None:
        most = hints.get(".".join(path))
        return None if most is None else CostRange(0, most)

    found = Environment(variables).compile(text).estimate_cost(sizes)
    assert (found.min, found.max) == wanted


def test_costs_do_not_overflow() -> None:
    text = "a.all(x, a.all(y, a.all(z, x == y && y == z)))"
    assert Environment({"a": list_of(STRING)}).compile(text).estimate_cost().max == COST_MAXIMUM


def test_opaque_values_compare_in_one_step() -> None:
    address = types.opaque("net.IP")
    assert Environment({"a": address, "b": address}).compile("a == b").estimate_cost() == CostRange(3, 3)
