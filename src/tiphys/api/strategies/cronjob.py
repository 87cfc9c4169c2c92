"""CronJobs: defaults and validation.

Spec: Kubernetes documentation, "CronJob" (schedule, time zones, concurrency policy, the 52 characters of a name).
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.cron_schedule import schedule_complaint
from tiphys.api.strategies.fields import (
    check_enum,
    check_nonnegative,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
    warn_of_name,
)
from tiphys.api.strategies.job import check_job_spec
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_warnings import warn_template
from tiphys.base.errors import Cause

_POLICIES = ("Allow", "Forbid", "Replace")
_NAME_MAX = 52


def default(cron_job: JsonObject) -> None:
    spec = cron_job.setdefault("spec", {})
    fill(spec, "concurrencyPolicy", "Allow")
    fill(spec, "suspend", False)
    fill(spec, "successfulJobsHistoryLimit", 3)
    fill(spec, "failedJobsHistoryLimit", 1)
    job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    default_pod_template(job.setdefault("template", {}))


def validate(cron_job: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(cron_job)
    schedule = spec.get("schedule") or ""
    if not schedule:
        causes.append(required("spec.schedule"))
    else:
        _check_schedule(causes, schedule)
    if spec.get("startingDeadlineSeconds") is not None:
        check_nonnegative(causes, "spec.startingDeadlineSeconds", spec["startingDeadlineSeconds"])
    if spec.get("timeZone") is not None:
        _check_time_zone(causes, spec["timeZone"], "spec.timeZone")
    check_enum(causes, "spec.concurrencyPolicy", spec.get("concurrencyPolicy"), _POLICIES)
    _check_template(causes, spec.get("jobTemplate") or {}, context)
    for field in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        check_nonnegative(causes, f"spec.{field}", spec.get(field))
    name = (cron_job.get("metadata") or {}).get("name") or ""
    if len(name) > _NAME_MAX:
        causes.append(invalid_value("metadata.name", name, f"must be no more than {_NAME_MAX} characters"))
    return causes


def _check_schedule(causes: list[Cause], schedule: str) -> None:
    if "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        causes.append(invalid_value("spec.schedule", schedule, detail))
        return
    complaint = schedule_complaint(schedule)
    if complaint:
        causes.append(invalid_value("spec.schedule", schedule, complaint))


def _check_time_zone(causes: list[Cause], zone: str, path: str) -> None:
    if not zone:
        causes.append(invalid_value(path, zone, "timeZone must be nil or non-empty string"))
        return
    if zone.lower() == "local":
        causes.append(
            invalid_value(
                path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            )
        )
        return
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        causes.append(invalid_value(path, zone, f"unknown time zone {zone}"))


def _check_template(causes: list[Cause], template: JsonObject, context: Context) -> None:
    spec = template.get("spec") or {}
    check_job_spec(causes, spec, context, "spec.jobTemplate.spec")
    if spec.get("selector") is not None:
        causes.append(
            invalid_value("spec.jobTemplate.spec.selector", spec["selector"], "`selector` will be auto-generated")
        )
    if spec.get("manualSelector"):
        causes.append(not_supported("spec.jobTemplate.spec.manualSelector", spec["manualSelector"], ("nil", "false")))


def warnings(cron_job: JsonObject) -> list[str]:
    template = (spec_of(cron_job).get("jobTemplate") or {}).get("spec") or {}
    return [*warn_of_name(cron_job), *warn_template(template.get("template") or {}, "spec.jobTemplate.spec.template")]


CRON_JOB = Strategy(
    default=default,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    warnings=warnings,
    generation=True,
)
