"""Unknown and duplicate fields are refused when a client asks for strictness.

Spec: upstream's tests "FieldValidation".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import APPLY, Answer, Api

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
STRICT = {"fieldManager": "field_validation_mgr", "fieldValidation": "Strict"}
PORTS: Json = {
    "type": "array",
    "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
    "x-kubernetes-list-type": "map",
    "items": {
        "type": "object",
        "required": ["containerPort", "protocol"],
        "properties": {
            "containerPort": {"format": "int32", "type": "integer"},
            "hostIP": {"type": "string"},
            "hostPort": {"format": "int32", "type": "integer"},
            "name": {"type": "string"},
            "protocol": {"type": "string"},
        },
    },
}
SPEC: Json = {
    "type": "object",
    "properties": {
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": PORTS,
    },
}
KEPT: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
TEMPLATE: Json = {
    "type": "object",
    "x-kubernetes-embedded-resource": True,
    "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": {"type": "object"},
    },
}
REST = """
  cronSpec: "* * * * */5"
  ports:
  - name: x
    containerPort: 80
    protocol: TCP"""


def _deployment(metadata: str, spec: str) -> str:
    """Return a Deployment with more members in its metadata and its spec."""
    template = '{"metadata":{"labels":{"app":"nginx"}},"spec":{"containers":[{"name":"nginx","image":"nginx:latest"}]}}'
    return (
        f'{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"my-dep",{metadata}"labels":{{"app":"nginx"}}}},'
        f'"spec":{{{spec}"selector":{{"matchLabels":{{"app":"nginx"}}}},"template":{template}}}}}'
    )


@pytest.mark.parametrize(
    ("metadata", "spec", "complaint"),
    [
        (
            "",
            '"unknownField":"foo","replicas":2,"replicas":3,',
            'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"',
        ),
        ('"unknownMeta":"foo",', "", 'strict decoding error: unknown field "metadata.unknownMeta"'),
    ],
)
def test_typed_objects(api: Api, namespace: str, metadata: str, spec: str, complaint: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    refused = api.refused("POST", path, _deployment(metadata, spec), code=400, **STRICT)
    assert complaint in refused["message"]
    assert refused["reason"] == "BadRequest"


class Applying:
    """Applies YAML of a cluster-scoped custom kind, strictly."""

    def __init__(self, api: Api, define: Define, unique: str, schema: Json) -> None:
        self._api = api
        self._kind = define(
            CustomKind(f"{unique}.example.com", f"n{unique}", schema, ("v1beta1", "v1beta2"), namespaced=False)
        )

    def __call__(self, spec: str, metadata: str = "", root: str = "") -> Answer:
        kind = self._kind
        body = (
            f"\napiVersion: {kind.group}/v1beta1\nkind: {kind.kind}\nmetadata:\n  name: mytest{metadata}\n{root}spec:"
        )
        path = f"{kind.objects()}/mytest"
        return self._api.ask("PATCH", path, body + spec + REST, STRICT, {"Content-Type": APPLY})


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def test_a_valid_object(api: Api, define: Define, unique: str) -> None:
    apply = Applying(api, define, unique, _object(spec=SPEC))
    assert apply("\n  foo: foo1").status == 201


def test_an_object_without_a_schema(api: Api, define: Define, unique: str) -> None:
    apply = Applying(api, define, unique, {**KEPT, "properties": {"spec": KEPT, "status": KEPT}})
    assert apply("\n  unknown: uk1").status == 201


def test_an_unknown_field_at_the_root(api: Api, define: Define, unique: str) -> None:
    apply = Applying(api, define, unique, _object(spec=SPEC))
    answer = apply("\n  foo: foo1", root="unknownField: unknown\n")
    assert answer.status == 500
    assert b".unknownField: field not declared in schema" in answer.body


def test_unknown_metadata(api: Api, define: Define, unique: str) -> None:
    spec = {**SPEC, **KEPT, "properties": {**SPEC["properties"], "template": TEMPLATE}}
    apply = Applying(api, define, unique, _object(spec=spec))
    embedded = (
        "\n  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n"
        "        name: subobject\n        namespace: somewhere\n  foo: foo1"
    )
    answer = apply(embedded, metadata="\n  unknownMeta: unknown")
    assert answer.status == 500
    assert b".spec.template.metadata.unknownSubMeta: field not declared in schema" in answer.body
    assert b".metadata.unknownMeta: field not declared in schema" in answer.body


def test_a_duplicate_field_where_unknown_ones_are_kept(api: Api, define: Define, unique: str) -> None:
    apply = Applying(api, define, unique, _object(spec={**SPEC, **KEPT}))
    answer = apply("\n  unknown: uk1\n  foo: foo1\n  foo: foo2")
    assert answer.status == 400
    assert rb"line 9: key \"foo\" already set in map" in answer.body
