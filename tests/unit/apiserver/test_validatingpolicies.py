"""ValidatingAdmissionPolicies over a whole server."""

from __future__ import annotations

from typing import Any

from assembled_server import running_server
from policy_objects import CONFIG_MAPS, DEPLOYMENTS, VALIDATING, VALIDATING_BINDINGS, binding, deployment, rule, validating


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
