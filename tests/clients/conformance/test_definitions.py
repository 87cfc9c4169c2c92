"""Definitions of custom kinds: made, watched, listed, their status, defaults that come and go, fields to select by.

Spec: upstream's tests "CustomResourceDefinition resources", "CustomResourceDefinition Watch",
"CustomResourceFieldSelectors", "CustomResourceValidationRules", "CRDValidationRatcheting".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from custom_kinds import ANYTHING, CustomKind
from direct_api import JSON_PATCH, MERGE, Api, names, soon

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
DEFAULT_PATH = "/spec/versions/0/schema/openAPIV3Schema/properties"


def test_definitions_are_listed_and_deleted_together(api: Api, define: Define, unique: str) -> None:
    made = {
        define(CustomKind(f"{unique}.example.com", f"k{number}{unique}", labels={"e2e-list-test-uuid": unique})).name
        for number in range(3)
    }
    other = define(CustomKind(f"{unique}.example.com", f"other{unique}"))
    selector = f"e2e-list-test-uuid={unique}"
    listed = api.get(CustomKind.DEFINITIONS, labelSelector=selector)
    assert {*names(listed)} == made
    for item in listed["items"]:
        spec = item["spec"]
        assert spec["conversion"] == {"strategy": "None"}
        assert spec["versions"][0]["schema"]["openAPIV3Schema"] == ANYTHING
        assert item["status"]["acceptedNames"] == spec["names"]
        assert item["status"]["storedVersions"] == ["v1"]
    api.delete(CustomKind.DEFINITIONS, labelSelector=selector)
    for name in made:
        api.wait_until_gone(f"{CustomKind.DEFINITIONS}/{name}")
    assert api.is_there(other.path)


def test_the_status_of_a_definition(api: Api, define: Define, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"s{unique}"))
    read = api.get(f"{kind.path}/status")
    assert {c["type"] for c in read["status"]["conditions"]} >= {"NamesAccepted", "Established"}
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}
    updated = api.change(kind.path, lambda crd: crd["status"]["conditions"].append(condition), "status")
    assert condition.items() <= updated["status"]["conditions"][-1].items()
    body = {"metadata": {"annotations": {"patched": "true"}}, "spec": {"scope": "Cluster"}}
    conditions = [*updated["status"]["conditions"], {**condition, "type": "StatusPatched"}]
    patched = api.patch(f"{kind.path}/status", {**body, "status": {"conditions": conditions}}, MERGE)
    assert {"StatusUpdate", "StatusPatched"} <= {c["type"] for c in patched["status"]["conditions"]}
    assert patched["spec"] == updated["spec"]
    assert {"StatusUpdate", "StatusPatched"} <= {c["type"] for c in api.get(kind.path)["status"]["conditions"]}


def test_defaults_come_and_go(api: Api, define: Define, unique: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    kind = define(CustomKind(f"{unique}.example.com", f"d{unique}", schema, namespaced=False))
    first = api.create(kind.objects(), kind.object("first"))
    assert "a" not in first
    assert "a" not in api.get(f"{kind.objects()}/first")
    api.patch(kind.path, [{"op": "add", "path": f"{DEFAULT_PATH}/a/default", "value": "A"}], JSON_PATCH)
    read = soon(lambda: (r := api.get(f"{kind.objects()}/first")).get("a") and r)
    assert read["a"] == "A"
    second = api.create(kind.objects(), kind.object("second"))
    assert second["a"] == "A"
    api.patch(
        kind.path,
        [
            {"op": "remove", "path": f"{DEFAULT_PATH}/a/default"},
            {"op": "add", "path": f"{DEFAULT_PATH}/b/default", "value": "B"},
        ],
        JSON_PATCH,
    )
    read = soon(lambda: (r := api.get(f"{kind.objects()}/second")).get("b") and r)
    assert (read["a"], read["b"]) == ("A", "B")
    read = api.get(f"{kind.objects()}/first")
    assert "a" not in read
    assert read["b"] == "B"


def test_custom_objects_are_watched(api: Api, define: Define, unique: str) -> None:
    kind = define(CustomKind("mygroup.example.com", f"w{unique}", ANYTHING, namespaced=False))
    path = kind.objects()
    with ExitStack() as stack:
        watches = {
            name: stack.enter_context(api.watch(path, fieldSelector=f"metadata.name={name}"))
            for name in ("name1", "name2")
        }
        for name, watch in watches.items():
            body = kind.object(name, content={"key": "value"}, num={"num1": 2**53 + 1, "num2": 1000000})
            made = api.create(path, body)
            assert made["num"]["num1"] == 2**53 + 1
            assert watch.next() == ("ADDED", made)
        for name, watch in watches.items():
            changed = api.change(f"{path}/{name}", lambda thing: thing.update(dummy="test"))
            assert watch.next() == ("MODIFIED", changed)
        for name, watch in watches.items():
            api.delete(f"{path}/{name}")
            assert watch.next()[0] == "DELETED"


def test_custom_objects_are_selected_by_their_fields(api: Api, define: Define, unique: str, namespace: str) -> None:
    schema = {"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "string"}}}
    fields = {"selectableFields": [{"jsonPath": ".host"}, {"jsonPath": ".port"}]}
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", schema, ("v1", "v2"), more=fields))
    path = kind.objects(namespace, "v2")
    with ExitStack() as stack:
        on_host = stack.enter_context(api.watch(path, fieldSelector="host=host1"))
        on_both = stack.enter_context(api.watch(path, fieldSelector="host=host1,port=80"))
        for name, more in (
            ("a", {"host": "host1", "port": "80"}),
            ("b", {"host": "host1", "port": "8080"}),
            ("c", {"host": "host2"}),
        ):
            api.create(path, kind.object(name, "v2", **more))
        assert names(api.get(path, fieldSelector="host=host1")) == ["a", "b"]
        assert names(api.get(path, fieldSelector="host=host1,port=80")) == ["a"]
        assert names(api.get(path, fieldSelector="host!=host1")) == ["c"]
        assert [_told(on_host), _told(on_host)] == [("ADDED", "a"), ("ADDED", "b")]
        assert _told(on_both) == ("ADDED", "a")
        api.delete(path, {"gracePeriodSeconds": 0}, fieldSelector="host=host1,port=80")
        api.change(f"{path}/b", lambda thing: thing.update(host="host2"))
        assert names(api.get(path, fieldSelector="host=host1")) == []
        assert [_told(on_host), _told(on_host)] == [("DELETED", "a"), ("DELETED", "b")]
        assert _told(on_both) == ("DELETED", "a")
    refused = api.refused("GET", path, code=400, fieldSelector="size=1")
    assert refused["message"] == "field label not supported: size"


def _told(watch: Any) -> tuple[str, str]:
    kind, thing = watch.next()
    return kind, thing["metadata"]["name"]


RULES: Json = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-validations": [{"rule": "self.x + self.y > 0"}],
            "properties": {
                "x": {"type": "integer"},
                "y": {"type": "integer"},
                "extra": {"type": "string", "x-kubernetes-validations": [{"rule": "self.startsWith('anything')"}]},
                "num": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]},
            },
            "required": ["x", "y"],
        }
    },
}


def test_objects_keep_to_their_rules(api: Api, define: Define, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"v{unique}", RULES, namespaced=False))
    path = kind.objects()
    api.create(path, kind.object("good", spec={"x": 1, "y": 0, "num": 1}))
    refused = api.refused("POST", path, kind.object("bad", spec={"x": 0, "y": 0}), code=422)
    assert "failed rule: self.x + self.y > 0" in refused["message"]
    refused = api.refused("POST", path, kind.object("bad", spec={"x": 1, "y": 0, "extra": "no"}), code=422)
    assert "failed rule: self.startsWith('anything')" in refused["message"]
    api.change(f"{path}/good", lambda thing: thing["spec"].update(num=2))
    thing = api.get(f"{path}/good")
    thing["spec"]["num"] = 1
    refused = api.refused("PUT", f"{path}/good", thing, code=422)
    assert "failed rule: self > oldSelf" in refused["message"]


@pytest.mark.parametrize(
    ("rule", "schema", "complaint"),
    [
        ("self.z == 42", {"x": {"type": "integer"}}, "undefined field 'z'"),
        ("self = 42", {"x": {"type": "integer"}}, "Syntax error: token recognition error at: '= '"),
        (
            "self.x.all(s, s == 'string constant')",
            {"x": {"type": "array", "items": {"type": "string"}}},
            "",
        ),
        (
            "self.x.all(x, self.x.all(y, self.x.all(z, x + y + z < 9)))",
            {"x": {"type": "array", "items": {"type": "integer"}}},
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ],
    ids=["unknown property", "syntax", "good", "cost"],
)
def test_bad_rules_are_refused(api: Api, define: Define, unique: str, rule: str, schema: Json, complaint: str) -> None:
    spec = {"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": schema}
    kind = CustomKind(f"{unique}.example.com", f"r{unique}", {"type": "object", "properties": {"spec": spec}})
    if not complaint:
        define(kind)
        return
    refused = api.refused("POST", CustomKind.DEFINITIONS, kind.definition(), code=422)
    assert complaint in refused["message"]


def test_what_was_wrong_before_may_stay(api: Api, define: Define, unique: str) -> None:
    schema = {
        "type": "object",
        "properties": {"field": {"type": "string"}, "other": {"type": "string"}, "list": {"type": "array"}},
    }
    schema["properties"]["list"]["items"] = {"type": "string"}
    kind = define(CustomKind(f"{unique}.example.com", f"t{unique}", schema, namespaced=False))
    path = f"{kind.objects()}/one"
    api.create(kind.objects(), kind.object("one", field="notfoo", list=["a", "b"]))
    patch = [
        {"op": "add", "path": f"{DEFAULT_PATH}/field/enum", "value": ["foo"]},
        {"op": "add", "path": f"{DEFAULT_PATH}/list/maxItems", "value": 1},
    ]
    api.patch(kind.path, patch, JSON_PATCH)
    soon(lambda: api.ask("POST", kind.objects(), kind.object("two", field="bar"), {"dryRun": "All"}).status == 422)
    api.patch(path, {"other": "changed"})
    refused = api.refused("PATCH", path, {"field": "bar"}, code=422, kind=MERGE)
    assert 'field: Unsupported value: "bar": supported values: "foo"' in refused["message"]
    api.refused("PATCH", path, {"list": ["a", "b", "c"]}, code=422, kind=MERGE)
    api.patch(path, {"field": "foo"})
