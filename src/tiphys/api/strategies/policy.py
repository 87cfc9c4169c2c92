"""PodDisruptionBudgets, HorizontalPodAutoscalers and PriorityClasses: who may be disturbed, how many, who first.

Spec: Kubernetes documentation, "Specifying a Disruption Budget", "Horizontal Pod Autoscaling", "Pod Priority".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_path_segment
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import (
    POSITIVE,
    check_at_most_100_percent,
    check_enum,
    check_nonnegative,
    check_nonnegative_int_or_percent,
    check_same,
    check_text,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

_MAX_USER_PRIORITY = 1_000_000_000
_SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_METRIC_TYPES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_METRIC_FIELDS = {kind: kind[0].lower() + kind[1:] for kind in _METRIC_TYPES}
_TARGET_TYPES = ("AverageValue", "Utilization", "Value")


def validate_budget(budget: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(budget)
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        causes.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            check_nonnegative_int_or_percent(causes, f"spec.{field}", value)
            check_at_most_100_percent(causes, f"spec.{field}", value)
    causes += validate_label_selector(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION_POLICIES:
        causes.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION_POLICIES))
    return causes


def validate_budget_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    for field in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        check_nonnegative(causes, f"status.{field}", status.get(field))
    return causes


POD_DISRUPTION_BUDGET = Strategy(
    prepare_for_create=clear_status(currentHealthy=0, desiredHealthy=0, disruptionsAllowed=0, expectedPods=0),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_budget,
    validate_status_update=validate_budget_status,
    generation=True,
    allow_unconditional_update=False,
)


def validate_priority_class(priority: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    name = (priority.get("metadata") or {}).get("name") or ""
    value = priority.get("value") or 0
    if name.startswith("system-"):
        if _SYSTEM_CLASSES.get(name) != value or name not in _SYSTEM_CLASSES:
            causes.append(
                forbidden(
                    "metadata.name",
                    "priority class names with 'system-' prefix are reserved for system use only. error: "
                    + _system_complaint(name, value),
                )
            )
    elif value > _MAX_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {_MAX_USER_PRIORITY}"
        causes.append(forbidden("value", detail))
    policy = priority.get("preemptionPolicy")
    if policy is not None:
        check_enum(causes, "preemptionPolicy", policy, ("PreemptLowerPriority", "Never"))
    return causes


def _system_complaint(name: str, value: int) -> str:
    if name in _SYSTEM_CLASSES:
        return f"value of {name} PriorityClass must be {_SYSTEM_CLASSES[name]}"
    return f"{name} is not a known system priority class"


def validate_priority_class_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        causes.append(forbidden("value", "may not be changed in an update."))
    check_same(causes, "preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))
    return causes


def default_priority_class(priority: JsonObject) -> None:
    fill(priority, "preemptionPolicy", "PreemptLowerPriority")


PRIORITY_CLASS = Strategy(
    default=default_priority_class,
    validate=validate_priority_class,
    validate_update=validate_priority_class_update,
    generation=True,
)


def default_autoscaler(autoscaler: JsonObject) -> None:
    """v2: 80 % of the requested CPU without metrics, and rules for each direction where behaviour is told."""
    spec = autoscaler.setdefault("spec", {})
    fill(spec, "minReplicas", 1)
    if str(autoscaler.get("apiVersion", "")).endswith("/v1"):
        return
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
            **_told(behavior.get("scaleUp")),
        }
        behavior["scaleDown"] = {
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
            **_told(behavior.get("scaleDown")),
        }


def _told(rules: JsonObject | None) -> JsonObject:
    return {field: value for field, value in (rules or {}).items() if value is not None}


def prepare_autoscaler(autoscaler: JsonObject, context: Context) -> None:
    """Clear the status; what is not known yet is told as 0 or null."""
    first = "currentReplicas" if str(autoscaler.get("apiVersion", "")).endswith("/v1") else "currentMetrics"
    autoscaler["status"] = {first: 0 if first == "currentReplicas" else None, "desiredReplicas": 0}


def validate_autoscaler(autoscaler: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(autoscaler)
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        causes.append(invalid_value("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        causes.append(invalid_value("spec.maxReplicas", most, POSITIVE))
    if least is not None and most < least:
        causes.append(invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    for field in ("kind", "name"):
        value = target.get(field)
        if not value:
            causes.append(required(f"spec.scaleTargetRef.{field}"))
        else:
            check_text(causes, f"spec.scaleTargetRef.{field}", value, validate_path_segment)
    for index, metric in enumerate(spec.get("metrics") or ()):
        _check_metric(causes, metric, f"spec.metrics[{index}]")
    _check_behavior(causes, spec.get("behavior") or {})
    utilization = spec.get("targetCPUUtilizationPercentage")
    if utilization is not None and utilization < 1:
        causes.append(invalid_value("spec.targetCPUUtilizationPercentage", utilization, POSITIVE))
    return causes


def _check_metric(causes: list[Cause], metric: JsonObject, path: str) -> None:
    kind = metric.get("type") or ""
    if not kind:
        causes.append(required(f"{path}.type", "must specify a metric source type"))
        return
    if kind not in _METRIC_TYPES:
        causes.append(not_supported(f"{path}.type", kind, _METRIC_TYPES))
        return
    field = _METRIC_FIELDS[kind]
    source = metric.get(field)
    if source is None:
        causes.append(required(f"{path}.{field}", "must populate information for the given metric source"))
        return
    if kind in ("Resource", "ContainerResource") and not source.get("name"):
        causes.append(required(f"{path}.{field}.name", "must specify a resource name"))
    if kind in ("Pods", "Object", "External") and not (source.get("metric") or {}).get("name"):
        causes.append(required(f"{path}.{field}.metric.name", "must specify a metric name"))
    target = source.get("target") or {}
    target_kind = target.get("type") or ""
    if not target_kind:
        causes.append(required(f"{path}.{field}.target.type", "must specify a metric target type"))
    elif target_kind not in _TARGET_TYPES:
        detail = "must be either Utilization, Value, or AverageValue"
        causes.append(invalid_value(f"{path}.{field}.target.type", target_kind, detail))
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        causes.append(invalid_value(f"{path}.{field}.target.averageUtilization", utilization, POSITIVE))


def _check_behavior(causes: list[Cause], behavior: JsonObject) -> None:
    for direction in ("scaleUp", "scaleDown"):
        rules: Any = behavior.get(direction)
        if not rules:
            continue
        path = f"spec.behavior.{direction}"
        window_s = rules.get("stabilizationWindowSeconds")
        check_nonnegative(causes, f"{path}.stabilizationWindowSeconds", window_s)
        if window_s is not None and window_s > 3600:
            causes.append(
                invalid_value(f"{path}.stabilizationWindowSeconds", window_s, "must be less than or equal to 3600")
            )
        select = rules.get("selectPolicy")
        if select is not None and select not in ("Max", "Min", "Disabled"):
            causes.append(not_supported(f"{path}.selectPolicy", select, ("Disabled", "Max", "Min")))
        policies = rules.get("policies") or []
        if not policies:
            causes.append(required(f"{path}.policies", "must specify at least one Policy"))
        for index, policy in enumerate(policies):
            _check_policy(causes, policy, f"{path}.policies[{index}]")


def _check_policy(causes: list[Cause], policy: JsonObject, path: str) -> None:
    if policy.get("type") not in ("Percent", "Pods"):
        causes.append(not_supported(f"{path}.type", policy.get("type") or "", ("Percent", "Pods")))
    for field in ("value", "periodSeconds"):
        value = policy.get(field) or 0
        if value <= 0:
            causes.append(invalid_value(f"{path}.{field}", value, "must be greater than zero"))
    if (policy.get("periodSeconds") or 0) > 1800:
        causes.append(
            invalid_value(f"{path}.periodSeconds", policy["periodSeconds"], "must be less than or equal to 1800")
        )


HORIZONTAL_POD_AUTOSCALER = Strategy(
    default=default_autoscaler,
    prepare_for_create=prepare_autoscaler,
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_autoscaler,
)
