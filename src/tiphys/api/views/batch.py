"""Typed views of Jobs and CronJobs. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from tiphys.api.views.meta import LabelSelector, ObjectMeta, ObjectReference, View
from tiphys.api.views.pod import PodTemplateSpec


class PodFailurePolicyOnExitCodesRequirement(View, frozen=True):
    container_name: str = ""
    operator: str = ""
    values: tuple[int, ...] = ()


class PodFailurePolicyOnPodConditionsPattern(View, frozen=True):
    status: str = ""
    type: str = ""


class PodFailurePolicyRule(View, frozen=True):
    action: str = ""
    on_exit_codes: PodFailurePolicyOnExitCodesRequirement | None = None
    on_pod_conditions: tuple[PodFailurePolicyOnPodConditionsPattern, ...] = ()


class PodFailurePolicy(View, frozen=True):
    rules: tuple[PodFailurePolicyRule, ...] = ()


class SuccessPolicyRule(View, frozen=True):
    succeeded_count: int | None = None
    succeeded_indexes: str = ""


class SuccessPolicy(View, frozen=True):
    rules: tuple[SuccessPolicyRule, ...] = ()


class JobSpec(View, frozen=True):
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    completion_mode: str = ""
    completions: int | None = None
    managed_by: str = ""
    manual_selector: bool | None = None
    max_failed_indexes: int | None = None
    parallelism: int | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: str = ""
    selector: LabelSelector | None = None
    success_policy: SuccessPolicy | None = None
    suspend: bool | None = None
    template: PodTemplateSpec | None = None
    ttl_seconds_after_finished: int | None = None


class JobCondition(View, frozen=True):
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    message: str = ""
    reason: str = ""
    status: str = ""
    type: str = ""


class UncountedTerminatedPods(View, frozen=True):
    failed: tuple[str, ...] = ()
    succeeded: tuple[str, ...] = ()


class JobStatus(View, frozen=True):
    active: int | None = None
    completed_indexes: str = ""
    completion_time: str | None = None
    conditions: tuple[JobCondition, ...] = ()
    failed: int | None = None
    failed_indexes: str = ""
    ready: int | None = None
    start_time: str | None = None
    succeeded: int | None = None
    terminating: int | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None


class Job(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class JobTemplateSpec(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec | None = None


class CronJobSpec(View, frozen=True):
    concurrency_policy: str = ""
    failed_jobs_history_limit: int | None = None
    job_template: JobTemplateSpec | None = None
    schedule: str = ""
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int | None = None
    suspend: bool | None = None
    time_zone: str = ""


class CronJobStatus(View, frozen=True):
    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()
