"""The store in memory: for tests and simulation. Same semantics as sqlite.py, but "durable" means nothing here.

History is a list of changes in revision order; compaction cuts its head. Everything happens on the event loop, so
one seed gives one history.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from tiphys.store.feed import MAX_QUEUED_EVENTS, Feed
from tiphys.store.interface import Compacted, Entry, Event, FutureRevision, Operation, Page, StoreFailed
from tiphys.store.ledger import Change, Ledger, apply_operations, change_event
from tiphys.store.paging import page_of, roll_back


class MemoryStore:
    """See the module's docstring and the `Store` protocol."""

    def __init__(self, *, max_queued_events: int = MAX_QUEUED_EVENTS) -> None:
        self._ledger = Ledger()
        self._feed = Feed(max_queued_events)
        self._history: list[tuple[int, Change]] = []
        self._running = False

    async def start(self) -> None:
        self._running = True

    async def stop(self) -> None:
        self._running = False
        self._feed.close()

    def current_revision(self) -> int:
        return self._ledger.revision

    def compacted_revision(self) -> int:
        return self._ledger.compacted

    async def get(self, key: str) -> Entry | None:
        return self._ledger.entries.get(key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int = 0) -> Page:
        ledger = self._ledger
        revision = revision or ledger.revision
        self._check_readable(revision)
        entries = ledger.select(prefix)
        if revision != ledger.revision:
            later = self._history[self._position(revision) :]
            before: dict[str, Entry | None] = {}
            for _, (key, _, old) in later:
                if key.startswith(prefix):
                    before.setdefault(key, old)
            entries = roll_back(entries, before)
        return page_of(entries, revision, start_after, limit)

    async def commit(self, operations: Sequence[Operation]) -> int:
        if not self._running:
            raise StoreFailed("the store in memory is stopped; start it before writing")
        revision = self._ledger.revision + 1
        changes = apply_operations(operations, revision, self._ledger.entries, {})
        if not changes:
            return self._ledger.revision
        self._ledger.apply(changes, revision)
        self._history += [(revision, change) for change in changes]
        self._feed.publish([change_event(change, revision) for change in changes])
        return revision

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        if after_revision < self._ledger.compacted:
            raise Compacted(after_revision, self._ledger.compacted)
        subscription = self._feed.open(prefix, max(after_revision, self._ledger.revision))
        try:
            events = [
                change_event(change, revision)
                for revision, change in self._history[self._position(after_revision) :]
                if change[0].startswith(prefix)
            ]
            if events:
                yield events
            while (batch := await subscription.next_batch()) is not None:
                if batch[-1].revision > after_revision:
                    yield [event for event in batch if event.revision > after_revision]
        finally:
            self._feed.discard(subscription)

    async def compact(self, revision: int) -> None:
        if revision > self._ledger.revision:
            raise FutureRevision(revision, self._ledger.revision)
        if revision > self._ledger.compacted:
            del self._history[: self._position(revision)]
            self._ledger.compacted = revision

    async def snapshot(self, path: str) -> int:
        data = msgspec.msgpack.encode((self._ledger.revision, list(self._ledger.entries.values())))
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return self._ledger.revision

    def restore(self, path: str) -> None:
        """Take over a snapshot; its history counts as compacted."""
        revision, entries = msgspec.msgpack.decode(Path(path).read_bytes(), type=tuple[int, list[Entry]])
        self._ledger.load({entry.key: entry for entry in entries}, revision, revision)
        self._history.clear()

    def _position(self, revision: int) -> int:
        """Return the index of the first change after a revision."""
        return bisect_right(self._history, revision, key=lambda item: item[0])

    def _check_readable(self, revision: int) -> None:
        if revision > self._ledger.revision:
            raise FutureRevision(revision, self._ledger.revision)
        if revision < self._ledger.compacted:
            raise Compacted(revision, self._ledger.compacted)
