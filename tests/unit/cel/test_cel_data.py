"""JSON data as the types of variables direct it, lazy bindings, libraries of others, objects that an expression makes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tiphys.cel import types
from tiphys.cel.cost import Budget
from tiphys.cel.declarations import Function, Overload
from tiphys.cel.environment import Environment
from tiphys.cel.errors import BudgetExceeded, CompileError, EvaluationError
from tiphys.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    ObjectType,
    Type,
    list_of,
    map_of,
)
from tiphys.cel.values import Lazy, UInt, Value

INNER = ObjectType("inner", {"name": STRING, "count": INT})
FIELDS: dict[str, Type] = {
    "ratio": DOUBLE,
    "count": INT,
    "text": STRING,
    "flag": BOOL,
    "when": TIMESTAMP,
    "lasts": DURATION,
    "raw": BYTES,
    "ratios": list_of(DOUBLE),
    "times": list_of(TIMESTAMP),
    "spans": map_of(STRING, DURATION),
    "table": list_of(list_of(DOUBLE)),
    "inner": INNER,
    "inners": list_of(INNER),
    "byName": map_of(STRING, INNER),
    "any": DYN,
    "__namespace__": STRING,
    "set": list_of(STRING, unique=True),
    "ports": list_of(ObjectType("port", {"name": STRING, "port": INT}), keys=("name",)),
}
ROOT = ObjectType("root", FIELDS, {"__namespace__": "namespace"})
ENVIRONMENT = Environment({"self": ROOT, "oldSelf": ROOT})


def evaluated(text: str, data: dict[str, Any], old: dict[str, Any] | None = None) -> Value:
    return ENVIRONMENT.compile(text).evaluate({"self": data, "oldSelf": old or {}})


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("type(self.ratio) == double && self.ratio / 2.0 == 0.5", {"ratio": 1}),
        ("self.count + 1 == 3", {"count": 2.0}),
        ("self.when.getFullYear() == 2026", {"when": "2026-03-04T05:06:07Z"}),
        ("self.when == timestamp('2026-03-04T04:06:07Z')", {"when": "2026-03-04T05:06:07+01:00"}),
        ("self.when.getHours() == 0", {"when": "2026-03-04"}),
        ("self.lasts > duration('1h')", {"lasts": "90m"}),
        ("self.lasts == duration('48h')", {"lasts": "2 days"}),
        ("self.raw == b'abc'", {"raw": "YWJj"}),
        ("self.raw.size() == 3", {"raw": "YWJj"}),
        ("self.ratios.all(x, type(x) == double) && self.ratios[1] == 2.5", {"ratios": [1, 2.5]}),
        ("self.times.exists(t, t.getMonth() == 2)", {"times": ["2026-03-04T05:06:07Z"]}),
        ("self.spans['a'] + self.spans.b == duration('3m')", {"spans": {"a": "1m", "b": "2m"}}),
        ("self.table[0][1] / 2.0 == 1.0", {"table": [[1, 2]]}),
        ("self.?when.orValue(timestamp(0)).getFullYear() == 2026", {"when": "2026-03-04T05:06:07Z"}),
        ("self.?when.orValue(timestamp(0)).getFullYear() == 1970", {}),
        ("self.inner.name == 'a' && self.inner.count == 1", {"inner": {"name": "a", "count": 1.0}}),
        ("self.inners.map(i, i.count).all(c, type(c) == int)", {"inners": [{"count": 1.0}, {"count": 2}]}),
        ("self.byName.all(k, self.byName[k].name == k)", {"byName": {"a": {"name": "a"}}}),
        ("self.__namespace__ == 'default' && has(self.__namespace__)", {"namespace": "default"}),
        ("self.?__namespace__.orValue('none') == 'default'", {"namespace": "default"}),
        ("self.any == 1 && self.any == 1.0", {"any": 1}),
        ("self.any.size() == 1 && self.any.exists(x, x == 'a')", {"any": ["a"]}),
        ("type(self.any) == string ? self.any == '99%' : self.any == 42", {"any": 42}),
        ("type(self.any) == string ? self.any == '99%' : self.any == 42", {"any": "99%"}),
        ("!has(self.text) || self.text.size() > 0", {}),
        ("!has(self.inner) || !has(self.inner.name)", {"inner": {}}),
        ("has(self.inner) && !has(self.inner.name)", {"inner": None}),
    ],
)
def test_types_direct_what_data_means(text: str, data: dict[str, Any]) -> None:
    assert evaluated(text, data) is True


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("self.text", {}, "no such key: text"),
        ("self.inner.name", {"inner": None}, "no such key: name"),
        ("self.text.size()", {"text": None}, "no such overload: size"),
        ("self.count + 1", {"count": None}, "no such overload: _+_"),
        ("self.count > 1", {"count": None}, "no such overload: _>_"),
        ("self.text.startsWith('a')", {"text": None}, "no such overload"),
        ("self.count", {"count": "1"}, "invalid data, expected int, got string"),
        ("self.count", {"count": 1.5}, "invalid data, expected int, got double"),
        ("self.flag", {"flag": 1}, "invalid data, expected bool, got int"),
        ("self.text", {"text": 1}, "invalid data, expected string, got int"),
        ("self.when", {"when": "yesterday"}, "Invalid date-time yesterday"),
        ("self.lasts", {"lasts": "long"}, 'Invalid duration long: time: invalid duration "long"'),
        ("self.inners.all(i, i.count > 0)", {"inners": [{}]}, "no such key: count"),
    ],
)
def test_data_against_its_type_is_an_error(text: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluated(text, data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "self.any.join(',') == ''",
        "self.any.sort() == []",
        "'%d'.format(self.any) == ''",
        "self.any.all(x, x.size() == 1)",
    ],
)
def test_what_is_inside_of_unknown_lists_is_an_error_of_the_expression(text: str) -> None:
    data = {"any": ["a", 1, None, {"b": []}]}
    with pytest.raises(EvaluationError):
        evaluated(text, data)
    assert evaluated(f"{text} || true", data) is True


def test_null_passes_where_it_is_asked_for() -> None:
    assert evaluated("has(self.text) && dyn(self.text) == null", {"text": None}) is True


def test_sets_and_keyed_lists_know_no_order() -> None:
    one = {"set": ["a", "b"], "ports": [{"name": "x", "port": 1}, {"name": "y", "port": 2}]}
    other = {"set": ["b", "a"], "ports": [{"name": "y", "port": 2}, {"name": "x", "port": 1}]}
    assert evaluated("self.set == oldSelf.set && self.ports == oldSelf.ports", one, other) is True
    assert evaluated("self.set == ['a']", one) is False
    assert evaluated("self.set + ['c', 'a']", one) == ["a", "b", "c"]
    merged = evaluated(
        "self.ports + oldSelf.ports", one, {"ports": [{"name": "y", "port": 3}, {"name": "z", "port": 4}]}
    )
    assert merged == [{"name": "x", "port": 1}, {"name": "y", "port": 3}, {"name": "z", "port": 4}]
    assert evaluated("self.set + oldSelf.set == oldSelf.set + self.set", one, {"set": ["c"]}) is True


def test_lists_of_maps_compare_by_their_keys_and_values() -> None:
    one = {"ports": [{"name": "x", "port": 1}]}
    assert evaluated("self.ports == oldSelf.ports", one, {"ports": [{"name": "x", "port": 2}]}) is False
    assert evaluated("self.ports == oldSelf.ports", one, {"ports": [{"name": "z", "port": 1}]}) is False


def test_data_is_not_changed() -> None:
    data = {"set": ["a"], "ratios": [1], "when": "2026-03-04T05:06:07Z"}
    evaluated("self.set + ['b'] == self.set || self.ratios.all(r, r > 0.0) || self.when == self.when", data)
    assert data == {"set": ["a"], "ratios": [1], "when": "2026-03-04T05:06:07Z"}


# Variables


def test_a_lazy_variable_is_computed_at_most_once_and_only_if_read() -> None:
    calls: list[str] = []

    def compute() -> int:
        calls.append("now")
        return 3

    environment = Environment({"a": INT, "b": BOOL})
    assert environment.compile("b || a > 1").evaluate({"a": Lazy(compute), "b": True}) is True
    assert not calls
    assert environment.compile("a > 1 && a < 5 && a != 4").evaluate({"a": Lazy(compute), "b": True}) is True
    assert calls == ["now"]


def test_a_lazy_variable_is_data_too() -> None:
    environment = Environment({"when": TIMESTAMP})
    program = environment.compile("when.getFullYear()")
    assert program.evaluate({"when": Lazy(lambda: "2026-03-04T05:06:07Z")}) == 2026


def test_what_a_lazy_variable_raises_is_an_error_of_the_expression() -> None:
    def fail() -> int:
        raise EvaluationError("composited variable fails to evaluate")

    def spend() -> int:
        raise BudgetExceeded

    environment = Environment({"a": INT})
    assert environment.compile("a > 1 || true").evaluate({"a": Lazy(fail)}) is True
    with pytest.raises(EvaluationError, match="composited"):
        environment.compile("a > 1").evaluate({"a": Lazy(fail)})
    with pytest.raises(BudgetExceeded):
        environment.compile("a > 1 || true").evaluate({"a": Lazy(spend)}, Budget(10))


def test_a_variable_without_binding_fails_when_it_is_read() -> None:
    environment = Environment({"a": INT})
    assert environment.compile("true || a > 1").evaluate({}) is True
    with pytest.raises(EvaluationError, match="no such attribute\\(s\\): a"):
        environment.compile("a > 1").evaluate({})


def test_variables_of_macros_hide_others() -> None:
    environment = Environment({"x": INT, "l": list_of(list_of(INT))})
    data = {"x": 100, "l": [[1, 2], [3]]}
    assert environment.compile("l.map(x, x.map(x, x + 1))").evaluate(data) == [[2, 3], [4]]
    assert environment.compile("l.map(y, x)").evaluate(data) == [100, 100]
    assert environment.compile("l.all(x, x.all(y, y < 5)) && x == 100").evaluate(data) is True
    assert environment.compile("l.exists(x, .x == 100)").evaluate(data) is True


def test_programs_know_their_variables_and_types() -> None:
    program = Environment({"a": INT, "b": list_of(STRING)}).compile("b.map(a, a + 'x')")
    assert program.variables == {"b"}
    assert program.result_type == list_of(STRING)
    assert str(program.result_type) == "list(string)"


def test_environments_extend() -> None:
    base = Environment({"a": INT})
    base.compile("a")
    wider = base.extend({"b": STRING}, (LIBRARY,))
    assert wider.compile("double(weigh(b)) == 3.0 && a == 1").evaluate({"a": 1, "b": "abc"}) is True
    assert base.extend({"a": STRING}).compile("a + 'x'").evaluate({"a": "b"}) == "bx"
    with pytest.raises(CompileError):
        base.compile("b")


def test_bindings_where_the_environment_has_them() -> None:
    environment = Environment({"x": INT}, bindings=True)
    assert environment.compile("cel.bind(a, x + 1, cel.bind(b, a * 2, a + b))").evaluate({"x": 1}) == 6
    assert environment.extend({"y": INT}).compile("cel.bind(a, y, a)").evaluate({"y": 3}) == 3
    with pytest.raises(CompileError, match=r"cel.bind\(\) variable names must be simple identifiers"):
        environment.compile("cel.bind(1, x, x)")


# Libraries of others


class Weight:
    """A value that only functions look into."""

    cel_type: ClassVar[Type] = types.opaque("test.Weight")

    def __init__(self, grams: int) -> None:
        self.grams = grams

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weight) and self.grams == other.grams

    def __hash__(self) -> int:
        return hash(self.grams)


WEIGHT = Weight.cel_type
LIBRARY = (
    Function(
        "weigh", (Overload("weigh_string", (STRING,), INT, len), Overload("weigh_list", (list_of(DYN),), INT, len))
    ),
    Function("weight", (Overload("weight_int", (INT,), WEIGHT, Weight),)),
    Function("heavy.default", (Overload("heavy_default", (), WEIGHT, lambda: Weight(1000)),)),
    Function(
        "plus", (Overload("weight_plus", (WEIGHT, WEIGHT), WEIGHT, lambda a, b: Weight(a.grams + b.grams), True),)
    ),
    Function("size", (Overload("weight_size", (WEIGHT,), INT, lambda a: a.grams, member=True),)),
    Function(
        "firstOf",
        (
            Overload(
                "first_of",
                (list_of(types.parameter("T")), types.parameter("T")),
                types.parameter("T"),
                lambda a, b: (a or [b])[0],
            ),
        ),
    ),
)


@pytest.mark.parametrize(
    "text",
    [
        "weight(1).plus(weight(2)) == weight(3)",
        "weight(1) != weight(2)",
        "weight(1) in [weight(2), weight(1)]",
        "heavy.default().size() == 1000 && 'abc'.size() == 3",
        "type(weight(1)) == test.Weight",
        "dyn(weight(7)).size() == 7 && dyn('abc').size() == 3",
        "weigh(d) == 3",
        "firstOf([1], 2) + 1 == 2 && firstOf(['a'], 'b') + 'c' == 'ac'",
        "firstOf([], 2) == 2",
        "sets.contains([weight(1)], [weight(1)])",
    ],
)
def test_libraries_bring_functions_and_types(text: str) -> None:
    assert Environment({"d": DYN}, (LIBRARY,)).compile(text).evaluate({"d": "abc"}) is True


def test_no_overload_for_a_value_is_told_with_its_type() -> None:
    with pytest.raises(EvaluationError, match=r"no such overload: weigh\(int\)"):
        Environment({"d": DYN}, (LIBRARY,)).compile("weigh(d)").evaluate({"d": 1})


def test_a_fault_of_a_function_is_not_taken_for_an_error_of_the_expression() -> None:
    broken = (Function("broken", (Overload("broken_int", (INT,), INT, lambda value: value.missing),)),)
    with pytest.raises(AttributeError):
        Environment({}, (broken,)).compile("broken(1) == 1 || true").evaluate({})


# Objects


def test_expressions_make_objects() -> None:
    spec = ObjectType("Thing.spec", {"replicas": INT, "__namespace__": STRING}, {"__namespace__": "namespace"})
    thing = ObjectType("Thing", {"spec": spec})
    environment = Environment({"x": INT}, structs={"Thing": thing, "Thing.spec": spec})
    program = environment.compile("Thing{spec: Thing.spec{replicas: x + 1, ?__namespace__: optional.none()}}")
    assert program.result_type == thing
    assert program.evaluate({"x": 1}) == {"spec": {"replicas": 2}}
    assert environment.compile("Thing{spec: Thing.spec{replicas: 3}}.spec.replicas").evaluate({}) == 3
    named = environment.compile("Thing.spec{__namespace__: 'a'}")
    assert named.evaluate({}) == {"namespace": "a"}


def test_types_that_contain_themselves() -> None:
    fields: dict[str, Type] = {"name": STRING}
    tree = ObjectType("tree", fields)
    fields["children"] = list_of(tree)
    program = Environment({"self": tree}).compile("self.children.all(c, c.children.all(d, d.name != self.name))")
    assert program.evaluate({"self": {"name": "a", "children": [{"children": [{"name": "b"}]}]}}) is True


def test_unsigned_integers_are_their_own_type() -> None:
    assert repr(Environment({}).compile("1u + 2u").evaluate({})) == "3u"
    assert Environment({"u": types.UINT}).compile("u == 3u && u == uint(3)").evaluate({"u": 3}) is True
    assert isinstance(Environment({"u": types.UINT}).compile("u").evaluate({"u": 3}), UInt)
