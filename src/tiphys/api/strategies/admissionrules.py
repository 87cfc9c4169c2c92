"""What webhooks and admission policies match: rules, selectors, match conditions' names; defaults and validation.

The functions get the path of what they check, so that webhooks (`webhooks[0].rules[1]`) and policies
(`spec.matchConstraints.resourceRules[1]`) share them.

Spec: API reference, admissionregistration.k8s.io/v1, RuleWithOperations, MatchResources; Kubernetes documentation,
"Dynamic Admission Control", "Matching requests: rules".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_text, fill, find_duplicates
from tiphys.base.errors import Cause

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
MUTATING_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_MATCH_POLICIES = ("Equivalent", "Exact")
_SCOPES = ("*", "Cluster", "Namespaced")
_SELECTORS = ("namespaceSelector", "objectSelector")


def default_match_resources(resources: JsonObject | None) -> None:
    """Fill what a MatchResources leaves open: everything matches, in any version."""
    if resources is None:
        return
    fill(resources, "matchPolicy", "Equivalent")
    for field in _SELECTORS:
        if resources.get(field) is None:
            resources[field] = {}
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in resources.get(field) or ():
            fill(rule, "scope", "*")


def check_match_resources(causes: list[Cause], resources: JsonObject | None, path: str) -> None:
    """Append the causes of a bad MatchResources; None is fine."""
    if resources is None:
        return
    policy = resources.get("matchPolicy")
    if policy is None:
        causes.append(required(f"{path}.matchPolicy"))
    elif policy not in _MATCH_POLICIES:
        causes.append(not_supported(f"{path}.matchPolicy", policy, _MATCH_POLICIES))
    for field in _SELECTORS:
        selector = resources.get(field)
        if selector is None:
            causes.append(required(f"{path}.{field}"))
        else:
            causes += validate_label_selector(selector, f"{path}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(resources.get(field) or ()):
            _check_named_rule(causes, rule, f"{path}.{field}[{index}]")


def _check_named_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    resource_names = rule.get("resourceNames") or []
    repeated = dict(find_duplicates(resource_names))
    for index, name in enumerate(resource_names):
        check_text(causes, f"{path}.resourceNames[{index}]", name, names.validate_path_segment)
        if index in repeated:
            causes.append(duplicate(f"{path}.resourceNames[{index}]", name))
    check_rule(causes, rule, path)


def check_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    """Append the causes of a bad RuleWithOperations."""
    operations = rule.get("operations") or []
    _check_alone(causes, operations, "operations", "operations", path)
    for index, operation in enumerate(operations):
        if operation not in OPERATIONS:
            causes.append(not_supported(f"{path}.operations[{index}]", operation, OPERATIONS))
    _check_alone(causes, rule.get("apiGroups") or [], "apiGroups", "API groups", path)
    versions = rule.get("apiVersions") or []
    _check_alone(causes, versions, "apiVersions", "API versions", path)
    causes += [required(f"{path}.apiVersions[{index}]") for index, version in enumerate(versions) if not version]
    _check_resources(causes, rule.get("resources") or [], f"{path}.resources")
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        causes.append(not_supported(f"{path}.scope", scope, _SCOPES))


def _check_alone(causes: list[Cause], values: list[str], field: str, what: str, path: str) -> None:
    """A list that is not empty, in which "*" stands alone."""
    if not values:
        causes.append(required(f"{path}.{field}"))
    elif "*" in values and len(values) > 1:
        causes.append(invalid_value(f"{path}.{field}", values, f"if '*' is present, must not specify other {what}"))


def _check_resources(causes: list[Cause], resources: Sequence[str], path: str) -> None:
    """Patterns `a`, `a/b`, `a/*`, `*/b`, `*`, `*/*` of which none may make another superfluous."""
    if not resources:
        causes.append(required(path))
    parents: set[str] = set()
    children: set[str] = set()
    plain = False
    for index, resource in enumerate(resources):
        if not resource:
            causes.append(required(f"{path}[{index}]"))
            continue
        parent, slash, child = resource.partition("/")
        if not slash:
            plain = plain or resource != "*"
            continue
        if parent in parents:
            detail = f"if '{parent}/*' is present, must not specify {resource}"
            causes.append(invalid_value(f"{path}[{index}]", resource, detail))
        if child in children:
            detail = f"if '*/{child}' is present, must not specify {resource}"
            causes.append(invalid_value(f"{path}[{index}]", resource, detail))
        if child == "*":
            parents.add(parent)
        if parent == "*":
            children.add(child)
    if "*/*" in resources and len(resources) > 1:
        causes.append(invalid_value(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and plain:
        detail = "if '*' is present, must not specify other resources without subresources"
        causes.append(invalid_value(path, resources, detail))


def check_operations(causes: list[Cause], rules: Sequence[JsonObject], allowed: Sequence[str], path: str) -> None:
    """Append causes for operations that rules of this sort of policy may not name."""
    for rule in rules:
        causes += [not_supported(path, name, allowed) for name in rule.get("operations") or () if name not in allowed]


def check_param_ref(causes: list[Cause], ref: JsonObject | None, path: str) -> None:
    """Append the causes of a bad ParamRef; None is fine."""
    if ref is None:
        return
    name, selector = ref.get("name") or "", ref.get("selector")
    exclusive = "name and selector are mutually exclusive"
    if name:
        check_text(causes, f"{path}.name", name, names.validate_path_segment)
        if selector is not None:
            causes.append(forbidden(f"{path}.name", exclusive))
    if selector is not None:
        causes += validate_label_selector(selector, f"{path}.selector")
        if name:
            causes.append(forbidden(f"{path}.selector", exclusive))
    if not name and selector is None:
        causes.append(required(path, "one of name or selector must be specified"))
    action: Any = ref.get("parameterNotFoundAction")
    if not action:
        causes.append(required(f"{path}.parameterNotFoundAction"))
    elif action not in ("Deny", "Allow"):
        causes.append(not_supported(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow")))
