"""A store that fails as media do, and that records every write. For simulation, over any other store.

`errors` is the share of commits that fail with nothing written; a full disk is a share of 1 for a while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from tiphys.base.clock import Clock, Randomness
from tiphys.cluster.history import History
from tiphys.store.interface import Entry, Event, Operation, Page, Store, StoreFailed


class FaultyStore:
    """Implements `store.interface.Store` over another store."""

    def __init__(self, store: Store, history: History, clock: Clock, randomness: Randomness) -> None:
        self._store = store
        self._history = history
        self._clock = clock
        self._random = randomness
        self.errors = 0.0

    async def start(self) -> None:
        await self._store.start()

    async def stop(self) -> None:
        await self._store.stop()

    def current_revision(self) -> int:
        return self._store.current_revision()

    def compacted_revision(self) -> int:
        return self._store.compacted_revision()

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await self._store.list(prefix, start_after=start_after, limit=limit, revision=revision)

    async def commit(self, operations: Sequence[Operation]) -> int:
        if self.errors and self._random.uniform(0.0, 1.0) < self.errors:
            raise StoreFailed("simulated: no space left on device")
        there: Callable[[str], bool] = self._history.live.__contains__
        before = self._store.current_revision()
        revision = await self._store.commit(operations)
        if revision > before:
            for operation in operations:
                if operation.value is not None or there(operation.key):
                    self._history.write(self._clock.monotonic_s(), revision, operation.key, operation.value)
        return revision

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        return self._store.watch(prefix, after_revision)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def snapshot(self, path: str) -> int:
        return await self._store.snapshot(path)
