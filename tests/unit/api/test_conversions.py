"""Conversions between versions lose nothing and leave their argument alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tiphys.api.conversions import convert_event, convert_hpa, convert_priority_level

V1, V2 = "autoscaling/v1", "autoscaling/v2"


def test_events_of_both_groups_are_the_same_under_other_names() -> None:
    core = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "m",
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:01Z",
        "count": 2,
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
        "type": "Normal",
        "reason": "Started",
    }
    before = copy.deepcopy(core)
    new = convert_event(core, "v1", "events.k8s.io/v1")
    assert core == before
    assert new["apiVersion"] == "events.k8s.io/v1"
    assert (new["regarding"], new["note"], new["deprecatedCount"]) == (core["involvedObject"], "m", 2)
    assert new["reportingController"] == "kubelet"
    assert "message" not in new and "involvedObject" not in new
    assert convert_event(new, "events.k8s.io/v1", "v1") == core


def hpa(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": V2,
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "annotations": {"mine": "1"}},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3, **spec},
    }


def resource(name: str, **target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


METRICS = [
    {
        "type": "Pods",
        "pods": {
            "metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "10"},
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "hits"},
            "target": {"type": "Value", "value": "5"},
        },
    },
    {
        "type": "External",
        "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"q": "x"}}},
            "target": {"type": "AverageValue", "averageValue": "3"},
        },
    },
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "memory",
            "container": "app",
            "target": {"type": "Utilization", "averageUtilization": 60},
        },
    },
    resource("memory", type="AverageValue", averageValue="1Gi"),
]


def test_cpu_utilization_is_a_field_of_the_first_version() -> None:
    cpu = resource("cpu", type="Utilization", averageUtilization=80)
    old = convert_hpa(hpa(metrics=[cpu]), V2, V1)
    assert old["apiVersion"] == V1
    assert old["spec"]["targetCPUUtilizationPercentage"] == 80
    assert "metrics" not in old["spec"]
    assert old["metadata"]["annotations"] == {"mine": "1"}
    assert convert_hpa(old, V1, V2) == hpa(metrics=[cpu])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric["type"])
def test_what_the_first_version_cannot_say_survives_in_annotations(metric: dict[str, Any]) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 5}}
    new = hpa(metrics=[metric], behavior=behavior)
    new["status"] = {
        "currentReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True"}],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}}}],
    }
    before = copy.deepcopy(new)
    old = convert_hpa(new, V2, V1)
    assert new == before
    assert old["status"] == {"currentReplicas": 2, "currentCPUUtilizationPercentage": 40}
    assert set(old["metadata"]["annotations"]) == {
        "mine",
        "autoscaling.alpha.kubernetes.io/metrics",
        "autoscaling.alpha.kubernetes.io/behavior",
        "autoscaling.alpha.kubernetes.io/conditions",
        "autoscaling.alpha.kubernetes.io/current-metrics",
    }
    assert convert_hpa(old, V1, V2) == new


def test_a_broken_annotation_is_ignored() -> None:
    old = hpa()
    old["apiVersion"] = V1
    old["metadata"]["annotations"] = {"autoscaling.alpha.kubernetes.io/metrics": "{"}
    assert "metrics" not in convert_hpa(old, V1, V2)["spec"]


def test_versions_of_the_same_shape_change_in_api_version_only() -> None:
    new = hpa(metrics=METRICS)
    assert convert_hpa(new, V2, "autoscaling/v2beta2") == {**new, "apiVersion": "autoscaling/v2beta2"}
    assert convert_hpa(new, V2, V2) == new


def test_shares_of_priority_levels_have_another_name_in_old_versions() -> None:
    group = "flowcontrol.apiserver.k8s.io"
    new = {"apiVersion": f"{group}/v1", "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5}}}
    old = convert_priority_level(new, f"{group}/v1", f"{group}/v1beta2")
    assert old["spec"]["limited"] == {"assuredConcurrencyShares": 5}
    assert convert_priority_level(old, f"{group}/v1beta2", f"{group}/v1") == new
