"""What evaluations cost, in upstream's units, and what happens when a budget is spent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.cel.cost import COST_MAXIMUM, Budget, CallCost, CostRange
from tiphys.cel.declarations import Function, Overload
from tiphys.cel.environment import Environment
from tiphys.cel.errors import BudgetExceeded, EvaluationError
from tiphys.cel.types import BYTES, DYN, INT, STRING, TIMESTAMP, ObjectType, Type, list_of, map_of
from tiphys.cel.values import Lazy, Value

OBJECT = ObjectType("object", {"count": INT, "name": STRING})
OBJECTS = list_of(OBJECT)
ROWS: list[tuple[str, dict[str, Type], dict[str, Value], int]] = [
    ("'Hello World!'", {}, {}, 0),
    ("input", {"input": list_of(INT)}, {"input": [1, 2]}, 1),
    ("input['key']", {"input": map_of(STRING, STRING)}, {"input": {"key": "v"}}, 2),
    ("input[1]", {"input": list_of(STRING)}, {"input": ["v", "w"]}, 2),
    ("input.count", {"input": OBJECT}, {"input": {"count": 1}}, 2),
    ("input['ke' + 'y']", {"input": map_of(STRING, STRING)}, {"input": {"key": "v"}}, 3),
    ("input[3-2]", {"input": list_of(STRING)}, {"input": ["v", "w"]}, 3),
    ("has(input.count)", {"input": OBJECT}, {"input": {}}, 1),
    ("[1, 2, 3]", {}, {}, 0),
    ("{'a': 1}", {}, {}, 0),
    ("[input]", {"input": INT}, {"input": 1}, 11),
    ("{'a': input}", {"input": INT}, {"input": 1}, 31),
    ("input.all(x, true)", {"input": OBJECTS}, {"input": []}, 2),
    ("input.all(x, true)", {"input": OBJECTS}, {"input": [{}, {}]}, 8),
    ("input.all(x, x > 1)", {"input": list_of(INT)}, {"input": [1, 2]}, 9),
    ("input.all(x, x > 1)", {"input": list_of(INT)}, {"input": [2, 1]}, 12),
    ("input.exists(x, x > 1)", {"input": list_of(INT)}, {"input": [2, 1]}, 11),
    ("input.exists_one(x, x > 1)", {"input": list_of(INT)}, {"input": [2, 1]}, 9),
    ("input.map(x, x)", {"input": list_of(INT)}, {"input": [2, 1]}, 28),
    ("input.filter(x, x > 1)", {"input": list_of(INT)}, {"input": [2, 1]}, 19),
    ("[1, 2, 3].all(x, true)", {}, {}, 10),
    ("[1, 2, 3, 4, 5].filter(x, x % 2 == 0)", {}, {}, 42),
    ("[1, 2, 3, 4, 5].map(x, x)", {}, {}, 66),
    ("[1, 2, 3, 4, 5].map(x, x).exists(x, x == 5) == true", {}, {}, 98),
    ("[1, 2, 3, 4, 5].map(x, x).map(x, x)", {}, {}, 132),
    ("[1, 2, 3, 4, 5].map(x, [x, x]).all(y, y.all(y, y == 1))", {}, {}, 151),
    ("[1, 2, 3].all(i, i in [1, 2, 3].map(j, j + j))", {}, {}, 56),
    ("[{'a': 1}, {'b': 2}].all(x, true)", {}, {}, 7),
    ("optional.of(input).optMap(x, x + 1).orValue(0)", {"input": INT}, {"input": 1}, 9),
    ("input.matches('[0-9]')", {"input": STRING}, {"input": "x" * 500}, 103),
    ("'123'.matches('[0-9]')", {}, {}, 2),
    ("input.matches(pattern)", {"input": STRING, "pattern": STRING}, {"input": "x" * 500, "pattern": "[0-9]"}, 104),
    ("true || false", {}, {}, 0),
    ("1 < 2", {}, {}, 1),
    ("1 == 2", {}, {}, 1),
    ("2 in [1, 2, 3]", {}, {}, 0),
    ("2 in input", {"input": list_of(INT)}, {"input": [1, 2, 3]}, 4),
    ("1 + 1", {}, {}, 1),
    ("true ? 1 : 2", {}, {}, 0),
    ("size('123')", {}, {}, 1),
    ("'12345678901234567890' == '123456789012345678901234567890'", {}, {}, 2),
    ("string(input)", {"input": BYTES}, {"input": b"x" * 500}, 51),
    ("bytes(input)", {"input": STRING}, {"input": "x" * 500}, 51),
    ("string(input)", {"input": INT}, {"input": 1}, 2),
    ("input.contains(other)", {"input": STRING, "other": STRING}, {"input": "x" * 500, "other": "y" * 500}, 2502),
    ("input.startsWith(other)", {"input": STRING, "other": STRING}, {"input": "idc", "other": "y" * 500}, 52),
    ("input.size()", {"input": STRING}, {"input": "500"}, 2),
    (
        "(x > 2 ? one : two).all(y, true)",
        {"x": INT, "one": OBJECTS, "two": OBJECTS},
        {"x": 1, "one": [{}], "two": [{}]},
        6,
    ),
    ("true ? false : 1 > 3", {}, {}, 0),
    ("false ? false : 1 > 3", {}, {}, 1),
    ("input.all(k, input[k].count > 3)", {"input": map_of(STRING, OBJECT)}, {"input": {"v": {"count": 0}}}, 9),
    ("(one + two).all(x, true)", {"one": list_of(INT), "two": list_of(INT)}, {"one": [], "two": []}, 4),
    ("'abcdefg'.contains(one + two)", {"one": STRING, "two": STRING}, {"one": "val1", "two": "val2222222"}, 6),
    ("(1 > 2 ? 5 : 3) > 1", {}, {}, 2),
    ("(1 > 2 || 2 > 1) == true", {}, {}, 3),
    ("input.getFullYear()", {"input": TIMESTAMP}, {"input": "2026-01-01T00:00:00Z"}, 2),
    ("input.lowerAscii()", {"input": STRING}, {"input": "x" * 95}, 11),
    ("input.split(',')", {"input": STRING}, {"input": "x" * 95}, 20),
    ("input.indexOf('y')", {"input": STRING}, {"input": "x" * 95}, 10),
    ("sets.contains(input, input)", {"input": list_of(INT)}, {"input": [1, 2, 3]}, 12),
    ("input.sort()", {"input": list_of(INT)}, {"input": [1, 2, 3]}, 30),
    ("lists.range(5)", {}, {}, 16),
]


@pytest.mark.parametrize(("text", "variables", "data", "wanted"), ROWS, ids=[f"{row[0]}={row[3]}" for row in ROWS])
def test_costs_are_upstreams(text: str, variables: dict[str, Type], data: dict[str, Value], wanted: int) -> None:
    budget = Budget(10**9)
    program = Environment(variables).compile(text)
    program.evaluate(data, budget)
    assert budget.spent == wanted
    assert budget.spent <= program.estimate_cost().max


def test_a_budget_is_enough_if_it_is_just_spent() -> None:
    program = Environment({"a": STRING, "b": STRING}).compile("'abcdefg'.contains(a + b)")
    data = {"a": "val1", "b": "val2222222"}
    assert program.evaluate(data, Budget(6)) is False
    with pytest.raises(BudgetExceeded, match="operation cancelled: actual cost limit exceeded"):
        program.evaluate(data, Budget(5))


def test_a_budget_is_shared_by_evaluations() -> None:
    program = Environment({}).compile("1 + 1")
    budget = Budget(2)
    program.evaluate({}, budget)
    assert (budget.spent, budget.left) == (1, 1)
    program.evaluate({}, budget)
    with pytest.raises(BudgetExceeded):
        program.evaluate({}, budget)
    assert budget.left == 0


def test_what_fails_costs_too() -> None:
    budget = Budget(100)
    with pytest.raises(EvaluationError):
        Environment({}).compile("[1, 2].map(x, 1 / (x - 2))").evaluate({}, budget)
    assert budget.spent > 10


def test_nothing_swallows_a_spent_budget() -> None:
    program = Environment({"a": list_of(INT)}).compile("true || a.all(x, x > 0) || a.all(x, x > 1)")
    assert program.evaluate({"a": [1] * 1000}, Budget(50)) is True
    program = Environment({"a": list_of(INT)}).compile("a.all(x, x > 0) || true")
    with pytest.raises(BudgetExceeded):
        program.evaluate({"a": [1] * 1000}, Budget(50))


def test_loops_end_soon_after_the_budget() -> None:
    program = Environment({"a": list_of(INT)}).compile("a.map(x, a.map(y, a.map(z, x + y + z)))")
    budget = Budget(10_000)
    with pytest.raises(BudgetExceeded):
        program.evaluate({"a": [1] * 100_000}, budget)
    assert budget.spent < 10_100


@pytest.mark.parametrize(
    "text",
    [
        "lists.range(1000000000000)",
        "'a'.replace('', '" + "b" * 5000 + "').replace('b', '" + "c" * 50_000 + "')",
        "lists.range(200000).map(x, 'x').join('" + "y" * 1000 + "')",
    ],
    ids=["range", "replace", "join"],
)
def test_no_call_makes_what_no_budget_allows(text: str) -> None:
    with pytest.raises(BudgetExceeded):
        Environment({}).compile(text).evaluate({})


def test_libraries_state_their_costs() -> None:
    cost = CallCost(
        lambda values, result: 100 * len(values[0]) + result,
        lambda operands: (operands[0].size * CostRange(100, 100), operands[0].size),
    )
    library = (Function("weigh", (Overload("weigh_string", (STRING,), INT, len, cost=cost),)),)
    program = Environment({"a": STRING, "b": DYN}, (library,)).compile("weigh(a)")
    budget = Budget(1000)
    assert program.evaluate({"a": "four"}, budget) == 4
    assert budget.spent == 1 + 404
    assert program.estimate_cost(lambda path: CostRange(2, 3) if path == ("a",) else None) == CostRange(201, 301)
    dynamic = Environment({"b": DYN}, (library,)).compile("weigh(b)")
    budget = Budget(1000)
    dynamic.evaluate({"b": "four"}, budget)
    assert budget.spent == 405


@given(st.integers(0, COST_MAXIMUM), st.integers(0, COST_MAXIMUM), st.floats(0, 10))
def test_ranges_stay_within_64_bits(one: int, other: int, factor: float) -> None:
    first, second = CostRange(min(one, other), max(one, other)), CostRange(other, other)
    for each in (first + second, first * second, first.times(factor), first.union(second)):
        assert 0 <= each.min <= each.max <= COST_MAXIMUM


@given(
    st.lists(st.integers(-5, 5), max_size=8),
    st.sampled_from(
        [
            "a.all(x, x > 0)",
            "a.exists(x, x > 3 || x < -3)",
            "a.exists_one(x, x == 0)",
            "a.map(x, x * 2).filter(y, y > 2)",
            "a.filter(x, x > 0).map(y, y + 1).size() > 2 && a.all(x, x in a)",
            "a.transformList(i, x, x > i, x - i)",
            "a.transformMap(i, x, x + i).all(k, k >= 0)",
            "a.sortBy(x, -x).size() == a.size() ? a.distinct().size() > 1 : false",
        ]
    ),
)
def test_estimates_bound_what_is_spent(data: list[int], text: str) -> None:
    program = Environment({"a": list_of(INT)}).compile(text)
    budget = Budget(10**9)
    program.evaluate({"a": data}, budget)
    size = CostRange(len(data), len(data))
    estimated = program.estimate_cost(lambda path: size if path == ("a",) else None)
    assert budget.spent <= estimated.max


WIDE = ObjectType(
    "wide", {"numbers": list_of(INT), "texts": list_of(STRING), "set": list_of(STRING, unique=True), "any": DYN}
)


@pytest.mark.parametrize(
    "text",
    [
        "self.texts.all(x, self == oldSelf)",
        "self.texts.all(x, self.any == oldSelf.any)",
        "self.texts.all(x, self.any in [oldSelf.any])",
        "self.texts.all(x, self.set == oldSelf.set)",
        "self.texts.all(x, self.set + ['a'] != [])",
        "self.texts.all(x, (self.numbers + self.numbers).size() > 0)",
        "self.texts.all(x, [self.any].distinct().size() == 1)",
        "self.texts.all(x, sets.contains([self.any], [self.any]))",
        "self.texts.all(x, '%s'.format([self.texts]) != '')",
        "self.texts.all(x, 'a'.replace('a', self.texts.join()) != '')",
    ],
)
def test_cheap_calls_over_large_data_are_not_made_for_ever(text: str) -> None:
    """Each is a few units for upstream; what Python works is counted too, or 10,000 of them would take minutes."""
    data = {
        "numbers": list(range(10_000)),
        "texts": [str(index) for index in range(10_000)],
        "set": [str(index) for index in range(10_000)],
        "any": {"a": [{"b": list(range(10))} for _ in range(1000)]},
    }
    budget = Budget(100_000)
    with pytest.raises(BudgetExceeded):
        Environment({"self": WIDE, "oldSelf": WIDE}).compile(text).evaluate({"self": data, "oldSelf": {**data}}, budget)


def test_large_lists_are_converted_once_in_an_evaluation() -> None:
    class Counted(list[Value]):
        walks = 0

        def __iter__(self) -> Iterator[Value]:
            Counted.walks += 1
            return super().__iter__()

    environment = Environment({"self": ObjectType("self", {"numbers": list_of(INT)})})
    numbers = Counted(range(100))
    program = environment.compile("lists.range(50).all(x, self.numbers[x] == x)")
    assert program.evaluate({"self": {"numbers": numbers}}) is True
    assert Counted.walks == 1


def test_what_a_lazy_variable_spends_counts_for_the_expression() -> None:
    environment = Environment({"a": INT, "l": list_of(INT)})
    costly, reader = environment.compile("l.map(x, x).size()"), environment.compile("a + a == 20")
    budget = Budget(142)
    assert reader.evaluate({"a": Lazy(lambda: costly.evaluate({"l": [1] * 10}, budget))}, budget) is True
    assert budget.spent > 130
    budget = Budget(136)
    with pytest.raises(BudgetExceeded):
        reader.evaluate({"a": Lazy(lambda: costly.evaluate({"l": [1] * 10}, budget))}, budget)
