"""Custom resources from outside: definitions come, are served, change and go."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from assembled_server import running_server
from definitions_fixture import CARTS, DEFINITIONS, GROUP, awaited, cart, definition, established, served, version

from tiphys.wire.message import Response

NAME = f"carts.{GROUP}"
RULES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-validations": [{"rule": "self.minReplicas <= self.replicas"}],
            "properties": {"replicas": {"type": "integer"}, "minReplicas": {"type": "integer"}},
            "required": ["replicas", "minReplicas"],
        }
    },
}


def spec_schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def causes_of(answer: Any) -> list[tuple[str, str, str]]:
    return [(c["reason"], c["field"], c["message"]) for c in answer["details"]["causes"]]


async def test_a_definition_is_established_and_goes_with_its_objects() -> None:
    async with running_server() as server:
        crd = await served(server, definition())
        assert "finalizers" not in crd["metadata"]
        assert [c["type"] for c in crd["status"]["conditions"]] == ["NamesAccepted", "Established"]
        held = await server.made(CARTS, cart(metadata={"name": "a", "finalizers": ["x.example.com/y"]}))
        await server.made(CARTS, cart("b"))
        status, deleted = await server.call("DELETE", f"{DEFINITIONS}/{NAME}")
        assert status == 200 and deleted["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        terminating = deleted["status"]["conditions"][-1]
        assert (terminating["type"], terminating["reason"]) == ("Terminating", "InstanceDeletionPending")
        status, refused = await server.call("POST", CARTS, cart("c"))
        assert (status, refused["reason"]) == (405, "MethodNotAllowed")
        assert refused["message"] == "create not allowed while custom resource definition is terminating"
        for _ in range(50):
            await asyncio.sleep(0)
        status, left = await server.call("GET", CARTS)
        assert [item["metadata"]["name"] for item in left["items"]] == ["a"]
        held = left["items"][0]
        held["metadata"]["finalizers"] = []
        await server.call("PUT", f"{CARTS}/a", held)
        for _ in range(100):
            if (await server.call("GET", f"{DEFINITIONS}/{NAME}"))[0] == 404:
                break
            await asyncio.sleep(0.05)
        assert (await server.call("GET", CARTS))[0] == 404


async def test_rules_are_checked_with_the_definition() -> None:
    async with running_server() as server:
        for rule, expected in (
            ("self.spec.replicas >= self.spec.z", "undefined field 'z'"),
            ("self.spec.replicas >", "Syntax error"),
            ("self.spec.replicas", "cel expression must evaluate to a bool"),
        ):
            schema = spec_schema(replicas={"type": "integer"})
            schema["x-kubernetes-validations"] = [{"rule": rule}]
            status, answer = await server.call("POST", DEFINITIONS, definition(version(schema=schema)))
            assert status == 422
            reason, path, message = causes_of(answer)[0]
            assert reason == "FieldValueInvalid" and expected in message
            assert path == "spec.validation.openAPIV3Schema.x-kubernetes-validations[0].rule"


async def test_rules_are_run_with_every_write() -> None:
    async with running_server() as server:
        await served(server, definition(version(schema=RULES)))
        await server.made(CARTS, cart(spec={"replicas": 3, "minReplicas": 1}))
        status, answer = await server.call("POST", CARTS, cart("b", spec={"replicas": 1, "minReplicas": 3}))
        assert status == 422
        message = "Invalid value: failed rule: self.minReplicas <= self.replicas"
        assert causes_of(answer) == [("FieldValueInvalid", "spec", message)]
        assert answer["message"] == f'Cart.{GROUP} "b" is invalid: spec: {message}'
        patch = {"spec": {"minReplicas": 9}}
        status, answer = await server.call("PATCH", f"{CARTS}/a", patch, content_type="application/merge-patch+json")
        assert status == 422 and causes_of(answer)[0][2] == message


async def test_older_versions_tell_the_type_of_what_breaks_a_rule() -> None:
    async with running_server(version=(1, 33)) as server:
        await served(server, definition(version(schema=RULES)))
        _, answer = await server.call("POST", CARTS, cart(spec={"replicas": 1, "minReplicas": 3}))
        message = 'Invalid value: "object": failed rule: self.minReplicas <= self.replicas'
        assert causes_of(answer) == [("FieldValueInvalid", "spec", message)]


async def test_transition_rules_compare_with_what_was() -> None:
    rule = {"rule": "self == oldSelf", "message": "may not change"}
    schema = spec_schema(color={"type": "string", "x-kubernetes-validations": [rule]})
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        made = await server.made(CARTS, cart(spec={"color": "red"}))
        made["spec"]["color"] = "blue"
        status, answer = await server.call("PUT", f"{CARTS}/a", made)
        assert status == 422
        assert causes_of(answer) == [("FieldValueInvalid", "spec.color", 'Invalid value: "blue": may not change')]


async def test_rules_wait_for_values_that_fit_the_schema() -> None:
    async with running_server() as server:
        await served(server, definition(version(schema=RULES)))
        status, answer = await server.call("POST", CARTS, cart(spec={"replicas": "many", "minReplicas": 3}))
        assert status == 422
        assert causes_of(answer)[1] == (
            "FieldValueInvalid",
            "<nil>",
            'Invalid value: "null": some validation rules were not checked because the object was invalid; correct the '
            "existing errors to complete validation",
        )


async def test_an_update_may_leave_what_was_wrong_but_not_add_to_it() -> None:
    loose = spec_schema(color={"type": "string"}, size={"type": "integer"})
    strict = spec_schema(color={"type": "string", "maxLength": 3}, size={"type": "integer", "maximum": 5})
    async with running_server() as server:
        crd = await served(server, definition(version(schema=loose)))
        await server.made(CARTS, cart(spec={"color": "purple", "size": 1}))
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = strict
        status, answer = await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
        assert status == 200, answer
        merge = "application/merge-patch+json"
        status, answer = await server.call("PATCH", f"{CARTS}/a", {"spec": {"size": 2}}, content_type=merge)
        assert status == 200, answer
        status, answer = await server.call("PATCH", f"{CARTS}/a", {"spec": {"size": 9}}, content_type=merge)
        assert [cause[1] for cause in causes_of(answer)] == ["spec.size"]
        status, answer = await server.call("PATCH", f"{CARTS}/a", {"spec": {"color": "violet"}}, content_type=merge)
        assert [cause[1] for cause in causes_of(answer)] == ["spec.color"]


async def test_defaults_nulls_and_unknown_fields() -> None:
    schema = spec_schema(
        size={"type": "integer", "default": 3},
        note={"type": "string"},
        free={"type": "string", "nullable": True},
    )
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        made = await server.made(CARTS, cart(spec={"size": None, "note": None, "free": None, "more": 1}))
        assert made["spec"] == {"size": 3, "free": None}


async def test_a_deprecated_version_warns_and_a_list_has_its_kind() -> None:
    old = version("v1beta1", storage=False, deprecated=True)
    crd = definition(version(), old, listKind="CartCollection")
    async with running_server() as server:
        await served(server, crd)
        answer = await server.answer("GET", f"/apis/{GROUP}/v1beta1/namespaces/default/carts")
        assert isinstance(answer, Response)
        text = f"{GROUP}/v1beta1 Cart is deprecated; use {GROUP}/v1 Cart"
        assert ("Warning", f'299 - "{text}"') in list(answer.headers)
        _, listed = await server.call("GET", CARTS)
        assert listed["kind"] == "CartCollection"
        current = await server.answer("GET", CARTS)
        assert isinstance(current, Response) and not any(name == "Warning" for name, _ in current.headers)


async def test_selectable_fields_select() -> None:
    schema = spec_schema(color={"type": "string"}, size={"type": "integer"})
    fields = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]
    async with running_server() as server:
        await served(server, definition(version(schema=schema, selectableFields=fields)))
        for name, color, size in (("a", "red", 1), ("b", "blue", 1), ("c", "red", 2)):
            await server.made(CARTS, cart(name, spec={"color": color, "size": size}))
        _, found = await server.call("GET", f"{CARTS}?fieldSelector=spec.color%3Dred,spec.size%3D2")
        assert [item["metadata"]["name"] for item in found["items"]] == ["c"]
        status, answer = await server.call("GET", f"{CARTS}?fieldSelector=spec.taste%3Dsweet")
        assert status == 400 and "field label not supported" in answer["message"]
        await server.call("DELETE", f"{CARTS}?fieldSelector=spec.color%3Dred")
        _, found = await server.call("GET", CARTS)
        assert [item["metadata"]["name"] for item in found["items"]] == ["b"]


async def test_a_stored_version_stays_until_the_status_lets_it_go() -> None:
    async with running_server() as server:
        crd = await served(server, definition(version("v1"), version("v2", storage=False)))
        crd["spec"]["versions"][0]["storage"], crd["spec"]["versions"][1]["storage"] = False, True
        status, crd = await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
        assert crd["status"]["storedVersions"] == ["v1", "v2"]
        del crd["spec"]["versions"][0]
        status, answer = await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
        assert status == 422 and causes_of(answer)[0][1] == "status.storedVersions[0]"
        crd = await established(server, NAME)
        crd["status"]["storedVersions"] = ["v2"]
        status, crd = await server.call("PUT", f"{DEFINITIONS}/{NAME}/status", crd)
        assert status == 200, crd
        del crd["spec"]["versions"][0]
        status, answer = await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
        assert status == 200, answer


async def test_a_conflicting_name_is_told_and_taken_when_it_is_free() -> None:
    async with running_server() as server:
        await served(server, definition(shortNames=["ct"]))
        rival = definition(plural="wagons", singular="wagon", kind="Wagon", listKind="WagonList", shortNames=["ct"])
        await server.made(DEFINITIONS, rival)
        other = f"wagons.{GROUP}"
        found = await awaited(server, other, "NamesAccepted", "False")
        assert found["status"]["conditions"][0]["message"] == '"ct" is already in use'
        await server.call("DELETE", f"{DEFINITIONS}/{NAME}")
        found = await awaited(server, other, "NamesAccepted", "True")
        assert found["status"]["acceptedNames"]["shortNames"] == ["ct"]


@pytest.mark.parametrize("served_now", [True, False])
async def test_documents_follow_what_is_served(served_now: bool) -> None:
    schema = spec_schema(color={"type": "string", "description": "What it looks like."})
    async with running_server() as server:
        crd = await served(server, definition(version("v1", schema), version("v2", schema, storage=False)))
        if not served_now:
            crd["spec"]["versions"][1]["served"] = False
            await server.call("PUT", f"{DEFINITIONS}/{NAME}", crd)
        _, document = await server.call("GET", "/openapi/v2")
        names = {name for name in document["definitions"] if "shop" in name}
        assert ("com.example.shop.v2.Cart" in names) is served_now and "com.example.shop.v1.Cart" in names
        published = document["definitions"]["com.example.shop.v1.Cart"]["properties"]
        assert published["spec"] == schema["properties"]["spec"]
        assert "APIVersion defines" in published["apiVersion"]["description"]
        status, _ = await server.call("GET", f"/openapi/v3/apis/{GROUP}/v2")
        assert status == (200 if served_now else 404)
        assert (await server.call("GET", f"/apis/{GROUP}/v2"))[0] == status


async def test_the_definition_of_a_definition_is_read_to_its_depth() -> None:
    schema = spec_schema(list={"type": "array", "items": {"type": "string", "colour": "red"}})
    async with running_server() as server:
        crd = definition(version(schema=copy.deepcopy(schema)))
        status, answer = await server.call("POST", f"{DEFINITIONS}?fieldValidation=Strict", crd)
        assert status == 400
        assert 'properties.list.items.colour"' in answer["message"]


APPLY = "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{head}\nunknownField: unknown", ".unknownField: field not declared in schema"),
        ("{head}\n  unknownMeta: unknown", ".metadata.unknownMeta: field not declared in schema"),
        (
            "{head}\nspec:\n  template:\n    kind: Sub\n    metadata:\n      unknownSubMeta: x",
            ".spec.template.metadata.unknownSubMeta: field not declared in schema",
        ),
        ("{head}\nspec:\n  foo: foo1\n  foo: foo2", 'line 8: key "foo" already set in map'),
    ],
)
async def test_applied_configurations_have_only_declared_fields_and_each_once(body: str, told: str) -> None:
    template = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"spec": {"type": "object"}},
    }
    schema = spec_schema(foo={"type": "string"}, template=template)
    head = f"\napiVersion: {GROUP}/v1\nkind: Cart\nmetadata:\n  name: a"
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        path = f"{CARTS}/a?fieldManager=m&fieldValidation=Strict"
        status, answer = await server.call("PATCH", path, body.format(head=head).encode(), content_type=APPLY)
        assert status in (400, 500) and told in answer["message"]


async def test_a_yaml_text_that_repeats_a_key_is_told_by_line() -> None:
    text = f"\napiVersion: {GROUP}/v1\nkind: Cart\nmetadata: {{name: a}}\nfoo: 1\nfoo: 2\n".encode()
    async with running_server() as server:
        await served(server, definition())
        strict = f"{CARTS}?fieldValidation=Strict"
        status, answer = await server.call("POST", strict, text, content_type="application/yaml")
        assert status == 400 and 'yaml: unmarshal errors:\n  line 6: key "foo" already set in map' in answer["message"]
        status, _ = await server.call("POST", CARTS, text, content_type="application/yaml")
        assert status == 201


async def test_a_kind_that_takes_anything_is_published_as_an_object() -> None:
    async with running_server() as server:
        await served(server, definition())
        _, document = await server.call("GET", "/openapi/v2")
        published = document["definitions"]["com.example.shop.v1.Cart"]
        assert set(published) == {"type", "x-kubernetes-group-version-kind"}
        _, document = await server.call("GET", f"/openapi/v3/apis/{GROUP}/v1")
        assert "metadata" in document["components"]["schemas"]["com.example.shop.v1.Cart"]["properties"]


async def test_stored_objects_get_the_defaults_of_today() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        await server.made(CARTS, cart("one"))
        patch = [{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/a/default", "value": "A"}]
        json_patch = "application/json-patch+json"
        status, answer = await server.call("PATCH", f"{DEFINITIONS}/{NAME}", patch, content_type=json_patch)
        assert status == 200, answer
        assert (await server.named(f"{CARTS}/one"))["a"] == "A"
        assert (await server.made(CARTS, cart("two")))["a"] == "A"
        patch = [
            {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/a/default"},
            {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/b/default", "value": "B"},
        ]
        await server.call("PATCH", f"{DEFINITIONS}/{NAME}", patch, content_type=json_patch)
        two = await server.named(f"{CARTS}/two")
        assert (two["a"], two["b"]) == ("A", "B")


async def test_the_status_of_a_definition_is_written_by_itself() -> None:
    async with running_server() as server:
        crd = await served(server, definition())
        crd["status"]["conditions"].append({"type": "", "status": "", "message": "updated"})
        status, answer = await server.call("PUT", f"{DEFINITIONS}/{NAME}/status", crd)
        assert status == 200 and answer["status"]["conditions"][-1]["message"] == "updated"
        patch = [{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]
        path, json_patch = f"{DEFINITIONS}/{NAME}/status", "application/json-patch+json"
        status, answer = await server.call("PATCH", path, patch, content_type=json_patch)
        assert status == 200 and answer["status"]["conditions"][0]["message"] == "patched"


async def test_the_status_is_a_part_of_its_own_only_where_the_definition_says_so() -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    apart = version(schema=schema, subresources={"status": {}})
    merge = "application/merge-patch+json"
    async with running_server() as server:
        await served(server, definition(apart))
        await server.made(CARTS, cart(status={"a": 1}))
        change = {"metadata": {"labels": {"x": "y"}}, "spec": {"b": 1}, "status": {"a": 2}}
        _, made = await server.call("PATCH", f"{CARTS}/a/status", change, content_type=merge)
        assert made["status"] == {"a": 2} and "spec" not in made and "labels" not in made["metadata"]
        assert made["metadata"]["generation"] == 1
        _, made = await server.call("PATCH", f"{CARTS}/a", {"status": {"a": 3}}, content_type=merge)
        assert made["status"] == {"a": 2}
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        await server.made(CARTS, cart(status={"a": 1}))
        assert (await server.call("PATCH", f"{CARTS}/a/status", change, content_type=merge))[0] == 404
        _, made = await server.call("PATCH", f"{CARTS}/a", {"status": {"a": 3}}, content_type=merge)
        assert made["status"] == {"a": 3} and made["metadata"]["generation"] == 2


async def test_names_may_be_restricted_by_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}},
    }
    async with running_server() as server:
        await served(server, definition(version(schema=schema)))
        status, answer = await server.call("POST", CARTS, cart("long-name"))
        assert status == 422 and causes_of(answer)[0][:2] == ("FieldValueTooLong", "metadata.name")


async def test_formats_that_are_not_checked_are_told() -> None:
    schema = spec_schema(a={"type": "string", "format": "colour"}, b={"type": "integer", "format": "int32"})
    async with running_server() as server:
        answer = await server.answer("POST", DEFINITIONS, definition(version(schema=schema)))
        assert isinstance(answer, Response) and answer.status == 201
        assert ("Warning", '299 - "unrecognized format \\"colour\\""') in list(answer.headers)


async def test_finalizers_without_a_domain_are_told_when_they_come() -> None:
    async with running_server() as server:
        await served(server, definition(version()))
        made = cart("a")
        made["metadata"]["finalizers"] = ["mine", "foregroundDeletion", "example.com/mine"]
        answer = await server.answer("POST", CARTS, made)
        text = (
            'metadata.finalizers: \\"mine\\": prefer a domain-qualified finalizer name including a path (/) to avoid '
            "accidental conflicts with other finalizer writers"
        )
        assert isinstance(answer, Response) and answer.status == 201
        assert [value for name, value in answer.headers if name == "Warning"] == [f'299 - "{text}"']
        patch = {"metadata": {"labels": {"a": "b"}}}
        answer = await server.answer("PATCH", f"{CARTS}/a", patch, content_type="application/merge-patch+json")
        assert isinstance(answer, Response) and answer.status == 200
        assert not any(name == "Warning" for name, _ in answer.headers)


async def test_lists_are_published_under_their_own_kind() -> None:
    async with running_server() as server:
        await served(server, definition(version(), listKind="CartCollection"))
        _, document = await server.call("GET", "/openapi/v3/apis/shop.example.com/v1")
        schemas = document["components"]["schemas"]
        assert schemas["com.example.shop.v1.CartCollection"]["description"] == "CartCollection is a list of Cart"
        assert "com.example.shop.v1.CartList" not in schemas
        told = document["paths"]["/apis/shop.example.com/v1/namespaces/{namespace}/carts"]["get"]["responses"]["200"]
        reference = told["content"]["application/json"]["schema"]["$ref"]
        assert reference == "#/components/schemas/com.example.shop.v1.CartCollection"


async def test_an_applied_configuration_has_every_item_of_a_list_once() -> None:
    ports = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port"],
        "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}},
    }
    async with running_server() as server:
        await served(server, definition(version(schema=spec_schema(ports=ports))))
        applied = cart("a", spec={"ports": [{"port": 1}, {"port": 1}]})
        target = f"{CARTS}/a?fieldManager=me"
        status, answer = await server.call("PATCH", target, applied, content_type="application/apply-patch+yaml")
        text = ".spec.ports: duplicate entries for key [port=1]"
        identity = "/a; shop.example.com/v1, Kind=Cart"
        assert (status, answer["message"]) == (500, f"failed to create typed patch object ({identity}): {text}")
