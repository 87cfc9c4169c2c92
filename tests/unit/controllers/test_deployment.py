"""Deployments and ReplicaSets, run against a fake cluster: rollouts, crashes, lost answers, stale watches."""

from __future__ import annotations

import pytest
from fakecluster import FakeCluster
from running import deployment, make_ready, quiet, run_until_quiet, running

from tiphys.client import resources

LOOPS = ("deployment", "replicaset")


async def roll_out(cluster: FakeCluster, rounds: int = 20) -> None:
    for _ in range(rounds):
        await quiet(cluster)
        if not make_ready(cluster):
            return


def conditions(obj: dict) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in obj["status"]["conditions"]}


async def test_a_deployment_becomes_available() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment())
    async with running(cluster, *LOOPS):
        await roll_out(cluster)
    (rs,) = cluster.list_now(resources.REPLICASETS)
    pods = cluster.list_now(resources.PODS)
    web = cluster.get_now(resources.DEPLOYMENTS, "default/web")
    assert web is not None
    assert len(pods) == 3
    digest = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{digest}"
    assert all(p["metadata"]["generateName"] == f"web-{digest}-" for p in pods)
    assert all(p["metadata"]["labels"] == {"app": "web", "pod-template-hash": digest} for p in pods)
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
        "deployment.kubernetes.io/revision": "1",
    }
    assert web["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert {k: v for k, v in web["status"].items() if k != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "terminatingReplicas": 0,
    }
    assert conditions(web) == {
        "Available": ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        "Progressing": (
            "True",
            "NewReplicaSetAvailable",
            f'ReplicaSet "web-{digest}" has successfully progressed.',
        ),
    }
    messages = {e["message"] for e in cluster.list_now(resources.EVENTS)}
    assert f"Scaled up replica set web-{digest} from 0 to 3" in messages
    assert {f"Created pod: {p['metadata']['name']}" for p in pods} <= messages


async def test_an_update_rolls_within_its_bounds_and_can_be_undone() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment(replicas=8))
    async with running(cluster, *LOOPS):
        await roll_out(cluster)
        for image, revision in (("web:2", "2"), ("web:1", "3")):
            spec = {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}
            cluster.change(resources.DEPLOYMENTS, "default/web", {"spec": spec})
            for _ in range(20):
                await quiet(cluster)
                pods = cluster.list_now(resources.PODS)
                assert len(pods) <= 10
                assert sum(p["status"]["phase"] == "Running" for p in pods if "status" in p) >= 6
                if not make_ready(cluster):
                    break
            images = {p["spec"]["containers"][0]["image"] for p in cluster.list_now(resources.PODS)}
            web = cluster.get_now(resources.DEPLOYMENTS, "default/web")
            assert images == {image}
            assert web is not None
            assert web["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision
            assert conditions(web)["Progressing"][1] == "NewReplicaSetAvailable"
    assert len(cluster.list_now(resources.REPLICASETS)) == 2


async def test_recreate_waits_for_the_end_of_the_old_pods() -> None:
    cluster = FakeCluster()
    cluster.graceful_pods = True
    cluster.put(resources.DEPLOYMENTS, deployment(strategy={"type": "Recreate"}))
    async with running(cluster, *LOOPS):
        await roll_out(cluster)
        spec = {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}
        cluster.change(resources.DEPLOYMENTS, "default/web", {"spec": spec})
        await quiet(cluster)
        pods = cluster.list_now(resources.PODS)
        assert len(pods) == 3
        assert all(p["metadata"].get("deletionTimestamp") for p in pods)
        for pod in pods:
            cluster.remove(resources.PODS, f"default/{pod['metadata']['name']}")
        await roll_out(cluster)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.list_now(resources.PODS)} == {"web:2"}


async def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment())
    async with running(cluster, *LOOPS):
        await roll_out(cluster)
        spec = {"paused": True, "replicas": 5, "template": {"spec": {"containers": [{"name": "w", "image": "x"}]}}}
        cluster.change(resources.DEPLOYMENTS, "default/web", {"spec": spec})
        await roll_out(cluster)
        web = cluster.get_now(resources.DEPLOYMENTS, "default/web")
        assert web is not None
        assert len(cluster.list_now(resources.REPLICASETS)) == 1
        assert len(cluster.list_now(resources.PODS)) == 5
        assert conditions(web)["Progressing"] == ("Unknown", "DeploymentPaused", "Deployment is paused")
        cluster.change(resources.DEPLOYMENTS, "default/web", {"spec": {"paused": None}})
        await roll_out(cluster)
    assert {p["spec"]["containers"][0]["image"] for p in cluster.list_now(resources.PODS)} == {"x"}


@pytest.mark.parametrize("write", range(1, 14))
async def test_a_crash_after_any_write_is_mended(write: int) -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment())
    cluster.crash_after = write
    while not await run_until_quiet(cluster, *LOOPS):
        pass
    assert len(cluster.list_now(resources.PODS)) == 3
    assert len(cluster.list_now(resources.REPLICASETS)) == 1


async def test_lost_answers_and_a_stale_watch_double_no_pod() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment(replicas=10))
    async with running(cluster, *LOOPS):
        await quiet(cluster)
        cluster.watch_gate.clear()
        cluster.lose_answers = 4
        victim = cluster.list_now(resources.PODS)[0]["metadata"]["name"]
        cluster.remove(resources.PODS, f"default/{victim}")
        cluster.watch_gate.set()
        cluster.change(resources.DEPLOYMENTS, "default/web", {"spec": {"replicas": 20}})
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 20
        await quiet(cluster)
    assert len(cluster.list_now(resources.PODS)) == 20


async def test_pods_are_adopted_and_released_by_label() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment(replicas=2))
    async with running(cluster, *LOOPS):
        await roll_out(cluster)
        first, _ = (p["metadata"]["name"] for p in cluster.list_now(resources.PODS))
        cluster.change(resources.PODS, f"default/{first}", {"metadata": {"labels": {"app": "other"}}})
        await quiet(cluster)
        released = cluster.get_now(resources.PODS, f"default/{first}")
        assert released is not None
        assert not released["metadata"].get("ownerReferences")
        assert len(cluster.list_now(resources.PODS)) == 3
        cluster.change(resources.PODS, f"default/{first}", {"metadata": {"labels": {"app": "web"}}})
        await quiet(cluster)
    assert len(cluster.list_now(resources.PODS)) == 2


async def test_a_refused_pod_is_told_in_condition_and_event() -> None:
    from tiphys.base.errors import forbidden

    cluster = FakeCluster()
    text = "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"
    cluster.refuse = lambda verb, r, obj: (
        forbidden("", "pods", obj["metadata"]["name"], text) if r.plural == "pods" else None
    )
    cluster.put(resources.DEPLOYMENTS, deployment())
    async with running(cluster, *LOOPS):
        import asyncio

        for _ in range(100):
            await asyncio.sleep(0.005)
            web = cluster.get_now(resources.DEPLOYMENTS, "default/web")
            if web and "ReplicaFailure" in (conditions(web) if web.get("status", {}).get("conditions") else {}):
                break
        else:
            raise AssertionError("no ReplicaFailure condition")
    status, reason, message = conditions(web)["ReplicaFailure"]
    assert (status, reason) == ("True", "FailedCreate")
    assert text in message
    assert any(e["reason"] == "FailedCreate" and text in e["message"] for e in cluster.list_now(resources.EVENTS))
