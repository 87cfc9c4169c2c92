"""Admission webhooks and custom resources: pruning, defaults, versions, and definitions themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from assembled_server import Server, running_server
from webhook_server import Review, allowed, ca_bundle, denied, patched, serving

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as server:
        yield server


def schema(*fields: str) -> dict[str, Any]:
    data = {"type": "object", "properties": {field: {"type": "string"} for field in fields}}
    if "defaulted" in fields:
        data["properties"]["defaulted"]["default"] = "yes"
    return {"openAPIV3Schema": {"type": "object", "properties": {"data": data}}}


def definition(*fields: str, storage: str = "v1") -> dict[str, Any]:
    names = {"plural": "crds", "singular": "crd", "kind": "Crd", "listKind": "CrdList"}
    versions = [
        {"name": name, "served": True, "storage": name == storage, "schema": schema(*fields)} for name in ("v1", "v2")
    ]
    spec = {"group": "hooks.io", "scope": "Namespaced", "names": names, "versions": versions}
    return {"metadata": {"name": "crds.hooks.io"}, "spec": spec}


def path(version: str = "v1", name: str = "") -> str:
    return f"/apis/hooks.io/{version}/namespaces/default/crds" + (f"/{name}" if name else "")


async def established(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    await server.made(DEFINITIONS, body)
    while True:
        made: dict[str, Any] = await server.named(f"{DEFINITIONS}/crds.hooks.io")
        if any(c["type"] == "Established" for c in made.get("status", {}).get("conditions", ())):
            return made
        await asyncio.sleep(0)


async def register(server: Server, sort: str, config: Any, **more: Any) -> None:
    kind = f"{sort.capitalize()}WebhookConfiguration"
    rule = {"operations": ["*"], "apiGroups": ["hooks.io"], "apiVersions": ["*"], "resources": ["*"]}
    webhook = {
        "name": "crd.hooks.io",
        "clientConfig": config,
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }
    body = {"kind": kind, "metadata": {"name": f"{sort}-{more.get('name', 'x')}"}, "webhooks": [webhook]}
    await server.made(f"{CONFIGURATIONS}/{kind.lower()}s", body)


def custom(version: str = "v1", **data: str) -> dict[str, Any]:
    return {"apiVersion": f"hooks.io/{version}", "kind": "Crd", "metadata": {"name": "one"}, "data": data}


def stages(url: str, review: Review) -> Any:
    """What upstream's test webhook does to custom resources."""
    data = (review["request"].get("object") or {}).get("data") or {}
    for seen, added in (("mutation-start", "mutation-stage-1"), ("mutation-stage-1", "mutation-stage-2")):
        if data.get(seen) == "yes" and added not in data and url == f"/{added}":
            return patched(review, {"op": "add", "path": f"/data/{added}", "value": "yes"})
    return allowed(review)


async def test_custom_resources_are_refused_at_every_operation(server: Server) -> None:
    def answer(url: str, review: Review) -> Any:
        request = review["request"]
        obj = request["oldObject"] if request["operation"] == "DELETE" else request["object"]
        if (obj.get("data") or {}).get("webhook-e2e-test") == "webhook-disallow":
            return denied(review, message="the custom resource contains unwanted data")
        return allowed(review)

    async with serving(answer) as hook:
        await established(server, definition("webhook-e2e-test"))
        bad = {"webhook-e2e-test": "webhook-disallow"}
        await server.made(path(), {**custom(**bad), "metadata": {"name": "old"}})
        await register(server, "validating", hook.config())
        calls = (
            ("POST", path(), custom(**bad)),
            ("DELETE", path(name="old"), None),
        )
        for method, url, body in calls:
            status, told = await server.call(method, url, body)
            assert (status, "unwanted data" in told["message"]) == (400, True)
        await server.made(path(), custom())
        status, told = await server.call("PATCH", path(name="one"), {"data": bad}, content_type=MERGE)
        assert (status, "unwanted data" in told["message"]) == (400, True)


async def test_what_webhooks_add_is_pruned_and_defaulted(server: Server) -> None:
    async with serving(stages) as hook:
        await established(server, definition("mutation-start", "mutation-stage-1", "defaulted"))
        await register(server, "mutating", hook.config("/mutation-stage-1"), name="a.hooks.io")
        await register(server, "mutating", hook.config("/mutation-stage-2"), name="b.hooks.io")
        made = await server.made(path(), custom(**{"mutation-start": "yes"}))
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "defaulted": "yes"}
    assert hook.asked[0]["object"]["data"]["defaulted"] == "yes"
    assert "mutation-stage-1" in hook.asked[1]["object"]["data"]


async def test_an_object_stored_in_another_version_is_changed(server: Server) -> None:
    async with serving(stages) as hook:
        await established(server, definition("mutation-start", "mutation-stage-1", "mutation-stage-2"))
        await register(server, "mutating", hook.config("/mutation-stage-1"), name="a.hooks.io")
        await register(server, "mutating", hook.config("/mutation-stage-2"), name="b.hooks.io")
        await server.made(path(), custom())
        versions = definition("mutation-start", "mutation-stage-1", "mutation-stage-2", storage="v2")["spec"][
            "versions"
        ]
        status, _ = await server.call(
            "PATCH", f"{DEFINITIONS}/crds.hooks.io", {"spec": {"versions": versions}}, content_type=MERGE
        )
        assert status == 200
        body = {"data": {"mutation-start": "yes"}}
        status, made = await server.call("PATCH", path(name="one"), body, content_type=MERGE)
    assert (status, made["apiVersion"]) == (200, "hooks.io/v1")
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}
    assert {request["object"]["apiVersion"] for request in hook.asked} == {"hooks.io/v1"}


async def test_a_rule_for_one_version_sees_requests_of_the_other(server: Server) -> None:
    patch = {"op": "add", "path": "/data/a", "value": "changed"}
    only = {"operations": ["CREATE"], "apiGroups": ["hooks.io"], "apiVersions": ["v1"], "resources": ["crds"]}
    async with serving(lambda url, review: patched(review, patch)) as hook:
        await established(server, definition("a"))
        await register(server, "mutating", hook.config(), rules=[only])
        made = await server.made(path("v2"), custom("v2", a="x"))
    assert (made["apiVersion"], made["data"]) == ("hooks.io/v2", {"a": "changed"})
    request = hook.asked[0]
    assert (request["object"]["apiVersion"], request["resource"]["version"]) == ("hooks.io/v1", "v1")
    assert (request["requestResource"]["version"], request["requestKind"]["version"]) == ("v2", "v2")


async def test_an_invalid_change_of_a_custom_resource_is_refused_by_its_schema(server: Server) -> None:
    patch = {"op": "add", "path": "/data/a", "value": 7}
    async with serving(lambda url, review: patched(review, patch)) as hook:
        await established(server, definition("a"))
        await register(server, "mutating", hook.config())
        status, told = await server.call("POST", path(), custom(a="x"))
    assert (status, told["reason"]) == (422, "Invalid")
    assert "data.a" in told["message"]


async def test_a_definition_can_be_refused(server: Server) -> None:
    rule = {
        "operations": ["CREATE"],
        "apiGroups": ["apiextensions.k8s.io"],
        "apiVersions": ["*"],
        "resources": ["customresourcedefinitions"],
    }

    def answer(url: str, review: Review) -> Any:
        message = "the crd contains unwanted label"
        return denied(review, message=message)

    async with serving(answer) as hook:
        await register(server, "validating", hook.config(), rules=[rule])
        status, told = await server.call("POST", DEFINITIONS, definition())
    assert (status, told["message"]) == (
        400,
        'admission webhook "crd.hooks.io" denied the request: the crd contains unwanted label',
    )


async def test_no_webhook_keeps_the_server_from_serving_definitions(server: Server) -> None:
    """The server's own writes (accepted names, conditions) are not asked about."""
    everything = {"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
    down = {"url": "https://127.0.0.1:1/", "caBundle": ca_bundle()}
    await register(server, "validating", down, rules=[everything])
    await established(server, definition("a"))
    await server.made(path(), custom(a="x"))
