"""Whether this node can take one more pod. Pure.

The scheduler has decided already; this catches what it could not know (two schedulers, a node that changed, pods
bound by hand). A refused pod becomes Failed with the reason. Invariant: what was admitted before is never refused.

Spec: Kubernetes docs, "Node affinity", "Taints" (NoExecute at the node); reasons OutOf<resource>, NodeAffinity, NodePorts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tiphys.api.views.pod import NodeSelectorRequirement, NodeSelectorTerm
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.quantity import Quantity, parse_quantity
from tiphys.kubelet.resources import pod_requests
from tiphys.kubelet.sandbox import port_mappings


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason and message of the Failed status."""

    reason: str
    message: str


def admit_pod(
    pod: BoundPod, others: Sequence[BoundPod], allocatable: Mapping[str, Quantity], labels: Mapping[str, str], name: str
) -> Refusal | None:
    """Return why the pod cannot run here, or None. `others` are the pods that this node has admitted."""
    short = _shortage(pod, others, allocatable)
    if short is not None:
        return short
    if not _selector_fits(pod, labels, name):
        return Refusal("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: "
                       "node(s) didn't match Pod's node affinity/selector")  # fmt: skip
    if _ports_collide(pod, others):
        return Refusal("NodePorts", "Pod was rejected: Predicate NodePorts failed: "
                       "node(s) didn't have free ports for the requested pod ports")  # fmt: skip
    return None


def _shortage(pod: BoundPod, others: Sequence[BoundPod], allocatable: Mapping[str, Quantity]) -> Refusal | None:
    limit = parse_quantity(allocatable.get("pods", 0))
    if allocatable and len(others) + 1 > limit:
        return _out_of("pods", 1, len(others), int(limit))
    wanted = pod_requests(pod.spec)
    used: dict[str, Fraction] = {}
    for other in others:
        for name, value in pod_requests(other.spec).items():
            used[name] = used.get(name, Fraction(0)) + value
    for name in sorted(wanted):
        has = parse_quantity(allocatable.get(name, 0))
        taken = used.get(name, Fraction(0))
        if wanted[name] and taken + wanted[name] > has:
            scale = 1000 if name == "cpu" else 1
            return _out_of(name, int(wanted[name] * scale), int(taken * scale), int(has * scale))
    return None


def _out_of(resource: str, requested: int, used: int, has: int) -> Refusal:
    return Refusal(
        f"OutOf{resource}",
        f"Pod was rejected: Node didn't have enough resource: {resource}, "
        f"requested: {requested}, used: {used}, capacity: {has}",
    )


def _selector_fits(pod: BoundPod, labels: Mapping[str, str], name: str) -> bool:
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None:
        return True
    return any(_term_fits(term, labels, name) for term in required.node_selector_terms)


def _term_fits(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": name}
    return all(_requirement_fits(r, labels) for r in term.match_expressions) and all(
        _requirement_fits(r, fields) for r in term.match_fields
    )


def _requirement_fits(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                left, right = int(value or ""), int(requirement.values[0])
            except (ValueError, IndexError):
                return False
            return left > right if requirement.operator == "Gt" else left < right
    return False


def _ports(pod: BoundPod) -> Iterable[tuple[str, int, str]]:
    if pod.spec.host_network:
        return [
            (p.protocol or "TCP", p.host_port, p.host_ip) for c in pod.spec.containers for p in c.ports if p.host_port
        ]
    return [(m.protocol, m.host_port, m.host_address) for m in port_mappings(pod)]


def _ports_collide(pod: BoundPod, others: Sequence[BoundPod]) -> bool:
    anywhere = ("", "0.0.0.0", "::")
    wanted = list(_ports(pod))
    for other in others if wanted else ():
        for protocol, number, address in _ports(other):
            for mine in wanted:
                if mine[:2] == (protocol, number) and (
                    mine[2] in anywhere or address in anywhere or mine[2] == address
                ):
                    return True
    return False
