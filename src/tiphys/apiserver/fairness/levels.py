"""One priority level: how many seats it has, who holds them, who waits for them.

The pipeline counts seats in and out directly (`in_use`), which is all that an uncontended request costs; `wait` is for
the rest. Invariant: `in_use` is the seats of requests that run, never more than `limit` unless one request alone wants
more than the limit or the limit has shrunk meanwhile; whoever gives seats back dispatches.

Spec: Kubernetes documentation, "API Priority and Fairness: Priority levels".
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from tiphys.api.kind import JsonObject
from tiphys.apiserver.fairness.matching import DURATIONS_S, Schema
from tiphys.apiserver.fairness.queues import QueueSet, Waiting
from tiphys.apiserver.fairness.shares import Limits, Wish
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.base.clock import Clock

WAIT_LIMIT_S = 15.0
"""How long a request waits for seats: a quarter of what it may take in all."""
QUEUE_FULL, CONCURRENCY, TIME_OUT, CANCELLED = "queue-full", "concurrency-limit", "time-out", "cancelled"


class Level:
    """See the module's docstring."""

    __slots__ = (
        "_clock",
        "executing",
        "exempt",
        "in_use",
        "limit",
        "limits",
        "name",
        "peak",
        "queues",
        "quiescing",
        "smoothed",
        "spec",
        "uid",
        "waiting",
        "waiting_seats",
        "wish",
    )

    def __init__(self, name: str, clock: Clock) -> None:
        self._clock = clock
        self.name = name
        self.uid = ""
        self.spec: JsonObject = {}
        self.exempt = False
        self.wish = Wish(0, 0)
        self.limits = Limits(0, 0, 0)
        self.limit = 0
        """Seats that it may use now."""
        self.in_use = 0
        self.executing = 0
        """Requests that were dispatched from queues and run."""
        self.waiting = 0
        self.waiting_seats = 0
        self.peak = 0
        """Most seats wanted at once since the last adjustment."""
        self.smoothed = 0.0
        self.queues: QueueSet | None = None
        """None: what exceeds the limit is refused."""
        self.quiescing = False
        """Its object is gone; it ends when its last request does."""

    def configure(self, spec: JsonObject, uid: str) -> None:
        """Take on a specification. Requests that wait go on waiting."""
        self.uid, self.quiescing = uid, False
        if spec == self.spec:
            return
        self.spec = spec
        self.exempt = spec.get("type") == "Exempt"
        part = (spec.get("exempt") if self.exempt else spec.get("limited")) or {}
        shares = part.get("nominalConcurrencyShares", part.get("assuredConcurrencyShares"))
        self.wish = Wish(
            int(shares if shares is not None else 0 if self.exempt else 30),
            int(part.get("lendablePercent") or 0),
            part.get("borrowingLimitPercent"),
        )
        queuing = (part.get("limitResponse") or {}).get("queuing")
        if queuing is None or self.exempt:
            self._replace_queues(None)
        else:
            self._replace_queues(
                QueueSet(
                    int(queuing.get("queues") or 64),
                    int(queuing.get("handSize") or 8),
                    int(queuing.get("queueLengthLimit") or 50),
                )
            )

    def _replace_queues(self, queues: QueueSet | None) -> None:
        """Take other queues; whoever waits in the old ones has the next turns, in the order of arrival."""
        old, self.queues = self.queues, queues
        if old is None or not self.waiting:
            return
        for waiting in sorted(old.all(), key=lambda waiting: waiting.since_s):
            old.leave(waiting)
            waiting.queue = None
            if queues is None or not queues.join(waiting):
                self._forget(waiting)
                waiting.turn.set_result(False)

    def fits(self, seats: int) -> bool:
        """Return whether a request may run now. One that wants more than all seats runs when nothing else does."""
        if self.exempt or self.in_use + seats <= self.limit:
            return True
        return seats > self.limit and self.in_use == 0

    def take(self, seats: int) -> None:
        """Give seats to a request that fits."""
        self.in_use += seats
        if self.in_use > self.peak:
            self.peak = self.in_use

    def give(self, seats: int) -> None:
        """Take seats back and let others run."""
        self.in_use -= seats
        if self.waiting:
            self.dispatch()

    async def wait(
        self, schema: Schema, number: int, who: tuple[str, str], info: RequestInfo, seats: int, wait_s: float
    ) -> Waiting | None:
        """Wait for seats and take them; None when there are none to be had. `who` is (distinguisher, user name).

        Whoever gets a Waiting calls `end` when its request is over. Cancellation leaves nothing behind.
        """
        self.peak = max(self.peak, self.in_use + self.waiting_seats + seats)
        counts = schema.counts
        if self.queues is None and self.fits(seats):
            self.take(seats)
            self.executing += 1
            now_s = self._clock.monotonic_s()
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            return Waiting(schema, who[0], who[1], info, number, seats, self._clock.now_s(), now_s, done)
        if self.queues is None:
            counts.rejected[CONCURRENCY] = counts.rejected.get(CONCURRENCY, 0) + 1
            return None
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        now_s = self._clock.monotonic_s()
        waiting = Waiting(schema, who[0], who[1], info, number, seats, self._clock.now_s(), now_s, turn)
        if not self.queues.join(waiting):
            counts.rejected[QUEUE_FULL] = counts.rejected.get(QUEUE_FULL, 0) + 1
            return None
        self.waiting += 1
        self.waiting_seats += seats
        counts.queued += 1
        timer = loop.call_later(min(wait_s, WAIT_LIMIT_S), self._expire, waiting)
        self.dispatch()
        try:
            got = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.end(waiting)
            else:
                self._leave(waiting)
                counts.rejected[CANCELLED] = counts.rejected.get(CANCELLED, 0) + 1
            raise
        finally:
            timer.cancel()
        if not got:
            counts.rejected[TIME_OUT] = counts.rejected.get(TIME_OUT, 0) + 1
            return None
        waited_s = self._clock.monotonic_s() - now_s
        counts.waits[bisect_left(DURATIONS_S, waited_s)] += 1
        counts.waited_s += waited_s
        waiting.since_s = now_s + waited_s
        waiting.waited_s = waited_s
        return waiting

    def dispatch(self) -> None:
        """Let requests run that waited, as many as fit."""
        queues = self.queues
        if queues is None:
            return
        while (waiting := queues.first()) is not None and self.fits(waiting.seats):
            if waiting.turn.done():  # cancelled; its task has not run since
                self._leave(waiting)
                continue
            queues.dispatch(waiting)
            self._forget(waiting)
            self.take(waiting.seats)
            self.executing += 1
            waiting.turn.set_result(True)

    def end(self, waiting: Waiting) -> None:
        """A request that had waited is over."""
        self.executing -= 1
        if self.queues is not None and waiting.queue in self.queues.queues:
            self.queues.finish(waiting, self._clock.monotonic_s() - waiting.since_s)
        self.give(waiting.seats)

    def _expire(self, waiting: Waiting) -> None:
        if not waiting.turn.done():
            self._leave(waiting)
            waiting.turn.set_result(False)

    def _leave(self, waiting: Waiting) -> None:
        if self.queues is not None and waiting.queue is not None:
            self.queues.leave(waiting)
            self._forget(waiting)
            waiting.queue = None

    def _forget(self, waiting: Waiting) -> None:
        """Count a request as not waiting any more."""
        self.waiting -= 1
        self.waiting_seats -= waiting.seats
        waiting.schema.counts.queued -= 1

    def is_idle(self) -> bool:
        return not self.waiting and not self.in_use
