"""How far back history reaches, on a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from tiphys.apiserver.compaction import HISTORY_S, LOOK_EVERY_S, run_compaction
from tiphys.base.clock import LoopClock
from tiphys.base.virtualloop import run_virtual
from tiphys.store.interface import Operation, StoreFailed
from tiphys.store.memory import MemoryStore

WRITE_EVERY_S = 10.0


class FailingStore(MemoryStore):
    """A memory store that fails to compact while `failing` is set."""

    failing = False

    async def compact(self, revision: int) -> None:
        if self.failing:
            raise StoreFailed("the disk is full")
        await super().compact(revision)


async def _with_writes(check: Callable[[FailingStore, dict[int, float]], Coroutine[Any, Any, None]]) -> None:
    """Run a check beside compaction and a writer; it gets the store, and when each revision was made."""
    store, made = FailingStore(), dict[int, float]()
    await store.start()
    made[store.current_revision()] = asyncio.get_running_loop().time()

    async def write() -> None:
        for number in itertools.count():
            await asyncio.sleep(WRITE_EVERY_S)
            revision = await store.commit([Operation(f"/registry/core/configmaps/a/{number}", b"{}")])
            made[revision] = asyncio.get_running_loop().time()

    tasks = [asyncio.create_task(write()), asyncio.create_task(run_compaction(store, LoopClock()))]
    try:
        await check(store, made)
    finally:
        for task in tasks:
            task.cancel()
        await store.stop()


def test_history_is_kept_for_five_minutes_and_hardly_longer() -> None:
    async def check(store: FailingStore, made: dict[int, float]) -> None:
        oldest_s = []
        for _ in range(300):
            await asyncio.sleep(5.0)
            oldest_s.append(asyncio.get_running_loop().time() - made[max(store.compacted_revision(), min(made))])
        settled = oldest_s[150:]
        assert min(settled) >= HISTORY_S
        assert max(settled) <= HISTORY_S + LOOK_EVERY_S + 2 * WRITE_EVERY_S
        assert max(settled) < 2 * HISTORY_S - 60, "clients wait ten minutes for a token to expire"

    run_virtual(_with_writes(check))


def test_a_store_that_fails_is_tried_again() -> None:
    async def check(store: FailingStore, made: dict[int, float]) -> None:
        store.failing = True
        await asyncio.sleep(3 * HISTORY_S)
        assert store.compacted_revision() <= min(made)
        store.failing = False
        await asyncio.sleep(LOOK_EVERY_S + 1)
        age_s = asyncio.get_running_loop().time() - made[store.compacted_revision()]
        assert HISTORY_S <= age_s <= HISTORY_S + LOOK_EVERY_S + 2 * WRITE_EVERY_S

    run_virtual(_with_writes(check))
