"""Effective requests and the quality-of-service class. Spec: "Sidecar containers", "Pod Overhead", "Pod QoS"."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tiphys.api.qos import pod_limits, pod_requests, qos_class, spec_qos_class
from tiphys.api.views.pod import Pod


def _container(cpu: str, *, limit: str | None = None, sidecar: bool = False) -> dict[str, Any]:
    resources: dict[str, Any] = {"requests": {"cpu": cpu}}
    if limit is not None:
        resources["limits"] = {"cpu": limit}
    container: dict[str, Any] = {"name": "c", "image": "i", "resources": resources}
    if sidecar:
        container["restartPolicy"] = "Always"
    return container


@pytest.mark.parametrize(
    ("init", "regular", "milli"),
    [
        ([], ["100m", "200m"], 300),
        (["1"], ["100m", "200m"], 1000),
        (["100m"], ["1"], 1000),
        (["+500m"], ["1"], 1500),
        (["+500m", "2"], ["1"], 2500),
        (["2", "+500m"], ["1"], 2000),
    ],
    ids=["sum", "large init", "small init", "sidecar", "init beside a sidecar", "init before a sidecar"],
)
def test_requests_cover_every_moment(init: list[str], regular: list[str], milli: int) -> None:
    pod = {
        "spec": {
            "initContainers": [_container(c.lstrip("+"), sidecar=c.startswith("+")) for c in init],
            "containers": [_container(c) for c in regular],
        }
    }
    assert pod_requests(pod)["cpu"].milli == milli
    view = msgspec.json.decode(msgspec.json.encode(pod), type=Pod)
    assert pod_requests(view) == pod_requests(pod)


def test_overhead_is_added_and_pod_level_requests_replace_the_sum() -> None:
    pod = {
        "spec": {
            "containers": [_container("1", limit="2")],
            "resources": {"requests": {"cpu": "3"}},
            "overhead": {"cpu": "250m"},
        }
    }
    assert pod_requests(pod)["cpu"].milli == 3250
    assert pod_limits(pod)["cpu"].milli == 2250


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"requests": {"ephemeral-storage": "1Gi"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_qos_class(resources: list[dict[str, Any]], expected: str) -> None:
    pod = {"spec": {"containers": [{"name": "c", "resources": r} for r in resources]}}
    assert qos_class(pod) == expected
    assert spec_qos_class(msgspec.convert(pod, Pod).spec) == expected


def test_pod_level_resources_decide_the_class() -> None:
    pod = {"spec": {"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}}
    assert qos_class(pod) == "Guaranteed"
    assert spec_qos_class(msgspec.convert(pod, Pod).spec) == "Guaranteed"
