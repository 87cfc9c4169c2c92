"""Who has to go for a more important pod, and why nobody does."""

from __future__ import annotations

from typing import Any

from schedulerobjects import info, node, pod, state_of

from tiphys.api.selectors import selector_of
from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import plan_pod
from tiphys.scheduler.preemption import Budget, Preemption, plan_preemption
from tiphys.scheduler.state import ClusterState, info_of


def preempt(state: ClusterState, budgets: list[Budget] | None = None, nominated: str = "", **more: Any) -> Preemption:
    new = info("new", **more)
    plan = plan_pod(new, state, Randomness(1))
    assert plan.node is None
    return plan_preemption(new, state, plan.candidates, budgets or [], nominated, Randomness(1))


def victims(preemption: Preemption) -> list[str]:
    return sorted(v.name for v in preemption.victims)


def test_as_few_and_as_unimportant_pods_as_possible_go() -> None:
    state = state_of(
        [node("one", cpu="4")],
        [
            pod("a", cpu="1", priority=1, node="one"),
            pod("b", cpu="1", priority=2, node="one"),
            pod("c", cpu="1", priority=3, node="one"),
            pod("d", cpu="1", priority=50, node="one"),
        ],
    )
    preemption = preempt(state, cpu="2", priority=10)
    assert preemption.node == "one"
    assert victims(preemption) == ["a", "b"]
    assert len(state.pods_on(state.table.rows["one"])) == 4


def test_the_node_with_the_least_important_victims_is_taken() -> None:
    state = state_of(
        [node("hard", cpu="1"), node("soft", cpu="1")],
        [pod("x", cpu="1", priority=9, node="hard"), pod("y", cpu="1", priority=1, node="soft")],
    )
    assert preempt(state, cpu="1", priority=10).node == "soft"


def test_budgets_are_respected_where_possible() -> None:
    state = state_of(
        [node("guarded", cpu="1"), node("free", cpu="1")],
        [
            pod("x", cpu="1", priority=1, labels={"app": "db"}, node="guarded"),
            pod("y", cpu="1", priority=5, node="free"),
        ],
    )
    budget = Budget("default", selector_of({"matchLabels": {"app": "db"}}), 0, {})
    assert preempt(state, [budget], cpu="1", priority=10).node == "free"
    state.remove_node("free")
    assert preempt(state, [budget], cpu="1", priority=10).node == "guarded"


def test_nobody_goes_where_it_would_not_help() -> None:
    state = state_of(
        [node("a", cpu="1"), node("b", cpu="8", taints=[{"key": "k", "effect": "NoSchedule"}]), node("c", cpu="4")],
        [pod("x", cpu="3", priority=99, node="c")],
    )
    assert preempt(state, cpu="2", priority=10).message == (
        "0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def test_a_pod_that_may_not_preempt_says_so() -> None:
    state = state_of([node("a", cpu="1")], [pod("x", cpu="1", node="a")])
    preemption = preempt(state, cpu="1", priority=10, preemptionPolicy="Never")
    assert preemption.message == "not eligible due to preemptionPolicy=Never."


def test_one_clearing_at_a_time() -> None:
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    state = state_of([node("a", cpu="1")], [pod("x", cpu="1", metadata=gone, node="a")])
    preemption = preempt(state, nominated="a", cpu="1", priority=10)
    assert preemption.message == "not eligible due to a terminating pod on the nominated node."


def test_the_pod_that_repels_goes() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "new"}}, "topologyKey": "kubernetes.io/hostname"}
    hater = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    state = state_of([node("a")], [pod("hater", affinity=hater, node="a"), pod("bystander", node="a")])
    assert victims(preempt(state, labels={"app": "new"}, priority=1)) == ["hater"]


def test_cleared_room_is_kept_from_lesser_pods() -> None:
    state = state_of([node("a", cpu="1")])
    waiting = info_of(pod("important", cpu="800m", priority=10, node="a"))
    state.nominated[waiting.key] = waiting
    assert plan_pod(info("lesser", cpu="500m", priority=1), state, Randomness(1)).node is None
    assert plan_pod(info("tiny", cpu="100m", priority=1), state, Randomness(1)).node == "a"
    assert plan_pod(info("greater", cpu="500m", priority=11), state, Randomness(1)).node == "a"
    assert not state.pods_on(state.table.rows["a"])


def test_the_message_counts_cleared_room_as_taken() -> None:
    state = state_of([node("a", cpu="1")])
    waiting = info_of(pod("important", cpu="800m", priority=10, node="a"))
    state.nominated[waiting.key] = waiting
    plan = plan_pod(info("lesser", cpu="500m", priority=1), state, Randomness(1))
    assert plan.message == "0/1 nodes are available: 1 Insufficient cpu."
    del state.nominated[waiting.key]
    assert plan_pod(info("lesser", cpu="500m", priority=1), state, Randomness(1)).node == "a"


def test_victims_whose_deletion_is_under_way_are_enough() -> None:
    state = state_of([node("a", cpu="1")], [pod("x", cpu="1", node="a")])
    state.evicting.add("uid-x")
    preemption = preempt(state, nominated="a", cpu="1", priority=10)
    assert preemption.message == "not eligible due to a terminating pod on the nominated node."


def test_a_failed_binding_takes_back_only_its_own_pod() -> None:
    state = state_of([node("a", cpu="1")])
    state.assume(info("p", cpu="1"), "a")
    state.forget("default/p", "uid-another")
    assert plan_pod(info("q", cpu="1"), state, Randomness(1)).node is None
    state.forget("default/p", "uid-p")
    assert plan_pod(info("q", cpu="1"), state, Randomness(1)).node == "a"
