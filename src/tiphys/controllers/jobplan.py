"""What a Job needs next: the pure part of the Job controller.

In: a Job and all pods that it controls. Out: a `JobPlan`: which ended pods to count, whether the Job is decided, which
pods to delete and create, and the status. Read by job.py.

Counting is exact over crashes because an ended pod keeps the finalizer `batch.kubernetes.io/job-tracking` until it was
written into `status.uncountedTerminatedPods`; only when its finalizer is gone does it move from there into the counters.

A decided Job ends in two steps: first SuccessCriteriaMet or FailureTarget, then, when no pod runs any more, Complete or
Failed with the same reason and message.

Spec: Kubernetes docs, "Jobs"; KEPs 2307 (tracking), 3329 (failure policy), 3850 (backoff per index), 3998 (success
policy), 3939 (replacement policy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.base.clock import parse_time
from tiphys.controllers.jobindex import (
    index_failures,
    index_of,
    match_failure,
    match_success,
    parse_indexes,
)
from tiphys.controllers.replicaset import rank_for_deletion
from tiphys.controllers.selection import is_active, is_ready
from tiphys.controllers.views import Job, Pod, view_template

TRACKING = "batch.kubernetes.io/job-tracking"
MAX_CREATE = 500

Verdict = tuple[str, str, str]
"""(SuccessCriteriaMet or FailureTarget, reason, message)."""


@dataclass(slots=True)
class Census:
    """The pods of a Job, sorted out."""

    active: list[Pod]
    ready: int
    terminating: int
    succeeded: list[Pod]
    """Ended well, still with the finalizer, not yet in the status' uncounted list."""
    failed: list[Pod]
    """Ended badly, likewise."""
    ignored: list[Pod]
    """Ended badly, but the failure policy says not to count them."""
    uncounted: list[Pod]
    """In the status' uncounted list and still with the finalizer."""
    fail_job: str
    """The message of a failure policy that fails the whole Job, "" if none."""
    succeeded_total: int
    failed_total: int
    completed_indexes: set[int]
    failed_indexes: set[int]


@dataclass(slots=True)
class JobPlan:
    """What to do now."""

    census: Census
    verdict: Verdict | None
    """Set when the Job is decided (now or before)."""
    delete: list[Pod]
    create: list[int | None]
    """One entry a pod to create: its completion index, None for a Job without indexes."""
    suspended: bool
    reason: str
    finished: bool = False
    """Decided, and no pod is left: Complete or Failed may be written."""


def is_finished(job: Job) -> bool:
    """Return whether the Job has its last condition."""
    return any(c.type in ("Complete", "Failed") and c.status == "True" for c in job.status.conditions)


def is_indexed(job: Job) -> bool:
    return job.spec.completion_mode == "Indexed"


def replaces_only_failed(job: Job) -> bool:
    return job.spec.pod_replacement_policy == "Failed" or job.spec.pod_failure_policy is not None


def has_failed(job: Job, pod: Pod) -> bool:
    """Return whether a pod counts as failed: ended badly, or (by default) is being deleted before its end."""
    if pod.status.phase == "Failed":
        return True
    if replaces_only_failed(job):
        return False
    return pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"


def take_census(job: Job, pods: Sequence[Pod]) -> Census:
    """Sort out the pods of a Job and count what has ended."""
    waiting = job.status.uncounted_terminated_pods
    seen = set(waiting.succeeded) | set(waiting.failed) if waiting else set()
    limit = job.spec.completions if is_indexed(job) else None
    census = Census(
        active=[pod for pod in pods if is_active(pod)],
        ready=sum(1 for pod in pods if is_active(pod) and is_ready(pod)),
        terminating=sum(
            1 for p in pods if p.metadata.deletion_timestamp and p.status.phase not in ("Succeeded", "Failed")
        ),
        succeeded=[],
        failed=[],
        ignored=[],
        uncounted=[p for p in pods if p.metadata.uid in seen and TRACKING in p.metadata.finalizers],
        fail_job="",
        succeeded_total=0,
        failed_total=0,
        completed_indexes=parse_indexes(job.status.completed_indexes, limit),
        failed_indexes=parse_indexes(job.status.failed_indexes, limit),
    )
    for pod in pods:
        if pod.metadata.uid in seen or TRACKING not in pod.metadata.finalizers:
            continue
        if pod.status.phase == "Succeeded":
            census.succeeded.append(pod)
        elif has_failed(job, pod):
            _take_failure(job, pod, census)
    if is_indexed(job):
        found = {i for pod in census.succeeded if (i := index_of(pod)) is not None and (limit is None or i < limit)}
        census.completed_indexes |= found
        census.failed_indexes -= census.completed_indexes
        census.succeeded_total = len(census.completed_indexes)
    else:
        census.succeeded_total = (
            (job.status.succeeded or 0) + len(waiting.succeeded if waiting else ()) + len(census.succeeded)
        )
    census.failed_total = (job.status.failed or 0) + len(waiting.failed if waiting else ()) + len(census.failed)
    return census


def _take_failure(job: Job, pod: Pod, census: Census) -> None:
    matched = match_failure(job.spec.pod_failure_policy, pod) if pod.status.phase == "Failed" else None
    action = matched.action if matched else "Count"
    if action == "Ignore":
        census.ignored.append(pod)
        return
    census.failed.append(pod)
    if matched and action == "FailJob" and not census.fail_job:
        census.fail_job = matched.message
    index = index_of(pod)
    per_index = job.spec.backoff_limit_per_index
    if per_index is not None and index is not None and (action == "FailIndex" or index_failures(pod) >= per_index):
        census.failed_indexes.add(index)


def decide(job: Job, census: Census, now_s: float) -> Verdict | None:
    """Return how the Job ends, None while it goes on."""
    for condition in job.status.conditions:
        if condition.type in ("SuccessCriteriaMet", "FailureTarget") and condition.status == "True":
            return condition.type, condition.reason, condition.message
    if census.fail_job:
        return "FailureTarget", "PodFailurePolicy", census.fail_job
    limit = 6 if job.spec.backoff_limit is None else job.spec.backoff_limit
    if census.failed_total > limit or _restarts_exceed(job, census, limit):
        return "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if deadline_in_s(job, now_s) == 0:
        return "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline"
    if is_indexed(job):
        failure = _decide_indexes(job, census)
        if failure is not None:
            return failure
        message = match_success(job.spec.success_policy, census.completed_indexes, job.spec.completions or 0)
        if message is not None:
            return "SuccessCriteriaMet", "SuccessPolicy", message
    if job.spec.completions is None:
        is_done = census.succeeded_total > 0 and not census.active
    else:
        is_done = census.succeeded_total >= job.spec.completions and not job.spec.suspend
    if is_done:
        return "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
    return None


def _decide_indexes(job: Job, census: Census) -> Verdict | None:
    if job.spec.backoff_limit_per_index is None:
        return None
    failed = len(census.failed_indexes)
    if job.spec.max_failed_indexes is not None and failed > job.spec.max_failed_indexes:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return "FailureTarget", "MaxFailedIndexesExceeded", text
    if failed and failed + len(census.completed_indexes) >= (job.spec.completions or 0):
        return "FailureTarget", "FailedIndexes", "Job has failed indexes"
    return None


def _restarts_exceed(job: Job, census: Census, limit: int) -> bool:
    """With restartPolicy OnFailure a pod restarts in place: its restarts count against the limit."""
    if view_template(bytes(job.spec.template)).spec.restart_policy != "OnFailure":
        return False
    restarts = sum(
        status.restart_count or 0
        for pod in census.active
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.container_statuses, *pod.status.init_container_statuses)
    )
    return restarts > 0 if limit == 0 else restarts >= limit


def deadline_in_s(job: Job, now_s: float) -> float | None:
    """Return how long the Job may still be active (0: no longer), None without a deadline."""
    if job.spec.active_deadline_seconds is None or job.status.start_time is None or job.spec.suspend:
        return None
    return max(0.0, parse_time(job.status.start_time) + job.spec.active_deadline_seconds - now_s)


def plan_job(job: Job, pods: Sequence[Pod], now_s: float, is_backing_off: bool) -> JobPlan:
    """Return what to do for a Job that is not finished."""
    census = take_census(job, pods)
    verdict = decide(job, census, now_s)
    if verdict is not None:
        running = census.active
        left = len(running) + census.terminating
        plan = JobPlan(census, verdict, list(running), [], False, f"{verdict[1]}: {left} pods are left to end")
        plan.finished = left == 0
        return plan
    if job.spec.suspend:
        return JobPlan(census, None, list(census.active), [], True, "it is suspended")
    surplus = _surplus(job, census, now_s)
    if surplus:
        return JobPlan(census, None, surplus, [], False, f"{len(surplus)} pods are too many")
    missing = _missing(job, census)
    if missing > 0 and is_backing_off:
        return JobPlan(census, None, [], [], False, "a pod failed lately: waiting for the back-off")
    create: list[int | None] = [None] * missing
    if is_indexed(job):
        create = _indexes_to_create(job, census, pods, missing)
    return JobPlan(census, None, [], create[:MAX_CREATE], False, f"{len(create)} pods are missing")


def wanted_active(job: Job, census: Census) -> int:
    """Return how many pods should run now."""
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    if job.spec.completions is None:
        return min(len(census.active), parallelism) if census.succeeded_total > 0 else parallelism
    left = job.spec.completions - census.succeeded_total
    if job.spec.backoff_limit_per_index is not None:
        left -= len(census.failed_indexes)
    return max(0, min(left, parallelism))


def _missing(job: Job, census: Census) -> int:
    missing = wanted_active(job, census) - len(census.active)
    if replaces_only_failed(job):
        missing -= census.terminating
    return max(0, missing)


def _surplus(job: Job, census: Census, now_s: float) -> list[Pod]:
    surplus: list[Pod] = []
    active = census.active
    if is_indexed(job):
        seen: set[int] = set()
        kept = []
        for pod in sorted(active, key=lambda p: (not is_ready(p), p.metadata.creation_timestamp or "")):
            index = index_of(pod)
            is_needed = (
                index is not None
                and index < (job.spec.completions or 0)
                and index not in seen
                and index not in census.completed_indexes
                and index not in census.failed_indexes
            )
            if is_needed and index is not None:
                seen.add(index)
                kept.append(pod)
            else:
                surplus.append(pod)
        active = kept
    too_many = len(active) - wanted_active(job, census)
    if too_many > 0:
        surplus += rank_for_deletion(active, now_s)[:too_many]
    return surplus


def _indexes_to_create(job: Job, census: Census, pods: Sequence[Pod], missing: int) -> list[int | None]:
    busy = {index_of(pod) for pod in census.active} | census.completed_indexes | census.failed_indexes
    if replaces_only_failed(job):
        busy |= {
            index_of(p) for p in pods if p.metadata.deletion_timestamp and p.status.phase not in ("Succeeded", "Failed")
        }
    free: list[int | None] = []
    for index in range(job.spec.completions or 0):
        if len(free) >= missing:
            break
        if index not in busy:
            free.append(index)
    return free
