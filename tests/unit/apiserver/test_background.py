"""Work beside the requests that ends is told, with its name: a server without it must not go on as if nothing were."""

from __future__ import annotations

import asyncio

import pytest
from assembled_server import running_server

from tiphys.apiserver import compaction
from tiphys.apiserver.assembly import BackgroundFailed
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore


async def test_a_bug_in_background_work_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(MemoryStore):
        async def compact(self, revision: int) -> None:
            raise KeyError("a bug")

    monkeypatch.setattr(compaction, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(compaction, "HISTORY_S", 0.0)
    async with running_server(Broken()) as server, asyncio.timeout(5):
        with pytest.raises(BackgroundFailed, match="compaction of the API server ended: KeyError") as caught:
            await server.assembled.wait_for_failure()
        assert isinstance(caught.value.__cause__, KeyError)


async def test_a_value_that_cannot_be_read_is_no_silent_end_of_the_watch_cache() -> None:
    async with running_server() as server, asyncio.timeout(5):
        await server.store.commit([Operation("/registry/core/configmaps/default/a", b"no object")])
        with pytest.raises(BackgroundFailed, match="watch-cache"):
            await server.assembled.wait_for_failure()


async def test_a_server_that_is_well_is_waited_for_until_it_is_stopped() -> None:
    async with running_server() as server:
        waiting = asyncio.create_task(server.assembled.wait_for_failure())
        await server.made("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
