"""Seats that an answer keeps while it is still being made: a watch until its state is sent, a long list to its end.

Invariant: seats are given back exactly once, at the latest when the answer is dropped: a client may be gone before the
first byte of it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from tiphys.apiserver.fairness.levels import Level
from tiphys.apiserver.fairness.queues import Waiting
from tiphys.wire.message import Sink, Stream


class Held:
    """The seats of one request: `seats` that it got at once, or those of `waited`."""

    __slots__ = ("_level", "_seats", "_waited")

    def __init__(self, level: Level, seats: int, waited: Waiting | None) -> None:
        self._level = level
        self._seats = seats
        self._waited = waited

    def release(self) -> None:
        """Give the seats back. Idempotent."""
        seats, waited = self._seats, self._waited
        self._seats, self._waited = 0, None
        if waited is not None:
            self._level.end(waited)
        elif seats:
            self._level.give(seats)

    __del__ = release


def hold_for(stream: Stream, level: Level, seats: int, waited: Waiting | None, *, is_list: bool) -> bool:
    """Let a stream keep seats; False when it has no beginning that takes time, and they can be given back at once."""
    if not is_list and stream.on_open is None:
        return False
    held = Held(level, seats, waited)
    if stream.on_open is not None and not is_list:
        stream.on_open.append(held.release)
    start = stream.start

    def holding(sink: Sink) -> Callable[[], None]:
        stop = start(sink)

        def stopped() -> None:
            held.release()
            stop()

        return stopped

    stream.start = holding
    return True
