"""What no sequence of changes may break: nothing overcommitted, no hard rule violated, no drift from a fresh count."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from schedulerobjects import info, node, pod, state_of

from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import feasible_rows, plan_pod
from tiphys.scheduler.state import ClusterState

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
APPS = ("web", "db", "job")


def selector(app: str) -> dict[str, Any]:
    return {"matchLabels": {"app": app}}


def rules(app: str, other: str, sort: str) -> dict[str, Any]:
    term = {"labelSelector": selector(other), "topologyKey": ZONE if sort.endswith("zone") else HOST}
    match sort.split("-")[0]:
        case "apart":
            return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
        case "near":
            return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
        case "liked":
            weighted = [{"weight": 50, "podAffinityTerm": term}]
            return {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}}
        case "spread":
            constraint = {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector(app)}
            return {"topologySpreadConstraints": [{**constraint, "topologyKey": term["topologyKey"]}]}
        case "port":
            return {"ports": [80]}
        case "tolerant":
            return {"tolerations": [{"operator": "Exists"}]}
        case _:
            return {}


SORTS = ("plain", "apart-zone", "apart-host", "near-zone", "near-host", "liked-zone", "spread-zone", "port", "tolerant")
pods = st.tuples(st.sampled_from(APPS), st.sampled_from(APPS), st.sampled_from(SORTS), st.integers(0, 3), st.booleans())
nodes = st.tuples(st.integers(0, 7), st.sampled_from(["", "1", "2"]), st.integers(1, 6), st.booleans(), st.booleans())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("node"), nodes),
        st.tuples(st.just("pod"), pods),
        st.tuples(st.just("pod"), pods),
        st.tuples(st.just("pod"), pods),
        st.tuples(st.just("gone"), st.integers(0, 40)),
        st.tuples(st.just("no node"), st.integers(0, 7)),
    ),
    min_size=5,
    max_size=40,
)


def make_node(number: int, zone: str, cpu: int, tainted: bool, cordoned: bool) -> Any:
    taints = [{"key": "k", "effect": "NoSchedule"}] if tainted else []
    labels = {ZONE: zone} if zone else {}
    return node(f"n{number}", cpu=str(cpu), pods="5", labels=labels, taints=taints, unschedulable=cordoned)


def play(history: list[Any], seed: int) -> tuple[ClusterState, dict[str, Any], list[str | None]]:
    """Return the state after a history, the placed pods as they were written, and every decision."""
    state, randomness = ClusterState(), Randomness(seed)
    written: dict[str, Any] = {}
    decisions: list[str | None] = []
    for number, (action, argument) in enumerate(history):
        match action:
            case "node":
                state.set_node(make_node(*argument))
            case "no node":
                state.remove_node(f"n{argument}")
            case "gone":
                state.remove_pod(f"default/p{argument}")
                written.pop(f"p{argument}", None)
            case _:
                app, other, sort, cpu, confirmed = argument
                more = {"labels": {"app": app}, **rules(app, other, sort)}
                if cpu:
                    more["cpu"] = str(cpu)
                new = info(f"p{number}", **more)
                found = plan_pod(new, state, randomness).node
                decisions.append(found)
                if found is not None:
                    check_placement(state, found, sort, app, other)
                    written[f"p{number}"] = {**more, "node": found}
                    state.assume(new, found)
                    if confirmed:
                        state.set_pod(pod(f"p{number}", **more, node=found))
    return state, written, decisions


def check_placement(state: ClusterState, found: str, sort: str, app: str, other: str) -> None:
    """Check hard rules the slow way, before the pod is there."""
    target = state.table.nodes[state.table.rows[found]]
    assert target is not None
    if sort != "tolerant":
        assert not target.spec.taints
        assert not target.spec.unschedulable
    key = ZONE if sort.endswith("zone") else HOST
    value = target.metadata.labels.get(key)
    there = [
        p
        for row, candidate in enumerate(state.table.nodes)
        if candidate is not None and value is not None and candidate.metadata.labels.get(key) == value
        for p in state.pods_on(row).values()
    ]
    placed = [p for row in range(state.table.capacity) for p in state.pods_on(row).values()]
    if sort.startswith("apart"):
        assert all(p.profile.labels["app"] != other for p in there)
    if sort.startswith("near"):
        friends = [p for p in placed if p.profile.labels["app"] == other]
        assert any(p in there for p in friends) or (not friends and app == other and value is not None)
    if sort == "port":
        assert not any(p.profile.ports for p in state.pods_on(state.table.rows[found]).values())


@settings(max_examples=120, deadline=None)
@given(steps, st.integers(0, 3))
def test_no_history_overcommits_or_drifts(history: list[Any], seed: int) -> None:
    state, written, _ = play(history, seed)
    table = state.table
    exists = np.flatnonzero(table.exists)
    live = [n for n in table.nodes if n is not None]
    fresh = state_of(live, [pod(name, **more) for name, more in written.items()])
    for row in exists.tolist():
        name = table.name(row)
        other = fresh.table.rows[name]
        assert (table.used[:, row] == fresh.table.used[:, other]).all()
        assert set(state.pods_on(row)) == set(fresh.pods_on(other))
    for sort in SORTS:
        new = info("probe", cpu="1", labels={"app": "web"}, **rules("web", "db", sort))
        mine, theirs = feasible_rows(new, state), feasible_rows(new, fresh)
        assert {table.name(r) for r in np.flatnonzero(mine)} == {fresh.table.name(r) for r in np.flatnonzero(theirs)}, (
            sort
        )


@settings(max_examples=60, deadline=None)
@given(st.lists(pods, min_size=1, max_size=40), st.integers(0, 3))
def test_requests_never_exceed_what_a_node_offers(wanted: list[Any], seed: int) -> None:
    history = [("node", (n, str(n % 2), 4, False, False)) for n in range(3)] + [("pod", one) for one in wanted]
    state, _, _ = play(history, seed)
    assert (state.table.used <= state.table.offered)[:, state.table.exists].all(axis=1)[[0, 1, 3]].all()


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(0, 3))
def test_the_same_seed_decides_the_same(history: list[Any], seed: int) -> None:
    assert play(history, seed)[2] == play(history, seed)[2]
