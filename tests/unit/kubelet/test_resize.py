"""Pods get more or less while they run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kubelet_support import Node, bound, pod_object, run_virtual

from tiphys.client.interface import STRATEGIC_PATCH
from tiphys.client.resources import PODS
from tiphys.kubelet.resize import plan_grant


def container(cpu: str, memory: str = "64Mi", *, policy: str = "NotRequired") -> dict[str, Any]:
    resources = {"cpu": cpu, "memory": memory}
    return {
        "name": "c",
        "image": "i",
        "resources": {"requests": resources, "limits": resources},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
    }


@pytest.mark.parametrize(
    ("cpu", "reason", "message"),
    [
        ("1", "", ""),
        ("3", "Deferred", "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"),
        ("5", "Infeasible", "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000"),
    ],
)
def test_what_is_granted(cpu: str, reason: str, message: str) -> None:
    others = [bound(pod_object("other", [container("2")]))]
    refused = plan_grant(bound(pod_object("p", [container(cpu)])), others, {"cpu": "4", "memory": "8Gi"})
    assert (refused.reason, refused.message) == (reason, message) if refused else not reason


async def _resize(node: Node, spec: dict[str, Any]) -> None:
    await node.cluster.patch(PODS, "default", "web", {"spec": {"containers": [spec]}}, patch_type=STRATEGIC_PATCH)


def _status(node: Node) -> dict[str, Any]:
    status: dict[str, Any] = node.cluster.pod("web")["status"]["containerStatuses"][0]
    return status


def _condition_types(node: Node) -> set[str]:
    return {c["type"] for c in node.cluster.pod("web")["status"]["conditions"]}


def test_a_running_container_gets_other_limits_without_a_restart() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web", [container("100m")]))
            await node.until_phase("web", "Running")
            await _resize(node, container("200m"))
            await node.cluster.until(lambda: _status(node)["resources"]["limits"]["cpu"] == "200m", 5)
            assert _status(node)["allocatedResources"]["cpu"] == "200m"
            assert _status(node)["restartCount"] == 0
            await asyncio.sleep(1)
            assert "PodResizeInProgress" not in _condition_types(node)

    run_virtual(test)


def test_a_container_whose_policy_says_so_restarts() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web", [container("100m", policy="RestartContainer")]))
            await node.until_phase("web", "Running")
            await _resize(node, container("200m", policy="RestartContainer"))
            await node.cluster.until(lambda: _status(node)["restartCount"] == 1 and _status(node)["ready"], 60)
            assert _status(node)["resources"]["limits"]["cpu"] == "200m"

    run_virtual(test)


def test_a_wish_that_never_fits_is_told_and_changes_nothing() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web", [container("100m")]))
            await node.until_phase("web", "Running")
            await _resize(node, container("500"))
            await node.cluster.until(lambda: "PodResizePending" in _condition_types(node), 5)
            assert node.condition("web", "PodResizePending")["reason"] == "Infeasible"
            assert _status(node)["allocatedResources"]["cpu"] == "100m"
            await _resize(node, container("100m"))
            await node.cluster.until(lambda: "PodResizePending" not in _condition_types(node), 30)

    run_virtual(test)
