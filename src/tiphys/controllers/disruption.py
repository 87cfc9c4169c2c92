"""The PodDisruptionBudget controller: how many pods of a set may be evicted now.

In: a key of a budget. Decides `plan_budget`: expected, desired and healthy pods. Out: the status, which the eviction
subresource of the API server reads and, for its own evictions, writes (`disruptedPods`): therefore our write carries the
resourceVersion and loses any race.

Spec: Kubernetes docs, "Disruptions", "Specifying a Disruption Budget".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import (
    controller_of,
    is_active,
    is_ready,
    key_of,
    matches_selector,
    omit_zero,
    resolve_percent,
)
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import (
    Deployment,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
)

EVICTION_TAKES_S = 120.0
"""How long an eviction may take until the pod's deletion is seen; then it counts as not done."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The numbers of a budget's status."""

    expected: int
    desired: int
    healthy: int
    disrupted: dict[str, str]
    recheck_s: float | None
    """When an eviction that was promised runs out, None without one."""

    @property
    def allowed(self) -> int:
        return max(0, self.healthy - self.desired) if self.expected > 0 else 0


def plan_budget(
    budget: PodDisruptionBudget, pods: Sequence[Pod], scale_of: Callable[[Pod], tuple[str, int] | None], now_s: float
) -> Budget:
    """Return the numbers. `scale_of` gives (uid, wanted replicas) of a pod's controller, None if it has none."""
    spec = budget.spec
    pods = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    expected = len(pods)
    if spec.max_unavailable is not None or isinstance(spec.min_available, str):
        scales = {scale[0]: scale[1] for pod in pods if (scale := scale_of(pod)) is not None}
        expected = sum(scales.values())
    if spec.max_unavailable is not None:
        desired = max(0, expected - resolve_percent(spec.max_unavailable, expected, round_up=True))
    else:
        desired = resolve_percent(spec.min_available, expected, round_up=True)
    by_name = {pod.metadata.name: pod for pod in pods}
    disrupted, waits = {}, []
    for name, at in budget.status.disrupted_pods.items():
        pod = by_name.get(name)
        left_s = parse_time(at) + EVICTION_TAKES_S - now_s
        if pod is not None and pod.metadata.deletion_timestamp is None and left_s > 0:
            disrupted[name] = at
            waits.append(left_s)
    healthy = sum(1 for pod in pods if is_active(pod) and is_ready(pod) and pod.metadata.name not in disrupted)
    return Budget(expected, desired, healthy, disrupted, min(waits) if waits else None)


class BudgetLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.budgets: Mirror[PodDisruptionBudget] = shared.mirror(resources.PODDISRUPTIONBUDGETS, PodDisruptionBudget)
        self.pods = shared.pods
        self.sets: dict[str, Mirror[Any]] = {
            "ReplicaSet": shared.mirror(resources.REPLICASETS, ReplicaSet),
            "ReplicationController": shared.mirror(resources.REPLICATIONCONTROLLERS, ReplicationController),
            "StatefulSet": shared.mirror(resources.STATEFULSETS, StatefulSet),
            "Deployment": shared.mirror(resources.DEPLOYMENTS, Deployment),
        }
        self.recorder = shared.recorder("controllermanager")
        self.queue = shared.queue()
        self.budgets.on_change(self._budget_changed)
        self.pods.on_change(self._pod_changed)

    def _budget_changed(self, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        if pod is None:
            return
        for budget in self.budgets.all(pod.metadata.namespace):
            if any(p is not None and matches_selector(budget.spec.selector, p.metadata.labels) for p in (old, new)):
                self.queue.add(key_of(budget))

    def _scale_of(self, pod: Pod) -> tuple[str, int] | None:
        owner = controller_of(pod.metadata)
        found = None
        while owner is not None and owner.kind in self.sets:
            view = self.sets[owner.kind].get(f"{pod.metadata.namespace}/{owner.name}")
            if view is None or view.metadata.uid != owner.uid:
                break
            found = (view.metadata.uid, 1 if view.spec.replicas is None else view.spec.replicas)
            owner = controller_of(view.metadata)
        return found

    async def reconcile(self, key: str) -> None:
        budget = self.budgets.get(key)
        if budget is None or budget.metadata.deletion_timestamp:
            return
        pods = [
            pod
            for pod in self.pods.all(budget.metadata.namespace)
            if matches_selector(budget.spec.selector, pod.metadata.labels)
        ]
        if not pods:
            self.recorder.record(budget, "Normal", "NoPods", "No matching pods found")
        now_s = self.shared.deps.clock.now_s()
        numbers = plan_budget(budget, pods, self._scale_of, now_s)
        status = plan_status(budget, numbers, now_s)
        if numbers.recheck_s is not None:
            self.queue.add_after(key, numbers.recheck_s + 0.01)
        if status is None:
            return
        body = {"metadata": {"resourceVersion": budget.metadata.resource_version}, "status": status}
        try:
            await self.budgets.patch(budget, body, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise


def plan_status(budget: PodDisruptionBudget, numbers: Budget, now_s: float) -> dict[str, Any] | None:
    """Return the status patch, None if the status is right already."""
    old = budget.status
    status_text = "True" if numbers.allowed > 0 else "False"
    reason = "SufficientPods" if numbers.allowed > 0 else "InsufficientPods"
    condition = next((c for c in old.conditions if c.type == "DisruptionAllowed"), None)
    is_same = (
        (old.expected_pods, old.desired_healthy, old.current_healthy, old.disruptions_allowed)
        == (numbers.expected, numbers.desired, numbers.healthy, numbers.allowed)
        and dict(old.disrupted_pods) == numbers.disrupted
        and old.observed_generation == budget.metadata.generation
        and condition is not None
        and (condition.status, condition.reason) == (status_text, reason)
    )
    if is_same:
        return None
    when = format_time(now_s)
    if condition is not None and condition.status == status_text:
        when = condition.last_transition_time or when
    gone = dict.fromkeys(set(old.disrupted_pods) - set(numbers.disrupted))
    return {
        "observedGeneration": omit_zero(budget.metadata.generation or 0),
        "expectedPods": numbers.expected,
        "desiredHealthy": numbers.desired,
        "currentHealthy": numbers.healthy,
        "disruptionsAllowed": numbers.allowed,
        "disruptedPods": {**gone, **numbers.disrupted} if numbers.disrupted else None,
        "conditions": [
            {
                "type": "DisruptionAllowed",
                "status": status_text,
                "reason": reason,
                "message": "",
                "lastTransitionTime": when,
                "observedGeneration": budget.metadata.generation,
            }
        ],
    }


def disruption_controller(shared: Shared) -> Controller:
    loop = BudgetLoop(shared)
    return Controller(
        "disruption", loop.queue, loop.reconcile, (loop.budgets, loop.pods, *loop.sets.values()), workers=4
    )
