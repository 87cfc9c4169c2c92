"""The grammar of schedules. Spec: "CronJob", "Schedule syntax"."""

from __future__ import annotations

import pytest

from tiphys.api.strategies.cron_schedule import schedule_complaint


@pytest.mark.parametrize(
    "schedule",
    ["* * * * *", "*/5 0-23/2 1,15 JAN-mar mon-FRI", "0 0 ? * 0", "@hourly", "@every 1h30m", "5/15 * * * *"],
)
def test_good_schedules(schedule: str) -> None:
    assert schedule_complaint(schedule) == ""


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("@often", "unrecognized descriptor: @often"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
    ],
)
def test_bad_schedules(schedule: str, complaint: str) -> None:
    assert schedule_complaint(schedule) == complaint
