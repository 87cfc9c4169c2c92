"""Conversions between served versions of built-in kinds whose versions differ in more than apiVersion.

Each function takes (object, from apiVersion, to apiVersion) and returns a new object; it never changes its argument
and shares the parts that stay. What an older version cannot say is kept in annotations, as upstream keeps it, so that a
round trip loses nothing. Kinds without an entry in CONVERSIONS differ in apiVersion alone.

Spec: API conventions, "API versioning": every version of an object must carry the same information.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tiphys.api.kind import JsonObject

Conversion = Callable[[JsonObject, str, str], JsonObject]

_EVENT_TO_NEW = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_TO_CORE = {new: core for core, new in _EVENT_TO_NEW.items()}


def convert_event(obj: JsonObject, source: str, target: str) -> JsonObject:
    """Convert between core v1 events and those of events.k8s.io/v1: the same fields under other names."""
    names: Mapping[str, str] = {}
    if source != target:
        names = _EVENT_TO_CORE if target == "v1" else _EVENT_TO_NEW
    return {**{names.get(key, key): value for key, value in obj.items()}, "apiVersion": target}


_HPA_ANNOTATIONS = "autoscaling.alpha.kubernetes.io/"


def convert_hpa(obj: JsonObject, source: str, target: str) -> JsonObject:
    """Convert between autoscaling/v1, which knows CPU utilization only, and v2 (v2beta2 has v2's shape)."""
    if source == "autoscaling/v1" and target != "autoscaling/v1":
        return _hpa_to_v2(obj, target)
    if target == "autoscaling/v1" and source != "autoscaling/v1":
        return _hpa_to_v1(obj, target)
    return {**obj, "apiVersion": target}


def _hpa_to_v2(obj: JsonObject, target: str) -> JsonObject:
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    kept = {name: _kept(annotations.pop(_HPA_ANNOTATIONS + name, "")) for name in _HPA_KEPT}
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    spec = dict(obj.get("spec") or {})
    utilization = spec.pop("targetCPUUtilizationPercentage", None)
    metrics = [_metric_to_v2(metric) for metric in kept["metrics"] or []]
    if utilization is not None:
        target_of = {"type": "Utilization", "averageUtilization": utilization}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target_of}})
    if metrics:
        spec["metrics"] = metrics
    if kept["behavior"]:
        spec["behavior"] = kept["behavior"]
    converted = {**obj, "apiVersion": target, "metadata": metadata, "spec": spec}
    if "status" in obj or kept["conditions"] or kept["current-metrics"]:
        status = dict(obj.get("status") or {})
        percent = status.pop("currentCPUUtilizationPercentage", None)
        current = [_current_to_v2(metric) for metric in kept["current-metrics"] or []]
        if percent is not None and not any(_is_cpu(metric) for metric in current):
            current.append(
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}
            )
        if current:
            status["currentMetrics"] = current
        if kept["conditions"]:
            status["conditions"] = kept["conditions"]
        converted["status"] = status
    return converted


_HPA_KEPT = ("metrics", "behavior", "conditions", "current-metrics")


def _kept(text: str) -> Any:
    try:
        return orjson.loads(text) if text else None
    except ValueError:
        return None


def _is_cpu(metric: Mapping[str, Any]) -> bool:
    return metric.get("type") == "Resource" and (metric.get("resource") or {}).get("name") == "cpu"


def _hpa_to_v1(obj: JsonObject, target: str) -> JsonObject:
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    spec = dict(obj.get("spec") or {})
    others = []
    for metric in spec.pop("metrics", None) or []:
        utilization = ((metric.get("resource") or {}).get("target") or {}).get("averageUtilization")
        if _is_cpu(metric) and utilization is not None and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = utilization
        else:
            others.append(_metric_to_v1(metric))
    _keep(annotations, "metrics", others)
    _keep(annotations, "behavior", spec.pop("behavior", None))
    converted = {**obj, "apiVersion": target, "metadata": metadata, "spec": spec}
    if "status" in obj:
        status = dict(obj["status"] or {})
        current = status.pop("currentMetrics", None) or []
        for metric in current:
            percent = ((metric.get("resource") or {}).get("current") or {}).get("averageUtilization")
            if _is_cpu(metric) and percent is not None:
                status["currentCPUUtilizationPercentage"] = percent
        _keep(annotations, "current-metrics", [_current_to_v1(metric) for metric in current])
        _keep(annotations, "conditions", status.pop("conditions", None))
        converted["status"] = {"currentReplicas": 0, **status}
    if annotations:
        metadata["annotations"] = annotations
    return converted


def _keep(annotations: dict[str, str], name: str, value: Any) -> None:
    if value:
        annotations[_HPA_ANNOTATIONS + name] = orjson.dumps(value).decode()


_METRIC_SOURCES = ("resource", "containerResource", "pods", "object", "external")


def _rename(source: JsonObject, names: Mapping[str, str]) -> JsonObject:
    return {new: source[old] for old, new in names.items() if source.get(old) is not None}


def _metric_to_v1(metric: JsonObject) -> JsonObject:
    """Return a v2 metric in the flat form that the annotation holds."""
    return {"type": metric.get("type"), **{n: _flat(n, metric[n], "target") for n in _METRIC_SOURCES if metric.get(n)}}


def _current_to_v1(metric: JsonObject) -> JsonObject:
    return {"type": metric.get("type"), **{n: _flat(n, metric[n], "current") for n in _METRIC_SOURCES if metric.get(n)}}


def _flat(kind: str, source: JsonObject, which: str) -> JsonObject:
    value = source.get(which) or {}
    flat = _rename(source, {"name": "name", "container": "container"})
    metric = source.get("metric") or {}
    selector = "metricSelector" if kind == "external" else "selector"
    flat.update(_rename(metric, {"name": "metricName", "selector": selector}))
    if kind == "object" and source.get("describedObject"):
        flat["target"] = source["describedObject"]
    flat.update(_rename(value, _flat_names(kind, which)))
    return flat


def _flat_names(kind: str, which: str) -> dict[str, str]:
    """Return the names of a v2 target's (or current value's) fields in the flat form."""
    if kind == "object":
        return {"value": f"{which}Value", "averageValue": "averageValue"}
    average = f"{which}AverageValue"
    return {"value": f"{which}Value", "averageValue": average, "averageUtilization": f"{which}AverageUtilization"}


def _metric_to_v2(metric: JsonObject) -> JsonObject:
    return {"type": metric.get("type"), **{n: _nest(n, metric[n], "target") for n in _METRIC_SOURCES if metric.get(n)}}


def _current_to_v2(metric: JsonObject) -> JsonObject:
    return {"type": metric.get("type"), **{n: _nest(n, metric[n], "current") for n in _METRIC_SOURCES if metric.get(n)}}


def _nest(kind: str, flat: JsonObject, which: str) -> JsonObject:
    source = _rename(flat, {"name": "name", "container": "container"})
    selector = "metricSelector" if kind == "external" else "selector"
    if flat.get("metricName") is not None:
        source["metric"] = _rename(flat, {"metricName": "name", selector: "selector"})
    if kind == "object" and flat.get("target"):
        source["describedObject"] = flat["target"]
    value = _rename(flat, {name: field for field, name in _flat_names(kind, which).items()})
    if which == "target":
        # One of the three is set: Utilization before AverageValue before Value.
        kinds = (("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value"))
        value = {"type": next((name for field, name in kinds if field in value), "Value"), **value}
    source[which] = value
    return source


_SHARES = {False: "assuredConcurrencyShares", True: "nominalConcurrencyShares"}


def convert_priority_level(obj: JsonObject, source: str, target: str) -> JsonObject:
    """Convert priority levels: v1beta1 and v1beta2 name the shares of a limited level otherwise than later versions."""
    converted = {**obj, "apiVersion": target}
    limited = (obj.get("spec") or {}).get("limited")
    old = _SHARES[not source.endswith(("v1beta1", "v1beta2"))]
    new = _SHARES[not target.endswith(("v1beta1", "v1beta2"))]
    if limited and old != new and old in limited:
        renamed = {new if key == old else key: value for key, value in limited.items()}
        converted["spec"] = {**obj["spec"], "limited": renamed}
    return converted


CONVERSIONS: Mapping[tuple[str, str], Conversion] = {
    ("", "events"): convert_event,
    ("events.k8s.io", "events"): convert_event,
    ("autoscaling", "horizontalpodautoscalers"): convert_hpa,
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): convert_priority_level,
}
"""(group, plural) -> conversion."""
