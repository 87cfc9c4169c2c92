"""The scheduler against the real API server, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from schedulerobjects import node_object, pod_object

from tiphys.apiserver.assembly import ApiServerConfig, assemble
from tiphys.base.clock import Randomness, SystemClock
from tiphys.client import resources
from tiphys.client.local import LocalClient
from tiphys.scheduler.run import SchedulerDeps, run_scheduler
from tiphys.store.memory import MemoryStore


class Cluster:
    def __init__(self, client: LocalClient) -> None:
        self.client = client

    async def create(self, obj: dict[str, Any]) -> None:
        resource = resources.NODES if obj["kind"] == "Node" else resources.PODS
        await self.client.create(resource, obj["metadata"].get("namespace", ""), obj)
        if obj["kind"] == "Node":
            # New nodes are tainted until they are ready, which nobody tells here.
            await self.client.patch(resource, "", obj["metadata"]["name"], {"spec": {"taints": None}})

    async def until(self, resource: Any, name: str, holds: Any) -> dict[str, Any]:
        """Return the object as soon as `holds(object)`."""
        async with asyncio.timeout(10):
            listed = await self.client.list(resource, "default")
            for item in listed.items:
                obj = orjson.loads(item)
                if obj["metadata"]["name"].startswith(name) and holds(obj):
                    return dict(obj)
            async for event in self.client.watch(resource, "default", resource_version=listed.resource_version):
                obj = orjson.loads(event.object)
                if obj.get("metadata", {}).get("name", "").startswith(name) and holds(obj):
                    return dict(obj)
        raise AssertionError("the watch ended")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    clock, randomness = SystemClock(), Randomness(5)
    store = MemoryStore()
    await store.start()
    assembled = await assemble(ApiServerConfig(), store, clock, randomness)
    admin = LocalClient(assembled.handle, "admin", ["system:masters"], randomness=randomness)
    scheduler = LocalClient(assembled.handle, "system:kube-scheduler", randomness=randomness)
    await admin.create(
        resources.SERVICEACCOUNTS,
        "default",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
    )
    task = asyncio.create_task(run_scheduler(SchedulerDeps(scheduler, clock, randomness)))
    yield Cluster(admin)
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await assembled.stop()
    await store.stop()


def is_bound(pod: dict[str, Any]) -> bool:
    return bool(pod["spec"].get("nodeName"))


def is_refused(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "PodScheduled" and c["status"] == "False" for c in pod["status"].get("conditions", []))


async def test_a_pod_is_bound_and_an_event_tells(cluster: Cluster) -> None:
    await cluster.create(node_object("node-1"))
    await cluster.create(pod_object("web-1", cpu="100m"))
    pod = await cluster.until(resources.PODS, "web-1", is_bound)
    assert pod["spec"]["nodeName"] == "node-1"
    event = await cluster.until(resources.EVENTS, "web-1.", lambda e: e["reason"] == "Scheduled")
    assert event["message"] == "Successfully assigned default/web-1 to node-1"
    assert event["source"]["component"] == "default-scheduler"


async def test_a_pod_without_a_node_says_why_and_is_placed_when_a_node_comes(cluster: Cluster) -> None:
    await cluster.create(node_object("small", cpu="1"))
    await cluster.create(pod_object("big", cpu="2"))
    pod = await cluster.until(resources.PODS, "big", is_refused)
    condition = next(c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    await cluster.until(resources.EVENTS, "big.", lambda e: e["reason"] == "FailedScheduling")
    await cluster.create(node_object("large", cpu="4"))
    pod = await cluster.until(resources.PODS, "big", is_bound)
    assert pod["spec"]["nodeName"] == "large"


async def test_many_pods_fill_the_nodes_evenly_and_never_beyond(cluster: Cluster) -> None:
    for number in range(4):
        await cluster.create(node_object(f"node-{number}", cpu="1", pods="10"))
    for number in range(42):
        await cluster.create(pod_object(f"pod-{number}", cpu="100m"))
    placed: dict[str, int] = {}
    for number in range(42):
        pod = await cluster.until(resources.PODS, f"pod-{number}", lambda p: is_bound(p) or is_refused(p))
        placed[pod["spec"].get("nodeName", "")] = placed.get(pod["spec"].get("nodeName", ""), 0) + 1
    assert placed == {"": 2, **{f"node-{number}": 10 for number in range(4)}}


async def test_a_more_important_pod_takes_the_place_of_a_lesser_one(cluster: Cluster) -> None:
    await cluster.create(node_object("only", cpu="1"))
    await cluster.client.create(
        resources.PRIORITYCLASSES,
        "",
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "high"},
            "value": 1000,
        },
    )
    await cluster.create(pod_object("low", cpu="800m", terminationGracePeriodSeconds=0))
    await cluster.until(resources.PODS, "low", is_bound)
    await cluster.create(pod_object("high", cpu="800m", priorityClassName="high"))
    nominated = await cluster.until(resources.PODS, "high", lambda p: p["status"].get("nominatedNodeName"))
    assert nominated["status"]["nominatedNodeName"] == "only"
    event = await cluster.until(resources.EVENTS, "low.", lambda e: e["reason"] == "Preempted")
    assert event["message"] == f"Preempted by pod {nominated['metadata']['uid']} on node only"
    await cluster.until(resources.PODS, "high", is_bound)


async def test_others_pods_and_gated_pods_are_left_alone(cluster: Cluster) -> None:
    await cluster.create(node_object("node-1"))
    await cluster.create(pod_object("theirs", schedulerName="another"))
    await cluster.create(pod_object("gated", schedulingGates=[{"name": "example.com/wait"}]))
    await cluster.create(pod_object("mine"))
    await cluster.until(resources.PODS, "mine", is_bound)
    for name in ("theirs", "gated"):
        found = orjson.loads(await cluster.client.get(resources.PODS, "default", name))
        assert not found["spec"].get("nodeName")
    await cluster.client.patch(resources.PODS, "default", "gated", {"spec": {"schedulingGates": None}})
    await cluster.until(resources.PODS, "gated", is_bound)


async def test_a_claim_that_waits_gets_the_node_and_the_pod_follows_its_volume(cluster: Cluster) -> None:
    client = cluster.client
    await cluster.create(node_object("node-1"))
    await client.create(
        resources.STORAGECLASSES,
        "",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "later"},
            "provisioner": "example.com/disk",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "later",
    }
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
    await client.create(resources.PERSISTENTVOLUMECLAIMS, "default", claim)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    await cluster.create(pod_object("db", volumes=volumes))
    selected = "volume.kubernetes.io/selected-node"
    await cluster.until(
        resources.PERSISTENTVOLUMECLAIMS,
        "data",
        lambda c: c["metadata"].get("annotations", {}).get(selected) == "node-1",
    )
    volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "later"}
    volume["hostPath"] = {"path": "/data"}
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": volume}
    await client.create(resources.PERSISTENTVOLUMES, "", body)
    await client.patch(resources.PERSISTENTVOLUMECLAIMS, "default", "data", {"spec": {"volumeName": "disk"}})
    await client.patch(
        resources.PERSISTENTVOLUMECLAIMS, "default", "data", {"status": {"phase": "Bound"}}, subresource="status"
    )
    await cluster.until(resources.PODS, "db", is_bound)
