"""Long lists and large initial states are made in slices: others run between them, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest
import yaml

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.apiserver.slices import SLICE_BYTES, SLICE_OBJECTS, slices, weighed_slices
from tiphys.base.clock import Randomness, SystemClock
from tiphys.client.local import LocalClient
from tiphys.client.resources import CONFIGMAPS
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Answer, Peer, Request, Response, Stream

COUNT = SLICE_OBJECTS * 2 + 50
COLLECTION = "/api/v1/namespaces/default/configmaps"
LOCAL = Peer("local", trusted_user=("test", ("system:masters",)))


class Received:
    """A sink that keeps the lines of a watch."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self._came = asyncio.Event()
        self.ended = asyncio.Event()
        self.taken = asyncio.Event()
        """Set while the client takes what it is sent."""
        self.taken.set()

    def send(self, data: bytes) -> None:
        self.data += data
        self._came.set()

    async def until(self, count: int) -> list[tuple[str, str]]:
        """Return the events once there are so many."""
        while len(self.events()) < count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 10)
        return self.events()

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        await self.taken.wait()

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def events(self) -> list[tuple[str, str]]:
        lines = [orjson.loads(line) for line in self.data.splitlines()]
        return [(line["type"], line["object"].get("metadata", {}).get("name", "")) for line in lines]


async def ask(server: Assembled, method: str, path: str, body: object = None, **headers: str) -> Answer:
    path, _, query = path.partition("?")
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.handle(Request(method, path, query, sent, orjson.dumps(body) if body else b"", LOCAL))


@pytest.fixture
async def server():
    store = MemoryStore()
    await store.start()
    assembled = await assemble(ApiServerConfig(), store, SystemClock(), Randomness(1))
    for number in range(COUNT):
        labels = {"odd": str(number % 2)}
        await ask(assembled, "POST", COLLECTION, {"metadata": {"name": f"c-{number:04d}", "labels": labels}})
    yield assembled
    await assembled.stop()
    await store.stop()


def body_of(answer: Answer) -> bytes:
    assert isinstance(answer, Response)
    assert answer.status == 200, answer.body_bytes()
    return answer.body_bytes()


def test_large_objects_make_short_slices():
    class Stored:
        def __init__(self, size_bytes: int) -> None:
            self.value = b"x" * size_bytes

    sizes = [1, SLICE_BYTES, 1, 1, SLICE_BYTES - 2, 5, SLICE_BYTES * 2, 1]
    assert [[len(o.value) for o in some] for some in weighed_slices([Stored(size) for size in sizes])] == [
        [1],
        [SLICE_BYTES],
        [1, 1, SLICE_BYTES - 2],
        [5],
        [SLICE_BYTES * 2],
        [1],
    ]
    assert [len(some) for some in weighed_slices([Stored(1)] * (SLICE_OBJECTS + 1))] == [SLICE_OBJECTS, 1]
    assert list(weighed_slices([])) == [[]]


def test_slices_are_the_whole_in_order():
    assert list(slices([])) == [[]]
    assert [len(some) for some in slices(range(5), 2)] == [2, 2, 1]


async def test_every_form_of_a_long_list_tells_the_same_objects(server):
    plain = orjson.loads(body_of(await ask(server, "GET", COLLECTION)))
    indented = body_of(await ask(server, "GET", f"{COLLECTION}?pretty=true"))
    text = body_of(await ask(server, "GET", COLLECTION, accept="application/yaml"))
    assert len(plain["items"]) == COUNT
    assert orjson.loads(indented) == plain
    assert indented == orjson.dumps(plain | {"items": plain["items"]}, option=orjson.OPT_INDENT_2)
    assert yaml.safe_load(text) == plain


async def test_an_empty_list_and_a_short_one_are_well_formed_for_people(server):
    for query, count in (("?labelSelector=odd%3D7", 0), ("?fieldSelector=metadata.name%3Dc-0001", 1)):
        pretty = body_of(await ask(server, "GET", f"{COLLECTION}{query}&pretty=1"))
        text = body_of(await ask(server, "GET", COLLECTION + query, accept="application/yaml"))
        assert len(orjson.loads(pretty)["items"]) == len(yaml.safe_load(text)["items"]) == count


async def test_pages_join_to_the_whole_while_objects_come(server):
    names: list[str] = []
    path = f"{COLLECTION}?limit=100&labelSelector=odd%3D1"
    token = ""
    while True:
        page = orjson.loads(body_of(await ask(server, "GET", path + token)))
        names += [item["metadata"]["name"] for item in page["items"]]
        if not page["metadata"].get("continue"):
            break
        token = f"&continue={page['metadata']['continue']}"
        await ask(server, "POST", COLLECTION, {"metadata": {"name": f"zz-{len(names)}", "labels": {"odd": "1"}}})
    assert names == [f"c-{number:04d}" for number in range(1, COUNT, 2)]


async def test_remaining_items_are_counted_behind_the_page(server):
    first = orjson.loads(body_of(await ask(server, "GET", f"{COLLECTION}?limit=100")))["metadata"]
    assert first["remainingItemCount"] == COUNT - 100
    second = orjson.loads(body_of(await ask(server, "GET", f"{COLLECTION}?limit=100&continue={first['continue']}")))
    assert second["items"][0]["metadata"]["name"] == "c-0100"
    assert second["metadata"]["remainingItemCount"] == COUNT - 200


async def test_a_watch_gets_its_whole_state_and_then_what_happened_while_it_was_sent(server):
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    answer = await ask(server, "GET", f"{COLLECTION}?{query}&labelSelector=odd%3D0")
    assert isinstance(answer, Stream)
    sink = Received()
    stop = answer.start(sink)
    await asyncio.sleep(0)  # the first slice is out; these come before the last one
    assert 0 < len(sink.events()) < COUNT // 2
    await ask(server, "DELETE", f"{COLLECTION}/c-0000")
    await ask(server, "POST", COLLECTION, {"metadata": {"name": "new", "labels": {"odd": "0"}}})
    events = await sink.until(COUNT // 2 + 3)
    state = [("ADDED", f"c-{number:04d}") for number in range(0, COUNT, 2)]
    assert events == [*state, ("BOOKMARK", ""), ("DELETED", "c-0000"), ("ADDED", "new")]
    await ask(server, "DELETE", f"{COLLECTION}/new")
    assert sink.events()[-1] == ("DELETED", "new")
    stop()


async def test_a_watch_that_goes_away_while_its_state_is_sent_leaves_nothing(server):
    answer = await ask(server, "GET", f"{COLLECTION}?watch=1")
    assert isinstance(answer, Stream)
    sink = Received()
    stop = answer.start(sink)
    await asyncio.sleep(0)
    assert server.reads.watcher_count() == 1
    stop()
    assert server.reads.watcher_count() == 0
    sent = len(sink.data)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(sink.data) == sent


async def test_many_missed_events_come_in_order(server):
    before = orjson.loads(body_of(await ask(server, "GET", f"{COLLECTION}?limit=1")))["metadata"]["resourceVersion"]
    for number in range(SLICE_OBJECTS + 20):
        await ask(server, "DELETE", f"{COLLECTION}/c-{number:04d}")
    answer = await ask(server, "GET", f"{COLLECTION}?watch=1&resourceVersion={before}")
    assert isinstance(answer, Stream)
    sink = Received()
    stop = answer.start(sink)
    assert await sink.until(SLICE_OBJECTS + 20) == [
        ("DELETED", f"c-{number:04d}") for number in range(SLICE_OBJECTS + 20)
    ]
    stop()


async def test_a_slow_watch_gets_its_state_as_it_takes_it_and_loses_no_event(server, monkeypatch):
    resource = server.cache.resource("/registry/core/configmaps/")
    monkeypatch.setattr(resource, "_ring_events", 10)
    answer = await ask(server, "GET", f"{COLLECTION}?watch=1")
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    for number in range(30):  # more than the ring holds while nobody needs them
        await ask(server, "POST", COLLECTION, {"metadata": {"name": f"new-{number:02d}"}})
    assert len(sink.events()) == SLICE_OBJECTS, "the rest waits until the client has taken this"
    sink.taken.set()
    events = await sink.until(COUNT + 30)
    assert events[COUNT:] == [("ADDED", f"new-{number:02d}") for number in range(30)]
    await ask(server, "DELETE", f"{COLLECTION}/new-00")
    assert sink.events()[-1] == ("DELETED", "new-00")
    assert len(resource._ring) == 10, "what was held is let go"
    stop()


async def test_a_watch_that_is_too_slow_for_its_state_is_told_to_begin_again(server, monkeypatch):
    resource = server.cache.resource("/registry/core/configmaps/")
    monkeypatch.setattr(resource, "_ring_events", 2)
    answer = await ask(server, "GET", f"{COLLECTION}?watch=1")
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    for number in range(30):
        await ask(server, "POST", COLLECTION, {"metadata": {"name": f"new-{number:02d}"}})
    sink.taken.set()
    events = await sink.until(COUNT + 1)
    assert events[-1][0] == "ERROR" and sink.closed
    assert orjson.loads(sink.data.splitlines()[-1])["object"]["code"] == 410
    stop()


async def test_a_list_that_is_too_long_to_be_held_is_sent_as_its_client_takes_it(server, monkeypatch):
    whole = orjson.loads(body_of(await ask(server, "GET", COLLECTION)))
    monkeypatch.setattr(server.reads, "_limits", replace(server.reads._limits, list_memo_bytes=10_000))
    await ask(server, "DELETE", f"{COLLECTION}/c-0000")
    answer = await ask(server, "GET", COLLECTION)
    assert isinstance(answer, Stream)
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    await ask(server, "POST", COLLECTION, {"metadata": {"name": "late"}})
    for _ in range(5):
        await asyncio.sleep(0)
    assert sink.data.count(b'"creationTimestamp"') == SLICE_OBJECTS and not sink.closed
    sink.taken.set()
    await asyncio.wait_for(sink.ended.wait(), 10)
    assert orjson.loads(sink.data)["items"] == whole["items"][1:], "it is as of one revision"
    stop()
    client = LocalClient(server.handle, "test", ("system:masters",))
    assert len((await client.list(CONFIGMAPS, "default")).items) == COUNT
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    await asyncio.sleep(0)
    stop()
    await asyncio.wait_for(sink.ended.wait(), 10)


async def test_a_deleted_collection_is_answered_as_a_list(server):
    answer = await ask(server, "DELETE", f"{COLLECTION}?labelSelector=odd%3D1")
    listed = orjson.loads(body_of(answer))
    assert listed["kind"] == "ConfigMapList" and len(listed["items"]) == COUNT // 2
    assert "kind" not in listed["items"][0] and listed["items"][0]["metadata"]["name"] == "c-0001"


async def test_a_client_that_takes_nothing_is_not_kept_for_ever(server, monkeypatch):
    monkeypatch.setattr("tiphys.apiserver.slices.TAKE_S", 0.01)
    answer = await ask(server, "GET", f"{COLLECTION}?watch=1")
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    await asyncio.wait_for(sink.ended.wait(), 10)
    assert server.reads.watcher_count() == 0
    stop()
    monkeypatch.setattr(server.reads, "_limits", replace(server.reads._limits, list_memo_bytes=10_000))
    answer = await ask(server, "GET", COLLECTION)
    sink = Received()
    sink.taken.clear()
    stop = answer.start(sink)
    await asyncio.wait_for(sink.ended.wait(), 10)
    stop()
