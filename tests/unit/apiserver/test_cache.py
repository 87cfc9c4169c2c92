"""The watch cache over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tiphys.apiserver.cache import WatchCache, splice_revision
from tiphys.base.errors import ApiError
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore

PODS = "/registry/core/pods/"


def value(name: str, namespace: str = "", **metadata: Any) -> bytes:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
    return orjson.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}})


async def put(store: MemoryStore, name: str, namespace: str = "default", **metadata: Any) -> int:
    return await store.commit([Operation(f"{PODS}{namespace}/{name}", value(name, namespace, **metadata))])


@pytest_asyncio.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    await store.start()
    yield store
    await store.stop()


@pytest_asyncio.fixture
async def cache(store: MemoryStore) -> AsyncIterator[WatchCache]:
    cache = WatchCache(store)
    await cache.start()
    yield cache
    await cache.stop()


def test_the_revision_is_spliced_first_into_the_metadata() -> None:
    assert splice_revision(b'{"apiVersion":"v1","kind":"X","metadata":{"name":"a"}}', 7) == (
        b'{"apiVersion":"v1","kind":"X","metadata":{"resourceVersion":"7","name":"a"}}'
    )
    assert orjson.loads(splice_revision(b'{"metadata":{}}', 7)) == {"metadata": {"resourceVersion": "7"}}


async def test_objects_are_found_counted_and_in_key_order(store: MemoryStore, cache: WatchCache) -> None:
    for name, namespace in (("b", "x"), ("a", "x"), ("a", "x-y"), ("c", "w")):
        await put(store, name, namespace)
    await cache.refresh()
    pods = cache.resource(PODS)
    assert [(o.namespace, o.name) for o in pods.objects()] == [("w", "c"), ("x-y", "a"), ("x", "a"), ("x", "b")]
    assert [o.key for o in pods.objects()] == [e.key for e in (await store.list(PODS)).entries]
    await put(store, "aa", "x")
    await store.commit([Operation(f"{PODS}x/a", None)])
    await store.commit([Operation(f"{PODS}w/c", None)])
    await cache.refresh()
    assert [o.name for o in pods.objects("x")] == ["aa", "b"]
    assert (pods.count(), pods.count("x"), pods.count("w"), pods.objects("w")) == (3, 2, 0, [])
    found = pods.get("x", "b")
    assert found is not None and found.body == splice_revision(found.value, found.revision)
    assert pods.get("x", "a") is None
    assert sorted(pods.namespaces()) == ["x", "x-y"]


async def test_the_index_is_decoded_from_the_bytes(store: MemoryStore, cache: WatchCache) -> None:
    await put(store, "a", labels={"app": "web"}, uid="u-2")
    await put(store, "b")
    await cache.refresh()
    pods = cache.resource(PODS)
    a, b = pods.objects()
    assert (dict(a.labels), a.uid) == ({"app": "web"}, "u-2")
    assert (dict(b.labels), b.uid) == ({}, "")
    assert a.decode()["metadata"]["resourceVersion"] == str(a.revision)


async def test_reading_own_writes(store: MemoryStore, cache: WatchCache) -> None:
    for number in range(20):
        revision = await put(store, f"p{number}")
        await cache.wait_for(revision)
        assert cache.resource(PODS).get("default", f"p{number}") is not None
    await store.commit([Operation("/elsewhere", b"x")])
    await cache.refresh()
    assert cache.revision() == store.current_revision()
    with pytest.raises(ApiError, match="what was written is stored"):
        await cache.wait_for(10_000, 0.01)


async def test_the_ring_holds_recent_events_and_knows_what_it_lost(store: MemoryStore) -> None:
    cache = WatchCache(store, ring_events=3)
    await cache.start()
    for _ in range(3):
        await put(store, "a")
    await cache.refresh()
    pods = cache.resource(PODS)
    events = pods.events_after(1)
    assert events is not None and [e.revision for e in events] == [2, 3, 4]
    await store.commit([Operation(f"{PODS}default/a", None)])
    await cache.refresh()
    assert pods.events_after(1) is None
    events = pods.events_after(2)
    assert events is not None
    deleted = events[-1]
    assert deleted.deleted and deleted.object.revision == 5
    assert deleted.object.decode()["metadata"]["resourceVersion"] == "5"
    await cache.stop()


async def test_a_restart_fills_the_ring_from_history(store: MemoryStore) -> None:
    await put(store, "a")
    await put(store, "b")
    await put(store, "a", labels={"x": "y"})
    await store.commit([Operation(f"{PODS}default/b", None)])
    await store.compact(2)
    cache = WatchCache(store)
    await cache.start()
    pods = cache.resource(PODS)
    assert (cache.revision(), pods.changed_at, pods.oldest) == (5, 5, 2)
    events = pods.events_after(2)
    assert events is not None
    assert [(e.revision, e.object.name, e.deleted) for e in events] == [
        (3, "b", False),
        (4, "a", False),
        (5, "b", True),
    ]
    assert events[1].previous is not None and not events[1].previous.labels
    assert [o.name for o in pods.objects()] == ["a"]
    await put(store, "c")
    await cache.refresh()
    assert [e.revision for e in pods.events_after(4) or ()] == [5, 6]
    await cache.stop()


async def test_a_lost_watch_lists_again_and_closes_watchers() -> None:
    store = MemoryStore(max_queued_events=5)
    await store.start()
    cache = WatchCache(store)
    await cache.start()
    closed: list[bool] = []
    cache.resource(PODS).on_reset.add(lambda: closed.append(True))
    await put(store, "gone")
    await cache.refresh()
    await store.commit([Operation(f"{PODS}default/gone", None)])
    for number in range(20):  # no pause: the cache's queue overflows
        await put(store, f"p{number}")
    await cache.refresh()
    pods = cache.resource(PODS)
    assert closed and pods.count() == 20 and pods.get("default", "gone") is None
    assert pods.events_after(5) is None
    await put(store, "later")
    await cache.refresh()
    assert pods.get("default", "later") is not None
    await cache.stop()
    await store.stop()


async def test_listeners_see_a_batch_after_it_is_applied(store: MemoryStore, cache: WatchCache) -> None:
    pods = cache.resource(PODS)
    seen: list[tuple[int, int]] = []
    pods.listeners.add(lambda events: seen.append((len(events), pods.count())))
    await store.commit([Operation(f"{PODS}default/{name}", value(name, "default")) for name in "abc"])
    await cache.refresh()
    assert seen == [(3, 3)]


async def test_waiting_readers_are_woken_in_any_order(store: MemoryStore, cache: WatchCache) -> None:
    waits = [asyncio.ensure_future(cache.wait_for(revision)) for revision in (4, 2, 3)]
    await asyncio.sleep(0)
    for name in "abc":
        await put(store, name)
    await asyncio.gather(*waits)
