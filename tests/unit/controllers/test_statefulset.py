"""StatefulSets: order, stable names, claims, partitions."""

from __future__ import annotations

from typing import Any

import pytest
from fakecluster import FakeCluster
from running import make_ready, quiet, run_until_quiet, running, template

from tiphys.client import resources


def statefulset(replicas: int = 3, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            **spec,
        },
    }


def names(cluster: FakeCluster) -> list[str]:
    """Give new pods the phase that the API server gives them; return all names."""
    for pod in cluster.list_now(resources.PODS):
        if "status" not in pod:
            cluster.change(
                resources.PODS, f"default/{pod['metadata']['name']}", {"status": {"phase": "Pending"}}, "status"
            )
    return sorted(p["metadata"]["name"] for p in cluster.list_now(resources.PODS))


async def roll_out(cluster: FakeCluster) -> list[list[str]]:
    history = []
    for _ in range(30):
        await quiet(cluster)
        history.append(names(cluster))
        if not make_ready(cluster):
            break
    await quiet(cluster)
    return history


async def test_pods_come_and_go_in_order_with_their_claims() -> None:
    cluster = FakeCluster()
    cluster.put(resources.STATEFULSETS, statefulset())
    async with running(cluster, "statefulset"):
        history = await roll_out(cluster)
        assert history[:3] == [["db-0"], ["db-0", "db-1"], ["db-0", "db-1", "db-2"]]
        claims = sorted(c["metadata"]["name"] for c in cluster.list_now(resources.PERSISTENTVOLUMECLAIMS))
        assert claims == ["data-db-0", "data-db-1", "data-db-2"]
        pod = cluster.get_now(resources.PODS, "default/db-1")
        assert pod is not None
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
        assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
        status = cluster.list_now(resources.STATEFULSETS)[0]["status"]
        revision = pod["metadata"]["labels"]["controller-revision-hash"]
        assert status == {
            "observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 3,
            "updatedReplicas": 3, "currentRevision": revision, "updateRevision": revision, "collisionCount": 0,
        }  # fmt: skip
        cluster.change(resources.STATEFULSETS, "default/db", {"spec": {"replicas": 1}})
        await quiet(cluster)
        assert names(cluster) == ["db-0"]
        deletions = [w for w in cluster.writes if w.startswith("delete pods")]
        assert deletions == ["delete pods db-2", "delete pods db-1"]


async def test_an_update_goes_down_to_the_partition() -> None:
    cluster = FakeCluster()
    strategy: dict[str, Any] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    cluster.put(resources.STATEFULSETS, statefulset(updateStrategy=strategy))
    async with running(cluster, "statefulset"):
        await roll_out(cluster)
        cluster.change(resources.STATEFULSETS, "default/db", {"spec": {"template": template("web:2")}})
        await roll_out(cluster)

        def images() -> list[str]:
            pods = sorted(cluster.list_now(resources.PODS), key=lambda p: p["metadata"]["name"])
            return [p["spec"]["containers"][0]["image"] for p in pods]

        assert images() == ["web:1", "web:2", "web:2"]
        status = cluster.list_now(resources.STATEFULSETS)[0]["status"]
        assert status["currentRevision"] != status["updateRevision"]
        assert status["updatedReplicas"] == 2
        cluster.remove(resources.PODS, "default/db-0")
        await roll_out(cluster)
        assert images()[0] == "web:1"
        cluster.change(
            resources.STATEFULSETS, "default/db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
        )
        await roll_out(cluster)
        assert images() == ["web:2"] * 3
        status = cluster.list_now(resources.STATEFULSETS)[0]["status"]
        assert status["currentRevision"] == status["updateRevision"]


async def test_parallel_pods_do_not_wait() -> None:
    cluster = FakeCluster()
    cluster.put(resources.STATEFULSETS, statefulset(podManagementPolicy="Parallel", ordinals={"start": 5}))
    async with running(cluster, "statefulset"):
        await quiet(cluster)
        assert names(cluster) == ["db-5", "db-6", "db-7"]


@pytest.mark.parametrize("write", range(1, 9))
async def test_a_crash_after_any_write_is_mended(write: int) -> None:
    cluster = FakeCluster()
    cluster.put(resources.STATEFULSETS, statefulset(replicas=2))
    cluster.crash_after = write
    for _ in range(8):
        while not await run_until_quiet(cluster, "statefulset"):
            pass
        names(cluster)
        if not make_ready(cluster):
            break
    assert names(cluster) == ["db-0", "db-1"]
    assert len(cluster.list_now(resources.CONTROLLERREVISIONS)) == 1


async def test_only_pods_with_its_names_are_adopted() -> None:
    cluster = FakeCluster()
    cluster.put(resources.STATEFULSETS, statefulset(replicas=1))
    for name in ("db-0", "stranger"):
        meta = {"name": name, "namespace": "default", "labels": {"app": "web"}}
        cluster.put(resources.PODS, {"metadata": meta, "spec": {}, "status": {"phase": "Pending"}})
    async with running(cluster, "statefulset"):
        await quiet(cluster)
    owned = {
        p["metadata"]["name"]: bool(p["metadata"].get("ownerReferences")) for p in cluster.list_now(resources.PODS)
    }
    assert owned == {"db-0": True, "stranger": False}
