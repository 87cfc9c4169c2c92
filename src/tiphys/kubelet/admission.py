"""Whether this node can take one more pod. Pure.

The scheduler has decided already; this catches what it could not know (two schedulers, a node that changed, pods
bound by hand). A refused pod becomes Failed with the reason. Invariant: what was admitted before is never refused.

Spec: Kubernetes docs, "Node affinity", "Taints" (NoExecute at the node), "Using sysctls" (the safe ones); reasons
OutOf<resource>, NodeAffinity, NodePorts, SysctlForbidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tiphys.api.qos import ZERO, spec_requests
from tiphys.api.quantity import Written, parse_quantity
from tiphys.api.views.pod import NodeSelectorRequirement, NodeSelectorTerm
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.resources import shown_amount, total_requests
from tiphys.kubelet.sandbox import port_mappings

SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""Sysctls that have a namespace and harm no other pod."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason and message of the Failed status."""

    reason: str
    message: str


def admit_pod(
    pod: BoundPod, others: Sequence[BoundPod], allocatable: Mapping[str, Written], labels: Mapping[str, str], name: str
) -> Refusal | None:
    """Return why the pod cannot run here, or None. `others` are the pods that this node has admitted."""
    short = _shortage(pod, others, allocatable)
    if short is not None:
        return short
    sysctl = _forbidden_sysctl(pod)
    if sysctl:
        return Refusal("SysctlForbidden", f"Pod was rejected: forbidden sysctl: {sysctl}")
    if not _selector_fits(pod, labels, name):
        return Refusal("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: "
                       "node(s) didn't match Pod's node affinity/selector")  # fmt: skip
    if _ports_collide(pod, others):
        return Refusal("NodePorts", "Pod was rejected: Predicate NodePorts failed: "
                       "node(s) didn't have free ports for the requested pod ports")  # fmt: skip
    return None


def _forbidden_sysctl(pod: BoundPod) -> str:
    """Return why one of the pod's sysctls may not be set: it is not of the safe ones, or reaches the host."""
    security = pod.spec.security_context
    for sysctl in security.sysctls if security else ():
        name = sysctl.name.replace("/", ".")
        if name not in SAFE_SYSCTLS:
            return f'"{sysctl.name}" not allowlisted'
        if pod.spec.host_network and name.startswith("net."):
            return f'"{sysctl.name}" not allowed with host net enabled'
        if pod.spec.host_ipc and name.startswith("kernel."):
            return f'"{sysctl.name}" not allowed with host ipc enabled'
    return ""


def _shortage(pod: BoundPod, others: Sequence[BoundPod], allocatable: Mapping[str, Written]) -> Refusal | None:
    limit = parse_quantity(allocatable.get("pods", 0)).value()
    if allocatable and len(others) + 1 > limit:
        return _out_of("pods", 1, len(others), limit)
    wanted = spec_requests(pod.spec)
    used = total_requests(others if wanted else ())
    for name in sorted(wanted):
        has = parse_quantity(allocatable.get(name, 0))
        taken = used.get(name, ZERO)
        if wanted[name] > ZERO and taken + wanted[name] > has:
            return _out_of(name, *(shown_amount(name, amount) for amount in (wanted[name], taken, has)))
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
