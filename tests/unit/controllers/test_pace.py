"""Steps on the way are gathered while the server is slow; what is final is told at once, and nothing is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster
from running import quiet, running, template

from tiphys.base.clock import ManualClock, format_time
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.pace import LONGEST_S, Pace
from tiphys.controllers.replicaset import concerns_owner, is_passing
from tiphys.controllers.views import Pod, ReplicaSet


class SlowCluster(FakeCluster):
    """Takes a while for each status of a ReplicaSet."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Any, **more: Any) -> bytes:
        if resource == resources.REPLICASETS and more.get("subresource") == "status":
            self.told.append(patch["status"]["readyReplicas"] or 0)
            self.clock.current_s += 0.05  # type: ignore[attr-defined]
        return await super().patch(resource, namespace, name, patch, **more)


def become_ready(cluster: FakeCluster, pod: dict[str, Any]) -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(cluster.clock.now_s())}
    cluster.change(
        resources.PODS, f"default/{pod['metadata']['name']}", {"status": {"phase": "Running", "conditions": [ready]}},
        "status",
    )  # fmt: skip


def replicaset(replicas: int) -> dict[str, Any]:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template()}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


async def test_pods_that_become_ready_one_by_one_are_told_together_by_a_slow_server_and_the_last_at_once() -> None:
    cluster = SlowCluster()
    cluster.put(resources.REPLICASETS, replicaset(10))
    async with running(cluster, "replicaset"):
        await quiet(cluster)
        pods = cluster.list_now(resources.PODS)
        assert len(pods) == 10
        for pod in pods[:9]:
            become_ready(cluster, pod)
            await quiet(cluster)
        assert len(cluster.told) <= 3
        become_ready(cluster, pods[9])
        await quiet(cluster)
    assert cluster.told[-1] == 10
    found = cluster.get_now(resources.REPLICASETS, "default/web")
    assert found is not None and found["status"]["availableReplicas"] == 10


async def test_what_was_held_back_is_told_when_the_window_is_over() -> None:
    cluster = SlowCluster()
    cluster.put(resources.REPLICASETS, replicaset(3))
    async with running(cluster, "replicaset"):
        await quiet(cluster)
        pods = cluster.list_now(resources.PODS)
        become_ready(cluster, pods[0])
        cluster.clock.current_s += 0.45  # type: ignore[attr-defined]
        become_ready(cluster, pods[1])
        await quiet(cluster)
        cluster.clock.current_s += LONGEST_S  # type: ignore[attr-defined]
        for _ in range(50):
            await quiet(cluster)
            if cluster.told[-1] == 2:
                break
    assert cluster.told[-1] == 2


def test_the_window_grows_with_the_time_that_a_write_takes() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    assert pace.wait_s("a") == 0
    began_s = pace.begin()
    clock.current_s += 0.004
    pace.end("a", began_s)
    assert pace.wait_s("a") == pytest.approx(0.04, abs=1e-3)
    assert pace.wait_s("b") == 0
    began_s = pace.begin()
    clock.current_s += 30
    pace.end("a", began_s)
    assert pace.wait_s("a") == pytest.approx(LONGEST_S)
    pace.forget("a")
    assert pace.wait_s("a") == 0


@pytest.mark.parametrize(
    ("available", "change", "passing"),
    [
        (1, {"readyReplicas": 2, "availableReplicas": 2}, True),
        (2, {"readyReplicas": 3, "availableReplicas": 3}, False),
        (2, {"readyReplicas": 1, "availableReplicas": 1}, False),
        (2, {"replicas": 2}, False),
        (2, {"terminatingReplicas": 1}, True),
        (3, {"terminatingReplicas": 0}, True),
        (3, {"terminatingReplicas": 3}, False),
        (2, {"observedGeneration": 3}, False),
        (2, {"conditions": None}, False),
    ],
)
def test_only_growth_before_all_are_available_and_the_end_of_pods_are_told_late(
    available: int, change: dict[str, Any], passing: bool
) -> None:
    known = {"observedGeneration": 2, "replicas": 3, "readyReplicas": available, "availableReplicas": available}
    known["terminatingReplicas"] = 2
    obj = {"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": known}
    assert is_passing(msgspec.convert(obj, ReplicaSet), {**known, **change}) is passing


READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("change", "concerns"),
    [
        ({"spec": {"nodeName": "node-1"}}, False),
        ({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}}, False),
        ({"status": {"phase": "Running"}}, True),
        ({"status": {"phase": "Pending", "conditions": [READY]}}, True),
        ({"metadata": {"name": "web-1", "labels": {"app": "other"}}}, True),
        ({"metadata": {"name": "web-1", "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}}, True),
        ({"metadata": {"name": "web-1", "labels": {"app": "web"}, "ownerReferences": [{"uid": "a"}]}}, True),
        ({"metadata": {"name": "web-1", "labels": {"app": "web"}, "uid": "another"}}, True),
        ({"metadata": {"name": "web-1", "labels": {"app": "web"}, "annotations": {"note": "x"}}}, False),
    ],
)
def test_a_replicaset_is_looked_at_when_what_it_counts_changed(change: dict[str, Any], concerns: bool) -> None:
    obj = {"metadata": {"name": "web-1", "labels": {"app": "web"}}, "status": {"phase": "Pending"}}
    assert concerns_owner(msgspec.convert(obj, Pod), msgspec.convert({**obj, **change}, Pod)) is concerns
