"""Requests of one priority level that wait for seats: shuffle sharding into queues, and fair dispatch from them.

A flow is dealt a hand of queues by its hash and joins the one with the least waiting work, so that a flow that floods
fills only the queues of its hand. Dispatch takes the queue that has had the least service so far in virtual time
(start-time fair queuing: a dispatched request moves its queue's start on by the seats that it takes and, when it ends,
by how long it took them). Bound: `length_limit` requests a queue. Invariant: a waiting request is in exactly one queue
until it is dispatched or leaves.

Spec: KEP-1040, "Fair Queuing for Server Requests", "Shuffle sharding".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tiphys.apiserver.fairness.matching import Schema
from tiphys.apiserver.requestinfo import RequestInfo

HASH_BITS = 64
GUESSED_S = 0.003
"""How long a request is taken to last until it has ended."""


def flow_hash(schema: str, distinguisher: str) -> int:
    """Return the number that decides a flow's hand."""
    digest = hashlib.blake2b(f"{schema},{distinguisher}".encode(), digest_size=HASH_BITS // 8)
    return int.from_bytes(digest.digest(), "big")


def deal(number: int, queues: int, hand_size: int) -> list[int]:
    """Return `hand_size` different queues for a hash."""
    deck = list(range(queues)) if queues <= 1024 else None
    hand: list[int] = []
    for dealt in range(hand_size):
        number, card = divmod(number, queues - dealt)
        if deck is not None:
            hand.append(deck.pop(card))
            continue
        for earlier in sorted(hand):  # what a deck that large would hold at this place
            if card >= earlier:
                card += 1
        hand.append(card)
    return hand


@dataclass(slots=True, eq=False)
class Waiting:
    """One request that waits."""

    schema: Schema
    distinguisher: str
    user: str
    info: RequestInfo
    number: int
    """Hash of its flow."""
    seats: int
    arrived_s: float
    """Wall time."""
    since_s: float
    """Monotonic time."""
    turn: asyncio.Future[bool]
    """True when it has its seats, False when it waited too long."""
    queue: Queue | None = None
    waited_s: float = 0.0


@dataclass(slots=True, eq=False)
class Queue:
    """See the module's docstring."""

    requests: deque[Waiting] = field(default_factory=deque)
    seats: int = 0
    """Of the requests that wait."""
    executing: int = 0
    executing_seats: int = 0
    start: float = 0.0
    """Virtual time at which its next request begins."""

    @property
    def work(self) -> int:
        return self.seats + self.executing_seats


class QueueSet:
    """All queues of a level."""

    def __init__(self, queues: int, hand_size: int, length_limit: int) -> None:
        self.hand_size = min(hand_size, queues)
        self.length_limit = length_limit
        self.queues = [Queue() for _ in range(queues)]
        self._active: dict[Queue, None] = {}
        self._virtual = 0.0
        """Start of the request that was dispatched last."""

    def join(self, waiting: Waiting) -> bool:
        """Put a request into a queue of its flow's hand; False when that queue is full."""
        hand = deal(waiting.number, len(self.queues), self.hand_size)
        queue = min((self.queues[index] for index in hand), key=lambda queue: queue.work)
        if len(queue.requests) >= self.length_limit:
            return False
        if not queue.requests:
            queue.start = max(queue.start, self._virtual)
            self._active[queue] = None
        queue.requests.append(waiting)
        queue.seats += waiting.seats
        waiting.queue = queue
        return True

    def leave(self, waiting: Waiting) -> None:
        """Take a request out that does not wait any more. Idempotent."""
        queue = waiting.queue
        if queue is None or waiting not in queue.requests:
            return
        queue.requests.remove(waiting)
        self._removed(queue, waiting)

    def first(self) -> Waiting | None:
        """Return the request whose turn it is; it stays where it is."""
        if not self._active:
            return None
        queue = min(self._active, key=lambda queue: queue.start + queue.requests[0].seats * GUESSED_S)
        return queue.requests[0]

    def dispatch(self, waiting: Waiting) -> None:
        """Move the request that is first in its queue to the executing ones."""
        queue = waiting.queue
        assert queue is not None
        queue.requests.popleft()
        self._removed(queue, waiting)
        queue.executing += 1
        queue.executing_seats += waiting.seats
        self._virtual = max(self._virtual, queue.start)
        queue.start += waiting.seats * GUESSED_S

    def finish(self, waiting: Waiting, duration_s: float) -> None:
        """A dispatched request is over: its queue is charged for what it took more, or less, than guessed."""
        queue = waiting.queue
        assert queue is not None
        queue.executing -= 1
        queue.executing_seats -= waiting.seats
        queue.start += waiting.seats * (duration_s - GUESSED_S)

    def all(self) -> Iterator[Waiting]:
        for queue in self.queues:
            yield from queue.requests

    def active_count(self) -> int:
        return len(self._active)

    def _removed(self, queue: Queue, waiting: Waiting) -> None:
        queue.seats -= waiting.seats
        if not queue.requests:
            self._active.pop(queue, None)
