"""Runs a coroutine's first step without a task, and makes a task of it only when it suspends.

Most requests (every GET from the watch cache) never suspend; a task for each would cost more than parsing them.
`FirstStep` stands in for the task while the first step runs, so that `asyncio.timeout` and `TaskGroup`, which keep the
current task, work there too: what they keep is forwarded to the real task once there is one.

Invariant: a coroutine runs in one context (contextvars) from its first step to its end.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class FirstStep:
    """Stands for a task that may never be needed. `become_task` is called at most once."""

    __slots__ = ("_cancels", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0

    def become_task(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        for _ in range(self._cancels):
            task.cancel()

    def cancel(self, msg: Any = None) -> bool:
        if self._task is not None:
            return self._task.cancel(msg)
        self._cancels += 1
        return True

    def uncancel(self) -> int:
        if self._task is not None:
            return self._task.uncancel()
        self._cancels = max(0, self._cancels - 1)
        return self._cancels

    def cancelling(self) -> int:
        return self._task.cancelling() if self._task is not None else self._cancels

    def done(self) -> bool:
        return self._task.done() if self._task is not None else False

    def get_name(self) -> str:
        return self._task.get_name() if self._task is not None else "request"

    def __getattr__(self, name: str) -> Any:
        if self._task is None:
            raise AttributeError(f"{name} is not available in the first step of a request")
        return getattr(self._task, name)


class Stepper:
    """Runs first steps on one event loop. The stand-in is reused until a coroutine suspends and takes it along."""

    __slots__ = ("_loop", "_stand_in")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stand_in = FirstStep()

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> tuple[T, None] | tuple[None, asyncio.Task[T]]:
        """Return (result, None) when the coroutine ended in its first step, else (None, the task that goes on).

        Raises what the coroutine raised in its first step. Called inside a task, it makes a task at once.
        """
        loop = self._loop
        if asyncio.current_task(loop) is not None:
            return None, loop.create_task(coroutine, name=name)
        context = copy_context()
        stand_in = self._stand_in
        asyncio._enter_task(loop, stand_in)  # type: ignore[arg-type]
        try:
            waits_for = context.run(coroutine.send, None)
        except StopIteration as stop:
            return stop.value, None
        finally:
            asyncio._leave_task(loop, stand_in)  # type: ignore[arg-type]
        self._stand_in = FirstStep()
        task = loop.create_task(_go_on(coroutine, waits_for), name=name, context=context)
        stand_in.become_task(task)
        return None, task


async def _go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> T:
    return await resumed(coroutine, waits_for)


@types.coroutine
def resumed(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Continue a coroutine that has yielded `waits_for`, and return its result: what the loop sends or throws here goes
    on into it."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown on into the coroutine
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
