"""The one thread that writes to the SQLite file: group commit and compaction in small steps.

Commits wait in a queue. All that queued while the previous group was being synced form the next group: one
transaction, one sync. Each commit keeps its own revision and its own check of expectations, so one that fails does not
hurt the others; if the medium fails, the whole group fails and nothing of it is written. Compaction runs one bounded
step between groups.

Crash: a group is in the file wholly or not at all, and no commit is answered before its group is synced.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tiphys.base.errors import TiphysError
from tiphys.store import sqlite_file
from tiphys.store.interface import Entry, Operation, StoreFailed
from tiphys.store.ledger import Change, apply_operations

GROUP_COMMITS = 512
"""Most commits of one group."""


@dataclass(slots=True, eq=False)
class Commit:
    """One commit on its way. The writer fills `revision` with `changes`, or `error`."""

    operations: Sequence[Operation]
    future: asyncio.Future[int]
    revision: int = 0
    changes: Sequence[Change] = ()
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Compaction:
    """Forget what was superseded up to `revision`; `future` None for one that a crash interrupted."""

    revision: int
    future: asyncio.Future[None] | None = None
    marked: bool = field(default=False)
    cleaned: bool = field(default=False)


class Writer:
    """Owns the writing connection from `start` to the end of its thread."""

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection,
        entries: dict[str, Entry],
        revision: int,
        loop: asyncio.AbstractEventLoop,
        publish: Callable[[Sequence[Commit]], None],
        compacted: Callable[[int], None],
    ) -> None:
        """`publish` and `compacted` are called on the loop, in order."""
        self._path = path
        self._connection = connection
        self._entries = entries
        self._revision = revision
        self._loop = loop
        self._publish = publish
        self._compacted = compacted
        self._queue: queue.SimpleQueue[Commit | Compaction | None] = queue.SimpleQueue()
        self._compactions: list[Compaction] = []
        self._stopping = False
        self._ended = False
        self._current: list[Commit] = []
        """The group that is being written."""
        self._thread = threading.Thread(target=self._run, name="tiphys-store", daemon=True)

    def start(self) -> None:
        marked, cleaned = (sqlite_file.read_meta(self._connection, name) for name in ("compacted", "cleaned"))
        if cleaned < marked:
            self._compactions.append(Compaction(marked, marked=True))
        self._thread.start()

    def submit(self, item: Commit | Compaction) -> None:
        """Queue work. Its future is always answered, also when the thread has ended."""
        self._queue.put(item)
        if self._ended:
            self._refuse(())

    def backlog(self) -> int:
        """Return how many commits wait."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Write what is queued and end the thread; blocks until then."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._current = self._take()
                if self._current:
                    self._write_group(self._current)
                self._current = []
                if self._compactions and not self._stopping:
                    self._step_compaction(self._compactions[0])
        finally:
            self._close()

    def _close(self) -> None:
        """Answer what is left, which is something only after a programmer error, and close the file."""
        self._ended = True
        self._refuse(self._current)
        for compaction in self._compactions:
            self._finish(compaction, None)
        self._roll_back()
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            pass  # the log file is replayed at the next start
        self._connection.close()

    def _refuse(self, commits: Sequence[Commit]) -> None:
        """Fail commits, and all that is queued, after the end."""
        left = list(commits)
        error = StoreFailed(f"the writer of {self._path} ended; restart the server")
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, Commit):
                left.append(item)
            elif item is not None:
                self._finish(item, error)
        for commit in left:
            commit.changes, commit.error = (), error
        if left:
            self._loop.call_soon_threadsafe(self._publish, left)

    def _take(self) -> list[Commit]:
        """Return the commits of the next group; wait for one unless a compaction has work to do."""
        commits: list[Commit] = []
        waiting = self._queue
        while len(commits) < GROUP_COMMITS and (not waiting.empty() or not (commits or self._compactions)):
            item = waiting.get()
            if item is None:
                self._stopping = True
                break
            if isinstance(item, Commit):
                commits.append(item)
            else:
                self._compactions.append(item)
        return commits

    def _write_group(self, commits: list[Commit]) -> None:
        pending: dict[str, Entry | None] = {}
        rows: list[sqlite_file.Row] = []
        revision = self._revision
        for commit in commits:
            try:
                commit.changes = apply_operations(commit.operations, revision + 1, self._entries, pending)
            except (TiphysError, ValueError) as error:
                commit.error = error
                continue
            if commit.changes:
                revision += 1
                rows += sqlite_file.rows_of(commit.changes, revision)
            commit.revision = revision
        try:
            if rows:
                sqlite_file.insert_rows(self._connection, rows)
        except (sqlite3.Error, OverflowError) as error:
            self._roll_back()
            for commit in commits:
                commit.changes, commit.revision = (), 0
                commit.error = self._failed("write", error)
        else:
            self._revision = revision
            for key, entry in pending.items():
                if entry is None:
                    self._entries.pop(key, None)
                else:
                    self._entries[key] = entry
        self._loop.call_soon_threadsafe(self._publish, commits)

    def _step_compaction(self, compaction: Compaction) -> None:
        """Mark, then remove superseded rows, then give pages back: one bounded piece of it."""
        connection = self._connection
        try:
            if not compaction.marked:
                if compaction.revision > sqlite_file.read_meta(connection, "compacted"):
                    sqlite_file.write_meta(connection, "compacted", compaction.revision)
                compaction.marked = True
                self._loop.call_soon_threadsafe(self._compacted, compaction.revision)
            elif not compaction.cleaned:
                behind = sqlite_file.read_meta(connection, "cleaned") < compaction.revision
                compaction.cleaned = not (behind and sqlite_file.clean_step(connection, compaction.revision))
            elif not sqlite_file.vacuum_step(connection):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._compactions.pop(0)
                self._finish(compaction, None)
        except sqlite3.Error as error:
            self._roll_back()
            self._compactions.pop(0)
            self._finish(compaction, self._failed("compact", error))

    def _finish(self, compaction: Compaction, error: StoreFailed | None) -> None:
        def resolve(future: asyncio.Future[None]) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        if compaction.future is not None:
            self._loop.call_soon_threadsafe(resolve, compaction.future)

    def _failed(self, what: str, error: Exception) -> StoreFailed:
        return StoreFailed(f"cannot {what} {self._path}: {error}; nothing was written, free space and try again")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has already rolled back
