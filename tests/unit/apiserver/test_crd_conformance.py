"""What upstream's conformance tests ask of validation rules and of ratcheting, as requests to a whole server."""

from __future__ import annotations

from typing import Any

import pytest
from assembled_server import Server, running_server
from definitions_fixture import CARTS, DEFINITIONS, GROUP, cart, definition, served, version

NAME = f"carts.{GROUP}"
INTEGERS: dict[str, Any] = {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.x + self.y > 0"},
                {"rule": "self.one.isSorted() && self.two.isSorted() && ((self.one.sum() + self.two.sum()) % 2 == 0)"},
                {"rule": "self.large.all(x, self.large.all(y, y == x))"},
            ],
            "properties": {
                "x": {"type": "integer"},
                "y": {"type": "integer"},
                "one": INTEGERS,
                "two": INTEGERS,
                "large": {**INTEGERS, "maxItems": 725},
            },
        },
        "status": {
            "type": "object",
            "x-kubernetes-validations": [{"rule": "self.health == 'ok' || self.health == 'unhealthy'"}],
            "properties": {"health": {"type": "string"}},
        },
    },
}


def spec_of(spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", **spec}}}


async def test_objects_that_keep_to_the_rules_are_taken_and_others_are_not() -> None:
    async with running_server() as server:
        await served(server, definition(version(schema=SCHEMA)))
        await server.made(CARTS, cart(spec={"x": 1, "y": 0, "one": [3, 4], "two": [5, 10], "large": [2, 2]}))
        status, answer = await server.call("POST", CARTS, cart("b", spec={"x": 0, "y": 0}))
        assert status == 422 and "failed rule" in answer["message"]


async def test_a_rule_that_costs_too_much_while_it_runs_refuses_the_object() -> None:
    async with running_server() as server:
        await served(server, definition(version(schema=SCHEMA)))
        status, answer = await server.call("POST", CARTS, cart(spec={"large": [20] * 725}))
        assert status == 422 and "call cost exceeds limit" in answer["message"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"x-kubernetes-validations": [{"rule": "self.z == 100"}], "properties": {"x": {"type": "integer"}}}, "'z'"),
        ({"x-kubernetes-validations": [{"rule": "self = 42"}]}, "Syntax error"),
        (
            {
                "properties": {
                    "x": {
                        "type": "array",
                        "items": {
                            "type": "array",
                            "items": {"type": "string"},
                            "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}],
                        },
                    }
                }
            },
            "exceeds budget",
        ),
    ],
)
async def test_definitions_with_bad_rules_are_refused(spec: dict[str, Any], told: str) -> None:
    async with running_server() as server:
        status, answer = await server.call("POST", DEFINITIONS, definition(version(schema=spec_of(spec))))
        assert status == 422 and told in answer["message"]


LISTS: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"]}
BEFORE: dict[str, Any] = {
    "field": "foo",
    "struct": {"field": "foo"},
    "list": [{"key": "first", "field": "foo"}, {"key": "second", "field": "foo"}],
    "map": {"foo": {"field": "foo"}, "bar": {"field": "foo"}},
}


def strict(leaf: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which every `field` is a `leaf`."""
    item = {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}, "field": leaf}}
    other = {"type": "object", "properties": {"field": leaf, "other": {"type": "string"}}}
    return {
        "type": "object",
        "properties": {
            "field": leaf,
            "other": {"type": "string"},
            "struct": other,
            "list": {"type": "array", **LISTS, "items": item},
            "map": {"type": "object", "additionalProperties": other},
        },
    }


ENUM = {"type": "string", "enum": ["notfoo"]}
RULE = {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'notfoo'"}]}


async def changed(server: Server, before: dict[str, Any], schema: dict[str, Any]) -> None:
    """Store an object under a definition that takes anything, then make the definition strict."""
    crd = await served(server, definition())
    await server.made(CARTS, cart(**before))
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    status, answer = await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
    assert status == 200, answer


async def patched(server: Server, patch: dict[str, Any]) -> tuple[int, Any]:
    return await server.call("PATCH", f"{CARTS}/a", patch, content_type="application/merge-patch+json")


@pytest.mark.parametrize("leaf", [ENUM, RULE])
async def test_what_is_wrong_may_stay_while_other_fields_change(leaf: dict[str, Any]) -> None:
    async with running_server() as server:
        await changed(server, BEFORE, strict(leaf))
        beside = {"metadata": {"labels": {"foo": "bar"}}, "other": "x", "struct": {"other": "x"}}
        status, answer = await patched(server, {**beside, "map": {"foo": {"other": "x"}}})
        assert status == 200, answer


@pytest.mark.parametrize("leaf", [ENUM, RULE])
async def test_every_changed_field_is_checked(leaf: dict[str, Any]) -> None:
    after = {
        "field": "bad",
        "struct": {"field": "bad"},
        "list": [{"key": "second", "field": "bad"}, {"key": "first", "field": "foo"}],
        "map": {"foo": {"field": "bad"}},
    }
    async with running_server() as server:
        await changed(server, BEFORE, strict(leaf))
        status, answer = await patched(server, after)
        assert status == 422
        fields = {cause["field"].replace("[foo]", ".foo") for cause in answer["details"]["causes"]}
        assert fields == {"field", "struct.field", "list[0].field", "map.foo.field"}


@pytest.mark.parametrize("leaf", [ENUM, RULE])
async def test_items_that_cannot_be_told_apart_are_checked_when_their_list_changes(leaf: dict[str, Any]) -> None:
    listed = {
        "atomic": {"type": "array", "x-kubernetes-list-type": "atomic", "maxItems": 9, "items": leaf},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 9, "items": leaf},
    }
    schema = {"type": "object", "properties": listed}
    async with running_server() as server:
        await changed(server, {"atomic": ["foo"], "set": ["foo"]}, schema)
        assert (await patched(server, {"metadata": {"labels": {"foo": "bar"}}}))[0] == 200
        status, answer = await patched(server, {"atomic": ["foo", "notfoo"], "set": ["foo", "notfoo"]})
        assert status == 422
        assert {cause["field"] for cause in answer["details"]["causes"]} == {"atomic[0]", "set[0]"}
