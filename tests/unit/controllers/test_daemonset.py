"""DaemonSets: one pod a fitting node, rolled out within their bounds."""

from __future__ import annotations

from typing import Any

import pytest
from fakecluster import FakeCluster
from running import make_ready, quiet, run_until_quiet, running, template

from tiphys.client import resources


def daemonset(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec},
    }


def with_nodes(count: int = 3) -> FakeCluster:
    cluster = FakeCluster()
    for number in range(count):
        cluster.put(resources.NODES, {"metadata": {"name": f"n{number}", "labels": {"n": str(number)}}})
    return cluster


def placed(cluster: FakeCluster) -> list[str]:
    """Play scheduler; return the nodes of all pods."""
    names = []
    for pod in cluster.list_now(resources.PODS):
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        name = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
        if not pod["spec"].get("nodeName"):
            cluster.change(resources.PODS, f"default/{pod['metadata']['name']}", {"spec": {"nodeName": name}})
        names.append(name)
    return sorted(names)


async def test_every_fitting_node_gets_one_pod() -> None:
    cluster = with_nodes()
    taint = {"key": "dedicated", "effect": "NoSchedule"}
    pressure = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}
    cluster.change(resources.NODES, "n1", {"spec": {"taints": [taint]}})
    cluster.change(resources.NODES, "n2", {"spec": {"taints": [pressure], "unschedulable": True}})
    cluster.put(resources.DAEMONSETS, daemonset())
    async with running(cluster, "daemonset"):
        await quiet(cluster)
        assert placed(cluster) == ["n0", "n2"]
        make_ready(cluster)
        cluster.change(resources.NODES, "n1", {"spec": {"taints": None}})
        await quiet(cluster)
        assert placed(cluster) == ["n0", "n1", "n2"]
        make_ready(cluster)
        await quiet(cluster)
        status = cluster.list_now(resources.DAEMONSETS)[0]["status"]
        assert status == {
            "observedGeneration": 1,
            "desiredNumberScheduled": 3,
            "currentNumberScheduled": 3,
            "numberMisscheduled": 0,
            "numberReady": 3,
            "updatedNumberScheduled": 3,
            "numberAvailable": 3,
        }
        evict = {"key": "x", "effect": "NoExecute"}
        cluster.change(resources.NODES, "n0", {"spec": {"taints": [evict]}})
        await quiet(cluster)
        assert placed(cluster) == ["n1", "n2"]


@pytest.mark.parametrize("rolling", [{"maxUnavailable": 1}, {"maxUnavailable": 0, "maxSurge": 1}])
async def test_an_update_rolls_node_by_node(rolling: dict[str, Any]) -> None:
    cluster = with_nodes(4)
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    cluster.put(resources.DAEMONSETS, daemonset(updateStrategy=strategy))
    async with running(cluster, "daemonset"):
        for _ in range(30):
            await quiet(cluster)
            placed(cluster)
            if not make_ready(cluster):
                break
        cluster.change(resources.DAEMONSETS, "default/agent", {"spec": {"template": template("web:2")}})
        for _ in range(30):
            await quiet(cluster)
            pods = cluster.list_now(resources.PODS)
            ready = sum(p.get("status", {}).get("phase") == "Running" for p in pods)
            assert ready >= 4 - rolling["maxUnavailable"]
            assert len(pods) <= 4 + rolling.get("maxSurge", 0)
            placed(cluster)
            if not make_ready(cluster):
                break
    assert {p["spec"]["containers"][0]["image"] for p in cluster.list_now(resources.PODS)} == {"web:2"}
    assert len(cluster.list_now(resources.PODS)) == 4
    assert sorted(r["revision"] for r in cluster.list_now(resources.CONTROLLERREVISIONS)) == [1, 2]


@pytest.mark.parametrize("write", range(1, 7))
async def test_a_crash_after_any_write_is_mended(write: int) -> None:
    cluster = with_nodes()
    cluster.put(resources.DAEMONSETS, daemonset())
    cluster.crash_after = write
    while not await run_until_quiet(cluster, "daemonset"):
        pass
    assert placed(cluster) == ["n0", "n1", "n2"]
    assert len(cluster.list_now(resources.CONTROLLERREVISIONS)) == 1


async def test_a_failed_daemon_pod_is_replaced() -> None:
    cluster = with_nodes(1)
    cluster.put(resources.DAEMONSETS, daemonset())
    async with running(cluster, "daemonset"):
        await quiet(cluster)
        placed(cluster)
        (pod,) = cluster.list_now(resources.PODS)
        key = f"default/{pod['metadata']['name']}"
        cluster.change(resources.PODS, key, {"status": {"phase": "Failed"}}, "status")
        await quiet(cluster)
        (new,) = cluster.list_now(resources.PODS)
        assert new["metadata"]["uid"] != pod["metadata"]["uid"]
        assert any(e["reason"] == "FailedDaemonPod" for e in cluster.list_now(resources.EVENTS))
