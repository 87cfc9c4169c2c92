"""What the server keeps in order by name: merged, and tried again without stopping the others."""

from __future__ import annotations

import asyncio

import pytest

from tiphys.apiserver import dirtynames
from tiphys.apiserver.dirtynames import DirtyNames
from tiphys.base.errors import service_unavailable


async def test_names_are_merged_and_a_change_meanwhile_is_looked_at_afterwards() -> None:
    seen: list[str] = []
    over = asyncio.Event()

    async def look(name: str) -> None:
        seen.append(name)
        if seen == ["a", "b"]:
            dirty.mark("b")
        if len(seen) == 3:
            over.set()

    dirty = DirtyNames("Thing", look)
    for name in ("a", "b", "a"):
        dirty.mark(name)
    task = asyncio.create_task(dirty.run())
    async with asyncio.timeout(5):
        await over.wait()
    task.cancel()
    assert seen == ["a", "b", "b"]


@pytest.mark.parametrize("failure", [service_unavailable("no space"), TimeoutError("late"), KeyError("a bug")])
async def test_what_fails_comes_back_later_each_time_and_stops_nobody(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dirtynames, "RETRY_FIRST_S", 0.01)
    loop, begun_s, seen = asyncio.get_running_loop(), asyncio.get_running_loop().time(), []
    over = asyncio.Event()

    async def look(name: str) -> None:
        seen.append((name, loop.time() - begun_s))
        if name == "bad":
            if len(seen) == 4:
                over.set()
                return
            raise failure

    dirty = DirtyNames("Thing", look)
    dirty.mark("bad")
    dirty.mark("good")
    task = asyncio.create_task(dirty.run())
    async with asyncio.timeout(5):
        await over.wait()
    task.cancel()
    assert [name for name, _ in seen] == ["bad", "good", "bad", "bad"]
    assert seen[2][1] >= 0.009 and seen[3][1] - seen[2][1] >= 0.019
