"""The pods that wait for a node, and in which order they are tried.

A pod is in one of these places: *active* (may be tried now; by priority, then by time), *backing off* (may be tried
after its delay; earlier when nothing is active, unless the delay is for an error), *parked* (no node now; comes back
when something happens that could help, or after five minutes), *gated*. No I/O, no timers: the caller asks `pop`, and
`next_due_s` for when to ask again. Invariant: `_waiting` holds exactly the pods that have no node, each in one place.
Bound: one entry a pod of the cluster.

Spec: Kubernetes docs, "Scheduling Framework" (queueing), "Pod Scheduling Readiness", "Pod Priority and Preemption".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from tiphys.scheduler.state import PodInfo

BACKOFF_FIRST_S = 1.0
BACKOFF_LONGEST_S = 10.0
PARKED_LONGEST_S = 300.0


class Place(Enum):
    ACTIVE = "active"
    BACKING_OFF = "backing off"
    PARKED = "parked"
    GATED = "gated"
    TRIED = "tried"
    """Handed out; the caller owes `park`, `back_off` or `remove`."""


class Happening(Enum):
    """What can make a parked pod schedulable."""

    NODE_ADDED = "a node was added"
    NODE_CHANGED = "labels or taints of a node changed"
    NODE_GREW = "a node offers more"
    POD_PLACED = "a pod came to a node"
    POD_GONE = "a pod left its node"
    POD_CHANGED = "labels of a placed pod changed"
    STORAGE_CHANGED = "a volume, claim or storage class changed"
    NAMESPACE_CHANGED = "labels of a namespace changed"


@dataclass(slots=True)
class Waiting:
    """A pod that waits. Changed by `SchedulingQueue` only."""

    info: PodInfo
    place: Place
    since_s: float
    """When it first asked: its order among equals."""
    tries: int = 0
    tried_s: float = 0.0
    """When it was last handed out."""
    parked_s: float = 0.0
    due_s: float = 0.0
    """When its back-off ends."""
    failed: bool = False
    """The back-off follows an error: it is never cut short."""
    helped_by: frozenset[Happening] = frozenset()
    number: int = field(default=0, compare=False)


class SchedulingQueue:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._active: list[tuple[int, float, int, str]] = []
        """Heap of (-priority, since, number, key). Entries that do not match `Waiting.number` are stale."""
        self._backing_off: list[tuple[float, int, str]] = []
        """Heap of (due, number, key), stale entries likewise."""
        self._parked: dict[str, Waiting] = {}
        """In the order in which they were parked."""
        self._hoping: dict[Happening, dict[str, Waiting]] = {happening: {} for happening in Happening}
        """The parked pods that each happening may help."""
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def get(self, key: str) -> Waiting | None:
        return self._waiting.get(key)

    def waiting(self) -> Iterable[Waiting]:
        """Return all pods that wait, in whatever place."""
        return self._waiting.values()

    def set(self, info: PodInfo, now_s: float) -> None:
        """Add a pod that wants a node, or take over its new state; a change of what it asks for makes it active."""
        waiting = self._waiting.get(info.key)
        if waiting is None or waiting.info.uid != info.uid:
            if waiting is not None:
                self.remove(info.key)
            waiting = self._waiting[info.key] = Waiting(info, Place.GATED, now_s)
            if not info.pod.spec.scheduling_gates:
                self._activate(waiting)
            return
        old, waiting.info = waiting.info, info
        if waiting.place is Place.GATED:
            if not info.pod.spec.scheduling_gates:
                self._activate(waiting)
        elif waiting.place is Place.PARKED and _asks_anew(old, info):
            self._leave_park(waiting, now_s)
        elif waiting.place is Place.ACTIVE and old.priority != info.priority:
            self._activate(waiting)

    def remove(self, key: str) -> None:
        """Forget a pod: it has a node or is gone."""
        self._waiting.pop(key, None)
        self._unpark(key)

    def pop(self, now_s: float) -> Waiting | None:
        """Return the next pod to try, None when there is none now."""
        self._expire(now_s)
        while self._active:
            _, _, number, key = heapq.heappop(self._active)
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.number == number and waiting.place is Place.ACTIVE:
                return self._hand_out(waiting, now_s)
        early = [w for w in self._live_back_offs() if not w.failed]
        if not early:
            return None
        return self._hand_out(min(early, key=lambda w: (-w.info.priority, w.since_s, w.number)), now_s)

    def park(self, key: str, helped_by: frozenset[Happening], now_s: float) -> None:
        """No node now: wait for something that helps."""
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        waiting.place, waiting.parked_s, waiting.helped_by = Place.PARKED, now_s, helped_by
        self._parked[key] = waiting
        for happening in helped_by:
            self._hoping[happening][key] = waiting

    def back_off(self, key: str, now_s: float) -> None:
        """The try failed by an error: once more after the delay."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._unpark(key)
            self._delay(waiting, now_s + self._delay_s(waiting), failed=True)

    def wake(self, happening: Happening, now_s: float) -> bool:
        """Something happened: pods that it may help leave the park. Return whether any did."""
        helped = [*self._hoping[happening].values()]
        for waiting in helped:
            self._leave_park(waiting, now_s)
        return bool(helped)

    def next_due_s(self) -> float | None:
        """Return when `pop` should be asked again if nothing happens before; None for never."""
        while self._backing_off and self._stale(self._backing_off[0]):
            heapq.heappop(self._backing_off)
        times = [self._backing_off[0][0]] if self._backing_off else []
        if self._parked:
            times.append(next(iter(self._parked.values())).parked_s + PARKED_LONGEST_S)
        return min(times, default=None)

    # Insides

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _activate(self, waiting: Waiting) -> None:
        waiting.place, waiting.number = Place.ACTIVE, self._number()
        heapq.heappush(self._active, (-waiting.info.priority, waiting.since_s, waiting.number, waiting.info.key))

    def _delay(self, waiting: Waiting, due_s: float, *, failed: bool) -> None:
        waiting.place, waiting.number, waiting.due_s, waiting.failed = Place.BACKING_OFF, self._number(), due_s, failed
        heapq.heappush(self._backing_off, (due_s, waiting.number, waiting.info.key))

    def _unpark(self, key: str) -> None:
        waiting = self._parked.pop(key, None)
        for happening in waiting.helped_by if waiting is not None else ():
            self._hoping[happening].pop(key, None)

    def _leave_park(self, waiting: Waiting, now_s: float) -> None:
        self._unpark(waiting.info.key)
        due_s = waiting.tried_s + self._delay_s(waiting)
        if due_s > now_s:
            self._delay(waiting, due_s, failed=False)
        else:
            self._activate(waiting)

    @staticmethod
    def _delay_s(waiting: Waiting) -> float:
        return min(BACKOFF_FIRST_S * 2.0 ** min(max(waiting.tries - 1, 0), 30), BACKOFF_LONGEST_S)

    def _hand_out(self, waiting: Waiting, now_s: float) -> Waiting:
        waiting.place, waiting.number = Place.TRIED, self._number()
        waiting.tries += 1
        waiting.tried_s = now_s
        return waiting

    def _stale(self, entry: tuple[float, int, str]) -> bool:
        waiting = self._waiting.get(entry[2])
        return waiting is None or waiting.number != entry[1]

    def _live_back_offs(self) -> list[Waiting]:
        return [self._waiting[entry[2]] for entry in self._backing_off if not self._stale(entry)]

    def _expire(self, now_s: float) -> None:
        """Move what is due: ended back-offs, and pods that were parked for too long."""
        while self._backing_off and (self._stale(self._backing_off[0]) or self._backing_off[0][0] <= now_s):
            entry = heapq.heappop(self._backing_off)
            if not self._stale(entry):
                self._activate(self._waiting[entry[2]])
        while self._parked:
            oldest = next(iter(self._parked.values()))
            if oldest.parked_s + PARKED_LONGEST_S > now_s:
                break
            self._leave_park(oldest, now_s)


def _asks_anew(old: PodInfo, new: PodInfo) -> bool:
    return old.profile is not new.profile or old.claims != new.claims or old.priority != new.priority
