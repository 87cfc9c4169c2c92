"""Filters and scores that look at a node and its sums alone: taints, labels, resources.

Each is a `Memo` kept in the state, so a decision pays only for the nodes that changed since the last one of its kind.

Spec: Kubernetes docs, "Scheduler Configuration" (the default plugins), "Resource Bin Packing" (LeastAllocated), KEP-2458
for its shape; "Taints and Tolerations"; "Assigning Pods to Nodes".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tiphys.scheduler.matching import (
    UNSCHEDULABLE_TAINT,
    matches_any_term,
    matches_term,
    pinned_names,
    tolerated,
)
from tiphys.scheduler.profile import NodeNeeds, Profile, Requests, parse_tolerations
from tiphys.scheduler.state import ClusterState
from tiphys.scheduler.table import PODS, Bools, Ints, Memo, NodeTable, Rows

FITS, UNSCHEDULABLE, TAINTED, MISMATCHED, PINNED_ELSEWHERE = range(5)
"""Codes of `static_codes`, in the order in which upstream asks."""
MAX_SCORE = 100


def _codes(table: NodeTable, tolerations_data: bytes, needs: NodeNeeds, rows: Rows) -> Any:
    tolerations = parse_tolerations(tolerations_data)
    codes = np.zeros(len(rows), np.int8)
    if not needs.empty:
        codes[~node_matches(table, needs, rows)] = MISMATCHED
    tainted = np.array(
        [
            any(t.effect in ("NoSchedule", "NoExecute") and not tolerated(t, tolerations) for t in taints)
            for taints in table.taint_sets
        ]
    )
    codes[tainted[table.taint_set[rows]]] = TAINTED
    if not tolerated(UNSCHEDULABLE_TAINT, tolerations):
        codes[table.unschedulable[rows]] = UNSCHEDULABLE
    return codes


def node_matches(table: NodeTable, needs: NodeNeeds, rows: Rows) -> Bools:
    """Return for some rows whether the node satisfies the node selector and the required node affinity."""
    matches = np.zeros(len(rows), np.bool_)
    for index, row in enumerate(rows.tolist()):
        node = table.nodes[row]
        if node is None:
            continue
        labels = node.metadata.labels
        matches[index] = all(labels.get(key) == value for key, value in needs.selector) and (
            needs.terms is None or matches_any_term(needs.terms, node.metadata.name, labels)
        )
    return matches


def static_codes(state: ClusterState, profile: Profile) -> Any:
    """Return one code a row: FITS, or the first filter that refuses whatever pods run there."""
    table, needs = state.table, profile.needs
    names = pinned_names(needs.terms)
    if names is not None:
        codes = np.full(table.capacity, PINNED_ELSEWHERE, np.int8)
        rows = np.array([table.rows[name] for name in names if name in table.rows], dtype=np.intp)
        if len(rows):
            codes[rows] = _codes(table, profile.tolerations, needs, rows)
        return codes
    key = ("static", profile.tolerations, None if needs.empty else needs)
    memo = state.memo(key)
    if memo is None:
        tolerations = profile.tolerations
        memo = state.keep_memo(key, Memo(table.statics, np.int8, lambda rows: _codes(table, tolerations, needs, rows)))
    return memo.values(table.capacity)


# Resources


def _fits(table: NodeTable, requests: Requests, rows: Rows) -> Bools:
    pods = table.columns[PODS]
    fits: Bools = table.used[pods, rows] < table.offered[pods, rows]
    for name, amount in requests.amounts:
        column = table.columns.get(name)
        if column is None:
            return np.zeros(len(rows), np.bool_)
        fits &= amount <= table.offered[column, rows] - table.used[column, rows]
    return fits


def resource_fits(state: ClusterState, requests: Requests) -> Bools:
    """Return one value a row: do the requests fit beside what is there."""
    table = state.table
    key = ("fit", requests)
    memo = state.memo(key) or state.keep_memo(
        key, Memo(table.usage, np.bool_, lambda rows: _fits(table, requests, rows))
    )
    return memo.values(table.capacity)


def lacking_resources(table: NodeTable, requests: Requests) -> list[tuple[str, Bools, Bools]]:
    """Return (reason, rows that lack it now, rows that could never have it) for each resource."""
    pods = table.columns[PODS]
    full: Bools = table.used[pods] >= table.offered[pods]
    lacking = [("Too many pods", full, np.zeros(table.capacity, np.bool_))]
    everywhere = np.ones(table.capacity, np.bool_)
    for name, amount in sorted(requests.amounts, key=lambda item: _ORDER.get(item[0], len(_ORDER))):
        column = table.columns.get(name)
        if column is None:
            lacking.append((f"Insufficient {name}", everywhere, everywhere))
        else:
            free = table.offered[column] - table.used[column]
            lacking.append((f"Insufficient {name}", amount > free, amount > table.offered[column]))
    return lacking


_ORDER = {"cpu": 0, "memory": 1, "ephemeral-storage": 2}


def _resource_scores(table: NodeTable, requests: Requests, rows: Rows) -> Any:
    """LeastAllocated (0 to 100) and BalancedAllocation together.

    The latter asks, as since 1.36, how the pod changes the balance of a node: from 50 (spoils it) to 100 (mends it).
    """
    offered = table.offered[:2, rows]
    there = offered > 0
    divisor = np.maximum(offered, 1)
    wanted = table.scored[:, rows] + np.array([[requests.score_cpu_milli], [requests.score_memory_bytes]])
    free = np.where(there & (wanted <= offered), (offered - wanted) * MAX_SCORE // divisor, 0)
    least = free.sum(axis=0) // np.maximum(there.sum(axis=0), 1)
    if requests.best_effort:
        return least
    amounts = dict(requests.amounts)
    taken = table.used[:2, rows]
    added = np.array([[amounts.get("cpu", 0)], [amounts.get("memory", 0)]])
    improvement = _imbalance(taken, divisor, there) - _imbalance(taken + added, divisor, there)
    return least + ((0.75 + improvement / 2) * MAX_SCORE).astype(np.int64)


def _imbalance(taken: Ints, offered: Ints, there: Bools) -> Any:
    """Return the standard deviation of the used parts of cpu and memory, 0 to 0.5."""
    parts = np.minimum(taken / offered, 1.0)
    return np.where(there.all(axis=0), np.abs(parts[0] - parts[1]) / 2, 0.0)


def resource_scores(state: ClusterState, requests: Requests) -> Ints:
    table = state.table
    key = ("score", requests)
    memo = state.memo(key) or state.keep_memo(
        key, Memo(table.usage, np.int64, lambda rows: _resource_scores(table, requests, rows))
    )
    return memo.values(table.capacity)


# Preferences


def untolerated_preferences(state: ClusterState, profile: Profile) -> Ints | None:
    """Return how many PreferNoSchedule taints of each node the pod does not tolerate; None when there are none at all."""
    table = state.table
    counts = state.preferences.get((profile.tolerations, len(table.taint_sets)))
    if counts is None:
        tolerations = [t for t in parse_tolerations(profile.tolerations) if t.effect in ("", "PreferNoSchedule")]
        counts = np.array(
            [
                sum(t.effect == "PreferNoSchedule" and not tolerated(t, tolerations) for t in taints)
                for taints in table.taint_sets
            ]
        )
        if len(state.preferences) > 1000:
            state.preferences.clear()
        state.preferences[(profile.tolerations, len(table.taint_sets))] = counts
    return counts[table.taint_set] if counts.any() else None


def preferred_weights(state: ClusterState, profile: Profile) -> Ints | None:
    """Return the sum of weights of the preferred node affinity terms that each node matches; None without terms."""
    table, preferred = state.table, profile.preferred
    if not preferred:
        return None

    def fill(rows: Rows) -> Any:
        weights = np.zeros(len(rows), np.int64)
        for index, row in enumerate(rows.tolist()):
            node = table.nodes[row]
            if node is not None:
                name, labels = node.metadata.name, node.metadata.labels
                weights[index] = sum(weight for weight, term in preferred if matches_term(term, name, labels))
        return weights

    key = ("preferred", preferred)
    memo = state.memo(key) or state.keep_memo(key, Memo(table.statics, np.int64, fill))
    return memo.values(table.capacity)


def normalized(values: Ints, *, reverse: bool = False) -> Ints:
    """Scale scores to 0..100 by their greatest; `reverse` makes the greatest 0."""
    greatest = int(values.max(initial=0))
    if greatest == 0:
        return np.full(len(values), MAX_SCORE if reverse else 0, np.int64)
    scaled: Ints = values * MAX_SCORE // greatest
    return MAX_SCORE - scaled if reverse else scaled
