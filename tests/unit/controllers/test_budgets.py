"""PodDisruptionBudgets and aggregated ClusterRoles."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster
from running import deployment, make_ready, quiet, running

from tiphys.client import resources
from tiphys.controllers.clusterrole import CLUSTERROLES
from tiphys.controllers.disruption import plan_budget
from tiphys.controllers.views import Pod, PodDisruptionBudget


def pods(ready: int, waiting: int = 0) -> list[Pod]:
    return [
        msgspec.convert(
            {
                "metadata": {"name": f"p{n}", "uid": f"u{n}"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(n < ready)}]},
            },
            Pod,
        )
        for n in range(ready + waiting)
    ]


@pytest.mark.parametrize(
    ("spec", "ready", "waiting", "expected"),
    [
        ({"minAvailable": 2}, 3, 0, (3, 2, 3, 1)),
        ({"minAvailable": "50%"}, 3, 0, (4, 2, 3, 1)),
        ({"maxUnavailable": 1}, 4, 0, (4, 3, 4, 1)),
        ({"maxUnavailable": "30%"}, 3, 1, (4, 2, 3, 1)),
        ({"minAvailable": 5}, 3, 0, (3, 5, 3, 0)),
    ],
)
def test_budgets(spec: dict[str, Any], ready: int, waiting: int, expected: tuple[int, ...]) -> None:
    budget = msgspec.convert({"spec": spec}, PodDisruptionBudget)
    numbers = plan_budget(budget, pods(ready, waiting), lambda pod: ("rs", 4), 0.0)
    assert (numbers.expected, numbers.desired, numbers.healthy, numbers.allowed) == expected


def test_a_promised_eviction_counts_as_gone_for_two_minutes() -> None:
    at = "2026-01-01T00:00:00Z"
    budget = msgspec.convert(
        {"spec": {"minAvailable": 1}, "status": {"disruptedPods": {"p0": at}}}, PodDisruptionBudget
    )
    now_s = 1_767_225_600.0
    numbers = plan_budget(budget, pods(3), lambda pod: None, now_s + 20)
    assert (numbers.healthy, numbers.allowed, numbers.recheck_s) == (2, 1, 100.0)
    assert plan_budget(budget, pods(3), lambda pod: None, now_s + 121).healthy == 3


async def test_the_status_follows_the_pods() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment())
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    cluster.put(resources.PODDISRUPTIONBUDGETS, {"metadata": {"name": "b", "namespace": "default"}, "spec": spec})
    async with running(cluster, "deployment", "replicaset", "disruption"):
        await quiet(cluster)
        make_ready(cluster)
        await quiet(cluster)
    status = cluster.list_now(resources.PODDISRUPTIONBUDGETS)[0]["status"]
    assert (status["expectedPods"], status["desiredHealthy"]) == (3, 2)
    assert (status["currentHealthy"], status["disruptionsAllowed"]) == (3, 1)
    assert status["conditions"][0]["reason"] == "SufficientPods"


async def test_roles_are_aggregated() -> None:
    cluster = FakeCluster()
    cluster.resources.append(CLUSTERROLES)
    rule = {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}
    selectors = [{"matchLabels": {"to": "admin"}}]
    cluster.put(CLUSTERROLES, {"metadata": {"name": "admin"}, "aggregationRule": {"clusterRoleSelectors": selectors}})
    async with running(cluster, "clusterrole-aggregation"):
        await quiet(cluster)
        cluster.put(CLUSTERROLES, {"metadata": {"name": "w", "labels": {"to": "admin"}}, "rules": [rule]})
        await quiet(cluster)
    admin = cluster.get_now(CLUSTERROLES, "admin")
    assert admin is not None
    assert admin["rules"] == [rule]
