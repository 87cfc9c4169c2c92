"""The slow effects of one pod's worker: child tasks by name, with back-off after a failure, and the next timer.

Invariants: one task a name; a name that failed does not run again before its back-off (0.5 s doubling to 2 min) is
over; every end of a task wakes the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from tiphys.base.clock import Clock
from tiphys.base.errors import TiphysError

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 120.0


class Operations:
    """See the module's docstring. `pod` is for messages."""

    def __init__(self, clock: Clock, wake: Callable[[], None], pod: str) -> None:
        self._clock = clock
        self._wake = wake
        self._pod = pod
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retry_at_s: dict[str, float] = {}
        self._retry_s: dict[str, float] = {}
        self.next_s: float | None = None
        """When the worker has to look again though nothing happened. The worker clears it before each look."""

    def names(self) -> tuple[str, ...]:
        """Return what runs."""
        return tuple(self._tasks)

    def start(self, name: str, effect: Coroutine[Any, Any, None]) -> bool:
        """Run one effect under a name, unless one of that name runs or failed a moment ago."""
        if name in self._tasks or not self.due(name):
            effect.close()
            return False
        task = asyncio.create_task(self._guard(name, effect), name=f"{name} of pod {self._pod}")
        self._tasks[name] = task
        # Not in the task's own `finally`: a task that is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: self._ended(name, effect))
        return True

    def _ended(self, name: str, effect: Coroutine[Any, Any, None]) -> None:
        effect.close()
        self._tasks.pop(name, None)
        self._wake()

    async def _guard(self, name: str, effect: Coroutine[Any, Any, None]) -> None:
        try:
            await effect
            self.succeeded(name)
        except (TiphysError, OSError) as error:
            log.warning("pod %s: %s: %s; it is tried again", self._pod, name, error)
            self.retry(name)
        except Exception:  # the worker boundary: an operation that fails in a new way must not spin
            log.exception("pod %s: %s failed; it is tried again", self._pod, name)
            self.retry(name)

    async def cancel(self, name: str) -> None:
        """Cancel one effect and wait for its end."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._tasks.pop(name, None)

    def interrupt(self) -> None:
        """Cancel all without waiting: the worker plans them anew."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Cancel all and wait for their end."""
        tasks = list(self._tasks.values())
        self.interrupt()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Timers

    def due(self, name: str) -> bool:
        """Tell whether a name may run again; if not, the worker wakes when it may."""
        at_s = self._retry_at_s.get(name)
        if at_s is None or at_s <= self._clock.now_s():
            return True
        self.wake_at(at_s)
        return False

    def retry(self, name: str, first_s: float = FIRST_RETRY_S) -> None:
        """Note a failure: the name waits twice as long as the last time."""
        wait_s = min(self._retry_s.get(name, first_s / 2) * 2, LONGEST_RETRY_S)
        self._retry_s[name] = wait_s
        self._retry_at_s[name] = self._clock.now_s() + wait_s

    def retry_at(self, name: str, at_s: float) -> None:
        """Let a name wait until a given time."""
        self._retry_at_s[name] = at_s

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        self._retry_s.pop(name, None)
        self._retry_at_s.pop(name, None)

    def wake_at(self, at_s: float) -> None:
        """Make the worker look again at a time, or earlier."""
        self.next_s = at_s if self.next_s is None else min(self.next_s, at_s)
