"""ValidatingAdmissionPolicies over a whole server."""

from __future__ import annotations

import asyncio
from typing import Any

from assembled_server import Server, running_server
from policy_objects import (
    DEPLOYMENTS,
    VALIDATING,
    VALIDATING_BINDINGS,
    binding,
    deployment,
    rule,
    validating,
)


async def test_a_deployment_is_refused_with_the_message_of_the_message_expression() -> None:
    policy = validating(
        "replicas",
        {
            "expression": "object.spec.replicas > 1",
            "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)",
        },
        matchConstraints={"resourceRules": [rule("apps", "deployments")]},
    )
    async with running_server() as server:
        await server.made(VALIDATING, policy)
        await server.made(DEPLOYMENTS, deployment("unbound"))
        await server.made(VALIDATING_BINDINGS, binding("replicas"))
        code, answer = await server.call("POST", DEPLOYMENTS, deployment())
        message = "ValidatingAdmissionPolicy 'replicas' with binding 'b' denied request: wants replicas > 1, got 1"
        assert code == 422
        assert answer["message"] == f'deployments.apps "web" is forbidden: {message}'
        assert answer["reason"] == "Invalid"
        assert answer["details"] == {
            "name": "web",
            "group": "apps",
            "kind": "deployments",
            "causes": [{"message": message}],
        }
        await server.made(DEPLOYMENTS, deployment(replicas=2))
        await server.call("DELETE", f"{VALIDATING_BINDINGS}/b")
        await server.made(DEPLOYMENTS, deployment("more"))


async def checked(server: Server, name: str) -> Any:
    """Return the status of a policy once it was type checked."""
    policy = await server.named(f"{VALIDATING}/{name}")
    for _ in range(50):
        if "typeChecking" in policy.get("status", {}):
            return policy["status"]
        await asyncio.sleep(0)
        policy = await server.named(f"{VALIDATING}/{name}")
    raise AssertionError(policy)


async def test_expressions_are_checked_against_the_types_of_the_matched_kinds() -> None:
    deployments = {"matchConstraints": {"resourceRules": [rule("apps", "deployments", apiVersions=["v1"])]}}
    async with running_server() as server:
        await server.made(VALIDATING, validating("correct", "object.spec.replicas > 1", **deployments))
        assert await checked(server, "correct") == {"observedGeneration": 1, "typeChecking": {}}
        confused = {
            "expression": "object.spec.replicas > '1'",
            "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
        }
        await server.made(VALIDATING, validating("confused", confused, **deployments))
        status = await checked(server, "confused")
        assert status["typeChecking"]["expressionWarnings"] == [
            {
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to "
                "'(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
            },
            {
                "fieldRef": "spec.validations[0].messageExpression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:28: found no matching overload for '_+_' applied to "
                "'(string, int)'\n | 'wants replicas > 1, got ' + object.spec.replicas\n"
                " | ...........................^\n",
            },
        ]
