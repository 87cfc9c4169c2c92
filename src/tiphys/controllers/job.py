"""The Job controller: the effects of jobplan.py.

In: a key of a Job, or `orphan:<pod>` for a pod whose Job is gone but which still has our finalizer. Order of writes:
ended pods into `uncountedTerminatedPods` (with the Job's resourceVersion, so that no stale count is written), their
finalizers away, deletes and creates, then the counters and conditions. A crash after any of them is mended by the next
run: what is in the uncounted list is counted exactly once, when its finalizer is gone.

Spec: see jobplan.py; events and conditions as upstream words them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.creation import PodNames, create_pod, is_namespace_ending, make_pod, run_slow_start
from tiphys.controllers.jobindex import COMPLETION_INDEX, INDEX_FAILURES, format_indexes, index_failures, index_of
from tiphys.controllers.jobplan import (
    TRACKING,
    Census,
    JobPlan,
    deadline_in_s,
    has_failed,
    is_finished,
    is_indexed,
    plan_job,
)
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.replicaset import claim
from tiphys.controllers.selection import controller_of, key_of, omit_zero
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Job, Pod, decode_template

BACKOFF_FIRST_S = 10.0
BACKOFF_LONGEST_S = 600.0
OWN_NAME = "kubernetes.io/job-controller"


class JobLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.jobs: Mirror[Job] = shared.mirror(resources.JOBS, Job)
        self.pods = shared.pods
        self.recorder = shared.recorder("job-controller")
        self.names = PodNames(shared.deps.randomness)
        self.queue = shared.queue()
        self.failures: dict[str, tuple[int, float]] = {}
        """Job uid -> (pods that failed since the last success, when the last of them ended)."""
        self.jobs.on_change(self._job_changed)
        self.pods.on_change(self._pod_changed)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))
        elif old is not None:
            self.failures.pop(old.metadata.uid, None)
            self.names.forget(old.metadata.uid)
            for pod in self.pods.owned(old.metadata.uid):
                self.queue.add(f"orphan:{key_of(pod)}")

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            owner = controller_of(pod.metadata) if pod is not None else None
            if pod is None or owner is None or owner.kind != "Job":
                continue
            key = f"{pod.metadata.namespace}/{owner.name}"
            self.queue.add(key)
            if pod is new and TRACKING in pod.metadata.finalizers and pod.metadata.deletion_timestamp:
                job = self.jobs.get(key)
                if job is None or job.metadata.uid != owner.uid or is_finished(job):
                    self.queue.add(f"orphan:{key_of(pod)}")

    async def reconcile(self, key: str) -> None:
        if key.startswith("orphan:"):
            await self._free_orphan(key.removeprefix("orphan:"))
            return
        job = self.jobs.get(key)
        if job is None or job.spec.managed_by not in ("", OWN_NAME):
            return
        pods = await claim(resources.JOBS, job, job.spec.selector, self.pods, finalizer=TRACKING)
        if is_finished(job):
            await self._free([p for p in pods if TRACKING in p.metadata.finalizers and not _is_running(p)])
            return
        now_s = self.shared.deps.clock.now_s()
        self.names.settle(job.metadata.uid, pods)
        plan = plan_job(job, pods, now_s, self._backing_off_s(job, now_s) > 0)
        job = await self._count_started(job, plan.census)
        self._remember_failures(job, plan.census, now_s)
        await self._free([*plan.census.succeeded, *plan.census.failed, *plan.census.ignored, *plan.census.uncounted])
        error = None
        if job.metadata.deletion_timestamp is None:
            plan_create = plan.create
            if plan_create and self._backing_off_s(job, now_s) > 0:
                plan_create = []
            error = await self._apply(job, plan, plan_create, pods)
        await self._write_status(job, plan, now_s)
        waits = [w for w in (self._backing_off_s(job, now_s), deadline_in_s(job, now_s)) if w]
        if waits:
            self.queue.add_after(key, min(waits) + 0.005)
        if error is not None and not is_namespace_ending(error):
            raise error

    # Counting

    async def _count_started(self, job: Job, census: Census) -> Job:
        """Write the uids of pods that ended into the uncounted list, before their finalizers go."""
        if not census.succeeded and not census.failed:
            return job
        waiting = job.status.uncounted_terminated_pods
        succeeded = [*(waiting.succeeded if waiting else ()), *(p.metadata.uid for p in census.succeeded)]
        failed = [*(waiting.failed if waiting else ()), *(p.metadata.uid for p in census.failed)]
        status: dict[str, Any] = {
            "uncountedTerminatedPods": {"succeeded": succeeded or None, "failed": failed or None},
        }
        if is_indexed(job):
            # Succeeded indexes are a set: they can be written at once, twice does no harm.
            status["completedIndexes"] = format_indexes(census.completed_indexes) or None
            if job.spec.backoff_limit_per_index is not None:
                status["failedIndexes"] = format_indexes(census.failed_indexes)
        body = {"metadata": {"resourceVersion": job.metadata.resource_version}, "status": status}
        return await self.jobs.patch(job, body, subresource="status")

    def _remember_failures(self, job: Job, census: Census, now_s: float) -> None:
        uid = job.metadata.uid
        if census.failed:
            count = 0 if census.succeeded else self.failures.get(uid, (0, 0.0))[0]
            self.failures[uid] = (count + len(census.failed), max(_ended_s(pod, now_s) for pod in census.failed))
        elif census.succeeded:
            self.failures.pop(uid, None)

    def _backing_off_s(self, job: Job, now_s: float) -> float:
        """Return for how long no new pod is started after failures (0: no wait)."""
        count, last_s = self.failures.get(job.metadata.uid, (0, 0.0))
        if count == 0:
            return 0.0
        if job.spec.backoff_limit_per_index is not None:
            count = 1
        wait_s: float = min(BACKOFF_FIRST_S * 2.0 ** min(count - 1, 10), BACKOFF_LONGEST_S)
        return max(0.0, last_s + wait_s - now_s)

    async def _free(self, pods: Sequence[Pod]) -> None:
        """Remove our finalizer from ended pods."""
        await asyncio.gather(*(self._free_one(pod) for pod in pods))

    async def _free_one(self, pod: Pod) -> None:
        kept = [f for f in pod.metadata.finalizers if f != TRACKING]
        metadata = {"finalizers": kept or None, "resourceVersion": pod.metadata.resource_version}
        try:
            await self.pods.patch(pod, {"metadata": metadata})
        except ApiError as error:
            if error.code != 404:
                raise

    async def _free_orphan(self, key: str) -> None:
        pod = self.pods.get(key)
        if pod is None or TRACKING not in pod.metadata.finalizers:
            return
        owner = controller_of(pod.metadata)
        job = self.jobs.get(f"{pod.metadata.namespace}/{owner.name}") if owner else None
        if job is not None and owner is not None and job.metadata.uid == owner.uid and not is_finished(job):
            return
        await self._free_one(pod)

    # Pods

    async def _apply(
        self, job: Job, plan: JobPlan, create: Sequence[int | None], pods: Sequence[Pod]
    ) -> Exception | None:
        if plan.delete:
            _, error = await run_slow_start(plan.delete, lambda pod: self._delete(job, pod))
            return error
        if create:
            _, error = await run_slow_start(create, lambda index: self._create(job, index, pods))
            return error
        return None

    async def _delete(self, job: Job, pod: Pod) -> None:
        try:
            await self.pods.delete(pod)
        except ApiError as error:
            if error.code == 404:
                return
            self.recorder.record(job, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self.recorder.record(job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    async def _create(self, job: Job, index: int | None, pods: Sequence[Pod]) -> None:
        meta = job.metadata
        slot = meta.uid if index is None else f"{meta.uid}/{index}"
        base = f"{meta.name}-" if index is None else f"{meta.name[:50]}-{index}-"
        labels: dict[str, str] = {}
        annotations: dict[str, str] = {}
        spec: dict[str, Any] = {}
        template = bytes(job.spec.template)
        if index is not None:
            labels[COMPLETION_INDEX] = annotations[COMPLETION_INDEX] = str(index)
            spec = _indexed_spec(decode_template(template).get("spec", {}), meta.name, index)
            if job.spec.backoff_limit_per_index is not None:
                failed = [p for p in pods if index_of(p) == index and has_failed(job, p)]
                annotations[INDEX_FAILURES] = str(max((index_failures(p) + 1 for p in failed), default=0))

        def make(name: str) -> dict[str, Any]:
            return make_pod(
                template, resources.JOBS, meta, name,
                labels=labels, annotations=annotations, finalizers=[TRACKING], spec=spec, generate_name=base,
            )  # fmt: skip

        try:
            created = await create_pod(self.pods, self.names, slot, base, make)
        except (ApiError, OSError) as error:
            if not is_namespace_ending(error):
                self.recorder.record(job, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.recorder.record(job, "Normal", "SuccessfulCreate", f"Created pod: {created.metadata.name}")

    # Status

    async def _write_status(self, job: Job, plan: JobPlan, now_s: float) -> None:
        pods = self.pods.owned(job.metadata.uid)
        patch = plan_status(job, plan, pods, now_s)
        if patch is None:
            return
        body = {"metadata": {"resourceVersion": job.metadata.resource_version}, "status": patch}
        try:
            await self.jobs.patch(job, body, subresource="status")
        except ApiError as error:
            if error.code == 404:
                return
            raise
        self._tell(job, patch)

    def _tell(self, job: Job, patch: dict[str, Any]) -> None:
        before = {(c.type, c.status) for c in job.status.conditions}
        for condition in patch.get("conditions") or ():
            type_, status = condition["type"], condition["status"]
            if (type_, status) in before:
                continue
            if type_ == "Suspended":
                word = "Suspended" if status == "True" else "Resumed"
                self.recorder.record(job, "Normal", word, f"Job {word.lower()}")
            elif type_ == "Complete" and status == "True":
                self.recorder.record(job, "Normal", "Completed", "Job completed")
            elif type_ == "Failed" and status == "True":
                self.recorder.record(job, "Warning", condition["reason"], condition["message"])


def plan_status(job: Job, plan: JobPlan, pods: Sequence[Pod], now_s: float) -> dict[str, Any] | None:
    """Return the status patch after the plan was applied, None if nothing changes."""
    now = format_time(now_s)
    census, old = plan.census, job.status
    active = [p for p in pods if _is_running(p) and not p.metadata.deletion_timestamp]
    waiting = old.uncounted_terminated_pods
    held = {p.metadata.uid for p in pods if TRACKING in p.metadata.finalizers}
    left_good = [uid for uid in (waiting.succeeded if waiting else ()) if uid in held]
    left_bad = [uid for uid in (waiting.failed if waiting else ()) if uid in held]
    failed = (old.failed or 0) + len(waiting.failed if waiting else ()) - len(left_bad)
    succeeded = (
        len(census.completed_indexes)
        if is_indexed(job)
        else (old.succeeded or 0) + len(waiting.succeeded if waiting else ()) - len(left_good)
    )
    status: dict[str, Any] = {
        "active": omit_zero(len(active)),
        "ready": sum(1 for p in active if any(c.type == "Ready" and c.status == "True" for c in p.status.conditions)),
        "terminating": sum(1 for p in pods if p.metadata.deletion_timestamp and _is_running(p)),
        "succeeded": omit_zero(succeeded),
        "failed": omit_zero(failed),
        "uncountedTerminatedPods": {"succeeded": left_good or None, "failed": left_bad or None},
        "startTime": _start_time(job, plan, now),
    }
    if is_indexed(job):
        status["completedIndexes"] = format_indexes(census.completed_indexes) or None
        if job.spec.backoff_limit_per_index is not None:
            status["failedIndexes"] = format_indexes(census.failed_indexes)
    conditions = _conditions(job, plan, now, is_free=not left_good and not left_bad and not active)
    if conditions is not None:
        status["conditions"] = conditions
        if any(c["type"] == "Complete" for c in conditions):
            status["completionTime"] = now
    return None if conditions is None and _is_same(job, status) else status


def _is_same(job: Job, status: dict[str, Any]) -> bool:
    old = job.status
    waiting = old.uncounted_terminated_pods
    uncounted = status["uncountedTerminatedPods"]
    return (
        old.active == status["active"]
        and old.ready == status["ready"]
        and old.terminating == status["terminating"]
        and old.succeeded == status["succeeded"]
        and old.failed == status["failed"]
        and old.start_time == status["startTime"]
        and waiting is not None
        and [*waiting.succeeded] == (uncounted["succeeded"] or [])
        and [*waiting.failed] == (uncounted["failed"] or [])
        and old.completed_indexes == (status.get("completedIndexes") or "")
        and old.failed_indexes == (status.get("failedIndexes") or "")
    )


def _start_time(job: Job, plan: JobPlan, now: str) -> str | None:
    if plan.suspended:
        return None
    return job.status.start_time or (None if job.spec.suspend else now)


def _conditions(job: Job, plan: JobPlan, now: str, *, is_free: bool) -> list[dict[str, Any]] | None:
    """Return the new list of conditions, None if it stays."""
    conditions = [c.to_object() for c in job.status.conditions]
    before = [dict(c) for c in conditions]
    told = next((c for c in conditions if c["type"] == "Suspended"), None)
    if plan.suspended and (told is None or told["status"] != "True"):
        _set(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now)
    elif not job.spec.suspend and told is not None and told["status"] == "True":
        _set(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
    if plan.verdict is not None:
        type_, reason, message = plan.verdict
        if not any(c["type"] == type_ for c in conditions):
            _set(conditions, type_, "True", reason, message, now)
        if plan.finished and is_free:
            _set(conditions, "Complete" if type_ == "SuccessCriteriaMet" else "Failed", "True", reason, message, now)
    return conditions if conditions != before else None


def _set(conditions: list[dict[str, Any]], type_: str, status: str, reason: str, message: str, now: str) -> None:
    new = {
        "type": type_,
        "status": status,
        "lastProbeTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }
    for number, condition in enumerate(conditions):
        if condition["type"] == type_:
            conditions[number] = new
            return
    conditions.append(new)


def _is_running(pod: Pod) -> bool:
    return pod.status.phase not in ("Succeeded", "Failed")


def _ended_s(pod: Pod, now_s: float) -> float:
    """Return when the last container of a failed pod ended, as far as it tells."""
    times = [
        parse_time(s.state.terminated.finished_at)
        for s in pod.status.container_statuses
        if s.state and s.state.terminated and s.state.terminated.finished_at
    ]
    return max(times) if times else now_s


def _indexed_spec(spec: dict[str, Any], job_name: str, index: int) -> dict[str, Any]:
    """Return the fields that an index adds to a pod: its host name, and its number in every container's environment."""
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{COMPLETION_INDEX}']"}},
    }

    def extend(containers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            c
            if any(e.get("name") == "JOB_COMPLETION_INDEX" for e in c.get("env") or ())
            else {**c, "env": [*(c.get("env") or ()), variable]}
            for c in containers
        ]

    added: dict[str, Any] = {"containers": extend(spec.get("containers") or ())}
    if spec.get("initContainers"):
        added["initContainers"] = extend(spec["initContainers"])
    if not spec.get("hostname"):
        added["hostname"] = f"{job_name[: 62 - len(str(index))]}-{index}"
    return added


def job_controller(shared: Shared) -> Controller:
    loop = JobLoop(shared)
    return Controller("job", loop.queue, loop.reconcile, (loop.jobs, loop.pods), workers=10)


class ExpiryLoop:
    """Deletes finished Jobs when their ttlSecondsAfterFinished has passed. Spec: "Automatic Cleanup for Finished Jobs"."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.jobs: Mirror[Job] = shared.mirror(resources.JOBS, Job)
        self.queue = shared.queue()
        self.jobs.on_change(self._changed)

    def _changed(self, old: Job | None, new: Job | None) -> None:
        if new is not None and new.spec.ttl_seconds_after_finished is not None and is_finished(new):
            self.queue.add(key_of(new))

    async def reconcile(self, key: str) -> None:
        job = self.jobs.get(key)
        if job is None or job.metadata.deletion_timestamp:
            return
        wait_s = expires_in_s(job, self.shared.deps.clock.now_s())
        if wait_s is None:
            return
        if wait_s > 0:
            self.queue.add_after(key, wait_s + 0.005)
            return
        try:
            await self.jobs.delete(job, propagation="Foreground")
        except ApiError as error:
            if error.code != 404:
                raise


def expires_in_s(job: Job, now_s: float) -> float | None:
    """Return after how many seconds a finished Job is to be deleted, None for one that stays."""
    ttl = job.spec.ttl_seconds_after_finished
    ended = next((c for c in job.status.conditions if c.type in ("Complete", "Failed") and c.status == "True"), None)
    if ttl is None or ended is None or ended.last_transition_time is None:
        return None
    return parse_time(ended.last_transition_time) + ttl - now_s


def job_expiry_controller(shared: Shared) -> Controller:
    loop = ExpiryLoop(shared)
    return Controller("ttl-after-finished", loop.queue, loop.reconcile, (loop.jobs,), workers=2)
