"""LimitRanges and ResourceQuotas.

Spec: Kubernetes documentation, "Limit Ranges", "Resource Quotas".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import duplicate, forbidden, immutable, invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_qualified_name
from tiphys.api.strategies.fields import check_text, clear_status, keep_spec, keep_status, spec_of
from tiphys.api.strategies.resources import (
    check_amount,
    check_quota_resource_name,
    check_resource_name,
    nanos,
)
from tiphys.base.errors import Cause

_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_EXISTS_ONLY = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_PARTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def default_limit_range(limit_range: JsonObject) -> None:
    """Of a container: the default limit is the maximum, the default request the default limit or the minimum."""
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits = item.setdefault("default", {})
        requests = item.setdefault("defaultRequest", {})
        for name, amount in (item.get("max") or {}).items():
            limits.setdefault(name, amount)
        for name, amount in limits.items():
            requests.setdefault(name, amount)
        for name, amount in (item.get("min") or {}).items():
            requests.setdefault(name, amount)
        for field in ("default", "defaultRequest"):
            if not item[field]:
                del item[field]


def validate_limit_range(limit_range: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate(spec_of(limit_range).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = item.get("type") or ""
        check_text(causes, f"{path}.type", kind, validate_qualified_name)
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        _check_limit_item(causes, item, kind, path)
    return causes


def _check_limit_item(causes: list[Cause], item: JsonObject, kind: str, path: str) -> None:
    for field in _PARTS:
        for name in item.get(field) or ():
            check_resource_name(causes, f"{path}.{field}[{name}]", name)
    if kind == "Pod":
        for field in ("default", "defaultRequest"):
            if item.get(field):
                causes.append(forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
    if kind == "PersistentVolumeClaim" and "storage" not in {**(item.get("min") or {}), **(item.get("max") or {})}:
        causes.append(
            required(f"{path}.limits", "either minimum or maximum storage value is required, but neither was provided")
        )
    for name in sorted({name for field in _PARTS for name in item.get(field) or ()}):
        _check_order(causes, item, name, path)


def _check_order(causes: list[Cause], item: JsonObject, name: str, path: str) -> None:
    """min <= defaultRequest <= default <= max, as far as they are told."""
    low, high = (item.get("min") or {}).get(name), (item.get("max") or {}).get(name)
    request, limit = (item.get("defaultRequest") or {}).get(name), (item.get("default") or {}).get(name)
    ratio = (item.get("maxLimitRequestRatio") or {}).get(name)
    told = (
        ("min", low, "max", high, "min value {} is greater than max value {}"),
        ("defaultRequest", low, "", request, "min value {} is greater than default request value {}"),
        ("defaultRequest", request, "", high, "default request value {} is greater than max value {}"),
        ("defaultRequest", request, "", limit, "default request value {} is greater than default limit value {}"),
        ("default", low, "", limit, "min value {} is greater than default value {}"),
        ("default", limit, "", high, "default value {} is greater than max value {}"),
    )
    for field, smaller, _, larger, detail in told:
        if smaller is not None and larger is not None and nanos(smaller) > nanos(larger):
            value = smaller if detail.startswith(("min value {} is greater than max", "default")) else larger
            causes.append(invalid_value(f"{path}.{field}[{name}]", str(value), detail.format(smaller, larger)))
    if ratio is not None and nanos(ratio) < 10**9:
        causes.append(
            invalid_value(f"{path}.maxLimitRequestRatio[{name}]", str(ratio), f"ratio {ratio} is less than 1")
        )


LIMIT_RANGE = Strategy(default=default_limit_range, validate=validate_limit_range, allow_create_on_update=True)


def validate_quota(quota: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(quota)
    for name, amount in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        check_quota_resource_name(causes, path, name)
        check_amount(causes, path, name, amount)
    _check_scopes(causes, spec.get("scopes") or [])
    selector = spec.get("scopeSelector")
    if selector is not None:
        _check_scope_selector(causes, selector)
    return causes


def _check_scopes(causes: list[Cause], scopes: list[Any]) -> None:
    for scope in scopes:
        if scope not in _SCOPES:
            causes.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
    for one, other in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
        if one in scopes and other in scopes:
            causes.append(invalid_value("spec.scopes", scopes, "conflicting scopes"))


def _check_scope_selector(causes: list[Cause], selector: JsonObject) -> None:
    path = "spec.scopeSelector.matchExpressions"
    for expression in selector.get("matchExpressions") or ():
        scope, operator = expression.get("scopeName") or "", expression.get("operator") or ""
        values = expression.get("values") or []
        if scope not in _SCOPES:
            causes.append(invalid_value(f"{path}.scopeName", scope, "unsupported scope"))
        elif scope in _EXISTS_ONLY and operator != "Exists":
            causes.append(
                invalid_value(
                    f"{path}.operator",
                    operator,
                    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, "
                    "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort "
                    "or ResourceQuotaScopeCrossNamespacePodAffinity",
                )
            )
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(
                    required(
                        f"{path}.values",
                        "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                    )
                )
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                causes.append(invalid_value(f"{path}.values", values, detail))
        else:
            causes.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))


def validate_quota_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    scopes, before = spec_of(new).get("scopes") or [], spec_of(old).get("scopes") or []
    return [] if set(scopes) == set(before) else [immutable("spec.scopes", scopes)]


RESOURCE_QUOTA = Strategy(
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_quota,
    validate_update=validate_quota_update,
)
