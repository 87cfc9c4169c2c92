"""When a CronJob runs: schedules in cron's five fields, their short names, and time zones. Pure.

Spec: Kubernetes docs, "CronJob" (schedule syntax, time zones, missed schedules).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MANY = 100
"""More missed runs than this are told, not caught up one by one."""
_EVERY = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}


class BadSchedule(ValueError):
    """The schedule or its time zone cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Missed:
    """The runs between two times: the latest of them (None: there is none), and whether there were very many."""

    latest_s: float | None
    is_many: bool


def _zone(name: str) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise BadSchedule(f"unknown time zone {name}") from error


def _simulate(schedule: str, zone: str, at_s: float, reverse: bool = False) -> CronSim:
    text = NAMED.get(schedule.strip(), schedule.strip()).replace("?", "*")
    try:
        return CronSim(text, datetime.fromtimestamp(at_s, _zone(zone) or UTC), reverse=reverse)
    except CronSimError as error:
        raise BadSchedule(str(error)) from error


def _every_s(schedule: str) -> float | None:
    """Return the interval of `@every 1h30m`, None for other schedules."""
    text = schedule.strip()
    if not text.startswith("@every "):
        return None
    total = sum(float(number) * _UNITS_S[unit] for number, unit in _EVERY.findall(text[7:]))
    if total < 1:
        raise BadSchedule(f"failed to parse duration {text}")
    return float(int(total))


def next_run_s(schedule: str, zone: str, after_s: float) -> float | None:
    """Return the first run after a time, None if there is none within reach. Raises BadSchedule."""
    every = _every_s(schedule)
    if every is not None:
        return float(int(after_s)) + every
    found = next(_simulate(schedule, zone, after_s), None)
    return None if found is None else found.timestamp()


def find_missed(schedule: str, zone: str, since_s: float, now_s: float) -> Missed:
    """Return the latest run after `since_s` and not after `now_s`. Raises BadSchedule."""
    every = _every_s(schedule)
    if every is not None:
        count = int((now_s - since_s) // every)
        return Missed(since_s + count * every if count > 0 else None, count > MANY)
    # The reverse search gives times strictly before its start, so it begins a second later.
    latest = next(_simulate(schedule, zone, float(int(now_s)) + 1, reverse=True), None)
    if latest is None or latest.timestamp() <= since_s:
        return Missed(None, False)
    return Missed(latest.timestamp(), _is_many(schedule, zone, since_s, now_s))


def _is_many(schedule: str, zone: str, since_s: float, now_s: float) -> bool:
    runs = _simulate(schedule, zone, since_s)
    for _ in range(MANY + 1):
        run = next(runs, None)
        if run is None or run.timestamp() > now_s:
            return False
    return True
