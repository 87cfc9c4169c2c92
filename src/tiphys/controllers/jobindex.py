"""Completion indexes of Indexed Jobs as text and as sets, and failure policies of pods. Pure; read by jobplan.py.

Spec: Kubernetes docs, "Jobs": completion mode Indexed, pod failure policy, success policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiphys.api.views.batch import PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy
from tiphys.controllers.views import Pod

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"


def parse_indexes(text: str, limit: int | None = None) -> set[int]:
    """Return the numbers of text such as `1,3-5,7`, those below `limit` only."""
    result: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit():
            end = int(last) if last.isdigit() else int(first)
            result.update(range(int(first), (min(end, limit - 1) if limit is not None else end) + 1))
    return result


def format_indexes(indexes: Iterable[int]) -> str:
    """Return numbers as text; two neighbours are listed with a comma, three or more as a range."""
    ordered = sorted(indexes)
    parts: list[str] = []
    start = 0
    while start < len(ordered):
        end = start
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        run = ordered[start : end + 1]
        parts += [str(n) for n in run] if len(run) < 3 else [f"{run[0]}-{run[-1]}"]
        start = end + 1
    return ",".join(parts)


def index_of(pod: Pod) -> int | None:
    """Return a pod's completion index, None if it has none."""
    text = pod.metadata.annotations.get(COMPLETION_INDEX, "")
    return int(text) if text.isdigit() else None


def index_failures(pod: Pod) -> int:
    """Return how many pods of this index failed before this one."""
    text = pod.metadata.annotations.get(INDEX_FAILURES, "0")
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Matched:
    """What a pod failure policy says of a failed pod: FailJob, FailIndex, Ignore or Count."""

    action: str
    message: str


def match_failure(policy: PodFailurePolicy | None, pod: Pod) -> Matched | None:
    """Return the action of the first rule that a failed pod matches, None without a match."""
    for number, rule in enumerate(policy.rules if policy else ()):
        where = f"matching {rule.action} rule at index {number}"
        if rule.on_exit_codes is not None:
            found = _match_exit_codes(rule.on_exit_codes, pod)
            if found is not None:
                name, code = found
                what = f"{pod.metadata.namespace}/{pod.metadata.name}"
                return Matched(rule.action, f"Container {name} for pod {what} failed with exit code {code} {where}")
        for pattern in rule.on_pod_conditions:
            wanted = pattern.status or "True"
            if any(c.type == pattern.type and c.status == wanted for c in pod.status.conditions):
                what = f"{pod.metadata.namespace}/{pod.metadata.name}"
                return Matched(rule.action, f"Pod {what} has condition {pattern.type} {where}")
    return None


def _match_exit_codes(rule: PodFailurePolicyOnExitCodesRequirement, pod: Pod) -> tuple[str, int] | None:
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        if rule.container_name and rule.container_name != status.name:
            continue
        ended = status.state.terminated if status.state else None
        code = ended.exit_code if ended else None
        if not code:
            continue
        if (code in rule.values) == (rule.operator == "In"):
            return status.name, code
    return None


def match_success(policy: SuccessPolicy | None, succeeded: set[int], completions: int) -> str | None:
    """Return the message of the first success rule that is met, None if none is."""
    rules: Sequence[object] = policy.rules if policy else ()
    for number, rule in enumerate(policy.rules if rules and policy else ()):
        wanted = parse_indexes(rule.succeeded_indexes, completions) if rule.succeeded_indexes else None
        done = succeeded if wanted is None else succeeded & wanted
        if rule.succeeded_count is not None:
            is_met = len(done) >= rule.succeeded_count
        else:
            is_met = wanted is not None and done == wanted
        if is_met:
            return f"Matched rules at index {number}"
    return None
