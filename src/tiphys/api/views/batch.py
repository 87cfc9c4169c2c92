"""Typed views of parts of Jobs and CronJobs: their policies and statuses. Every field is optional here: validation is the
API server's. See views/meta.py; controllers/views.py has the whole objects."""

from __future__ import annotations

from tiphys.api.views.meta import Condition, ObjectReference, View


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


class JobCondition(Condition, frozen=True):
    last_probe_time: str | None = None


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


class CronJobStatus(View, frozen=True):
    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: str | None = None
    last_successful_time: str | None = None
