"""Policies that refuse and that change objects, in namespaces that carry a label.

Spec: upstream's tests "ValidatingAdmissionPolicy" and "MutatingAdmissionPolicy" (their API operations are in
test_api_operations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import Answer, Api, soon

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
GROUP = "/apis/admissionregistration.k8s.io/v1"


class Policies:
    """Policies and bindings of one test, for the namespace of that test."""

    def __init__(self, api: Api, unique: str, namespace: str) -> None:
        self.api = api
        self.unique = unique
        self.deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self._made: list[str] = []

    def _create(self, resource: str, kind: str, name: str, spec: Json) -> Json:
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        made = self.api.create(f"{GROUP}/{resource}", body)
        self._made.append(f"{GROUP}/{resource}/{name}")
        return made

    def match(self, group: str, version: str, resource: str, *operations: str) -> Json:
        rule = {
            "apiGroups": [group],
            "apiVersions": [version],
            "resources": [resource],
            "operations": list(operations) or ["CREATE", "UPDATE"],
        }
        return {"resourceRules": [rule], "namespaceSelector": {"matchLabels": {self.unique: "true"}}}

    def validating(self, name: str, match: Json, validations: list[Json], **spec: Any) -> str:
        """Create a policy and return its path."""
        spec = {"matchConstraints": match, "validations": validations, **spec}
        self._create(
            "validatingadmissionpolicies", "ValidatingAdmissionPolicy", f"{name}-{self.unique}.example.com", spec
        )
        return self._made[-1]

    def bind(self, name: str, validating: bool = True) -> None:
        spec: Json = {
            "policyName": f"{name}-{self.unique}.example.com",
            "matchResources": {"namespaceSelector": {"matchLabels": {self.unique: "true"}}},
        }
        if validating:
            spec["validationActions"] = ["Deny"]
            self._create(
                "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", spec["policyName"], spec
            )
        else:
            self._create("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", spec["policyName"], spec)

    def mutating(self, name: str, match: Json, *mutations: Json, **spec: Any) -> None:
        spec = {"matchConstraints": match, "mutations": list(mutations), "reinvocationPolicy": "Never", **spec}
        self._create("mutatingadmissionpolicies", "MutatingAdmissionPolicy", f"{name}-{self.unique}.example.com", spec)

    def deploy(self, name: str, replicas: int) -> Answer:
        container = {"name": "nginx", "image": "nginx"}
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        return self.api.ask("POST", self.deployments, body, {"dryRun": "All"})

    def clean(self) -> None:
        for path in self._made:
            self.api.ask("DELETE", path)


@pytest.fixture
def policies(api: Api, unique: str, namespace: str) -> Iterator[Policies]:
    made = Policies(api, unique, namespace)
    yield made
    made.clean()


def test_a_deployment_is_refused(policies: Policies, namespace: str) -> None:
    match = policies.match("apps", "v1", "deployments")
    policies.validating(
        "validate",
        match,
        [
            {
                "expression": "object.spec.replicas > 1",
                "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
            },
            {"expression": f"namespaceObject.metadata.name == '{namespace}'", "message": "another namespace"},
        ],
    )
    policies.bind("validate")
    refused = soon(lambda: (a := policies.deploy("d", 1)).status == 422 and a).json
    name = f"validate-{policies.unique}.example.com"
    assert refused["message"] == (
        f"deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: "
        "failed expression: object.spec.replicas > 1"
    )
    assert refused["reason"] == "Invalid"
    assert policies.deploy("d", 2).status == 201
    assert policies.deploy("d", 0).status == 422


def test_expressions_refer_to_variables(policies: Policies) -> None:
    policies.validating(
        "variables",
        policies.match("apps", "v1", "deployments"),
        [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas", "message": "is to be odd"},
        ],
        variables=[
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
        ],
    )
    policies.bind("variables")
    refused = soon(lambda: (a := policies.deploy("d", 1)).status == 422 and a).json
    assert "failed expression: variables.replicas > 1" in refused["message"]
    refused = policies.deploy("d", 2)
    assert refused.status == 422
    assert "denied request: is to be odd" in refused.json["message"]
    assert policies.deploy("d", 3).status == 201


def _checked(policy: Json) -> Any:
    status = policy.get("status", {})
    return status.get("observedGeneration") and "typeChecking" in status


def test_expressions_are_type_checked(policies: Policies) -> None:
    match = policies.match("apps", "v1", "deployments")
    good = policies.validating("good", match, [{"expression": "object.spec.replicas > 1"}])
    bad = policies.validating(
        "bad",
        match,
        [
            {
                "expression": "object.spec.replicas > '1'",
                "message": "wants replicas > 1",
                "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
            }
        ],
    )
    assert policies.api.wait(good, _checked)["status"]["typeChecking"].get("expressionWarnings", []) == []
    warnings = policies.api.wait(bad, _checked)["status"]["typeChecking"]["expressionWarnings"]
    assert [w["fieldRef"] for w in warnings] == [
        "spec.validations[0].expression",
        "spec.validations[0].messageExpression",
    ]
    assert warnings[0]["warning"].startswith(
        "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload"
    )
    assert "for '_>_' applied to '(int, string)'" in warnings[0]["warning"]
    assert "for '_+_' applied to '(string, int)'" in warnings[1]["warning"]


def test_expressions_over_custom_kinds_are_type_checked(policies: Policies, define: Define) -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "cronSpec": {"type": "string"},
                    "image": {"type": "string"},
                    "replicas": {"type": "integer"},
                },
            }
        },
    }
    kind = define(CustomKind(f"{policies.unique}.example.com", f"crontabs{policies.unique}", schema))
    match = policies.match(kind.group, "v1", kind.plural)
    path = policies.validating(
        "crd",
        match,
        [
            {"expression": "object.spec.replicas > 1"},  # it is right
            {"expression": "object.spec.replicas > '1'"},  # types
            {"expression": "object.spec.maxRetries < 10"},  # no such field
        ],
    )
    warnings = policies.api.wait(path, _checked)["status"]["typeChecking"]["expressionWarnings"]
    assert [w["fieldRef"] for w in warnings] == ["spec.validations[1].expression", "spec.validations[2].expression"]
    assert "undefined field 'maxRetries'" in warnings[1]["warning"]


def test_parameters_are_custom_objects(policies: Policies, define: Define, namespace: str) -> None:
    schema = {"type": "object", "properties": {"maxReplicas": {"type": "integer"}}}
    kind = define(CustomKind(f"{policies.unique}.example.com", f"limits{policies.unique}", schema))
    policies.api.create(kind.objects(namespace), kind.object("limit", maxReplicas=3))
    policies.validating(
        "params",
        policies.match("apps", "v1", "deployments"),
        [{"expression": "object.spec.replicas <= params.maxReplicas"}],
        paramKind={"apiVersion": f"{kind.group}/v1", "kind": kind.kind},
    )
    name = f"params-{policies.unique}.example.com"
    spec = {
        "policyName": name,
        "validationActions": ["Deny"],
        "paramRef": {"name": "limit", "namespace": namespace, "parameterNotFoundAction": "Deny"},
        "matchResources": {"namespaceSelector": {"matchLabels": {policies.unique: "true"}}},
    }
    policies._create("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", name, spec)
    soon(lambda: policies.deploy("d", 4).status == 422)
    assert policies.deploy("d", 3).status == 201


def test_a_deployment_is_mutated(policies: Policies) -> None:
    annotate = 'Object{metadata: Object.metadata{annotations: {"mutated-by": "admission-policy"}}}'
    patch = '[JSONPatch{op: "add", path: "/metadata/labels", value: {"patched": "true"}}]'
    policies.mutating(
        "mutate",
        policies.match("apps", "v1", "deployments"),
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": annotate}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
    )
    policies.bind("mutate", validating=False)

    def mutated() -> Any:
        answer = policies.deploy("d", 2)
        assert answer.status == 201
        return answer.json["metadata"].get("annotations") and answer.json

    made = soon(mutated)
    assert made["metadata"]["annotations"] == {"mutated-by": "admission-policy"}
    assert made["metadata"]["labels"] == {"patched": "true"}
