"""The work queue of a controller, and the workers that empty it.

Decides when a key is handed to a worker. Handlers of reflectors put keys in, workers take them out. Invariants: a key
waits at most once; it is never with two workers at a time; a key added while it is worked on comes once more after
`done`. So nothing is lost and nothing is done twice at once, and the queue never holds more than one entry for each
object (that is its bound).

Spec: the semantics of work queues that every Kubernetes controller relies on; back-off 5 ms doubling to 1000 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import ApiError

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.005
RETRY_LONGEST_S = 1000.0
RETRY_JITTER = 0.1
"""Part of a delay that is added at random, so that keys which failed together do not come back together."""
_QUIET_REASONS = frozenset({"Conflict", "AlreadyExists"})


class WorkQueue:
    """Keys that wait for work; see the module's docstring. For one event loop."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._ready: deque[str] = deque()
        """Keys that may be handed out now, oldest first."""
        self._wanted: set[str] = set()
        """Keys that need work: those in `_ready`, and those of `_working` that were added again."""
        self._working: set[str] = set()
        """Keys that a worker has."""
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        """Keys that come later: the monotonic time at which, and the loop's timer."""
        self._failures: dict[str, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Return how many keys wait to be handed out now."""
        return len(self._ready)

    def add(self, key: str) -> None:
        """Ask for work on a key, now."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: str, delay_s: float) -> None:
        """Ask for work on a key later. Of several such wishes for one key the earliest counts."""
        if delay_s <= 0:
            self.add(key)
            return
        due_s = self._clock.monotonic_s() + delay_s
        timer = self._timers.get(key)
        if timer is not None:
            if timer[0] <= due_s:
                return
            timer[1].cancel()
        handle = asyncio.get_running_loop().call_later(delay_s, self._fire, key)
        self._timers[key] = (due_s, handle)

    def retry(self, key: str) -> None:
        """Ask for work on a key that failed, after its back-off."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(RETRY_FIRST_S * 2 ** min(failures, 30), RETRY_LONGEST_S)
        self.add_after(key, delay_s * (1 + self._randomness.uniform(0, RETRY_JITTER)))

    def forget(self, key: str) -> None:
        """Reset the back-off of a key. Wishes for it stand."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """Return how often a key was retried since it was last forgotten."""
        return self._failures.get(key, 0)

    async def get(self) -> str:
        """Return the next key; the caller owes a `done`. Cancellation takes no key."""
        while not self._ready:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()
                elif getter in self._getters:
                    self._getters.remove(getter)
                raise
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """End the work on a key; it is handed out again if it was added meanwhile."""
        self._working.discard(key)
        if key in self._wanted:
            self._ready.append(key)
            self._wake()

    def close(self) -> None:
        """Cancel all timers. Keys that wait are dropped: the next start lists everything anyway."""
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


async def run_workers(
    queue: WorkQueue, reconcile: Callable[[str], Awaitable[None]], *, workers: int, name: str
) -> None:
    """Work on keys until cancelled. This is the worker boundary: a failure is logged and its key retried.

    Cancellation stops every worker within its `reconcile` and drops the queue's timers.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(_run_worker(queue, reconcile, name), name=f"{name}-worker-{number}")
    finally:
        queue.close()


async def _run_worker(queue: WorkQueue, reconcile: Callable[[str], Awaitable[None]], name: str) -> None:
    while True:
        key = await queue.get()
        try:
            await reconcile(key)
        except ApiError as error:
            level = logging.DEBUG if error.reason in _QUIET_REASONS else logging.WARNING
            log.log(level, "%s: %s failed and is retried: %s", name, key, error)
            queue.retry(key)
        except OSError as error:
            log.warning("%s: %s failed and is retried: %s", name, key, error or type(error).__name__)
            queue.retry(key)
        except Exception:  # the worker boundary: one bad object must not stop the others
            log.exception("%s: %s failed and is retried", name, key)
            queue.retry(key)
        else:
            queue.forget(key)
        finally:
            queue.done(key)
