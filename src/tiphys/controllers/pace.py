"""Keeps a controller from telling each step of work that is under way to a server that is busy.

Ten pods of a ReplicaSet become ready one by one; each changes its status, and that the status of its Deployment. What is
on its way may be told late, what is final at once: the caller decides which it is. The window in which changes of one
object are gathered is ten times as long as the last write took, so that an idle server is told everything within a few
hundredths of a second and a busy one is left a second of rest for each object.

Invariant: what is held back is looked at again when the window is over (`wait_s` is for `WorkQueue.add_after`).
"""

from __future__ import annotations

from tiphys.base.clock import Clock

SHARE = 10.0
"""How many times as long as a write took nothing more is written of that object."""
LONGEST_S = 1.0


class Pace:
    """When the objects of one controller were last written, and how long that took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s: dict[str, float] = {}
        """Key -> monotonic time until which unfinished business waits."""

    def wait_s(self, key: str) -> float:
        """Return how long changes of an object are still gathered; 0 when they may be written."""
        return max(0.0, self._until_s.get(key, 0.0) - self._clock.monotonic_s())

    def begin(self) -> float:
        """Return what `end` wants to know."""
        return self._clock.monotonic_s()

    def end(self, key: str, began_s: float) -> None:
        """Note that an object was written."""
        now_s = self._clock.monotonic_s()
        self._until_s[key] = now_s + min((now_s - began_s) * SHARE, LONGEST_S)

    def forget(self, key: str) -> None:
        """An object is gone."""
        self._until_s.pop(key, None)
