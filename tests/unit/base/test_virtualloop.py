"""The virtual loop: time without waiting, threads without disorder, deadlocks told; sets that keep their order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tiphys.base.orderedset import OrderedSet
from tiphys.base.virtualloop import Deadlock, run_virtual


def test_a_year_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 365 * 86_400


def test_work_for_a_thread_is_done_here_and_now() -> None:
    async def main() -> list[object]:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return [await asyncio.to_thread(threading.current_thread), asyncio.get_running_loop().time()]

    assert run_virtual(main()) == [threading.current_thread(), 0.0]


def test_a_program_that_can_never_go_on_is_told_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main())


def test_tasks_in_a_set_come_in_the_order_of_their_creation() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0), name=str(n)) for n in range(500)]
        names = [task.get_name() for task in {*tasks}]
        await asyncio.gather(*tasks)
        return names

    assert run_virtual(main()) == run_virtual(main())


def test_an_ordered_set_iterates_in_the_order_of_arrival() -> None:
    items = OrderedSet("cab")
    items.add("b")
    items.discard("a")
    items.add("a")
    assert list(items) == ["c", "b", "a"]
    assert "b" in items
    assert len(items) == 3
