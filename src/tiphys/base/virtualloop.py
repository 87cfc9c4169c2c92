"""An event loop on virtual time: sleeping costs nothing, and the same program gives the same history.

Whenever nothing is ready to run, time jumps to the next timer. `run_virtual` is `asyncio.run` on such a loop; hours of a
cluster pass in seconds. There is no real I/O here: sockets do not belong on this loop, work meant for a thread is done
at once in the loop's own (threads end in any order), and a program that waits for nothing that can ever come is told so
instead of hanging.

Invariant: tasks hash by the order of their creation, so a set of tasks (a TaskGroup's children) iterates in an order
that does not depend on memory addresses.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):
    """Everything waits and no timer is set: the program can never go on."""


class OrderedTask(asyncio.Task[T]):
    """A task whose hash is its number."""

    def __init__(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], *, loop: VirtualLoop, **options: Any
    ) -> None:
        # Numbers begin anew with each loop: where a set's iteration starts depends on them, so that a second run of a
        # program in one process must get the same ones.
        self._number = next(loop.task_numbers)
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _VirtualSelector(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits for another and no timer is set")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module's docstring."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        self.task_numbers = itertools.count()
        super().__init__(self._virtual)
        # A timer is due within this of its time. The machine's nanosecond is less than what a float of months can hold:
        # then a timer would never be due, and time never move on.
        self._clock_resolution = 1e-6
        self.set_task_factory(lambda loop, coro, **options: OrderedTask(coro, loop=self, **options))

    def time(self) -> float:
        return self._virtual.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do the work now; the future that is returned is done."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # what a worker thread hands over too: the caller gets it
            future.set_exception(error)
        return future


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh virtual loop and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
