"""What a node's pods refer to follows every change of a pod."""

from __future__ import annotations

import orjson
import pytest

from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.nodepods import NodePods
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore

PREFIX = "/registry/core/pods/"
SECRET = ("secrets", "default", "s")


def pod(node: str, secret: str = "s") -> bytes:
    volumes = [{"name": "v", "secret": {"secretName": secret}}]
    spec = {"volumes": volumes} | ({"nodeName": node} if node else {})
    metadata = {"name": "p", "namespace": "default", "uid": "u"}
    return orjson.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


@pytest.fixture
async def store():
    store = MemoryStore()
    await store.start()
    yield store
    await store.stop()


async def write(store: MemoryStore, cache: WatchCache, value: bytes | None, name: str = "p") -> None:
    await cache.wait_for(await store.commit([Operation(f"{PREFIX}default/{name}", value, None)]))


async def test_a_pod_counts_for_its_node_from_binding_to_deletion(store):
    cache = WatchCache(store)
    await cache.start()
    pods = NodePods(cache.resource(PREFIX))
    await write(store, cache, pod(""))
    assert not pods.refer("one", SECRET)
    await write(store, cache, pod("one"))
    assert pods.refer("one", SECRET)
    assert not pods.refer("two", SECRET)
    await write(store, cache, pod("one", "other"))
    assert not pods.refer("one", SECRET)
    assert pods.refer("one", ("secrets", "default", "other"))
    await write(store, cache, pod("two"))
    assert not pods.refer("one", SECRET)
    assert pods.refer("two", SECRET)
    await write(store, cache, pod("two"), "q")
    await write(store, cache, None)
    assert pods.refer("two", SECRET)
    await write(store, cache, None, "q")
    assert not pods.refer("two", SECRET)
    await cache.stop()


async def test_pods_that_were_there_before_count(store):
    await store.commit([Operation(f"{PREFIX}default/p", pod("one"), None)])
    cache = WatchCache(store)
    await cache.start()
    assert NodePods(cache.resource(PREFIX)).refer("one", SECRET)
    await cache.stop()
