"""The CronJob controller: starts Jobs by the clock.

In: a key of a CronJob. Decides `plan_run`: whether a run is due now, which one, and when to look again. Out: Jobs named by
their scheduled minute (so a run is never started twice, whatever crashed), the history's deletions, the status, events.

Spec: Kubernetes docs, "CronJob"; see schedule.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.events import EventKind
from tiphys.controllers.creation import is_namespace_ending
from tiphys.controllers.jobplan import is_finished
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.schedule import BadSchedule, find_missed, next_run_s
from tiphys.controllers.selection import controller_of, created_s, key_of, owner_reference
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import CronJob, Job, decode_template

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Whether a run is due. `event` is (type, reason, message) to tell, None for nothing."""

    run_s: float | None
    """The scheduled time of the run to start now, None for no run."""
    next_s: float | None
    """When the next run is due."""
    event: tuple[EventKind, str, str] | None = None
    replaces: bool = False
    """The active Jobs are deleted first."""


def plan_run(cronjob: CronJob, active: int, now_s: float) -> RunPlan:
    """Return the run that is due now. Raises BadSchedule."""
    spec = cronjob.spec
    last = cronjob.status.last_schedule_time
    since_s = parse_time(last) if last else created_s(cronjob.metadata)
    deadline = spec.starting_deadline_seconds
    if deadline is not None:
        since_s = max(since_s, now_s - deadline)
    missed = find_missed(spec.schedule, spec.time_zone, since_s, now_s)
    next_s = next_run_s(spec.schedule, spec.time_zone, now_s)
    if missed.latest_s is None:
        return RunPlan(None, next_s)
    event: tuple[EventKind, str, str] | None = None
    if missed.is_many:
        text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        event = ("Warning", "TooManyMissedTimes", text)
    if deadline is not None and missed.latest_s + deadline < now_s:
        text = f"Missed scheduled time to start a job: {format_time(missed.latest_s)}"
        return RunPlan(None, next_s, ("Warning", "MissSchedule", text))
    if spec.concurrency_policy == "Forbid" and active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        return RunPlan(None, next_s, ("Normal", "JobAlreadyActive", text))
    return RunPlan(missed.latest_s, next_s, event, replaces=spec.concurrency_policy == "Replace" and active > 0)


def plan_history(cronjob: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """Return the finished Jobs beyond the history limits, oldest first."""
    forgotten: list[Job] = []
    for type_, limit in (
        ("Complete", cronjob.spec.successful_jobs_history_limit),
        ("Failed", cronjob.spec.failed_jobs_history_limit),
    ):
        if limit is None:
            continue
        ended = [j for j in jobs if any(c.type == type_ and c.status == "True" for c in j.status.conditions)]
        ended = [j for j in ended if j.metadata.deletion_timestamp is None]
        ended.sort(key=lambda j: (j.status.start_time or "", j.metadata.name))
        forgotten += ended[: max(0, len(ended) - limit)]
    return forgotten


def make_job(cronjob: CronJob, run_s: float) -> dict[str, Any]:
    """Return the Job of one run; its name is the scheduled minute's."""
    template = decode_template(bytes(cronjob.spec.job_template))
    source = template.get("metadata") or {}
    zone = ZoneInfo(cronjob.spec.time_zone) if cronjob.spec.time_zone else UTC
    at = datetime.fromtimestamp(run_s, zone).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cronjob.metadata.name}-{int(run_s) // 60}",
            "namespace": cronjob.metadata.namespace,
            "labels": dict(source.get("labels") or {}),
            "annotations": {**(source.get("annotations") or {}), SCHEDULED_AT: at},
            "ownerReferences": [owner_reference(resources.CRONJOBS, cronjob.metadata)],
        },
        "spec": template.get("spec", {}),
    }


class CronJobLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.cronjobs: Mirror[CronJob] = shared.mirror(resources.CRONJOBS, CronJob)
        self.jobs: Mirror[Job] = shared.mirror(resources.JOBS, Job)
        self.recorder = shared.recorder("cronjob-controller")
        self.queue = shared.queue()
        self.cronjobs.on_change(self._cronjob_changed)
        self.jobs.on_change(self._job_changed)

    def _cronjob_changed(self, old: CronJob | None, new: CronJob | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        job = new if new is not None else old
        owner = controller_of(job.metadata) if job is not None else None
        if job is not None and owner is not None and owner.kind == "CronJob":
            self.queue.add(f"{job.metadata.namespace}/{owner.name}")

    async def reconcile(self, key: str) -> None:
        cronjob = self.cronjobs.get(key)
        if cronjob is None:
            return
        jobs = self.jobs.owned(cronjob.metadata.uid)
        for job in plan_history(cronjob, jobs):
            await self._delete_job(cronjob, job)
        cronjob = await self._settle(cronjob, jobs)
        if cronjob.metadata.deletion_timestamp or cronjob.spec.suspend:
            return
        active = [job for job in jobs if not is_finished(job) and job.metadata.deletion_timestamp is None]
        now_s = self.shared.deps.clock.now_s()
        try:
            plan = plan_run(cronjob, len(active), now_s)
        except BadSchedule as error:
            self._tell_bad(cronjob, error)
            return
        if plan.event is not None:
            self.recorder.record(cronjob, *plan.event)
        if plan.run_s is not None:
            if plan.replaces:
                for job in active:
                    await self._delete_job(cronjob, job)
            await self._start(cronjob, [] if plan.replaces else active, plan.run_s)
        if plan.next_s is not None:
            self.queue.add_after(key, max(0.0, plan.next_s - now_s) + 0.1)

    def _tell_bad(self, cronjob: CronJob, error: BadSchedule) -> None:
        if "time zone" in str(error):
            text = f'invalid timeZone: "{cronjob.spec.time_zone}": {error}'
            self.recorder.record(cronjob, "Warning", "UnknownTimeZone", text)
        else:
            text = f'unparseable schedule: "{cronjob.spec.schedule}" : {error}'
            self.recorder.record(cronjob, "Warning", "UnparseableSchedule", text)

    async def _settle(self, cronjob: CronJob, jobs: Sequence[Job]) -> CronJob:
        """Take Jobs that ended or went from the list of active ones."""
        by_uid = {job.metadata.uid: job for job in jobs}
        kept, last = [], cronjob.status.last_successful_time
        for reference in cronjob.status.active:
            job = by_uid.get(reference.uid)
            if job is None:
                text = f"Active job went missing: {reference.name}"
                self.recorder.record(cronjob, "Normal", "MissingJob", text)
            elif is_finished(job):
                ended = next(c.type for c in job.status.conditions if c.type in ("Complete", "Failed"))
                text = f"Saw completed job: {job.metadata.name}, condition: {ended}"
                self.recorder.record(cronjob, "Normal", "SawCompletedJob", text)
            else:
                kept.append(job)
        for job in jobs:
            if is_finished(job) and job.status.completion_time and (last is None or job.status.completion_time > last):
                last = job.status.completion_time
        if len(kept) == len(cronjob.status.active) and last == cronjob.status.last_successful_time:
            return cronjob
        status = {"active": [_reference(job) for job in kept] or None, "lastSuccessfulTime": last}
        return await self.cronjobs.patch(cronjob, {"status": status}, subresource="status")

    async def _start(self, cronjob: CronJob, active: Sequence[Job], run_s: float) -> None:
        obj = make_job(cronjob, run_s)
        try:
            job = await self.jobs.create(cronjob.metadata.namespace, obj)
        except ApiError as error:
            if is_namespace_ending(error):
                return
            if error.reason != "AlreadyExists":
                text = f"Error creating job: {error}"
                self.recorder.record(cronjob, "Warning", "FailedCreate", text)
                raise
            name = obj["metadata"]["name"]
            job = self.jobs.note(await self.jobs.client.get(resources.JOBS, cronjob.metadata.namespace, name))
            owner = controller_of(job.metadata)
            if owner is None or owner.uid != cronjob.metadata.uid:
                raise
        else:
            self.recorder.record(cronjob, "Normal", "SuccessfulCreate", f"Created job {job.metadata.name}")
        listed = [*active, *([] if any(j.metadata.uid == job.metadata.uid for j in active) else [job])]
        listed = [j for j in listed if not is_finished(j)]
        status = {"active": [_reference(j) for j in listed] or None, "lastScheduleTime": format_time(run_s)}
        await self.cronjobs.patch(cronjob, {"status": status}, subresource="status")

    async def _delete_job(self, cronjob: CronJob, job: Job) -> None:
        try:
            await self.jobs.delete(job, propagation="Background")
        except ApiError as error:
            if error.code == 404:
                return
            self.recorder.record(cronjob, "Warning", "FailedDelete", f"Deleted job: {error}")
            raise
        self.recorder.record(cronjob, "Normal", "SuccessfulDelete", f"Deleted job {job.metadata.name}")


def _reference(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "namespace": job.metadata.namespace,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "resourceVersion": job.metadata.resource_version,
    }


def cronjob_controller(shared: Shared) -> Controller:
    loop = CronJobLoop(shared)
    return Controller("cronjob", loop.queue, loop.reconcile, (loop.cronjobs, loop.jobs), workers=5)
