"""WATCH over a real store and cache."""

from __future__ import annotations

import asyncio
import random

import pytest
from reads_world import CONFIG_MAP, PARTIAL, POD, TABLE, Peer, World, ask, refused

from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.options import Selection
from tiphys.apiserver.reads import Reads
from tiphys.apiserver.rendering import PlainRendering
from tiphys.apiserver.table import TableRendering
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.interface import Operation


async def test_a_watch_from_a_revision_gets_later_events_in_one_piece_a_batch(world: World) -> None:
    first = await world.put("a")
    await world.put("b")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    peer = await world.watch(resourceVersion=first)
    assert peer.brief() == [("ADDED", "b", first + 1)]
    operations = [Operation(POD.storage_key("default", name), None) for name in "ab"]
    revision = await world.store.commit(operations)
    await world.cache.refresh()
    assert peer.brief()[1:] == [("DELETED", "a", revision), ("DELETED", "b", revision)]
    assert len(peer.sent) == 2
    assert peer.events()[1]["object"]["kind"] == "Pod"
    peer.stop()
    await world.put("c")
    await world.cache.refresh()
    assert len(peer.sent) == 2 and world.reads.watcher_count() == 0


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_without_a_revision_begins_with_the_state(world: World, version: str) -> None:
    await world.put("a")
    await world.put("b", "other")
    await world.cache.refresh()
    peer = await world.watch(namespace="default", resourceVersion=version)
    assert peer.brief() == [("ADDED", "a", 2)]
    await world.put("a")
    await world.put("b", "other")
    await world.cache.refresh()
    assert peer.brief()[1:] == [("MODIFIED", "a", 4)]


async def test_the_state_can_be_streamed_with_a_mark_at_its_end(world: World) -> None:
    await world.put("a")
    await world.put("b")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    peer = await world.watch(**query)
    assert peer.brief() == [("ADDED", "a", 2), ("ADDED", "b", 3), ("BOOKMARK", "", 3)]
    mark = peer.events()[-1]["object"]
    assert mark["kind"] == "Pod" and mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    peer = await world.watch(sendInitialEvents="false", resourceVersionMatch="NotOlderThan")
    assert peer.brief() == []
    await world.put("c")
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "c", 4)]


async def test_a_revision_that_is_gone_is_an_error_event(world: World) -> None:
    await world.put("a")
    newest = await world.put("a")
    await world.store.compact(newest)
    await world.cache.stop()
    world.cache = WatchCache(world.store)
    await world.cache.start()
    world.reads = Reads(world.cache, world.store, ManualClock(), Randomness(1))
    peer = await world.watch(resourceVersion="1")
    [event] = peer.events()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    assert event["object"]["message"] == f"too old resource version: 1 ({newest})"
    assert peer.closed


async def test_selectors_turn_changes_into_entering_and_leaving(world: World) -> None:
    await world.put("a", labels={"app": "x"})
    await world.cache.refresh()
    peer = await world.watch(labelSelector="app=x", resourceVersion=world.cache.revision())
    nodes = await world.watch(fieldSelector="spec.nodeName=n2", resourceVersion=world.cache.revision())
    await world.put("a", labels={"app": "x", "more": "1"})
    await world.put("a", labels={"app": "y"})
    await world.put("a", labels={"app": "y"}, node="n2")
    await world.put("a", labels={"app": "x"}, node="n2")
    await world.delete("a")
    await world.cache.refresh()
    assert peer.brief() == [("MODIFIED", "a", 3), ("DELETED", "a", 4), ("ADDED", "a", 6), ("DELETED", "a", 7)]
    left = peer.events()[1]["object"]["metadata"]
    assert left["labels"] == {"app": "x", "more": "1"}, "the object as it last belonged to the selection"
    assert nodes.brief() == [("ADDED", "a", 5), ("MODIFIED", "a", 6), ("DELETED", "a", 7)]


async def test_each_node_sees_its_own_pods(world: World) -> None:
    peers = {node: await world.watch(fieldSelector=f"spec.nodeName={node}", resourceVersion=1) for node in ("n1", "n2")}
    unbound = await world.watch(fieldSelector="spec.nodeName=,metadata.namespace!=x", resourceVersion=1)
    await world.put("a", node="")
    await world.put("a", node="n2")
    await world.put("b", node="n1")
    await world.delete("a")
    await world.cache.refresh()
    assert unbound.brief() == [("ADDED", "a", 2), ("DELETED", "a", 3)]
    assert peers["n1"].brief() == [("ADDED", "b", 4)]
    assert peers["n2"].brief() == [("ADDED", "a", 3), ("DELETED", "a", 5)]
    peers["n2"].stop()
    unbound.stop()
    await world.put("c", node="n2")
    await world.put("c", node="n1")
    await world.cache.refresh()
    assert peers["n1"].brief()[1:] == [("ADDED", "c", 7)]
    peers["n1"].stop()
    assert world.reads.watcher_count() == 0


async def test_every_watcher_gets_the_same_buffer(world: World) -> None:
    peers = [await world.watch(resourceVersion=1) for _ in range(5)]
    await world.put("a")
    await world.cache.refresh()
    assert all(peer.sent[0] is peers[0].sent[0] for peer in peers)


@pytest.mark.parametrize("accept", ["", TABLE, PARTIAL])
@pytest.mark.parametrize("query", [{}, {"labelSelector": "app"}, {"fieldSelector": "spec.nodeName=n1"}])
async def test_an_event_is_matched_and_encoded_once_for_all_who_want_the_same(
    world: World, accept: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [await world.watch(accept=accept, resourceVersion=1, **query) for _ in range(20)]
    asked: list[str] = []
    matches = Selection.matches
    monkeypatch.setattr(Selection, "matches", lambda self, obj: asked.append(obj.name) or matches(self, obj))
    for _ in range(3):
        await world.put("a", labels={"app": "x"})
        await world.cache.refresh()
    assert all(sent is first for peer in peers for sent, first in zip(peer.sent, peers[0].sent, strict=True))
    assert len(peers[0].sent) == 3
    assert len(asked) == 5, "the new object each time, and the old one when there was one"


@pytest.mark.parametrize("accept", ["", TABLE])
@pytest.mark.parametrize("seed", range(6))
async def test_watches_of_large_objects_lose_and_repeat_nothing(
    world: World, accept: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    for rendering in (PlainRendering, TableRendering):
        monkeypatch.setattr(rendering, "slice_bytes", 400)  # objects of more are encoded in a thread
    watches: list[tuple[int, Peer]] = []
    written: list[int] = []
    for number in range(40):
        pad = "x" * draw.choice((10, 600))
        written.append(await world.put(f"p{number % 3}", annotations={"pad": pad}))
        if draw.random() < 0.5:
            await asyncio.sleep(0)
        if draw.random() < 0.3:
            await world.cache.refresh()
            since = max(1, draw.choice((written[-1], written[-1] - 2)))
            watches.append((since, await world.watch(accept=accept, resourceVersion=since)))
    await world.cache.refresh()
    for since, peer in watches:
        due = [revision for revision in written if revision > since]
        async with asyncio.timeout(5):
            while b"".join(peer.sent).count(b"\n") < len(due):  # noqa: ASYNC110 - threads encode
                await asyncio.sleep(0.001)
        objects = [event["object"] for event in peer.events()]
        if accept:
            assert [bool(table["columnDefinitions"]) for table in objects] == [n == 0 for n in range(len(due))]
            objects = [table["rows"][0]["object"] for table in objects]
        assert [int(obj["metadata"]["resourceVersion"]) for obj in objects] == due


async def test_only_the_first_table_of_a_watch_has_columns(world: World) -> None:
    await world.put("a")
    await world.cache.refresh()
    early = await world.watch(accept=TABLE, resourceVersion="0")
    late = await world.watch(accept=TABLE, resourceVersion=world.cache.revision())
    for _ in range(2):
        await world.put("a")
        await world.cache.refresh()
    for peer, count in ((early, 3), (late, 2)):
        tables = [event["object"] for event in peer.events()]
        assert len(tables) == count
        assert [bool(table["columnDefinitions"]) for table in tables] == [True] + [False] * (count - 1)
        assert all(table["kind"] == "Table" and len(table["rows"]) == 1 for table in tables)


async def test_a_slow_watcher_is_closed_and_others_go_on() -> None:
    world = World(pending_bytes=1000)
    await world.store.start()
    await world.cache.start()
    slow, quick = [await world.watch(resourceVersion=1) for _ in range(2)]
    slow.pending = 1_000_000
    for number in range(6):
        await world.put(f"p{number}", annotations={"pad": "x" * 60_000})
    await world.cache.refresh()
    assert slow.closed and not quick.closed
    assert len(quick.events()) == 6 and world.reads.watcher_count() == 1
    world.reads.close()
    await world.cache.stop()
    await world.store.stop()


async def test_a_watch_ends_with_a_bookmark_at_its_timeout(world: World) -> None:
    peer = await world.watch(resourceVersion="0", allowWatchBookmarks="true", timeoutSeconds="1")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    fanout = next(iter(world.reads._fanouts.values()))
    await fanout.send_bookmarks()
    assert peer.brief() == [("BOOKMARK", "", 2)]
    await peer.ended.wait()
    assert peer.brief()[1:] == [("BOOKMARK", "", 2)]
    assert world.reads.watcher_count() == 0


async def test_a_watch_from_a_future_revision_waits_for_it(world: World) -> None:
    peer = await world.watch(resourceVersion="3")
    for name in "abc":
        await world.put(name)
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "c", 4)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ({"resourceVersionMatch": "NotOlderThan"}, "forbidden for watch unless sendInitialEvents is provided"),
        ({"resourceVersion": "x"}, 'pods "" is invalid: resourceVersion: Invalid value: "x"'),
    ],
)
async def test_invalid_watch_options_are_refused(world: World, query: dict[str, str], message: str) -> None:
    error = await refused(world.watch(**query))
    assert error.code == 422 and message in error.message


async def test_a_row_that_fails_ends_its_watches_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tables = await world.watch(accept=TABLE, resourceVersion=1)
    plain = await world.watch(resourceVersion=1)
    operation = Operation(
        POD.storage_key("default", "bad"), b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"}}'
    )
    await world.store.commit([operation])  # no spec: the kind's row function fails
    await world.put("good")
    await world.cache.refresh()
    assert tables.closed and not plain.closed
    assert [name for _, name, _ in plain.brief()] == ["bad", "good"]
    assert "the watches that wanted them end" in caplog.text


async def test_a_watch_of_one_name(world: World) -> None:
    stream = await world.reads.watch_objects(POD, "default", ask(resourceVersion="1"), name="a")
    peer = Peer()
    stream.start(peer)
    await world.put("a")
    await world.put("b")
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "a", 2)]
