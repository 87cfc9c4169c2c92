"""Where a DaemonSet's pods belong: the pure part of the DaemonSet controller.

In: a DaemonSet, the nodes, its pods. Out: `DaemonPlan`: on which nodes to create, which pods to delete, the counts of the
status. Read by daemonset.py. Invariant: a node is never planned more than one pod of the current revision, and a rolling
update never takes more than maxUnavailable available pods away.

Spec: Kubernetes docs, "DaemonSet" (taints and tolerations, scheduling), "Perform a Rolling Update on a DaemonSet".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.views.node import Node
from tiphys.api.views.pod import NodeSelectorRequirement, NodeSelectorTerm, Toleration
from tiphys.controllers.eviction import tolerates
from tiphys.controllers.history import REVISION_LABEL
from tiphys.controllers.selection import created_s, is_active, is_available, is_ready, resolve_percent
from tiphys.controllers.views import DaemonSet, Pod, TemplateView, view_template

DAEMON_TOLERATIONS: tuple[tuple[str, str], ...] = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
NETWORK_TOLERATION = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(slots=True)
class DaemonPlan:
    """What to do for a DaemonSet now."""

    create: list[str] = field(default_factory=list)
    """Names of nodes that get a pod."""
    delete: list[Pod] = field(default_factory=list)
    ended: list[Pod] = field(default_factory=list)
    """Those of `delete` that ended by themselves (their deletion is told in an event and backed off)."""
    counts: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def daemon_tolerations(host_network: bool) -> tuple[tuple[str, str], ...]:
    """Return (key, effect) of the tolerations that every daemon pod gets."""
    return (*DAEMON_TOLERATIONS, NETWORK_TOLERATION) if host_network else DAEMON_TOLERATIONS


def node_of(pod: Pod) -> str:
    """Return the node that a pod is on or is pinned to by its affinity, "" if neither."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    for term in required.node_selector_terms if required else ():
        for need in term.match_fields:
            if need.key == "metadata.name" and need.operator == "In" and len(need.values) == 1:
                return need.values[0]
    return ""


def fits(template: TemplateView, node: Node) -> tuple[bool, bool]:
    """Return (should run, may continue) of a daemon pod on a node."""
    spec = template.spec
    if spec.node_name and spec.node_name != node.metadata.name:
        return False, False
    if any(node.metadata.labels.get(k) != v for k, v in spec.node_selector.items()):
        return False, False
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is not None and not any(_matches_term(term, node) for term in required.node_selector_terms):
        return False, False
    own = [
        Toleration(key=key, effect=effect, operator="Exists")
        for key, effect in daemon_tolerations(bool(spec.host_network))
    ]
    tolerations = [*spec.tolerations, *own]
    hard = [t for t in node.spec.taints if t.effect in ("NoSchedule", "NoExecute")]
    untolerated = [t for t in hard if not any(tolerates(toleration, t) for toleration in tolerations)]
    return not untolerated, not any(t.effect == "NoExecute" for t in untolerated)


def _matches_term(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    labels = node.metadata.labels
    return all(_matches_need(need, labels.get(need.key)) for need in term.match_expressions) and all(
        _matches_need(need, node.metadata.name if need.key == "metadata.name" else None) for need in term.match_fields
    )


def _matches_need(need: NodeSelectorRequirement, value: str | None) -> bool:
    operations: Mapping[str, Callable[[], bool]] = {
        "In": lambda: value in need.values,
        "NotIn": lambda: value not in need.values,
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
        "Gt": lambda: _is_number(value) and _is_number(need.values[0]) and int(value or 0) > int(need.values[0]),
        "Lt": lambda: _is_number(value) and _is_number(need.values[0]) and int(value or 0) < int(need.values[0]),
    }
    operation = operations.get(need.operator)
    return operation is not None and operation()


def _is_number(text: str | None) -> bool:
    return text is not None and text.lstrip("-").isdigit()


def update_bounds(daemonset: DaemonSet, desired: int) -> tuple[int, int]:
    """Return (max surge, max unavailable) as numbers of nodes."""
    strategy = daemonset.spec.update_strategy
    rolling = strategy.rolling_update if strategy else None
    surge = resolve_percent(rolling.max_surge if rolling else 0, desired, round_up=True)
    given = rolling.max_unavailable if rolling else None
    unavailable = resolve_percent(1 if given is None else given, desired, round_up=True)
    return surge, unavailable if surge or unavailable else 1


def plan_daemons(
    daemonset: DaemonSet, nodes: Sequence[Node], pods: Sequence[Pod], digest: str, now_s: float
) -> DaemonPlan:
    """Return what to do. `digest` is the hash of the current revision."""
    template = view_template(bytes(daemonset.spec.template))
    by_node: dict[str, list[Pod]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    plan = DaemonPlan()
    fit = {node.metadata.name: fits(template, node) for node in nodes}
    desired = sum(1 for should_run, _ in fit.values() if should_run)
    surge = update_bounds(daemonset, desired)[0] if _rolls(daemonset) else 0
    for name, (should_run, may_continue) in fit.items():
        _plan_node(plan, name, by_node.get(name, []), should_run, may_continue, surge, digest, now_s, daemonset)
    for name in by_node.keys() - fit.keys():
        if name and not any(pod.spec.node_name for pod in by_node[name]):
            plan.delete += [p for p in by_node[name] if p.metadata.deletion_timestamp is None]
    if _rolls(daemonset) and not plan.create and not plan.delete:
        _plan_rolling(plan, daemonset, fit, by_node, digest, now_s)
    plan.counts = _count(daemonset, fit, by_node, digest, now_s)
    plan.reason = f"{len(plan.create)} nodes lack a pod, {len(plan.delete)} pods are to go"
    return plan


def _rolls(daemonset: DaemonSet) -> bool:
    strategy = daemonset.spec.update_strategy
    return strategy is None or strategy.type in ("", "RollingUpdate")


def _plan_node(
    plan: DaemonPlan,
    name: str,
    pods: Sequence[Pod],
    should_run: bool,
    may_continue: bool,
    surge: int,
    digest: str,
    now_s: float,
    daemonset: DaemonSet,
) -> None:
    alive = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
    if not may_continue:
        plan.delete += alive
        return
    ended = [pod for pod in alive if pod.status.phase in ("Failed", "Succeeded")]
    plan.delete += ended
    plan.ended += ended
    running = sorted((pod for pod in alive if pod not in ended), key=lambda p: (created_s(p.metadata), p.metadata.name))
    if should_run and not pods:
        plan.create.append(name)
        return
    if len(running) > 1:
        new = [pod for pod in running if is_current(pod, digest)]
        old = [pod for pod in running if not is_current(pod, digest)]
        plan.delete += new[1:] + old[1:]
        if new and old and not surge:
            plan.delete += [running[1]]
        elif new and old and is_available(new[0], daemonset.spec.min_ready_seconds or 0, now_s):
            plan.delete += old[:1]


def is_current(pod: Pod, digest: str) -> bool:
    return pod.metadata.labels.get(REVISION_LABEL) == digest


def _plan_rolling(
    plan: DaemonPlan,
    daemonset: DaemonSet,
    fit: Mapping[str, tuple[bool, bool]],
    by_node: Mapping[str, Sequence[Pod]],
    digest: str,
    now_s: float,
) -> None:
    wanted = [name for name, (should_run, _) in fit.items() if should_run]
    surge, unavailable_limit = update_bounds(daemonset, len(wanted))
    min_ready = daemonset.spec.min_ready_seconds or 0
    unavailable, surging = 0, 0
    at_once: list[Any] = []
    candidates: list[Any] = []
    for name in wanted:
        pods = [p for p in by_node.get(name, ()) if is_active(p)]
        new = [p for p in pods if is_current(p, digest)]
        old = [p for p in pods if not is_current(p, digest)]
        if not any(is_available(p, min_ready, now_s) for p in pods):
            unavailable += 1
        if new and old:
            surging += 1
        if new or not old:
            continue
        thing: Any = name if surge else old[0]
        (candidates if is_available(old[0], min_ready, now_s) else at_once).append(thing)
    if surge:
        plan.create += at_once
        plan.create += candidates[: max(0, surge - surging)]
    else:
        plan.delete += at_once
        plan.delete += candidates[: max(0, unavailable_limit - unavailable)]


def _count(
    daemonset: DaemonSet,
    fit: Mapping[str, tuple[bool, bool]],
    by_node: Mapping[str, Sequence[Pod]],
    digest: str,
    now_s: float,
) -> dict[str, int]:
    counts = dict.fromkeys(("desired", "current", "misscheduled", "ready", "available", "updated"), 0)
    for name, (should_run, _) in fit.items():
        pods = by_node.get(name, ())
        if not should_run:
            counts["misscheduled"] += bool(pods)
            continue
        counts["desired"] += 1
        if not pods:
            continue
        counts["current"] += 1
        first = min(pods, key=lambda p: (not is_ready(p), -created_s(p.metadata)))
        if is_ready(first) and first.metadata.deletion_timestamp is None:
            counts["ready"] += 1
            counts["available"] += is_available(first, daemonset.spec.min_ready_seconds or 0, now_s)
        counts["updated"] += any(is_current(p, digest) for p in pods)
    return counts
