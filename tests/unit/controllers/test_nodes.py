"""Nodes that fall silent, taints by condition, evictions, pod ranges, and pods that nobody else removes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster, TickingClock
from running import quiet, running

from tiphys.api.views.node import Node
from tiphys.client import resources
from tiphys.controllers.eviction import plan_eviction
from tiphys.controllers.nodehealth import plan_node
from tiphys.controllers.podgarbage import plan_sweep
from tiphys.controllers.podrange import first_free
from tiphys.controllers.views import Pod

NOW = 1_767_225_600.0


def node(ready: str = "True", **spec: Any) -> dict[str, Any]:
    conditions = [
        {"type": type_, "status": status, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
        for type_, status in (
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("PIDPressure", "False"),
            ("Ready", ready),
        )
    ]
    return {"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "n", **spec},
        "status": {"phase": "Running", "conditions": [condition]},
    }


def as_node(obj: dict[str, Any]) -> Node:
    return msgspec.convert(obj, Node)


def as_pod(obj: dict[str, Any]) -> Pod:
    return msgspec.convert(obj, Pod)


def test_a_silent_node_becomes_unknown_and_is_tainted() -> None:
    plan = plan_node(as_node(node()), NOW - 41, NOW, 40)
    assert plan.conditions is not None
    assert {(c["type"], c["status"], c["reason"]) for c in plan.conditions} == {
        (t, "Unknown", "NodeStatusUnknown") for t in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
    }
    assert plan.taints is not None
    assert {(t["key"], t["effect"]) for t in plan.taints} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    assert plan.becomes_unready
    assert plan.wait_s is None


def test_a_heard_node_stays_and_its_timer_is_the_rest_of_its_grace() -> None:
    plan = plan_node(as_node(node()), NOW - 15, NOW, 40)
    assert (plan.conditions, plan.taints, plan.wait_s) == (None, None, 25)


@pytest.mark.parametrize(
    ("conditions", "spec", "expected"),
    [
        ({"Ready": "False"}, {}, {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}),
        ({"MemoryPressure": "True"}, {}, {("memory-pressure", "NoSchedule")}),
        ({}, {"unschedulable": True}, {("unschedulable", "NoSchedule")}),
        ({}, {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, set()),
    ],
)
def test_taints_follow_conditions(conditions: dict[str, str], spec: dict[str, Any], expected: set[Any]) -> None:
    obj = node(**spec)
    for condition in obj["status"]["conditions"]:
        condition["status"] = conditions.get(condition["type"], condition["status"])
    plan = plan_node(as_node(obj), NOW, NOW, 40)
    assert plan.taints is not None
    assert {(t["key"].removeprefix("node.kubernetes.io/"), t["effect"]) for t in plan.taints} == expected


def test_foreign_taints_stay() -> None:
    obj = node(taints=[{"key": "mine", "value": "x", "effect": "NoExecute"}], unschedulable=True)
    plan = plan_node(as_node(obj), NOW, NOW, 40)
    assert plan.taints is not None
    assert plan.taints[0] == {"key": "mine", "value": "x", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "wait_s"),
    [
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        ([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}], 290.0),
        ([{"key": "a", "operator": "Equal", "value": "no", "effect": "NoExecute"}], 0.0),
        ([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}], 0.0),
    ],
)
def test_eviction_waits_for_the_toleration(tolerations: list[dict[str, Any]], wait_s: float | None) -> None:
    taints = as_node(
        node(taints=[{"key": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}])
    ).spec.taints
    assert plan_eviction(as_pod(pod(tolerations=tolerations)), taints, NOW + 10, NOW + 10) == wait_s


async def test_a_silent_node_loses_its_pods() -> None:
    clock = TickingClock()
    cluster = FakeCluster(clock)
    cluster.put(resources.NODES, node())
    cluster.put(resources.PODS, pod("stays", tolerations=[{"operator": "Exists"}]))
    cluster.put(resources.PODS, pod("goes"))
    async with running(cluster, "node-lifecycle", "taint-eviction"):
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 2
        clock.current_s += 41
        cluster.change(resources.NODES, "n", {"spec": {"unschedulable": True}})
        await quiet(cluster)
        (stays,) = cluster.list_now(resources.PODS)
        assert stays["metadata"]["name"] == "stays"
        assert [c["status"] for c in stays["status"]["conditions"] if c["type"] == "Ready"] == ["False"]
        messages = {e["message"] for e in cluster.list_now(resources.EVENTS)}
        assert "Node n status is now: NodeNotReady" in messages
        assert "Marking for deletion Pod default/goes" in messages


async def test_every_node_gets_its_own_range() -> None:
    cluster = FakeCluster()
    for number in range(3):
        cluster.put(resources.NODES, {"metadata": {"name": f"n{number}"}})
    async with running(cluster, "node-ipam", pod_cidr="10.244.0.0/16"):
        await quiet(cluster)
    ranges = sorted(n["spec"]["podCIDR"] for n in cluster.list_now(resources.NODES))
    assert ranges == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    assert first_free("10.0.0.0/23", 24, ["10.0.0.0/24", "10.0.1.0/25"]) is None


def test_pods_that_nobody_else_removes_are_swept() -> None:
    gone = as_pod(pod("gone", nodeName="lost"))
    stuck = as_pod({**pod("stuck"), "metadata": {"name": "stuck", "deletionTimestamp": "x"}, "spec": {}})
    old, young = (
        as_pod({"metadata": {"name": n, "creationTimestamp": f"2026-01-0{n}T00:00:00Z"}, "status": {"phase": "Failed"}})
        for n in ("1", "2")
    )
    sweeps = plan_sweep([young, gone, as_pod(pod("fine")), stuck, old], {"lost"}, 1)
    assert [s.pod.metadata.name for s in sweeps] == ["gone", "stuck", "1"]


def test_a_toleration_ends_though_the_taint_does_not_tell_when_it_was_added() -> None:
    tolerations = [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}]
    placed = as_pod(pod(tolerations=tolerations))
    taints = as_node(node(taints=[{"key": "k", "value": "v", "effect": "NoExecute"}])).spec.taints
    assert plan_eviction(placed, taints, NOW, NOW) == 2.0
    assert plan_eviction(placed, taints, NOW + 2.005, NOW) == 0.0
