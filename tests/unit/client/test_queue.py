"""The work queue's promises: once, one at a time, again after."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.base.clock import LoopClock, Randomness
from tiphys.base.errors import conflict
from tiphys.client.queue import WorkQueue, run_workers


def make_queue() -> WorkQueue:
    return WorkQueue(LoopClock(), Randomness(1))


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue = make_queue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_again_after_done() -> None:
    queue = make_queue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_the_earliest_of_two_delays_counts() -> None:
    queue = make_queue()
    queue.add_after("a", 100)
    queue.add_after("a", 0.001)
    assert await asyncio.wait_for(queue.get(), 5) == "a"
    queue.add_after("b", 0.001)
    queue.add_after("b", 100)
    assert await asyncio.wait_for(queue.get(), 5) == "b"
    queue.close()


async def test_a_cancelled_getter_leaves_the_key_to_another() -> None:
    queue = make_queue()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 5) == "a"


async def test_failures_are_retried_with_growing_delays_and_success_forgets_them() -> None:
    queue = make_queue()
    tries: list[str] = []
    finished = asyncio.Event()

    async def reconcile(key: str) -> None:
        tries.append(key)
        if len(tries) == 1:
            raise conflict("", "pods", "a")
        if len(tries) == 2:
            raise ConnectionRefusedError("down")
        if len(tries) == 3:
            raise ValueError("a defect")
        finished.set()

    workers = asyncio.create_task(run_workers(queue, reconcile, workers=2, name="test"))
    queue.add("a")
    await asyncio.wait_for(finished.wait(), 5)
    await asyncio.sleep(0)
    assert tries == ["a"] * 4
    assert queue.failures("a") == 0
    workers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await workers


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.sampled_from("abc"))))
def test_no_key_is_lost_or_with_two_workers(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        queue = make_queue()
        wanted: set[str] = set()
        working: set[str] = set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                wanted.add(key)
            elif step == "get" and len(queue):
                got = await queue.get()
                assert got not in working
                assert got in wanted
                wanted.discard(got)
                working.add(got)
            elif step == "done" and key in working:
                queue.done(key)
                working.discard(key)
        assert len(queue) == len(wanted - working)

    asyncio.run(run())
