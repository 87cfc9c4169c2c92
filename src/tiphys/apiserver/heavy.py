"""Work on large objects, out of the way of other requests.

Decoding, defaulting, validating and tracking the owners of an object of a megabyte takes a second or more. Such work is
pure: it gets what it needs, and nobody else holds it. So it is done in one thread beside the loop, which the interpreter
lets in every few milliseconds; small objects are worked on at once, because a thread costs more than they do.

Invariant: one large object is worked on at a time, however many come; the others wait in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

HEAVY_BYTES = 32 * 1024
"""From here on an object may hold the loop for more than a few milliseconds."""
P = ParamSpec("P")
T = TypeVar("T")


class Heavy:
    """Runs work at once or in its thread. The thread is made when it is first needed."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, size_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work on about so many bytes and return its result. Cancellation leaves it running, and nobody listens."""
        if size_bytes < HEAVY_BYTES:
            return work(*args, **kwargs)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="heavy")
        future = self._executor.submit(work, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the thread go when it is done. Idempotent."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
