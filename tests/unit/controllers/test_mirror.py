"""A mirror shows own writes before the watch does, and forgets nothing and doubles nothing when the watch catches up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fakecluster import FakeCluster
from running import quiet

from tiphys.base.clock import Randomness
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.views import Pod


def pod(name: str, owner: str = "rs") -> dict[str, object]:
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": owner, "controller": True}
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": [reference]}, "spec": {}}


@asynccontextmanager
async def mirrored(cluster: FakeCluster) -> AsyncIterator[Mirror[Pod]]:
    mirror = Mirror(cluster, resources.PODS, Pod, Randomness(1))
    task = asyncio.create_task(mirror.reflector.run())
    await mirror.synced()
    try:
        yield mirror
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(mirror: Mirror[Pod], owner: str = "rs") -> list[str]:
    return sorted(p.metadata.name for p in mirror.owned(owner))


async def test_creates_and_deletes_count_while_the_watch_is_silent() -> None:
    cluster = FakeCluster()
    cluster.put(resources.PODS, pod("a"))
    async with mirrored(cluster) as mirror:
        cluster.watch_gate.clear()
        await mirror.create("default", pod("b"))
        assert names(mirror) == ["a", "b"]
        found = mirror.get("default/a")
        assert found is not None
        await mirror.delete(found)
        assert names(mirror) == ["b"]
        assert mirror.get("default/a") is None
        cluster.watch_gate.set()
        await quiet(cluster)
        assert names(mirror) == ["b"]
        cluster.remove(resources.PODS, "default/b")
        await quiet(cluster)
        assert names(mirror) == []


async def test_an_own_create_that_others_deleted_meanwhile_is_no_ghost() -> None:
    cluster = FakeCluster()
    async with mirrored(cluster) as mirror:
        cluster.watch_gate.clear()
        await mirror.create("default", pod("a"))
        cluster.remove(resources.PODS, "default/a")
        assert names(mirror) == ["a"]
        cluster.watch_gate.set()
        await quiet(cluster)
        assert names(mirror) == []


async def test_an_adopted_object_changes_its_owner_at_once() -> None:
    cluster = FakeCluster()
    cluster.put(resources.PODS, pod("a"))
    async with mirrored(cluster) as mirror:
        cluster.watch_gate.clear()
        found = mirror.get("default/a")
        assert found is not None
        reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "new", "uid": "new", "controller": True}
        await mirror.patch(found, {"metadata": {"ownerReferences": [reference]}})
        assert (names(mirror), names(mirror, "new")) == ([], ["a"])
        cluster.watch_gate.set()
        await quiet(cluster)
        assert (names(mirror), names(mirror, "new")) == ([], ["a"])
