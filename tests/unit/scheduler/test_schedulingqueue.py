"""Pods come out by importance, then by age; those that failed wait for what helps."""

from __future__ import annotations

from typing import Any

from schedulerobjects import info

from tiphys.scheduler.queue import Happening, Place, SchedulingQueue

ROOM = frozenset({Happening.POD_GONE})


def names(queue: SchedulingQueue, now_s: float) -> list[str]:
    found = []
    while (waiting := queue.pop(now_s)) is not None:
        found.append(waiting.info.name)
        queue.park(waiting.info.key, frozenset(), now_s)
    return found


def queue_of(*pods: Any, now_s: float = 0.0) -> SchedulingQueue:
    queue = SchedulingQueue()
    for one in pods:
        queue.set(one, now_s)
    return queue


def test_higher_priority_first_then_first_come() -> None:
    queue = queue_of(info("a"), info("b", priority=5), info("c"), info("d", priority=5))
    assert names(queue, 0) == ["b", "d", "a", "c"]


def test_a_parked_pod_comes_back_only_for_what_helps() -> None:
    queue = queue_of(info("a"))
    assert queue.pop(0) is not None
    queue.park("default/a", ROOM, 0)
    assert not queue.wake(Happening.NODE_ADDED, 1)
    assert queue.pop(1) is None
    assert queue.wake(Happening.POD_GONE, 1)
    assert names(queue, 1) == ["a"]


def test_a_parked_pod_comes_back_after_five_minutes_anyway() -> None:
    queue = queue_of(info("a"))
    queue.pop(0)
    queue.park("default/a", ROOM, 0)
    assert queue.next_due_s() == 300
    assert queue.pop(299) is None
    assert names(queue, 300) == ["a"]


def test_errors_back_off_from_one_second_to_ten() -> None:
    queue = queue_of(info("a"))
    now_s = 0.0
    delays = []
    for _ in range(6):
        assert queue.pop(now_s) is not None
        queue.back_off("default/a", now_s)
        due_s = queue.next_due_s()
        assert due_s is not None
        assert queue.pop(due_s - 0.001) is None
        delays.append(due_s - now_s)
        now_s = due_s
    assert delays == [1, 2, 4, 8, 10, 10]


def test_a_woken_pod_in_back_off_lets_others_go_first_but_does_not_wait_for_nothing() -> None:
    queue = queue_of(info("a"))
    queue.pop(0)
    queue.park("default/a", ROOM, 0)
    queue.set(info("b"), 0.1)
    queue.wake(Happening.POD_GONE, 0.1)
    waiting = queue.get("default/a")
    assert waiting is not None
    assert waiting.place is Place.BACKING_OFF
    assert names(queue, 0.2) == ["b", "a"]


def test_gates_hold_a_pod_until_the_last_is_gone() -> None:
    queue = queue_of(info("a", schedulingGates=[{"name": "x"}]))
    assert queue.pop(0) is None
    queue.wake(Happening.NODE_ADDED, 0)
    assert queue.pop(400) is None
    queue.set(info("a"), 401)
    assert names(queue, 401) == ["a"]


def test_a_changed_pod_is_tried_again_and_a_new_one_of_the_same_name_starts_anew() -> None:
    queue = queue_of(info("a", cpu="1"))
    queue.pop(0)
    queue.park("default/a", frozenset(), 0)
    queue.set(info("a", cpu="1"), 5)
    assert queue.pop(5) is None
    queue.set(info("a", tolerations=[{"operator": "Exists"}]), 5)
    waiting = queue.pop(5)
    assert waiting is not None
    assert waiting.tries == 2
    queue.set(info("a", metadata={"uid": "another"}), 6)
    fresh = queue.pop(6)
    assert fresh is not None
    assert fresh.tries == 1


def test_removed_pods_never_come_out() -> None:
    queue = queue_of(info("a"), info("b"))
    queue.remove("default/a")
    assert names(queue, 0) == ["b"]
    queue.remove("default/b")
    assert len(queue) == 0
    assert queue.next_due_s() is None
