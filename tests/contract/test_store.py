"""The contract of `Store`, run over every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tiphys.store.interface import (
    ABSENT,
    Compacted,
    Event,
    ExpectationFailed,
    FutureRevision,
    Operation,
    StoreFailed,
)
from tiphys.store.memory import MemoryStore
from tiphys.store.sqlite import SqliteStore


def make(kind: str, path: Path, **options: Any) -> MemoryStore | SqliteStore:
    return MemoryStore(**options) if kind == "memory" else SqliteStore(str(path / "store.db"), **options)


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def store(kind: str, tmp_path: Path) -> AsyncIterator[MemoryStore | SqliteStore]:
    store = make(kind, tmp_path)
    await store.start()
    yield store
    await store.stop()


def put(key: str, value: bytes = b"v", expected: int | None = None) -> list[Operation]:
    return [Operation(key, value, expected)]


async def take(store: Any, after: int, count: int, prefix: str = "") -> list[Event]:
    events: list[Event] = []
    async with aclosing(store.watch(prefix, after)) as batches:
        async for batch in batches:
            events += batch
            if len(events) >= count:
                return events
    return events


async def test_a_fresh_store_is_at_revision_one(store: Any) -> None:
    assert store.current_revision() == 1
    assert store.compacted_revision() == 0
    assert (await store.list("")).entries == []


async def test_a_commit_is_one_revision_for_all_its_operations(store: Any) -> None:
    revision = await store.commit([Operation("/a", b"1", ABSENT), Operation("/b", b"2")])
    assert revision == 2 == store.current_revision()
    entry = await store.get("/a")
    assert (entry.value, entry.revision, entry.create_revision) == (b"1", 2, 2)
    assert await store.commit(put("/a", b"3", 2)) == 3
    entry = await store.get("/a")
    assert (entry.value, entry.revision, entry.create_revision) == (b"3", 3, 2)


async def test_a_failed_expectation_writes_nothing_and_tells_the_current_entry(store: Any) -> None:
    await store.commit(put("/a", b"1"))
    with pytest.raises(ExpectationFailed) as failure:
        await store.commit([Operation("/b", b"2", ABSENT), Operation("/a", b"2", ABSENT)])
    assert failure.value.key == "/a" and failure.value.current.value == b"1"
    assert await store.get("/b") is None
    with pytest.raises(ExpectationFailed) as failure:
        await store.commit([Operation("/c", None, 7)])
    assert failure.value.current is None
    assert store.current_revision() == 2


async def test_deletions(store: Any) -> None:
    await store.commit(put("/a", b"1"))
    assert await store.commit([Operation("/a", None, 2)]) == 3
    assert await store.get("/a") is None
    assert await store.commit([Operation("/a", None)]) == 3, "deleting an absent key has no effect"
    assert await store.commit(put("/a", b"2", ABSENT)) == 4
    assert (await store.get("/a")).create_revision == 4


async def test_a_commit_names_a_key_only_once(store: Any) -> None:
    with pytest.raises(ValueError, match="only once"):
        await store.commit([Operation("/a", b"1"), Operation("/a", b"2")])
    assert store.current_revision() == 1


async def test_a_key_that_is_no_text_fails_alone(store: Any) -> None:
    results = await asyncio.gather(
        store.commit(put("/a")), store.commit(put("/\ud800")), store.commit(put("/é")), return_exceptions=True
    )
    assert [type(result) for result in results] == [int, UnicodeEncodeError, int]
    assert [e.key for e in (await store.list("/")).entries] == ["/a", "/é"]


async def test_concurrent_commits_each_keep_their_revision_and_expectation(store: Any) -> None:
    tasks = [store.commit(put(f"/{i % 50:02}", b"%d" % i, ABSENT)) for i in range(100)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    revisions = [r for r in results if isinstance(r, int)]
    assert sorted(revisions) == list(range(2, 52))
    assert sum(isinstance(r, ExpectationFailed) for r in results) == 50
    assert [e.value for e in (await store.list("/")).entries] == [b"%d" % i for i in range(50)]


async def test_lists_are_in_key_order_with_limit_and_remaining(store: Any) -> None:
    for key in ("/p/b", "/p/a", "/q/a", "/p/c", "/o"):
        await store.commit(put(key))
    page = await store.list("/p/", limit=2)
    assert [e.key for e in page.entries] == ["/p/a", "/p/b"]
    assert (page.remaining, page.revision) == (1, 6)
    page = await store.list("/p/", start_after="/p/b", limit=2)
    assert [e.key for e in page.entries] == ["/p/c"] and page.remaining == 0


async def test_a_list_at_an_old_revision_is_as_it_was(store: Any) -> None:
    await store.commit(put("/a", b"1"))
    await store.commit(put("/b", b"1"))
    old = store.current_revision()
    await store.commit(put("/a", b"2"))
    await store.commit(put("/a", b"3"))
    await store.commit([Operation("/b", None)])
    await store.commit(put("/c", b"1"))
    page = await store.list("/", revision=old)
    assert [(e.key, e.value, e.revision) for e in page.entries] == [("/a", b"1", 2), ("/b", b"1", 3)]
    assert page.revision == old
    page = await store.list("/", revision=old, start_after="/a")
    assert [e.key for e in page.entries] == ["/b"]


async def test_future_revisions_are_refused(store: Any) -> None:
    with pytest.raises(FutureRevision) as failure:
        await store.list("/", revision=9)
    assert (failure.value.requested, failure.value.current) == (9, 1)
    with pytest.raises(FutureRevision):
        await store.compact(9)


async def test_a_watch_replays_history_and_goes_on_live(store: Any) -> None:
    await store.commit(put("/a", b"1"))
    await store.commit(put("/a", b"2"))
    watching = asyncio.ensure_future(take(store, 1, 4))
    await asyncio.sleep(0)
    await store.commit([Operation("/a", None), Operation("/b", b"1")])
    assert await watching == [
        Event("/a", 2, b"1", None),
        Event("/a", 3, b"2", b"1"),
        Event("/a", 4, None, b"2"),
        Event("/b", 4, b"1", None),
    ]


async def test_a_watch_sees_only_its_prefix_and_only_later_revisions(store: Any) -> None:
    await store.commit(put("/a/1"))
    await store.commit(put("/b/1"))
    await store.commit(put("/a/2"))
    assert [e.key for e in await take(store, 2, 1, "/a/")] == ["/a/2"]
    watching = asyncio.ensure_future(take(store, 6, 1))
    await asyncio.sleep(0)
    for number in range(3, 7):
        await store.commit(put(f"/a/{number}"))
    assert (await watching)[0].revision == 7, "a watch from a future revision waits for it"


async def test_long_histories_are_replayed_whole(store: Any) -> None:
    await asyncio.gather(*(store.commit(put(f"/{i % 7}", b"%d" % i)) for i in range(2500)))
    events = await take(store, 1, 2500)
    assert [e.revision for e in events] == list(range(2, 2502))
    newest: dict[str, bytes | None] = {}
    for event in events:
        assert event.previous == newest.get(event.key)
        newest[event.key] = event.value


async def test_events_are_queued_before_the_commit_is_answered(store: Any) -> None:
    seen: list[Event] = []

    async def follow() -> None:
        async for batch in store.watch("", 1):
            seen.extend(batch)

    watching = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    for number in range(10):
        revision = await store.commit(put("/a", b"%d" % number))
        await asyncio.sleep(0)
        assert seen[-1].revision == revision
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_compaction_forgets_superseded_values_only(store: Any) -> None:
    for number in range(20):
        await store.commit(put("/a", b"%d" % number))
    await store.commit(put("/gone"))
    await store.commit([Operation("/gone", None)])
    await store.commit(put("/kept"))
    compacted = store.current_revision()
    await store.commit(put("/a", b"new"))
    await store.compact(compacted)
    await store.compact(5)
    assert store.compacted_revision() == compacted
    with pytest.raises(Compacted) as failure:
        await store.list("/", revision=compacted - 1)
    assert (failure.value.requested, failure.value.oldest) == (compacted - 1, compacted)
    with pytest.raises(Compacted):
        await take(store, compacted - 1, 1)
    page = await store.list("/", revision=compacted)
    assert [(e.key, e.value) for e in page.entries] == [("/a", b"19"), ("/kept", b"v")]
    assert await take(store, compacted, 1) == [Event("/a", compacted + 1, b"new", b"19")]


async def test_a_reader_that_falls_behind_gets_compacted(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path, max_queued_events=10)
    await store.start()
    watch = store.watch("", store.current_revision())
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await store.commit(put("/first"))
    assert [e.key for e in await first] == ["/first"]
    for number in range(20):
        await store.commit(put(f"/{number}"))
    with pytest.raises(Compacted):
        await anext(watch)
    await store.stop()


async def test_stop_ends_watches_and_refuses_writes(store: Any) -> None:
    watching = asyncio.ensure_future(take(store, 1, 99))
    await asyncio.sleep(0)
    await store.commit(put("/a"))
    await store.stop()
    assert [e.key for e in await watching] == ["/a"]
    with pytest.raises(StoreFailed, match="stopped"):
        await store.commit(put("/b"))
    await store.stop()


async def test_stop_writes_and_tells_what_was_queued(store: Any) -> None:
    watching = asyncio.ensure_future(take(store, 1, 99))
    commits = [asyncio.ensure_future(store.commit(put(f"/{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await store.stop()
    assert sorted(await asyncio.gather(*commits)) == [2, 3, 4, 5, 6]
    assert [event.revision for event in await watching] == [2, 3, 4, 5, 6]


async def test_a_cancelled_commit_is_whole_or_absent(store: Any) -> None:
    task = asyncio.ensure_future(store.commit([Operation("/a", b"1"), Operation("/b", b"1")]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.commit(put("/c"))
    assert len((await store.list("/")).entries) in (1, 3)


async def test_a_snapshot_is_restored_as_it_was(store: Any, kind: str, tmp_path: Path) -> None:
    await store.commit(put("/a", b"1"))
    await store.commit(put("/a", b"2"))
    await store.commit([Operation("/b", b"1")])
    await store.commit([Operation("/b", None)])
    path = str(tmp_path / "snapshot")
    assert await store.snapshot(path) == 5
    await store.commit(put("/later"))
    (tmp_path / "other").mkdir()
    copy = make(kind, tmp_path / "other")
    copy.restore(path)
    await copy.start()
    assert copy.current_revision() == 5
    assert [(e.key, e.value, e.revision, e.create_revision) for e in (await copy.list("")).entries] == [
        ("/a", b"2", 3, 2)
    ]
    assert await copy.commit(put("/a", b"3", 3)) == 6
    await copy.stop()
