"""Mutating policies and mutating webhooks at the same write: who is asked when, and who is asked again."""

from __future__ import annotations

from typing import Any

import pytest
from assembled_server import running_server
from policy_objects import (
    CONFIG_MAPS,
    MUTATING,
    MUTATING_BINDINGS,
    VALIDATING,
    VALIDATING_BINDINGS,
    binding,
    config_map,
    mutating,
    rule,
    validating,
)
from webhook_server import Review, Webhook, allowed, patched, serving

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
COUNTED = 'Object{data: {"policy": string(size(object.data))}}'
"""A mutation that tells how much it found."""


def configuration(hook: Webhook, **more: Any) -> dict[str, Any]:
    webhook = {
        "name": "count.example.com",
        "clientConfig": hook.config("/"),
        "rules": [rule()],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }
    return {"metadata": {"name": "count"}, "webhooks": [webhook]}


def counts(path: str, review: Review) -> Any:
    """Tell how much the webhook found."""
    found = len(review["request"]["object"]["data"])
    return patched(review, {"op": "replace", "path": "/data/webhook", "value": str(found)})


@pytest.mark.parametrize(
    ("policy", "webhook", "data", "asked"),
    [
        ("Never", "Never", {"policy": "1", "webhook": "2"}, 1),
        ("IfNeeded", "Never", {"policy": "3", "webhook": "2"}, 1),
        ("IfNeeded", "IfNeeded", {"policy": "3", "webhook": "3"}, 2),
        ("Never", "IfNeeded", {"policy": "1", "webhook": "2"}, 1),
    ],
)
async def test_policies_go_first_and_again_after_a_webhook_that_changed_the_object(
    policy: str, webhook: str, data: dict[str, str], asked: int
) -> None:
    async with running_server() as server, serving(counts) as hook:
        await server.made(MUTATING, mutating("p", COUNTED, reinvocationPolicy=policy))
        await server.made(MUTATING_BINDINGS, binding("p", actions=[]))
        await server.made(WEBHOOKS, configuration(hook, reinvocationPolicy=webhook))
        made = await server.made(CONFIG_MAPS, config_map(k="v"))
        assert made["data"] == {"k": "v", **data}
        assert len(hook.reviews) == asked


async def test_a_webhook_that_changes_nothing_asks_no_policy_again() -> None:
    async with running_server() as server, serving(lambda path, review: allowed(review)) as hook:
        await server.made(MUTATING, mutating("p", COUNTED, reinvocationPolicy="IfNeeded"))
        await server.made(MUTATING_BINDINGS, binding("p", actions=[]))
        await server.made(WEBHOOKS, configuration(hook, reinvocationPolicy="IfNeeded"))
        made = await server.made(CONFIG_MAPS, config_map(k="v"))
        assert made["data"] == {"k": "v", "policy": "1"}
        assert len(hook.reviews) == 1


async def test_a_validating_policy_sees_what_policies_and_webhooks_made() -> None:
    async with running_server() as server, serving(counts) as hook:
        await server.made(MUTATING, mutating("p", COUNTED))
        await server.made(MUTATING_BINDINGS, binding("p", actions=[]))
        await server.made(WEBHOOKS, configuration(hook))
        strict = {"expression": "false", "messageExpression": "object.data.policy + ' ' + object.data.webhook"}
        await server.made(VALIDATING, validating("v", strict))
        await server.made(VALIDATING_BINDINGS, binding("v", name="of-v"))
        code, told = await server.call("POST", CONFIG_MAPS, config_map(k="v"))
        assert (code, told["message"].partition("denied request: ")[2]) == (422, "1 2")
