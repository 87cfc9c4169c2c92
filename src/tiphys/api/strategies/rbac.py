"""Roles and bindings.

Who may grant what is the API server's escalation check; here only the shape. Spec: Kubernetes documentation, "Using
RBAC Authorization".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_subdomain, validate_path_segment
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_text, fill
from tiphys.base.errors import Cause

GROUP = "rbac.authorization.k8s.io"


def default_role(role: JsonObject) -> None:
    """A role without rules says so."""
    role.setdefault("rules", None)


def default_binding(binding: JsonObject) -> None:
    reference = binding.get("roleRef")
    if reference is not None:
        fill(reference, "apiGroup", GROUP)
    for subject in binding.get("subjects") or ():
        if not subject.get("apiGroup"):
            if subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP
            else:
                subject.pop("apiGroup", None)


def validate_role(role: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(role.get("rules") or ()):
        _check_rule(causes, rule, True, f"rules[{index}]")
    return causes


def validate_cluster_role(role: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(role.get("rules") or ()):
        _check_rule(causes, rule, False, f"rules[{index}]")
    aggregation = role.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            causes.append(
                required(
                    "aggregationRule.clusterRoleSelectors",
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                )
            )
        for index, selector in enumerate(selectors):
            causes += validate_label_selector(selector, f"aggregationRule.clusterRoleSelectors[{index}]")
    return causes


def _check_rule(causes: list[Cause], rule: JsonObject, namespaced: bool, path: str) -> None:
    if not rule.get("verbs"):
        causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if rule.get("nonResourceURLs"):
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            causes.append(invalid_value(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            causes.append(invalid_value(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail))
        return
    if not rule.get("apiGroups"):
        causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))


def validate_role_binding(binding: JsonObject, context: Context) -> list[Cause]:
    return _validate_binding(binding, ("ClusterRole", "Role"), namespaced=True)


def validate_cluster_role_binding(binding: JsonObject, context: Context) -> list[Cause]:
    return _validate_binding(binding, ("ClusterRole",), namespaced=False)


def _validate_binding(binding: JsonObject, kinds: tuple[str, ...], *, namespaced: bool) -> list[Cause]:
    causes: list[Cause] = []
    reference = binding.get("roleRef") or {}
    if reference.get("apiGroup") != GROUP:
        causes.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (GROUP,)))
    if reference.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", reference.get("kind") or "", kinds))
    name = reference.get("name") or ""
    if not name:
        causes.append(required("roleRef.name"))
    else:
        check_text(causes, "roleRef.name", name, validate_path_segment)
    for index, subject in enumerate(binding.get("subjects") or ()):
        _check_subject(causes, subject, namespaced, f"subjects[{index}]")
    return causes


def _check_subject(causes: list[Cause], subject: JsonObject, namespaced: bool, path: str) -> None:
    if not subject.get("name"):
        causes.append(required(f"{path}.name"))
    kind = subject.get("kind") or ""
    group: Any = subject.get("apiGroup") or ""
    if kind == "ServiceAccount":
        if subject.get("name"):
            check_text(causes, f"{path}.name", subject["name"], validate_dns_subdomain)
        if group:
            causes.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            causes.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            causes.append(not_supported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        causes.append(not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))


def validate_binding_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [invalid_value("roleRef", new.get("roleRef"), "cannot change roleRef")]


def _strategy(**hooks: Any) -> Strategy:
    return Strategy(name_rule="path-segment", allow_create_on_update=True, **hooks)


ROLE = _strategy(default=default_role, validate=validate_role)
CLUSTER_ROLE = _strategy(default=default_role, validate=validate_cluster_role)
ROLE_BINDING = _strategy(
    default=default_binding, validate=validate_role_binding, validate_update=validate_binding_update
)
CLUSTER_ROLE_BINDING = _strategy(
    default=default_binding, validate=validate_cluster_role_binding, validate_update=validate_binding_update
)
