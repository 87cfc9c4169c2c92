"""Tests of what an applied configuration may not have: undeclared fields, items of lists that are not told apart."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.kinds import builtin_kinds
from tiphys.api.patch import copy_json
from tiphys.api.schemanode import Node, root_of
from tiphys.api.structural import StructuralSchema
from tiphys.api.typedpatch import typed_problems

ITEMS = StructuralSchema(
    yaml.safe_load(
        """
        type: object
        properties:
          spec:
            type: object
            properties:
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [port, protocol]
                items:
                  type: object
                  required: [port]
                  properties: {port: {type: integer}, protocol: {type: string, default: TCP}, name: {type: string}}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              plain: {type: array, items: {type: string}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              labels: {type: object, additionalProperties: {type: string}}
              paused: {type: boolean}
              weight: {type: number}
              size: {x-kubernetes-int-or-string: true}
              since: {type: string, format: date-time}
              any: {x-kubernetes-preserve-unknown-fields: true}
        """
    )
)


def problems(spec: dict[str, Any]) -> str:
    applied = {"apiVersion": "x.io/v1", "kind": "Set", "metadata": {"name": "a"}, "spec": spec}
    return typed_problems(applied, root_of(ITEMS), ITEMS.decode(copy_json(applied)).unknown_fields)


CASES = [
    ("{ports: [{port: 1}, {port: 1, protocol: UDP}], tags: [a, b], plain: [a, a], free: {a: [1, 1]}}", ""),
    ("{tags: [a, a]}", '.spec.tags: duplicate entries for key [="a"]'),
    (
        "{ports: [{port: 1}, {port: 1, protocol: TCP}]}",
        '.spec.ports: duplicate entries for key [port=1,protocol="TCP"]',
    ),
    (
        "{ports: [{name: x}]}",
        '.spec.ports: element 0: associative list with keys has an element that omits key field "port" '
        "(and doesn't have default value)",
    ),
    (
        "{ports: [{port: 2, colour: red}], shape: round}",
        'errors:\n  .spec.ports[port=2,protocol="TCP"].colour: field not declared in schema\n'
        "  .spec.shape: field not declared in schema",
    ),
    ("{ports: [null]}", ".spec.ports: element 0: associative list with keys may not have a null element"),
    ("{any: 1, since: 1, size: 2, weight: 1.5, paused: true, labels: null}", ""),
    ("{labels: {a: true}}", ".spec.labels.a: expected string, got &value.valueUnstructured{Value:true}"),
    (
        "{ports: [{port: 1, name: {a: [x, 1, null]}}]}",
        '.spec.ports[port=1,protocol="TCP"].name: expected string, got &value.valueUnstructured{Value:'
        'map[string]interface {}{"a":[]interface {}{"x", 1, interface {}(nil)}}}',
    ),
    ("{weight: heavy}", ".spec.weight: expected numeric (int or float), got string"),
    ("{weight: [1]}", ".spec.weight: expected numeric (int or float), got []interface {}"),
    ("{weight: {}}", ".spec.weight: expected numeric (int or float), got map[string]interface {}"),
    ("{weight: true}", ".spec.weight: expected numeric (int or float), got bool"),
    ("{paused: 'no'}", ".spec.paused: expected boolean, got &{no}"),
    ("{size: {a: 1}}", ".spec.size: expected any scalar, got &{map[a:1]}"),
    ("{plain: [1, a]}", ".spec.plain[0]: expected string, got &value.valueUnstructured{Value:1}"),
    ("{plain: x, free: y}", "errors:\n  .spec.plain: expected list, got &{x}\n  .spec.free: expected map, got &{y}"),
    ("{tags: [null]}", ".spec.tags: element 0: associative list without keys has an element that's an explicit null"),
]


@pytest.mark.parametrize(("spec", "told"), CASES)
def test_problems_of_a_configuration(spec: str, told: str) -> None:
    assert problems(yaml.safe_load(spec)) == told


def test_built_in_kinds_are_told_by_their_keys() -> None:
    pod = next(kind for kind in builtin_kinds((1, 37)) if kind.kind == "Pod" and kind.version == "v1")
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    applied = {"spec": {"containers": [{"name": "web", "env": env, "imaeg": "x"}]}}
    told = typed_problems(applied, root_of(pod.schema), pod.schema.decode(copy_json(applied)).unknown_fields)
    assert told == (
        'errors:\n  .spec.containers[name="web"].env: duplicate entries for key [name="A"]\n'
        '  .spec.containers[name="web"].imaeg: field not declared in schema'
    )


def test_values_of_built_in_kinds_have_the_forms_of_their_fields() -> None:
    pod = next(kind for kind in builtin_kinds((1, 37)) if kind.kind == "Pod" and kind.version == "v1")
    port = {"containerPort": "80"}
    web = {"name": "web", "env": [{"name": "A", "value": 1}], "ports": [port], "resources": {"limits": {"cpu": 1}}}
    applied = {"metadata": {"labels": {"a": 1}, "creationTimestamp": None}, "spec": {"containers": [web]}}
    told = typed_problems(applied, root_of(pod.schema), ())
    assert told.splitlines()[1:] == [
        "  .metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        '  .spec.containers[name="web"].env[name="A"].value: expected string, got &value.valueUnstructured{Value:1}',
        '  .spec.containers[name="web"].ports[containerPort="80",protocol="TCP"].containerPort: '
        "expected numeric (int or float), got string",
    ]


def test_unknown_fields_that_the_walk_does_not_meet_are_told_all_the_same() -> None:
    assert typed_problems({"a": 1}, Node(), ["b.c"]) == ".b.c: field not declared in schema"


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, "TCP", "UDP"]))))
def test_a_list_has_a_problem_if_and_only_if_two_items_have_the_same_keys(keys: list[tuple[int, str | None]]) -> None:
    ports = [{"port": port, **({"protocol": protocol} if protocol else {})} for port, protocol in keys]
    told = problems({"ports": ports})
    assert bool(told) == (len({(port, protocol or "TCP") for port, protocol in keys}) < len(keys))


def test_keys_of_built_in_kinds_that_are_left_out_have_their_zero_values() -> None:
    pod = next(kind for kind in builtin_kinds((1, 37)) if kind.kind == "Pod" and kind.version == "v1")
    ports = [{"name": "a"}, {"name": "b"}]
    applied = {"metadata": {"ownerReferences": [{}]}, "spec": {"containers": [{"image": "x", "ports": ports}]}}
    told = typed_problems(applied, root_of(pod.schema), ())
    assert told == '.spec.containers[name=""].ports: duplicate entries for key [containerPort=0,protocol="TCP"]'
