"""Decides who hears of a container event, and what a slow listener gets instead.

Runtimes publish; each reader made by `subscribe` has its own bounded queue. A reader that falls behind loses single
events but never a sandbox: its queue is replaced by one event for each sandbox that it missed or that stands, and the
kubelet re-reads those. A reader is forgotten when it is closed or dropped.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from tiphys.runtime.interface import ContainerEvent

QUEUE_LIMIT = 4096


class EventReader(AsyncIterator[ContainerEvent]):
    """One reader's queue; iterate it with `async for`."""

    def __init__(self) -> None:
        self._queue: deque[ContainerEvent] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, event: ContainerEvent, limit: int, standing: Callable[[], Iterable[str]]) -> None:
        """Append an event; at the limit name every sandbox once instead."""
        if len(self._queue) >= limit:
            missed = dict.fromkeys(waiting.sandbox_id for waiting in self._queue)
            missed.update(dict.fromkeys(standing()))
            self._queue = deque(ContainerEvent(sandbox_id, "", "STOPPED") for sandbox_id in missed)
        self._queue.append(event)
        self._ready.set()

    def close(self) -> None:
        self._closed = True
        self._ready.set()

    async def __anext__(self) -> ContainerEvent:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()


class EventFanout:
    """All readers of one runtime. `standing` returns the ids of the sandboxes that exist."""

    def __init__(self, standing: Callable[[], Iterable[str]], limit: int = QUEUE_LIMIT) -> None:
        self._standing = standing
        self._limit = limit
        self._readers: weakref.WeakKeyDictionary[EventReader, None] = weakref.WeakKeyDictionary()

    def subscribe(self) -> EventReader:
        """Return a reader that gets every event published from now on."""
        reader = EventReader()
        self._readers[reader] = None
        return reader

    def publish(self, event: ContainerEvent) -> None:
        for reader in self._readers:
            reader.put(event, self._limit, self._standing)

    def close(self) -> None:
        """End every reader's iteration once its queue is empty."""
        for reader in self._readers:
            reader.close()
