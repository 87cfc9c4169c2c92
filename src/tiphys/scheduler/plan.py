"""The decision: the best node for a pod, or why there is none.

`plan_pod` asks every filter about every node, scores all nodes that are left, and draws one of the best. It changes
nothing but derived arrays. When no node is left, the plan says for each reason how many nodes it holds for (a node
counts for the first filter that refuses it), and which nodes preemption might help on.

Spec: Kubernetes docs, "Kubernetes Scheduler", "Scheduler Configuration" (default plugins and their weights); the wording
of messages is what users of upstream's default scheduler see in events and conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tiphys.base.clock import Randomness
from tiphys.scheduler import nodefit, podfit, volumes
from tiphys.scheduler.queue import Happening
from tiphys.scheduler.state import ClusterState, PodInfo
from tiphys.scheduler.table import Bools, Ints

NO_NODES = "no nodes available to schedule pods"
NODE_HELPS = frozenset({Happening.NODE_ADDED, Happening.NODE_CHANGED})
PORTS_HELP = frozenset({Happening.NODE_ADDED, Happening.POD_GONE})
ROOM_HELPS = frozenset({Happening.NODE_ADDED, Happening.NODE_GREW, Happening.POD_GONE})
PODS_HELP = NODE_HELPS | {
    Happening.POD_PLACED,
    Happening.POD_GONE,
    Happening.POD_CHANGED,
    Happening.NAMESPACE_CHANGED,
}
VOLUMES_HELP = NODE_HELPS | {Happening.STORAGE_CHANGED, Happening.POD_GONE}
REFUSED = 1000
"""How many refusals are remembered: a thousand pods of one template ask once, until something changes."""
WEIGHT_TAINTS = 3
WEIGHT_NODE_AFFINITY = 2
WEIGHT_SPREAD = 2
WEIGHT_POD_AFFINITY = 2

STATIC_REASONS = {
    nodefit.UNSCHEDULABLE: "node(s) were unschedulable",
    nodefit.TAINTED: "node(s) had untolerated taint(s)",
    nodefit.MISMATCHED: "node(s) didn't match Pod's node affinity/selector",
    nodefit.PINNED_ELSEWHERE: "node(s) didn't satisfy plugin(s) [NodeAffinity]",
}
SPREAD_REASON = "node(s) didn't match pod topology spread constraints"
PORTS_REASON = "node(s) didn't have free ports for the requested pod ports"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reason of one filter: the rows that it refuses, and those where evicting pods would change nothing."""

    reason: str
    refused: Bools
    hopeless: Bools | None
    """None: evicting pods never helps."""
    helped_by: frozenset[Happening]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a pod now."""

    node: str | None
    message: str = ""
    """Why there is no node; "" when there is one."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """How many nodes each reason holds for."""
    candidates: tuple[int, ...] = ()
    """Rows where evicting pods might help."""
    helped_by: frozenset[Happening] = NODE_HELPS | ROOM_HELPS
    """What may make another try worthwhile."""


def plan_pod(info: PodInfo, state: ClusterState, randomness: Randomness) -> Plan:
    """Return the plan for a pod that waits."""
    if not state.table.count:
        return Plan(None, NO_NODES, helped_by=frozenset({Happening.NODE_ADDED}))
    if info.claims and (why := volumes.refuse_everywhere(info, state)):
        message = f"0/{state.table.count} nodes are available: {why}."
        return Plan(None, message, {why: state.table.count}, helped_by=frozenset({Happening.STORAGE_CHANGED}))
    known = state.refused.get(info.profile)
    if known is not None and known[0] == state.revision and not info.claims and not state.nominated:
        refused: Plan = known[1]
        return refused
    feasible = feasible_rows(info, state)
    if state.nominated:
        feasible = without_reserved(info, state, feasible)
    rows = np.flatnonzero(feasible)
    if not len(rows):
        if state.nominated:
            return explain_reserved(info, state)
        plan = explain(info, state)
        if len(state.refused) > REFUSED:
            state.refused.clear()
        state.refused[info.profile] = (state.revision, plan)
        return plan
    if len(rows) == 1:
        return Plan(state.table.name(int(rows[0])))
    scores = score_rows(info, state, rows)
    best = rows[scores == scores.max()]
    choice = best[randomness.integer(0, len(best) - 1)] if len(best) > 1 else best[0]
    return Plan(state.table.name(int(choice)))


def feasible_rows(info: PodInfo, state: ClusterState) -> Bools:
    """Return one value a row: may the pod run there now."""
    profile, table = info.profile, state.table
    feasible: Bools = (nodefit.static_codes(state, profile) == nodefit.FITS) & table.exists
    feasible &= nodefit.resource_fits(state, profile.requests)
    if profile.ports:
        feasible &= ~ports_taken(info, state)
    if info.claims:
        storage = volumes.refusals(info, state)
        for refused_rows in storage.reasons.values():
            feasible &= ~refused_rows
        if storage.in_use:
            feasible &= False
    uneven = podfit.unspread(info, state)
    if uneven is not None:
        feasible &= ~(uneven.skewed | uneven.unlabelled)
    for refused in (
        podfit.not_attracted(info, state),
        podfit.repelled(info, state),
        podfit.repelled_by_others(info, state),
    ):
        if refused is not None:
            feasible &= ~refused
    return feasible


def reserved_for(info: PodInfo, state: ClusterState) -> dict[int, list[PodInfo]]:
    """Return by row the pods at least as important as this one that room is being cleared for."""
    found: dict[int, list[PodInfo]] = {}
    for other in state.nominated.values():
        row = state.table.rows.get(other.node_name)
        if row is not None and other.priority >= info.priority and other.key != info.key:
            found.setdefault(row, []).append(other)
    return found


@contextmanager
def _in_place(state: ClusterState, pods: Sequence[PodInfo]) -> Iterator[None]:
    """Count nominated pods as if they were on their nodes already, while the block runs."""
    revision = state.revision
    for pod in pods:
        state.restore(pod)
    try:
        yield
    finally:
        for pod in pods:
            state.lift(pod)
        state.revision = revision


def without_reserved(info: PodInfo, state: ClusterState, feasible: Bools) -> Bools:
    """Leave out nodes where the pod only fits in the room that was cleared for others."""
    for row, others in reserved_for(info, state).items():
        if feasible[row]:
            with _in_place(state, others):
                fits = bool(feasible_rows(info, state)[row])
            feasible[row] = fits
    return feasible


def explain_reserved(info: PodInfo, state: ClusterState) -> Plan:
    """Explain, with the room that was cleared for others counted as taken."""
    with _in_place(state, [pod for pods in reserved_for(info, state).values() for pod in pods]):
        return explain(info, state)


def ports_taken(info: PodInfo, state: ClusterState) -> Bools:
    """Return one value a row: does a pod there hold a host port that this one wants."""
    taken = np.zeros(state.table.capacity, np.bool_)
    for protocol, address, number in info.profile.ports:
        for other, rows in state.ports.get((protocol, number), {}).items():
            if address == other or "0.0.0.0" in (address, other):
                taken[list(rows)] = True
    return taken


def score_rows(info: PodInfo, state: ClusterState, rows: Ints) -> Ints:
    """Return the weighted sum of all scores for some rows."""
    profile = info.profile
    total = nodefit.resource_scores(state, profile.requests)[rows]
    taints = nodefit.untolerated_preferences(state, profile)
    if taints is not None:
        total = total + WEIGHT_TAINTS * nodefit.normalized(taints[rows], reverse=True)
    preferred = nodefit.preferred_weights(state, profile)
    if preferred is not None:
        total = total + WEIGHT_NODE_AFFINITY * nodefit.normalized(preferred[rows])
    table = state.table
    images = state.images.scores(profile.images, profile.containers, table.count, table.capacity)
    if images is not None:
        total = total + images[rows]
    spread = podfit.spread_scores(info, state, rows)
    if spread is not None:
        total = total + WEIGHT_SPREAD * spread
    attraction = podfit.attraction_scores(info, state, rows)
    if attraction is not None:
        total = total + WEIGHT_POD_AFFINITY * attraction
    return total


def verdicts(info: PodInfo, state: ClusterState) -> list[list[Verdict]]:
    """Return what each filter says, in order; a filter may have several reasons for one node."""
    table, profile = state.table, info.profile
    codes = nodefit.static_codes(state, profile)
    nowhere = np.zeros(table.capacity, np.bool_)
    found = [[Verdict(reason, codes == code, None, NODE_HELPS)] for code, reason in STATIC_REASONS.items()]
    if profile.ports:
        found.append([Verdict(PORTS_REASON, ports_taken(info, state), nowhere, PORTS_HELP)])
    found.append(
        [
            Verdict(reason, lacks, never, ROOM_HELPS)
            for reason, lacks, never in nodefit.lacking_resources(table, profile.requests)
        ]
    )
    if info.claims:
        storage = volumes.refusals(info, state)
        if storage.in_use:
            found.append([Verdict(volumes.IN_USE, table.exists, nowhere, VOLUMES_HELP)])
        found.append([Verdict(why, rows, None, VOLUMES_HELP) for why, rows in storage.reasons.items()])
    uneven = podfit.unspread(info, state)
    if uneven is not None:
        spread = Verdict(SPREAD_REASON, uneven.skewed, nowhere, PODS_HELP)
        found.append(
            [Verdict(f"{SPREAD_REASON} (missing required label)", uneven.unlabelled, None, NODE_HELPS), spread]
        )
    affinity = podfit.not_attracted(info, state)
    if affinity is not None:
        found.append([Verdict("node(s) didn't match pod affinity rules", affinity, None, PODS_HELP)])
    for reason, refused in (
        ("node(s) didn't match pod anti-affinity rules", podfit.repelled(info, state)),
        ("node(s) didn't satisfy existing pods anti-affinity rules", podfit.repelled_by_others(info, state)),
    ):
        if refused is not None:
            found.append([Verdict(reason, refused, nowhere, PODS_HELP)])
    return found


def explain(info: PodInfo, state: ClusterState) -> Plan:
    """Return a plan without a node that says why there is none."""
    table = state.table
    open_rows = table.exists.copy()
    hopeless = ~table.exists
    reasons: dict[str, int] = {}
    helped_by: frozenset[Happening] = frozenset({Happening.NODE_ADDED})
    for filter_verdicts in verdicts(info, state):
        refused = np.zeros(table.capacity, np.bool_)
        for verdict in filter_verdicts:
            here = verdict.refused & open_rows
            count = int(np.count_nonzero(here))
            if count:
                reasons[verdict.reason] = reasons.get(verdict.reason, 0) + count
                refused |= here
                helped_by |= verdict.helped_by
                hopeless |= here if verdict.hopeless is None else here & verdict.hopeless
        open_rows &= ~refused
    message = format_reasons(table.count, reasons)
    return Plan(None, message, reasons, tuple(np.flatnonzero(~hopeless).tolist()), helped_by)


def format_reasons(nodes: int, reasons: Mapping[str, int]) -> str:
    """Return `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`"""
    texts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available: {', '.join(texts)}." if texts else f"0/{nodes} nodes are available:"
