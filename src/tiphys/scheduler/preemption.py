"""Which pods of lower priority have to go, so that a pod with a higher one gets a node.

`plan_preemption` tries nodes where evicting might help: all pods of lower priority are taken away in thought, and put
back, the most important first, as long as the pod still fits; those that could not be put back are the victims. Of all
nodes it takes the one that hurts least. The state is changed while trying and is as before when it returns.

Bound: at most `TRIED_AT_LEAST` nodes or a tenth of all are tried, from a random one on.

Spec: Kubernetes docs, "Pod Priority and Preemption" (graceful termination of victims, budgets respected where possible,
non-preempting priority classes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tiphys.api.selectors import LabelSelector
from tiphys.base.clock import Randomness, parse_time
from tiphys.scheduler.plan import Plan, feasible_rows, format_reasons
from tiphys.scheduler.state import ClusterState, PodInfo

TRIED_AT_LEAST = 100
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."


@dataclass(frozen=True, slots=True)
class Budget:
    """A disruption budget: what it covers, and how many pods may go now."""

    namespace: str
    selector: LabelSelector
    allowed: int
    disrupted: Mapping[str, str]
    """Pods whose eviction was granted and that are still there: they are counted already."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """What to do; `node` None: nothing, and `message` says why."""

    node: str | None
    victims: tuple[PodInfo, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Option:
    row: int
    victims: tuple[PodInfo, ...]
    violations: int

    def cost(self) -> tuple[int, int, int, int, float]:
        """Return what makes one option worse than another, the weightiest first."""
        highest = max(v.priority for v in self.victims)
        total = sum(v.priority + 2**31 for v in self.victims)
        newest = -min(_started_s(v) for v in self.victims if v.priority == highest)
        return (self.violations, highest, total, len(self.victims), newest)


def plan_preemption(
    info: PodInfo,
    state: ClusterState,
    candidates: Sequence[int],
    budgets: Sequence[Budget],
    nominated: str,
    randomness: Randomness,
) -> Preemption:
    """Return whom to evict for a pod that has no node. `nominated` is the node cleared for it before, or ""."""
    if not state.table.count:
        return Preemption(None)
    if info.pod.spec.preemption_policy == "Never":
        return Preemption(None, message=NEVER)
    if _is_being_cleared(info, state, nominated):
        return Preemption(None, message=TERMINATING)
    options, fruitless = _options(info, state, candidates, budgets, randomness)
    if not options:
        reasons = {NOT_HELPFUL: state.table.count - len(candidates), NO_VICTIMS: fruitless}
        return Preemption(
            None, message=format_reasons(state.table.count, {reason: n for reason, n in reasons.items() if n})
        )
    best = min(options, key=_Option.cost)
    return Preemption(state.table.name(best.row), best.victims)


def full_message(plan: Plan, preemption: Preemption) -> str:
    """Return the sentence for the event and the condition."""
    return f"{plan.message} preemption: {preemption.message}" if preemption.message else plan.message


def _is_being_cleared(info: PodInfo, state: ClusterState, nominated: str) -> bool:
    row = state.table.rows.get(nominated)
    return row is not None and any(
        p.priority < info.priority and (p.terminating or p.uid in state.evicting) for p in state.pods_on(row).values()
    )


def _options(
    info: PodInfo, state: ClusterState, candidates: Sequence[int], budgets: Sequence[Budget], randomness: Randomness
) -> tuple[list[_Option], int]:
    """Return the nodes found, and how many candidates have nobody to evict."""
    limit = max(TRIED_AT_LEAST, state.table.count // 10)
    start = randomness.integer(0, len(candidates) - 1) if len(candidates) > limit else 0
    options: list[_Option] = []
    if min(state.priorities, default=info.priority) >= info.priority:
        return options, len(candidates)
    for row in (*candidates[start:], *candidates[:start]):
        if len(options) >= limit:
            break
        lower = [p for p in state.pods_on(row).values() if p.priority < info.priority]
        option = _try_row(info, state, row, lower, budgets) if lower else None
        if option is not None:
            options.append(option)
    return options, len(candidates)


def _try_row(
    info: PodInfo, state: ClusterState, row: int, lower: list[PodInfo], budgets: Sequence[Budget]
) -> _Option | None:
    if not _may_ever_fit(info, state, row, lower):
        return None
    lower.sort(key=lambda p: (-p.priority, _started_s(p)))
    violating, others = _by_budget(lower, budgets)
    victims: list[PodInfo] = []
    violations = 0
    with _without(state, lower):
        if not feasible_rows(info, state)[row]:
            return None
        for pod in violating:
            if not _put_back(info, state, row, pod):
                victims.append(pod)
                violations += 1
        victims += [pod for pod in others if not _put_back(info, state, row, pod)]
    return _Option(row, tuple(victims), violations) if victims else None


def _may_ever_fit(info: PodInfo, state: ClusterState, row: int, lower: Sequence[PodInfo]) -> bool:
    """A quick look at resources alone, before the thorough try."""
    table = state.table
    freed: dict[str, int] = {}
    for pod in lower:
        for name, amount in pod.profile.requests.amounts:
            freed[name] = freed.get(name, 0) + amount
    for name, amount in info.profile.requests.amounts:
        column = table.columns.get(name)
        if column is None:
            return False
        if amount > int(table.offered[column, row] - table.used[column, row]) + freed.get(name, 0):
            return False
    return True


def _put_back(info: PodInfo, state: ClusterState, row: int, pod: PodInfo) -> bool:
    state.restore(pod)
    if feasible_rows(info, state)[row]:
        return True
    state.lift(pod)
    return False


@contextmanager
def _without(state: ClusterState, pods: Sequence[PodInfo]) -> Iterator[None]:
    """Take pods away while the block runs; those that it did not put back are put back at the end."""
    revision = state.revision
    for pod in pods:
        state.lift(pod)
    try:
        yield
    finally:
        for pod in pods:
            if not state.holds(pod):
                state.restore(pod)
        # All is as it was: what was concluded before still holds.
        state.revision = revision


def _by_budget(pods: Sequence[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Return the pods whose eviction breaks a budget, and the others, when they go in this order."""
    allowed = [budget.allowed for budget in budgets]
    violating: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        breaks = False
        for index, budget in enumerate(budgets):
            if budget.namespace != pod.namespace or pod.name in budget.disrupted:
                continue
            if pod.profile.labels and budget.selector.matches(pod.profile.labels):
                allowed[index] -= 1
                breaks = breaks or allowed[index] < 0
        (violating if breaks else others).append(pod)
    return violating, others


def _started_s(pod: PodInfo) -> float:
    started = pod.pod.status.start_time
    return parse_time(started) if started else np.inf
