"""The embedded store: one SQLite file, durable before it answers.

The newest entries are in memory (the watch cache shares their bytes), so `get` and a list at the newest revision
touch no disk. Writes go through one thread (sqlite_writer.py); history is read by another one with its own
connection. A group's events are in the watch queues before the future of any of its commits resolves.

Crash: at the next start everything that was answered is there; see sqlite_writer.py. A lock file keeps a second
process away.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from tiphys.store import sqlite_file
from tiphys.store.feed import MAX_QUEUED_EVENTS, Feed
from tiphys.store.interface import Compacted, Entry, Event, FutureRevision, Operation, Page, StoreFailed
from tiphys.store.ledger import Ledger, change_event
from tiphys.store.paging import page_of, roll_back
from tiphys.store.sqlite_writer import Commit, Compaction, Writer

MAX_QUEUED_COMMITS = 10_000
"""Commits that may wait for the writer; more are refused with StoreFailed."""
T = TypeVar("T")


class SqliteStore:
    """See the module's docstring and the `Store` protocol."""

    def __init__(self, path: str, *, max_bytes: int = 0, max_queued_events: int = MAX_QUEUED_EVENTS) -> None:
        """`max_bytes` limits the file (0: the disk does); beyond it commits fail until compaction frees pages."""
        self._path = path
        self._max_bytes = max_bytes
        self._ledger = Ledger()
        self._feed = Feed(max_queued_events)
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading: ThreadPoolExecutor | None = None
        self._lock = -1

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="tiphys-store-read")
        try:
            connection = await loop.run_in_executor(self._reading, self._open)
        except BaseException:
            self._reading.shutdown(wait=False)
            self._unlock()
            raise
        ledger = self._ledger
        self._writer = Writer(
            self._path, connection, dict(ledger.entries), ledger.revision, loop, self._publish, self._mark_compacted
        )
        self._writer.start()

    def _open(self) -> sqlite3.Connection:
        self._lock = _lock(self._path + ".lock")
        connection = sqlite_file.open_file(self._path, max_bytes=self._max_bytes)
        try:
            self._ledger.load(*sqlite_file.recover(connection))
            self._reader = sqlite_file.open_reader(self._path)
        except sqlite3.Error as error:
            connection.close()
            raise StoreFailed(f"cannot read the store {self._path}: {error}; restore a snapshot") from error
        return connection

    async def stop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None or self._reading is None or self._reader is None:
            return
        reader, self._reader = self._reader, None
        await asyncio.to_thread(writer.stop)  # what it published is handled by the loop before this returns
        self._feed.close()
        await asyncio.get_running_loop().run_in_executor(self._reading, reader.close)
        self._reading.shutdown()
        self._unlock()

    def current_revision(self) -> int:
        return self._ledger.revision

    def compacted_revision(self) -> int:
        return self._ledger.compacted

    def size_bytes(self) -> int:
        """Return the size of the store's files."""
        files = (self._path + suffix for suffix in ("", "-wal"))
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))

    async def get(self, key: str) -> Entry | None:
        return self._ledger.entries.get(key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int = 0) -> Page:
        current = self._ledger.revision
        revision = revision or current
        self._check_readable(revision)
        entries: Sequence[Entry] = self._ledger.select(prefix)
        if revision != current:
            before = await self._read(lambda reader: sqlite_file.read_before(reader, prefix, revision, current))
            entries = roll_back(entries, before)
        return page_of(entries, revision, start_after, limit)

    async def commit(self, operations: Sequence[Operation]) -> int:
        writer = self._writer
        if writer is None:
            raise StoreFailed(f"the store {self._path} is stopped; start it before writing")
        if writer.backlog() >= MAX_QUEUED_COMMITS:
            raise StoreFailed(f"{MAX_QUEUED_COMMITS} commits wait for the disk of {self._path}; try again later")
        commit = Commit(operations, asyncio.get_running_loop().create_future())
        writer.submit(commit)
        return await commit.future

    def _publish(self, commits: Sequence[Commit]) -> None:
        """Make a synced group visible: entries, then events, then answers."""
        events: list[Event] = []
        for commit in commits:
            if commit.changes:
                self._ledger.apply(commit.changes, commit.revision)
                events += [change_event(change, commit.revision) for change in commit.changes]
        if events:
            self._feed.publish(events)
        for commit in commits:
            if commit.future.done():
                continue
            if commit.error is None:
                commit.future.set_result(commit.revision)
            else:
                commit.future.set_exception(commit.error)

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        if after_revision < self._ledger.compacted:
            raise Compacted(after_revision, self._ledger.compacted)
        current = self._ledger.revision
        subscription = self._feed.open(prefix, max(after_revision, current))
        try:
            reached = after_revision
            while reached < current:
                read = partial(sqlite_file.read_events, prefix=prefix, after=reached, current=current)
                events, reached = await self._read(read)
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
        if self._writer is None:
            raise StoreFailed(f"the store {self._path} is stopped; start it before compacting")
        if revision > self._ledger.compacted:
            compaction = Compaction(revision, asyncio.get_running_loop().create_future())
            self._writer.submit(compaction)
            assert compaction.future is not None
            await compaction.future

    def _mark_compacted(self, revision: int) -> None:
        self._ledger.compacted = max(self._ledger.compacted, revision)

    async def snapshot(self, path: str) -> int:
        """Write a consistent copy; the file appears only when it is whole and synced."""
        return await self._read(lambda reader: _copy(reader, path))

    def restore(self, path: str) -> None:
        """Put a snapshot in place of the store's file. The store must not be started."""
        if self._writer is not None:
            raise StoreFailed(f"stop the store {self._path} before restoring it")
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self._path + suffix):
                os.unlink(self._path + suffix)
        part = self._path + ".part"
        shutil.copyfile(path, part)
        os.chmod(part, 0o600)
        os.replace(part, self._path)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read of history in the reading thread."""
        if self._reading is None or self._reader is None:
            raise StoreFailed(f"the store {self._path} is stopped; start it before reading history")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, work, self._reader)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"cannot read {self._path}: {error}") from error

    def _check_readable(self, revision: int) -> None:
        if revision > self._ledger.revision:
            raise FutureRevision(revision, self._ledger.revision)
        if revision < self._ledger.compacted:
            raise Compacted(revision, self._ledger.compacted)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailed(f"cannot make {path}: {error}; check the directory and its owner") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreFailed(f"another process uses this store ({path} is locked); stop it first") from error
    return descriptor


def _copy(reader: sqlite3.Connection, path: str) -> int:
    part = path + ".part"
    descriptor = os.open(part, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    try:
        target = sqlite3.connect(part, isolation_level=None)
        try:
            reader.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            newest = target.execute("SELECT max(id) FROM log").fetchone()[0] or 0
            revision = max(newest >> sqlite_file.PLACE_BITS, sqlite_file.read_meta(target, "compacted"), 1)
        finally:
            target.close()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(part, path)
    return revision
