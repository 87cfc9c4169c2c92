"""Custom resources: pruning, defaulting, validation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.api.schema import compile_structural_schema
from tiphys.api.structural import StructuralSchema

GOLDEN = yaml.safe_load((Path(__file__).parents[2] / "golden" / "api" / "structural.yaml").read_text())

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "default": 3},
                "mode": {"type": "string", "nullable": True, "default": "x"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"n": {"type": "string"}, "d": {"default": 1}}},
                },
                "template": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {}}},
            },
        },
    },
}


@pytest.mark.parametrize("case", GOLDEN, ids=[f"{index}-{case['value']!r}" for index, case in enumerate(GOLDEN)])
def test_golden(case: dict[str, Any]) -> None:
    schema = StructuralSchema({"type": "object", "properties": {"f": case["schema"]}})
    obj = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "f": case["value"]}
    assert [f"{cause.type} {cause.field}: {cause.message}" for cause in schema.validate(obj)] == case["causes"]


def test_unknown_fields_are_pruned_and_told() -> None:
    obj: dict[str, Any] = {
        "apiVersion": "x/v1",
        "kind": "X",
        "metadata": {"name": "a", "foo": 1},
        "spec": {
            "bad": 1,
            "any": {"x": {"y": 1}},
            "map": {"k": {"a": 1, "b": 2}},
            "list": [{"n": "x", "m": 1}],
            "template": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"labels": {}, "annotations": {"a": "b"}, "foo": 1},
                "extra": 1,
            },
        },
        "status": {},
    }
    found = compile_structural_schema(SCHEMA).decode(obj)
    assert set(found.unknown_fields) == {
        "metadata.foo",
        "spec.bad",
        "spec.map.k.b",
        "spec.list[0].m",
        "spec.template.metadata.foo",
        "spec.template.extra",
        "status",
    }
    assert obj["spec"] == {
        "any": {"x": {"y": 1}},
        "map": {"k": {"a": 1}},
        "list": [{"n": "x"}],
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"a": "b"}}},
    }


def test_metadata_is_typed() -> None:
    obj = {"apiVersion": "x/v1", "kind": "X", "metadata": {"labels": {"a": 1}}}
    assert compile_structural_schema(SCHEMA).decode(obj).type_errors == (
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    )


def test_defaults_fill_absent_fields_only_and_are_not_shared() -> None:
    schema = StructuralSchema(SCHEMA)
    obj: dict[str, Any] = {"spec": {"list": [{}, {"d": 2}]}}
    schema.default_from_schema(obj)
    assert obj == {"spec": {"list": [{"d": 1}, {"d": 2}], "size": 3, "mode": "x"}}
    once = copy.deepcopy(obj)
    schema.default_from_schema(obj)
    assert obj == once
    empty: dict[str, Any] = {}
    schema.default_from_schema(empty)
    assert empty == {}


def test_null_is_replaced_by_a_default_unless_it_is_allowed() -> None:
    obj: dict[str, Any] = {"spec": {"size": None, "mode": None}}
    StructuralSchema(SCHEMA).default_from_schema(obj)
    assert obj == {"spec": {"size": 3, "mode": None}}
