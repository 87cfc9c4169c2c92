"""Policies, bindings and things they are about, for the tests of admission policies."""

from __future__ import annotations

from typing import Any

GROUP = "/apis/admissionregistration.k8s.io/v1"
VALIDATING = f"{GROUP}/validatingadmissionpolicies"
VALIDATING_BINDINGS = f"{GROUP}/validatingadmissionpolicybindings"
MUTATING = f"{GROUP}/mutatingadmissionpolicies"
MUTATING_BINDINGS = f"{GROUP}/mutatingadmissionpolicybindings"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def rule(group: str = "", plural: str = "configmaps", *operations: str, **more: Any) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": list(operations) or ["CREATE", "UPDATE"],
        "resources": [plural],
        **more,
    }


def validating(name: str = "p", *expressions: str | dict[str, Any], **spec: Any) -> dict[str, Any]:
    validations = [{"expression": e} if isinstance(e, str) else e for e in expressions]
    whole = {"matchConstraints": {"resourceRules": [rule()]}, "validations": validations, **spec}
    return {"metadata": {"name": name}, "spec": whole}


def mutating(name: str = "p", *expressions: str, **spec: Any) -> dict[str, Any]:
    mutations = []
    for text in expressions:
        is_patch = text.lstrip().startswith("[") or "JSONPatch" in text
        field = "jsonPatch" if is_patch else "applyConfiguration"
        mutations.append({"patchType": "JSONPatch" if is_patch else "ApplyConfiguration", field: {"expression": text}})
    whole = {
        "matchConstraints": {"resourceRules": [rule()]},
        "mutations": mutations,
        "reinvocationPolicy": "Never",
        **spec,
    }
    return {"metadata": {"name": name}, "spec": whole}


def binding(policy: str = "p", name: str = "b", actions: list[str] | None = None, **spec: Any) -> dict[str, Any]:
    """Of a validating policy; `actions` [] leaves them out, as bindings of mutating policies have it."""
    whole = {"policyName": policy, "validationActions": ["Deny"] if actions is None else actions, **spec}
    if not whole["validationActions"]:
        del whole["validationActions"]
    return {"metadata": {"name": name}, "spec": whole}


def config_map(name: str = "c", labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


def deployment(name: str = "web", replicas: int = 1) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "nginx"}]},
            },
        },
    }
