"""Which of the nodes that may is taken."""

from __future__ import annotations

from collections import Counter
from typing import Any

from schedulerobjects import info, node, pod, state_of

from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import plan_pod
from tiphys.scheduler.state import ClusterState

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def choices(state: ClusterState, **pod: Any) -> set[str | None]:
    """Return every node that some draw takes."""
    return {plan_pod(info("new", **pod), state, Randomness(seed)).node for seed in range(25)}


def test_the_emptier_node_is_taken() -> None:
    state = state_of([node("a"), node("b")], [pod("old", cpu="1", memory="1Gi", node="a")])
    assert choices(state, cpu="100m", memory="100Mi") == {"b"}


def test_pods_that_ask_for_nothing_count_as_a_little() -> None:
    state = state_of([node("a"), node("b")], [pod("old", node="a")])
    assert choices(state) == {"b"}


def test_a_pod_goes_where_it_mends_the_balance() -> None:
    state = state_of(
        [node("cpu-heavy", cpu="10", memory="10Gi"), node("memory-heavy", cpu="10", memory="10Gi")],
        [pod("a", cpu="6", memory="2Gi", node="cpu-heavy"), pod("b", cpu="2", memory="6Gi", node="memory-heavy")],
    )
    assert choices(state, cpu="2", memory="200Mi") == {"memory-heavy"}


def test_equal_nodes_are_drawn_at_random_and_the_same_seed_draws_the_same() -> None:
    state = state_of([node("a"), node("b"), node("c")])
    assert choices(state) == {"a", "b", "c"}
    assert len({plan_pod(info("new"), state, Randomness(3)).node for _ in range(10)}) == 1


def test_soft_taints_repel() -> None:
    soft = [{"key": "a", "effect": "PreferNoSchedule"}]
    state = state_of([node("soft", taints=soft), node("clean")])
    assert choices(state) == {"clean"}
    assert choices(state, tolerations=[{"operator": "Exists"}]) == {"soft", "clean"}


def test_preferred_node_affinity_adds_up_by_weight() -> None:
    def prefer(weight: int, value: str) -> dict[str, Any]:
        need = {"key": "disk", "operator": "In", "values": [value]}
        return {"weight": weight, "preference": {"matchExpressions": [need]}}

    state = state_of([node("ssd", labels={"disk": "ssd"}), node("hdd", labels={"disk": "hdd"})])
    terms = [prefer(10, "hdd"), prefer(80, "ssd")]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}
    assert choices(state, affinity=affinity) == {"ssd"}


def test_preferred_pod_affinity_attracts_and_repels() -> None:
    friends = [pod("db", labels={"app": "db"}, node="a")]
    state = state_of([node("a"), node("b"), node("c")], friends)
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": HOST}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    assert choices(state, affinity={"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}) == {
        "a"
    }
    apart = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert choices(state, affinity=apart) == {"b", "c"}


def test_pods_of_a_service_spread_over_hosts_and_zones_by_default() -> None:
    nodes = [node(f"n{n}", labels={ZONE: f"z{n % 2}"}) for n in range(4)]
    state = state_of(nodes)
    state.workloads.set_service("default", "web", {"app": "web"})
    placed: Counter[str | None] = Counter()
    for number in range(8):
        new = info(f"p{number}", labels={"app": "web"})
        found = plan_pod(new, state, Randomness(number)).node
        assert found is not None
        state.assume(new, found)
        placed[found] += 1
    assert set(placed.values()) == {2}


def test_a_soft_constraint_gives_way() -> None:
    selector = {"matchLabels": {"app": "web"}}
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
    web = {"labels": {"app": "web"}, "topologySpreadConstraints": [constraint]}
    state = state_of([node("a", labels={ZONE: "1"}), node("b", labels={ZONE: "2"})], [pod("w", node="a", **web)])
    assert choices(state, **web) == {"b"}
    state.set_node(node("b", labels={ZONE: "2"}, unschedulable=True))
    assert choices(state, **web) == {"a"}


def test_a_node_that_has_the_image_is_preferred() -> None:
    image = {"names": ["example.com/big:latest"], "sizeBytes": 900 * 1024 * 1024}
    state = state_of([node("has", images=[image]), node("lacks")])
    assert choices(state, image="example.com/big") == {"has"}
    assert choices(state, image="example.com/other") == {"has", "lacks"}
