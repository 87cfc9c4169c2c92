"""Live watches of a store: one bounded queue a reader, filled synchronously at each commit.

A reader that falls behind by more than the bound loses its queue and gets `Compacted`: it must list again. Nothing
here blocks a commit. Invariant: a queue holds every event after the revision at which it was opened, or is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from tiphys.base.orderedset import OrderedSet
from tiphys.store.interface import Compacted, Event

MAX_QUEUED_EVENTS = 100_000
"""Events that may wait in one reader's queue."""


class Subscription:
    """One reader's queue. `next_batch` waits for events; it raises Compacted after an overflow."""

    def __init__(self, prefix: str, after_revision: int, limit: int) -> None:
        self.prefix = prefix
        self.after_revision = after_revision
        self._limit = limit
        self._queue: deque[Sequence[Event]] = deque()
        self._queued = 0
        self._dropped_at = 0
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, events: Sequence[Event]) -> None:
        """Queue one batch (whole revisions), or drop everything when the reader is too far behind."""
        if self._dropped_at:
            return
        matching = events if not self.prefix else [event for event in events if event.key.startswith(self.prefix)]
        if not matching:
            return
        if self._queued + len(matching) > self._limit:
            self._dropped_at = matching[-1].revision
            self._queue.clear()
        else:
            self._queue.append(matching)
            self._queued += len(matching)
        self._wake()

    def close(self) -> None:
        """End the watch after what is queued."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_batch(self) -> Sequence[Event] | None:
        """Return the next events, None at the end."""
        while not self._queue:
            if self._dropped_at:
                raise Compacted(self.after_revision, self._dropped_at)
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(self._queue) == 1:
            batch = self._queue.popleft()
        else:
            batch = [event for events in self._queue for event in events]
            self._queue.clear()
        self._queued = 0
        self.after_revision = batch[-1].revision
        return batch


class Feed:
    """All subscriptions of one store."""

    def __init__(self, limit: int = MAX_QUEUED_EVENTS) -> None:
        self._limit = limit
        self._subscriptions: OrderedSet[Subscription] = OrderedSet()

    def open(self, prefix: str, after_revision: int) -> Subscription:
        """Start queueing events for a reader."""
        subscription = Subscription(prefix, after_revision, self._limit)
        self._subscriptions.add(subscription)
        return subscription

    def discard(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, events: Sequence[Event]) -> None:
        """Queue events for every reader."""
        for subscription in self._subscriptions:
            subscription.put(events)

    def close(self) -> None:
        """End every watch after what is queued."""
        for subscription in self._subscriptions:
            subscription.close()
