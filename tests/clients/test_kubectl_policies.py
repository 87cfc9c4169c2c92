"""kubectl before admission policies: what it prints when they refuse, warn or change, and how it writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubectl_cli import Kubectl

GROUP = "admissionregistration.k8s.io/v1"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {containers: [{name: c, image: busybox, command: [sleep, "10000"]}]}
"""


class Policies:
    """Makes policies for the test's own namespace; removes them at the end."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._made: list[str] = []

    def add(self, sort: str, group: str, resource: str, operation: str, **spec: Any) -> str:
        name = f"{self._kubectl.namespace}-{len(self._made)}"
        rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}
        kind = f"{sort.capitalize()}AdmissionPolicy"
        policy = {"matchConstraints": {"resourceRules": [rule]}, **spec}
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self._kubectl.namespace}}
        binding: dict[str, Any] = {"policyName": name, "matchResources": {"namespaceSelector": selector}}
        if sort == "validating":
            binding["validationActions"] = policy.pop("actions", ["Deny"])
        for what, told in ((kind, policy), (f"{kind}Binding", binding)):
            self._kubectl.apply(
                json.dumps({"apiVersion": GROUP, "kind": what, "metadata": {"name": name}, "spec": told})
            )
            self._made.append(f"{what.lower()}/{name}")
        return name

    def remove(self) -> None:
        if self._made:
            self._kubectl("delete", *self._made)


@pytest.fixture
def policies(kubectl: Kubectl) -> Iterator[Policies]:
    made = Policies(kubectl)
    yield made
    made.remove()


def test_a_refusal_is_told_by_every_verb(kubectl: Kubectl, policies: Policies) -> None:
    name = policies.add(
        "validating",
        "apps",
        "deployments",
        "*",
        validations=[
            {
                "expression": "request.operation == 'DELETE' || object.spec.replicas <= 2",
                "messageExpression": "'at most 2 replicas, not ' + string(object.spec.replicas)",
            }
        ],
    )
    told = f"ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: at most 2 replicas, not"
    said = kubectl.refused("create", "deployment", "web", "--image=busybox", "--replicas=3")
    assert said == f'error: failed to create deployment: deployments.apps "web" is forbidden: {told} 3\n'
    kubectl("create", "deployment", "web", "--image=busybox", "--replicas=2")
    patch = '{"spec":{"replicas":4}}'
    assert kubectl.refused("patch", "deployment", "web", "-p", patch) == (
        f'The deployments "web" is invalid: : {told} 4\n'  # kubectl prints the cause, which names no field
    )
    kubectl("scale", "deployment", "web", "--replicas=3")  # the scale subresource is not matched


def test_warnings_are_printed_and_the_write_goes_through(kubectl: Kubectl, policies: Policies) -> None:
    name = policies.add(
        "validating",
        "",
        "configmaps",
        "CREATE",
        actions=["Warn", "Audit"],
        validations=[{"expression": "has(object.metadata.labels)", "message": "a label would be nice"}],
    )
    done = kubectl.run("create", "configmap", "c")
    assert done.returncode == 0
    assert done.stderr == (
        f"Warning: Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{name}': "
        "a label would be nice\n"
    )


def test_an_exec_is_refused(kubectl: Kubectl, policies: Policies) -> None:
    kubectl.apply(POD)
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=30s")
    policies.add(
        "validating",
        "",
        "pods/exec",
        "CONNECT",
        validations=[{"expression": "!object.command.exists(c, c == 'sh')", "message": "no shells"}],
        matchConditions=[{"name": "named", "expression": "request.name == 'one'"}],
    )
    assert "denied request: no shells" in kubectl.refused("exec", "one", "--", "sh", "-c", "true")
    assert "no shells" not in kubectl.run("exec", "one", "--", "true").stderr


def test_a_sidecar_is_added_and_seen_by_the_deployment(kubectl: Kubectl, policies: Policies) -> None:
    policies.add(
        "mutating",
        "",
        "pods",
        "CREATE",
        reinvocationPolicy="IfNeeded",
        matchConditions=[
            {"name": "new", "expression": '!object.spec.containers.exists(c, c.name == "side")'},
        ],
        mutations=[
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": "Object{spec: Object.spec{containers: "
                    '[Object.spec.containers{name: "side", image: "side:1"}]}}'
                },
            },
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": '[JSONPatch{op: "add", path: "/metadata/annotations", value: {"by": "policy"}}]'
                },
            },
        ],
    )
    kubectl("create", "deployment", "web", "--image=busybox")
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    (pod,) = json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    assert [container["name"] for container in pod["spec"]["containers"]] == ["busybox", "side"]
    assert pod["spec"]["containers"][1]["imagePullPolicy"] == "IfNotPresent"
    assert pod["metadata"]["annotations"]["by"] == "policy"


def test_a_policy_that_does_not_compile_is_refused_with_the_place(kubectl: Kubectl) -> None:
    policy = {
        "apiVersion": GROUP,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{kubectl.namespace}-bad"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "validations": [{"expression": "object.spec.x ==\n  variables.missing"}],
        },
    }
    said = kubectl.refused("apply", "-f", "-", stdin=json.dumps(policy))
    assert said.startswith(f'The ValidatingAdmissionPolicy "{kubectl.namespace}-bad" is invalid: ')
    assert "ERROR: <input>:2:3: undeclared reference to 'variables' (in container '')" in said
    assert " |   variables.missing\n | ..^" in said


def test_the_type_check_is_shown_by_describe(kubectl: Kubectl, policies: Policies) -> None:
    name = policies.add(
        "validating",
        "apps",
        "deployments",
        "CREATE",
        matchConstraints={
            "resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
            ]
        },
        validations=[{"expression": "object.spec.replicas > '1'"}],
    )
    kubectl(
        "wait", "--for=jsonpath={.status.observedGeneration}=1", f"validatingadmissionpolicy/{name}", "--timeout=10s"
    )
    described = kubectl("describe", f"validatingadmissionpolicy/{name}")
    assert "Field Ref:  spec.validations[0].expression" in described
    assert "found no matching overload for '_>_' applied to '(int, string)'" in described
