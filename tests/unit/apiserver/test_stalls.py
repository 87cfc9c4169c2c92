"""A server whose process stands still for seconds, as on a machine that is too busy: nothing that was done is refused.

Time jumps by more than any wait for the watch cache, in every turn of the loop that a scenario takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from assembled_server import running_server

from tiphys.apiserver.cache import WatchCache
from tiphys.base.errors import ApiError
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"
SCHEMAS = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
STALL_S = 5.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that finds, in one of its turns, that much time has gone."""

    def __init__(self, jump_at: int = 0) -> None:
        super().__init__()
        self.turns = 0
        self._jump_at = jump_at
        self._lost_s = 0.0

    def time(self) -> float:
        return super().time() + self._lost_s

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns == self._jump_at:
            self._lost_s += STALL_S
        super()._run_once()  # type: ignore[misc]


def turns_of(scenario: Callable[[], Awaitable[Any]], jump_at: int = 0) -> int:
    """Run a scenario with a jump of time in one turn; return how many turns it took."""
    loop = JumpingLoop(jump_at)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_awaited(scenario))
        return loop.turns


async def _awaited(scenario: Callable[[], Awaitable[Any]]) -> None:
    await scenario()


async def write_and_read() -> None:
    """Writes and reads of a client, beside what the server makes of itself at its start."""
    async with running_server() as server:
        await server.made(MAPS, {"metadata": {"name": "a"}})
        status, answer = await server.call("PUT", f"{MAPS}/a", {"metadata": {"name": "a"}, "data": {"b": "c"}})
        assert status == 200, answer
        assert len((await server.named(MAPS))["items"]) == 1
        while not all("status" in schema for schema in (await server.named(SCHEMAS))["items"]):  # noqa: ASYNC110
            await asyncio.sleep(0)  # what it makes is asked for, as a client would
        assert (await server.call("DELETE", f"{MAPS}/a"))[0] == 200


def test_what_was_done_is_answered_however_long_the_process_stood_still() -> None:
    turns = turns_of(write_and_read)
    assert turns > 20
    for turn in range(1, turns + 1):
        turns_of(write_and_read, turn)


async def test_a_cache_that_is_really_behind_is_waited_for_no_longer_than_asked() -> None:
    store = MemoryStore()
    await store.start()
    cache = WatchCache(store)
    await cache.start()
    value = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}'
    revision = await store.commit([Operation("/registry/core/configmaps/a/b", value)])
    with pytest.raises(ApiError, match=f"at revision {revision} and not at {revision + 1} after 0.02 s"):
        await cache.wait_for(revision + 1, 0.02)
    await cache.stop()
    await store.stop()
