"""Validation of where a pod may run: node selection, affinity, tolerations and topology spread.

Spec: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations", "Pod Topology Spread Constraints".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.names import (
    validate_dns_label,
    validate_dns_subdomain,
    validate_label_value,
    validate_qualified_name,
)
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_text
from tiphys.base.errors import Cause

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS = ("Equal", "Exists")
_UNSATISFIABLE = ("DoNotSchedule", "ScheduleAnyway")
_INCLUSION = ("Honor", "Ignore")
_NOT_AN_OPERATOR = "not a valid selector operator"


def check_affinity(causes: list[Cause], affinity: JsonObject, path: str) -> None:
    node = affinity.get("nodeAffinity")
    if node is not None:
        _check_node_affinity(causes, node, f"{path}.nodeAffinity")
    for field in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(field)
        if rules is None:
            continue
        for index, term in enumerate(rules.get(_REQUIRED) or ()):
            _check_pod_term(causes, term, f"{path}.{field}.{_REQUIRED}[{index}]")
        for index, weighted in enumerate(rules.get(_PREFERRED) or ()):
            term_path = f"{path}.{field}.{_PREFERRED}[{index}]"
            _check_weight(causes, weighted, term_path)
            _check_pod_term(causes, weighted.get("podAffinityTerm") or {}, f"{term_path}.podAffinityTerm")


def _check_weight(causes: list[Cause], term: JsonObject, path: str) -> None:
    weight = term.get("weight") or 0
    if not 1 <= weight <= 100:
        causes.append(invalid_value(f"{path}.weight", weight, "must be in the range 1-100"))


def _check_node_affinity(causes: list[Cause], affinity: JsonObject, path: str) -> None:
    selector = affinity.get(_REQUIRED)
    if selector is not None:
        check_node_selector(causes, selector, f"{path}.{_REQUIRED}")
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        term_path = f"{path}.{_PREFERRED}[{index}]"
        _check_weight(causes, term, term_path)
        check_node_selector_term(causes, term.get("preference") or {}, f"{term_path}.preference", any_value=True)


def check_node_selector(causes: list[Cause], selector: JsonObject, path: str) -> None:
    terms = selector.get("nodeSelectorTerms")
    if not terms:
        causes.append(required(f"{path}.nodeSelectorTerms", "must have at least one node selector term"))
        return
    for index, term in enumerate(terms):
        check_node_selector_term(causes, term, f"{path}.nodeSelectorTerms[{index}]")


def check_node_selector_term(causes: list[Cause], term: JsonObject, path: str, any_value: bool = False) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        _check_expression(causes, requirement, f"{path}.matchExpressions[{index}]", any_value)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        _check_node_field(causes, requirement, f"{path}.matchFields[{index}]")


def _check_expression(causes: list[Cause], requirement: JsonObject, path: str, any_value: bool) -> None:
    operator = requirement.get("operator") or ""
    values = requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            causes.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            causes.append(
                forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            )
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            causes.append(required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        causes.append(invalid_value(f"{path}.operator", operator, _NOT_AN_OPERATOR))
    check_text(causes, f"{path}.key", requirement.get("key") or "", validate_qualified_name)
    if not any_value:
        for index, value in enumerate(values):
            check_text(causes, f"{path}.values[{index}]", value, validate_label_value)


def _check_node_field(causes: list[Cause], requirement: JsonObject, path: str) -> None:
    operator = requirement.get("operator") or ""
    values = requirement.get("values") or ()
    if operator not in ("In", "NotIn"):
        causes.append(invalid_value(f"{path}.operator", operator, _NOT_AN_OPERATOR))
    elif len(values) != 1:
        causes.append(
            required(
                f"{path}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
        )
    key = requirement.get("key") or ""
    if key != "metadata.name":
        causes.append(invalid_value(f"{path}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        check_text(causes, f"{path}.values[{index}]", value, validate_dns_subdomain)


def _check_pod_term(causes: list[Cause], term: JsonObject, path: str) -> None:
    selector = term.get("labelSelector")
    if selector is not None:
        causes += validate_label_selector(selector, f"{path}.labelSelector")
    selector = term.get("namespaceSelector")
    if selector is not None:
        causes += validate_label_selector(selector, f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        check_text(causes, f"{path}.namespace", namespace, validate_dns_label)
    _check_label_keys(causes, term, path)
    key = term.get("topologyKey") or ""
    if not key:
        causes.append(required(f"{path}.topologyKey", "can not be empty"))
    check_text(causes, f"{path}.topologyKey", key, validate_qualified_name)


def _check_label_keys(causes: list[Cause], term: JsonObject, path: str) -> None:
    match = term.get("matchLabelKeys") or ()
    mismatch = term.get("mismatchLabelKeys") or ()
    for field, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and term.get("labelSelector") is None:
            causes.append(forbidden(f"{path}.{field}", "must not be specified when labelSelector is not set"))
        for index, key in enumerate(keys):
            check_text(causes, f"{path}.{field}[{index}]", key, validate_qualified_name)
    for index, key in enumerate(match):
        if key in mismatch:
            causes.append(
                invalid_value(
                    f"{path}.matchLabelKeys[{index}]", key, "exists in both matchLabelKeys and mismatchLabelKeys"
                )
            )


def check_tolerations(causes: list[Cause], tolerations: list[Any], path: str) -> None:
    for index, toleration in enumerate(tolerations):
        get = toleration.get
        at = f"{path}[{index}]"
        key = get("key")
        if key:
            check_text(causes, f"{at}.key", key, validate_qualified_name)
        operator = get("operator") or ""
        if not key and operator != "Exists":
            causes.append(
                invalid_value(
                    f"{at}.operator",
                    operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if get("tolerationSeconds") is not None and get("effect") != "NoExecute":
            causes.append(
                invalid_value(
                    f"{at}.effect", get("effect") or "", "effect must be 'NoExecute' when `tolerationSeconds` is set"
                )
            )
        if operator in ("", "Equal"):
            complaints = validate_label_value(get("value") or "")
            if complaints:
                causes.append(invalid_value(f"{at}.operator", get("value"), ";".join(complaints)))
        elif operator == "Exists":
            if get("value"):
                # Upstream hands over the toleration itself as the bad value.
                causes.append(
                    invalid_value(f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'")
                )
        else:
            causes.append(not_supported(f"{at}.operator", operator, _OPERATORS))
        effect = get("effect")
        if effect and effect not in TAINT_EFFECTS:
            causes.append(not_supported(f"{at}.effect", effect, TAINT_EFFECTS))


def check_topology_spread(causes: list[Cause], constraints: list[Any], path: str) -> None:
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        get = constraint.get
        at = f"{path}[{index}]"
        skew = get("maxSkew") or 0
        if skew <= 0:
            causes.append(invalid_value(f"{at}.maxSkew", skew, "must be greater than zero"))
        key = get("topologyKey") or ""
        if not key:
            causes.append(required(f"{at}.topologyKey", "can not be empty"))
        else:
            check_text(causes, f"{at}.topologyKey", key, validate_qualified_name)
        when = get("whenUnsatisfiable") or ""
        if when not in _UNSATISFIABLE:
            causes.append(not_supported(f"{at}.whenUnsatisfiable", when, _UNSATISFIABLE))
        if (key, when) in seen:
            causes.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {when}}}"))
        seen.add((key, when))
        domains = get("minDomains")
        if domains is not None:
            if domains <= 0:
                causes.append(invalid_value(f"{at}.minDomains", domains, "must be greater than zero"))
            if when != "DoNotSchedule":
                causes.append(
                    invalid_value(
                        f"{at}.minDomains",
                        domains,
                        f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}",
                    )
                )
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = get(field)
            if policy is not None and policy not in _INCLUSION:
                causes.append(not_supported(f"{at}.{field}", policy, _INCLUSION))
        _check_spread_label_keys(causes, constraint, at)
        selector = get("labelSelector")
        if selector is not None:
            causes += validate_label_selector(selector, f"{at}.labelSelector")


def _check_spread_label_keys(causes: list[Cause], constraint: JsonObject, path: str) -> None:
    keys = constraint.get("matchLabelKeys") or ()
    if not keys:
        return
    selector = constraint.get("labelSelector")
    if selector is None:
        causes.append(forbidden(f"{path}.matchLabelKeys", "must not be specified when labelSelector is not set"))
        return
    for index, key in enumerate(keys):
        check_text(causes, f"{path}.matchLabelKeys[{index}]", key, validate_qualified_name)
        if key in (selector.get("matchLabels") or {}):
            causes.append(
                invalid_value(f"{path}.matchLabelKeys[{index}]", key, "exists in both matchLabelKeys and labelSelector")
            )
