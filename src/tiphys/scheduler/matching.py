"""Does one node satisfy what a pod requires of labels and taints? Plain functions over single nodes.

Spec: Kubernetes docs, "Assigning Pods to Nodes" (operators; terms are alternatives, expressions of a term all hold; a
term without any matches nothing) and "Taints and Tolerations" (operators Gt and Lt: KEP-5471).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tiphys.api.views.node import Taint
from tiphys.api.views.pod import NodeSelectorRequirement, NodeSelectorTerm, Toleration

UNSCHEDULABLE_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text, 10) if text.strip() == text and "_" not in text else None
    except ValueError:
        return None


def matches_requirement(need: NodeSelectorRequirement, value: str | None) -> bool:
    """Return whether a label's value (None: no such label) satisfies one expression."""
    match need.operator:
        case "In":
            return value is not None and value in need.values
        case "NotIn":
            return value is None or value not in need.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            number, bound = _number(value), _number(need.values[0] if need.values else None)
            if number is None or bound is None:
                return False
            return number > bound if need.operator == "Gt" else number < bound
        case _:
            return False


def matches_term(term: NodeSelectorTerm, name: str, labels: Mapping[str, str]) -> bool:
    """Return whether a node satisfies every expression and field of a term."""
    if not term.match_expressions and not term.match_fields:
        return False
    return all(matches_requirement(need, labels.get(need.key)) for need in term.match_expressions) and all(
        matches_requirement(need, name if need.key == "metadata.name" else None) for need in term.match_fields
    )


def matches_any_term(terms: Iterable[NodeSelectorTerm], name: str, labels: Mapping[str, str]) -> bool:
    return any(matches_term(term, name, labels) for term in terms)


def pinned_names(terms: Sequence[NodeSelectorTerm] | None) -> frozenset[str] | None:
    """Return the only node names that the terms allow by their fields; None when some term names none."""
    if not terms:
        return None
    allowed: set[str] = set()
    for term in terms:
        names: set[str] | None = None
        for need in term.match_fields:
            if need.key == "metadata.name" and need.operator == "In":
                names = set(need.values) if names is None else names & set(need.values)
        if names is None:
            return None
        allowed |= names
    return frozenset(allowed)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether one toleration covers one taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator:
        case "" | "Equal":
            return toleration.value == taint.value
        case "Exists":
            return True
        case "Gt" | "Lt":
            number, bound = _number(taint.value), _number(toleration.value)
            if number is None or bound is None:
                return False
            return number > bound if toleration.operator == "Gt" else number < bound
        case _:
            return False


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    return any(tolerates(toleration, taint) for toleration in tolerations)
