"""The whole cluster in virtual time: rollouts, deletions and failures, with faults drawn from a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from tiphys.base.virtualloop import run_virtual
from tiphys.client.resources import DEPLOYMENTS, PODS
from tiphys.cluster.faults import Faults
from tiphys.cluster.simulation import Plan, SimulatedCluster

BAD_NETWORK = Faults(lost_requests=0.05, lost_answers=0.05, longest_delay_s=0.05, broken_watches=0.02)


def deployment(name: str, replicas: int, image: str = "web:1") -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "web", "image": image}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


async def wait_for(cluster: SimulatedCluster, check: Any, within_s: float = 600.0) -> Any:
    """Poll in virtual time until `check` returns something true; on failure tell what the pods look like."""
    deadline_s = cluster.clock.monotonic_s() + within_s
    while cluster.clock.monotonic_s() < deadline_s:
        assert not cluster.failures(), cluster.failures()
        result = await check()
        if result:
            return result
        await asyncio.sleep(0.25)
    pods = [orjson.loads(p) for p in (await cluster.client.list(PODS)).items]
    story = [(p["metadata"]["name"], p["spec"].get("nodeName"), p.get("status", {}).get("phase")) for p in pods]
    raise AssertionError(f"not within {within_s} simulated seconds; pods: {story}")


async def rolled_out(cluster: SimulatedCluster, name: str) -> bool:
    obj = orjson.loads(await cluster.client.get(DEPLOYMENTS, "default", name))
    status, replicas = obj.get("status", {}), obj["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == obj["metadata"]["generation"]
        and status.get("replicas", 0) == replicas
        and status.get("updatedReplicas", 0) == replicas
        and status.get("availableReplicas", 0) == replicas
    )


async def pods_of(cluster: SimulatedCluster, name: str) -> list[dict[str, Any]]:
    listed = await cluster.client.list(PODS, "default", label_selector=f"app={name}")
    return [orjson.loads(item) for item in listed.items]


async def roll_out_and_update(plan: Plan, crashes: int = 0) -> list[tuple[str, str]]:
    """Create, update and scale a Deployment, crashing components on the way; return the pods that were left."""
    async with SimulatedCluster(plan) as cluster:
        await cluster.client.create(DEPLOYMENTS, "default", deployment("web", 5))
        for _ in range(crashes):
            names = cluster.components()
            await asyncio.sleep(cluster.randomness.uniform(0.0, 1.0))
            await cluster.crash(names[cluster.randomness.integer(0, len(names) - 1)])
        await wait_for(cluster, lambda: rolled_out(cluster, "web"))
        change = {"spec": {"replicas": 7, "template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}}
        await cluster.client.patch(DEPLOYMENTS, "default", "web", change)
        for _ in range(crashes):
            names = cluster.components()
            await asyncio.sleep(cluster.randomness.uniform(0.0, 1.0))
            await cluster.crash(names[cluster.randomness.integer(0, len(names) - 1)])
        await wait_for(cluster, lambda: rolled_out(cluster, "web"))

        async def settled() -> list[dict[str, Any]]:
            pods = await pods_of(cluster, "web")
            return pods if len(pods) == 7 else []

        pods = await wait_for(cluster, settled)
        images = Counter(p["spec"]["containers"][0]["image"] for p in pods)
        assert images == {"web:2": 7}
        assert len({p["status"]["podIP"] for p in pods}) == 7
        return sorted((p["metadata"]["name"], p["spec"]["nodeName"]) for p in pods)


def test_a_rollout_completes_on_a_good_network() -> None:
    assert len(run_virtual(roll_out_and_update(Plan(seed=1)))) == 7


@pytest.mark.parametrize("seed", range(3))
def test_a_rollout_completes_on_a_bad_network_with_crashes(seed: int) -> None:
    assert len(run_virtual(roll_out_and_update(Plan(seed=seed, nodes=3, faults=BAD_NETWORK), crashes=6))) == 7


def test_the_same_seed_gives_the_same_history() -> None:
    plan = Plan(seed=7, nodes=3, faults=BAD_NETWORK)
    assert run_virtual(roll_out_and_update(plan, crashes=3)) == run_virtual(roll_out_and_update(plan, crashes=3))


def test_deleting_a_deployment_takes_its_pods_along() -> None:
    async def story() -> None:
        async with SimulatedCluster(Plan(seed=3)) as cluster:
            await cluster.client.create(DEPLOYMENTS, "default", deployment("web", 3))
            await wait_for(cluster, lambda: rolled_out(cluster, "web"))
            await cluster.client.delete(DEPLOYMENTS, "default", "web", propagation="Background")

            async def gone() -> bool:
                return not await pods_of(cluster, "web")

            await wait_for(cluster, gone)

    run_virtual(story())
