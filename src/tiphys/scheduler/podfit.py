"""Filters and scores that look at the pods on other nodes: affinity, anti-affinity, topology spread.

All of them add up counts of pods (counts.py) over topology domains: nodes with the same value of a label. `Domains` turns
a label into numbers, so that adding up is one call for all nodes.

Spec: Kubernetes docs, "Inter-pod affinity and anti-affinity", "Pod Topology Spread Constraints" (with its cluster-level
default constraints); KEP-895, KEP-3022 (minDomains), KEP-3094 (inclusion policies), KEP-2249 (namespaceSelector).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiphys.scheduler import nodefit
from tiphys.scheduler.counts import ATTRACT, AVOID, NEED, one_namespace
from tiphys.scheduler.profile import Profile, Spread, Term, default_spreads
from tiphys.scheduler.state import ClusterState, PodInfo
from tiphys.scheduler.table import Bools, Ints, Memo, Rows

HOSTNAME = "kubernetes.io/hostname"
MAX_SCORE = nodefit.MAX_SCORE


@dataclass(slots=True, eq=False)
class Domains:
    """The values of one node label as numbers."""

    ids: dict[str, int]
    memo: Memo


def domains_of(state: ClusterState, key: str) -> tuple[Ints, int]:
    """Return the domain of each row for a topology key (-1: the node has no such label), and how many numbers exist."""
    found = state.domains.get(key)
    if found is None:
        found = state.domains[key] = _new_domains(state, key)
    return found.memo.values(state.table.capacity), len(found.ids)


def _new_domains(state: ClusterState, key: str) -> Domains:
    ids: dict[str, int] = {}
    table = state.table

    def fill(rows: Rows) -> Any:
        values = np.full(len(rows), -1, np.int64)
        for index, row in enumerate(rows.tolist()):
            node = table.nodes[row]
            value = node.metadata.labels.get(key) if node is not None else None
            if value is not None:
                values[index] = ids.setdefault(value, len(ids))
        return values

    return Domains(ids, Memo(table.statics, np.int64, fill))


def sum_domains(domains: Ints, size: int, values: npt.NDArray[Any], rows: Bools | None = None) -> npt.NDArray[Any]:
    """Return for each row the sum of values over its domain, counting `rows` only; 0 without the label."""
    counted = domains >= 0 if rows is None else (domains >= 0) & rows
    sums = np.bincount(domains[counted], weights=values[counted], minlength=size + 1)
    # The last sum is nobody's: rows without the label (-1) find their 0 there.
    return sums[domains]


# Affinity and anti-affinity


def repelled_by_others(info: PodInfo, state: ClusterState) -> Bools | None:
    """Return the rows where a pod runs whose required anti-affinity selects this one; None for nowhere."""
    refused: Bools | None = None
    for holder in state.counts.concerning(info.profile):
        if holder.sort is AVOID and holder.total:
            here = _occupied(state, holder.term, holder.values)
            refused = here if refused is None else refused | here
    return refused


def _occupied(state: ClusterState, term: Term, values: Ints) -> Bools:
    domains, size = domains_of(state, term.topology_key)
    occupied: Bools = sum_domains(domains, size, values > 0) > 0
    return occupied


def repelled(info: PodInfo, state: ClusterState) -> Bools | None:
    """Return the rows that the pod's own required anti-affinity refuses; None when it has none."""
    refused: Bools | None = None
    for term in info.profile.anti_affinity:
        here = _occupied(state, term, state.counts.count((term,)))
        refused = here if refused is None else refused | here
    return refused


def not_attracted(info: PodInfo, state: ClusterState) -> Bools | None:
    """Return the rows that the pod's required affinity refuses; None when it has none.

    Only pods that every term selects count. The first pod of a group that wants to be near itself may go anywhere.
    """
    terms = info.profile.affinity
    if not terms:
        return None
    values = state.counts.count(terms)
    first = not values.any() and all(state.counts.selects(term, info.profile) for term in terms)
    refused = np.zeros(state.table.capacity, np.bool_)
    for term in terms:
        domains, size = domains_of(state, term.topology_key)
        refused |= domains < 0 if first else sum_domains(domains, size, values) == 0
    return refused


def attraction_scores(info: PodInfo, state: ClusterState, rows: Rows) -> Ints | None:
    """Return the scores (0 to 100) of preferred terms, the pod's own and those of pods that run; None without any."""
    total: npt.NDArray[Any] | None = None
    weighted = [(weight, term, state.counts.count((term,))) for weight, term in info.profile.attractions]
    weighted += [
        (holder.weight, holder.term, holder.values)
        for holder in state.counts.concerning(info.profile)
        if holder.total and holder.sort in (NEED, ATTRACT)
    ]
    for weight, term, values in weighted:
        domains, size = domains_of(state, term.topology_key)
        scores = sum_domains(domains, size, values)[rows] * weight
        total = scores if total is None else total + scores
    if total is None:
        return None
    low, high = total.min(), total.max()
    if high == low:
        return None
    scaled: Ints = (MAX_SCORE * (total - low) / (high - low)).astype(np.int64)
    return scaled


# Topology spread


def counted_rows(spread: Spread, profile: Profile, state: ClusterState) -> Bools:
    """Return the rows whose pods count for a constraint, by its inclusion policies."""
    table = state.table
    rows = table.exists
    if spread.honor_affinity and not profile.needs.empty:
        needs = profile.needs
        key = ("needs", needs)
        memo = state.memo(key) or state.keep_memo(
            key, Memo(table.statics, np.bool_, lambda some: nodefit.node_matches(table, needs, some))
        )
        rows = rows & memo.values(table.capacity)
    if spread.honor_taints:
        codes = nodefit.static_codes(state, profile)
        rows = rows & (codes != nodefit.TAINTED) & (codes != nodefit.UNSCHEDULABLE)
    return rows


@dataclass(frozen=True, slots=True)
class Unspread:
    """Rows that hard constraints refuse: for the skew, and for want of a label."""

    skewed: Bools
    unlabelled: Bools


def unspread(info: PodInfo, state: ClusterState) -> Unspread | None:
    """Return the rows that the hard constraints refuse; None when there are none."""
    profile, table = info.profile, state.table
    hard = [s for s in profile.spreads if s.hard]
    if not hard:
        return None
    skewed = np.zeros(table.capacity, np.bool_)
    unlabelled = np.zeros(table.capacity, np.bool_)
    labelled = table.exists.copy()
    for spread in hard:
        labelled &= domains_of(state, spread.topology_key)[0] >= 0
    for spread in hard:
        domains, size = domains_of(state, spread.topology_key)
        unlabelled |= (domains < 0) & ~skewed
        values = state.counts.count((one_namespace(spread.selector, profile.namespace),), living=True)
        rows = counted_rows(spread, profile, state) & labelled
        sums = np.bincount(domains[rows], weights=values[rows], minlength=size + 1)
        there = np.bincount(domains[rows], minlength=size + 1) > 0
        lowest = sums[there].min() if there.any() else 0
        if np.count_nonzero(there) < spread.min_domains:
            lowest = 0
        own = 1 if spread.selector.matches(profile.labels) else 0
        skewed |= (domains >= 0) & ~unlabelled & (sums[domains] + own - lowest > spread.max_skew)
    return Unspread(skewed, unlabelled)


def spread_scores(info: PodInfo, state: ClusterState, rows: Rows) -> Ints | None:
    """Return the scores (0 to 100) of soft constraints, or of the default ones; None without any."""
    profile, table = info.profile, state.table
    own = bool(profile.spreads)
    soft = [s for s in profile.spreads if not s.hard] if own else default_spreads(state.default_selector(info))
    if not soft:
        return None
    ignored = np.zeros(len(rows), np.bool_)
    labelled = table.exists
    if own:
        for spread in soft:
            labelled = labelled & (domains_of(state, spread.topology_key)[0] >= 0)
        ignored = ~labelled[rows]
    total = np.zeros(len(rows))
    for spread in soft:
        domains, size = domains_of(state, spread.topology_key)
        here = domains[rows]
        values = state.counts.count((one_namespace(spread.selector, profile.namespace),), living=True)
        if spread.topology_key == HOSTNAME:
            kinds, counts = len(rows) - int(np.count_nonzero(ignored)), values[rows]
        else:
            kinds = int(np.count_nonzero(np.bincount(here[(here >= 0) & ~ignored])))
            if not kinds:
                continue
            counts = sum_domains(domains, size, values, counted_rows(spread, profile, state) & labelled)[rows]
        scores = counts * math.log(kinds + 2) + (spread.max_skew - 1)
        total += scores if spread.topology_key == HOSTNAME else np.where(here >= 0, scores, 0.0)
    return _spread_normalized(np.rint(total).astype(np.int64), ignored)


def _spread_normalized(scores: Ints, ignored: Bools) -> Ints | None:
    """Turn few into many: the emptiest domain gets the most. Ignored rows get 0."""
    counted = scores[~ignored]
    if not len(counted):
        return None
    low, high = int(counted.min()), int(counted.max())
    if high == low and not ignored.any():
        return None
    scaled: Ints = np.full(len(scores), MAX_SCORE) if high == 0 else MAX_SCORE * (high + low - scores) // high
    return np.where(ignored, 0, scaled)
