"""CronJobs: schedules, time zones, concurrency, history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster, TickingClock
from running import quiet, run_until_quiet, running

from tiphys.base.clock import parse_time
from tiphys.client import resources
from tiphys.controllers.cronjob import plan_history, plan_run
from tiphys.controllers.schedule import BadSchedule, find_missed, next_run_s
from tiphys.controllers.views import CronJob, Job

NOON = parse_time("2026-01-01T12:00:00Z")


def cronjob(schedule: str = "*/5 * * * *", **more: Any) -> dict[str, Any]:
    status = {"lastScheduleTime": "2026-01-01T11:55:00Z"}
    spec = {
        "schedule": schedule,
        "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"restartPolicy": "Never"}}}},
        **more,
    }
    meta = {"name": "tick", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": spec, "status": status}


def view(obj: dict[str, Any]) -> CronJob:
    return msgspec.json.decode(msgspec.json.encode(obj), type=CronJob)


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        ("*/5 * * * *", "", "2026-01-01T12:05:00Z"),
        ("@hourly", "", "2026-01-01T13:00:00Z"),
        ("0 9 * * *", "America/New_York", "2026-01-01T14:00:00Z"),
        ("@every 90s", "", "2026-01-01T12:01:30Z"),
        ("0 0 ? * 0", "", "2026-01-04T00:00:00Z"),
    ],
)
def test_the_next_run(schedule: str, zone: str, expected: str) -> None:
    assert next_run_s(schedule, zone, NOON) == parse_time(expected)


def test_what_cannot_be_read_is_said() -> None:
    for schedule, zone in (("61 * * * *", ""), ("x", ""), ("* * * * *", "Nowhere/Town")):
        with pytest.raises(BadSchedule):
            next_run_s(schedule, zone, NOON)


def test_missed_runs() -> None:
    assert find_missed("*/5 * * * *", "", NOON - 300, NOON).latest_s == NOON
    assert find_missed("*/5 * * * *", "", NOON, NOON + 299).latest_s is None
    many = find_missed("* * * * *", "", NOON - 86400, NOON)
    assert (many.latest_s, many.is_many) == (NOON, True)


def test_a_run_too_late_is_told_and_forbid_waits() -> None:
    late = plan_run(view(cronjob("0 12 * * *", startingDeadlineSeconds=10)), 0, NOON + 30)
    assert late.run_s is None
    busy = plan_run(view(cronjob(concurrencyPolicy="Forbid")), 1, NOON + 1)
    assert busy.run_s is None
    assert busy.event is not None
    assert busy.event[1] == "JobAlreadyActive"
    replaced = plan_run(view(cronjob(concurrencyPolicy="Replace")), 1, NOON + 1)
    assert (replaced.run_s, replaced.replaces) == (NOON, True)


def test_history_keeps_the_newest() -> None:
    jobs = [
        msgspec.convert(
            {
                "metadata": {"name": f"{type_}-{n}"},
                "status": {"startTime": f"2026-01-0{n}T00:00:00Z", "conditions": [{"type": type_, "status": "True"}]},
            },
            Job,
        )
        for type_ in ("Complete", "Failed")
        for n in (1, 2, 3)
    ]
    assert [j.metadata.name for j in plan_history(view(cronjob()), jobs)] == [
        "Complete-1", "Complete-2", "Failed-1", "Failed-2",
    ]  # fmt: skip


@pytest.mark.parametrize("write", [1, 2, 3])
async def test_a_run_starts_once_whatever_crashes(write: int) -> None:
    cluster = FakeCluster(TickingClock(NOON + 1))
    cluster.put(resources.CRONJOBS, cronjob())
    cluster.crash_after = write
    while not await run_until_quiet(cluster, "cronjob"):
        pass
    (job,) = cluster.list_now(resources.JOBS)
    assert job["metadata"]["name"] == f"tick-{int(NOON) // 60}"
    assert job["metadata"]["labels"] == {"a": "b"}
    assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] == "2026-01-01T12:00:00Z"
    status = cluster.list_now(resources.CRONJOBS)[0]["status"]
    assert status["lastScheduleTime"] == "2026-01-01T12:00:00Z"
    assert [a["name"] for a in status["active"]] == [job["metadata"]["name"]]


async def test_an_ended_job_leaves_the_active_list() -> None:
    cluster = FakeCluster(TickingClock(NOON + 1))
    cluster.put(resources.CRONJOBS, cronjob())
    async with running(cluster, "cronjob"):
        await quiet(cluster)
        (job,) = cluster.list_now(resources.JOBS)
        done = {"completionTime": "2026-01-01T12:00:30Z", "conditions": [{"type": "Complete", "status": "True"}]}
        cluster.change(resources.JOBS, f"default/{job['metadata']['name']}", {"status": done}, "status")
        await quiet(cluster)
    status = cluster.list_now(resources.CRONJOBS)[0]["status"]
    assert not status.get("active")
    assert status["lastSuccessfulTime"] == "2026-01-01T12:00:30Z"
    text = f"Saw completed job: {job['metadata']['name']}, condition: Complete"
    assert text in {e["message"] for e in cluster.list_now(resources.EVENTS)}
