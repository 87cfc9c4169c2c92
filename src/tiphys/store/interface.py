"""The store: a revisioned log of keys and byte values.

One global sequence of revisions. A commit is a list of operations with expected revisions; all happen at one new
revision or none does. An answered commit is durable. Revisions are served until they are compacted. Readers of this
seam: the registry (get, commit) and the watch cache (list, watch). Implementations: memory.py, sqlite.py; all pass
tests/contract/test_store.py.

Entries and events are msgspec structs outside of the garbage collector: there are as many as objects in the cluster,
they hold no cycles, and looking at all of them takes it longer than a request may take.

Spec: the semantics are etcd v3's (revision, mod revision, compaction), so that etcd can stand behind it too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tiphys.base.errors import TiphysError

ABSENT = 0
"""Expected revision of a key that must not exist."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key with its value and the revision of its last change."""

    key: str
    value: bytes
    revision: int
    create_revision: int


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One write of a commit. `value` None deletes. `expected` is the mod revision that the key must have now:
    None for any, ABSENT (0) for a key that must not exist. Deleting an absent key with `expected` None does nothing."""

    key: str
    value: bytes | None
    expected: int | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change. `value` is None for a deletion. `previous` is the value before (None for a creation)."""

    key: str
    revision: int
    value: bytes | None
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list, in key order, all as of `revision`. `remaining` counts the entries after the last one here."""

    entries: Sequence[Entry]
    revision: int
    remaining: int


class ExpectationFailed(TiphysError):
    """A key was not at its expected revision; nothing was written. `current` is its entry now, None if absent."""

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(f"{key} is at revision {current.revision if current else 0}, not at the expected one")
        self.key = key
        self.current = current


class Compacted(TiphysError):
    """The revision asked for is older than the oldest one kept. `oldest` is the oldest that can be read."""

    def __init__(self, requested: int, oldest: int) -> None:
        super().__init__(f"revision {requested} has been compacted; the oldest kept is {oldest}")
        self.requested = requested
        self.oldest = oldest


class FutureRevision(TiphysError):
    """The revision asked for has not happened yet."""

    def __init__(self, requested: int, current: int) -> None:
        super().__init__(f"revision {requested} is in the future; the current one is {current}")
        self.requested = requested
        self.current = current


class StoreFailed(TiphysError):
    """The medium failed (disk full, I/O error); nothing of the commit was written. Later commits may succeed."""


class Store(Protocol):
    """See the module's docstring. All methods may be called concurrently from one event loop."""

    async def start(self) -> None:
        """Open the medium and recover. Raises StoreFailed with the path and the reason."""
        ...

    async def stop(self) -> None:
        """Finish queued commits, end all watches, close. Idempotent."""
        ...

    def current_revision(self) -> int:
        """Return the newest committed revision. A fresh store is at 1, as etcd's."""
        ...

    def compacted_revision(self) -> int:
        """Return the revision up to which history is gone (0: none is)."""
        ...

    async def get(self, key: str) -> Entry | None:
        """Return the newest entry of a key."""
        ...

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Return entries with the prefix whose key is greater than `start_after`.

        `limit` 0 means all; `revision` 0 means now. Raises Compacted and FutureRevision.
        """
        ...

    async def commit(self, operations: Sequence[Operation]) -> int:
        """Apply all operations at one new revision, durably, and return that revision.

        Raises ExpectationFailed (nothing was written) and StoreFailed (nothing was written). Cancelling the caller
        leaves the commit either whole or absent, never half. A commit with no effect returns the current revision.
        """
        ...

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        """Yield batches of events after a revision, in order, without gap or repetition; one revision is never
        split over two batches. Raises Compacted at the first step if history is gone, and later if the reader fell
        so far behind that its queue was dropped."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget values superseded at or before `revision`. Idempotent; never blocks commits for long."""
        ...

    async def snapshot(self, path: str) -> int:
        """Write a consistent copy to a file and return its revision. `restore` of the implementation reads it."""
        ...
