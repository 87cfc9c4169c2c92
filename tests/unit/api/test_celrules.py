"""Validation rules and schemas of definitions: golden tables of causes, estimated costs, and what updates may keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.celrules import rule_causes
from tiphys.api.celtypes import escape_name
from tiphys.api.crdschema import Place, schema_causes
from tiphys.api.structural import StructuralSchema

GOLDEN = Path(__file__).parents[2] / "golden" / "api"
RULES = yaml.safe_load((GOLDEN / "rules.yaml").read_text())
DEFINITIONS = yaml.safe_load((GOLDEN / "definitions.yaml").read_text())
AT = "s.properties[spec]"


@pytest.mark.parametrize("case", RULES, ids=range(len(RULES)))
def test_rules(case: dict[str, Any]) -> None:
    schema = StructuralSchema({"type": "object", "properties": {"spec": case["schema"]}})
    head = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}}
    old = {**head, "spec": case["old"]} if "old" in case else None
    found = schema.validate({**head, "spec": case["spec"]}, old)
    assert [f"{cause.type} {cause.field}: {cause.message}" for cause in found] == case["causes"]


@pytest.mark.parametrize("case", DEFINITIONS, ids=range(len(DEFINITIONS)))
def test_schemas_of_definitions(case: dict[str, Any]) -> None:
    found = schema_causes({"type": "object", "properties": {"spec": case["schema"]}}, "s", has_status=False)
    shown = [
        ("^: " if c.field == "s" else f"{c.field.removeprefix(AT).lstrip('.')}: ") + c.message.replace(AT, "@")
        for c in found
    ]
    assert shown == case["causes"]


@pytest.mark.parametrize(
    ("schema", "cost"),
    [
        ({"type": "array", "items": {"type": "number"}}, 4_718_591),
        ({"type": "array", "items": {"type": "number"}, "maxItems": 10}, 32),
        ({"type": "array", "items": {"type": "string"}}, 3_145_727),
        ({"type": "object", "additionalProperties": {"type": "number"}}, 1_348_169),
    ],
)
def test_the_size_of_what_a_request_can_hold_bounds_a_rule(schema: dict[str, Any], cost: int) -> None:
    schema["x-kubernetes-validations"] = [{"rule": "self.all(x, true)"}]
    assert rule_causes(schema, Place("s"), 37) == ([], [(cost, "s.x-kubernetes-validations[0].rule")])


def test_a_rule_below_an_unbounded_list_counts_as_often_as_its_value_fits_into_a_request() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a < 5"}],
    }
    _, bounded = rule_causes(schema, Place("s", cardinality=10), 37)
    _, unbounded = rule_causes(schema, Place("s", cardinality=None), 37)
    assert (bounded[0][0], unbounded[0][0]) == (30, 3 * 1_048_576)


def test_a_schema_that_was_accepted_before_may_keep_its_costly_rules() -> None:
    rule = {"rule": "self.all(x, self.all(y, x == y))"}
    schema = {"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [rule]}
    assert len(rule_causes(schema, Place("s"), 37)[0]) == 1
    assert rule_causes(schema, Place("s"), 37, unchanged=True)[0] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("namespace", "__namespace__"),
        ("a__b", "a__underscores__b"),
        ("a.b-c/d", "a__dot__b__dash__c__slash__d"),
        ("plain_one", "plain_one"),
        ("1st", None),
        ("a b", None),
        ("", None),
    ],
)
def test_names_are_escaped(name: str, said: str | None) -> None:
    assert escape_name(name) == said


_LEAF: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 1},
    {"type": "integer", "minimum": 5, "x-kubernetes-validations": [{"rule": "self > 7"}]},
    {"type": "boolean", "enum": [True]},
    {"type": "string", "pattern": "^a", "x-kubernetes-validations": [{"rule": "self.size() > 3"}]},
]
_SCHEMAS = st.recursive(
    st.sampled_from(_LEAF),
    lambda inner: st.one_of(
        st.builds(lambda child: {"type": "array", "maxItems": 1, "items": child}, inner),
        st.builds(
            lambda child: {"type": "array", "x-kubernetes-list-type": "atomic", "maxItems": 1, "items": child}, inner
        ),
        st.builds(lambda child: {"type": "object", "maxProperties": 1, "additionalProperties": child}, inner),
        st.builds(
            lambda a, b: {"type": "object", "required": ["c"], "properties": {"a": a, "b": b, "c": a}}, inner, inner
        ),
    ),
    max_leaves=4,
)
_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 9), st.sampled_from(["", "a", "bbbb"]), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _object(spec: Any) -> dict[str, Any]:
    return {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "spec": spec}


@given(_SCHEMAS, _VALUES)
def test_an_update_that_changes_nothing_is_always_accepted(spec: dict[str, Any], value: Any) -> None:
    schema = StructuralSchema({"type": "object", "properties": {"spec": spec}})
    found = schema.validate(_object(value), _object(value))
    # a rule that cannot be decided, for a value of another type, is always told
    assert [cause for cause in found if "evaluating rule" not in cause.message] == []


@given(_SCHEMAS, _VALUES, _VALUES)
def test_an_update_is_told_nothing_that_a_new_object_would_not_be(spec: dict[str, Any], new: Any, old: Any) -> None:
    schema = StructuralSchema({"type": "object", "properties": {"spec": spec}})
    created = schema.validate(_object(new))
    updated = schema.validate(_object(new), _object(old))
    if not any(cause.field == "<nil>" for cause in created):  # rules run once no type stands in their way
        assert {(c.field, c.message) for c in updated} <= {(c.field, c.message) for c in created}
    if created == []:
        assert updated == []


def test_before_1_30_an_update_must_be_right_in_full() -> None:
    definition = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}}}},
    }
    bad = _object({"a": "xx"})
    assert StructuralSchema(definition, 29).validate(bad, bad) != []
    assert StructuralSchema(definition, 30).validate(bad, bad) == []
