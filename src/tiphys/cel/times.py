"""Timestamps and durations as text, their parts in time zones, and sums of them.

Everything is whole nanoseconds. Invariant: timestamps lie within the years 1 to 9999 and durations within 64 bits of
nanoseconds; what would leave that is an error.

Spec: cel-spec, "Language Definition", the chapter "Timestamps and durations"; RFC 3339; Go's texts of durations.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import INT_MAXIMUM, INT_MINIMUM, Duration, Timestamp

SECOND: Final = 10**9
EARLIEST: Final = -62_135_596_800 * SECOND
LATEST: Final = 253_402_300_799 * SECOND + 999_999_999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_OFFSET: Final = re.compile(r"([+-]?)(\d\d):(\d\d)", re.ASCII)
_WORDS: Final = re.compile(r"(\d+)\s*([a-zA-Zµ]+)", re.ASCII)
_DIGITS: Final = 20
"""More than any duration has in its shortest unit."""
_WORD_UNITS: Final = {
    ("ns", "nano"): 1,
    ("us", "µs", "micro"): 1_000,
    ("ms", "milli"): 1_000_000,
    ("s", "sec"): SECOND,
    ("m", "min"): 60 * SECOND,
    ("h", "hr", "hour"): 3600 * SECOND,
    ("d", "day"): 86_400 * SECOND,
    ("w", "wk", "week"): 7 * 86_400 * SECOND,
}


def parse_duration(text: str) -> Duration | None:
    """Return what a text such as `1h30m` or `-1.5s` says, or None."""
    sign = -1 if text[:1] == "-" else 1
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return Duration(0)
    total = 0
    position = 0
    while position < len(body):
        match = _PART.match(body, position)
        if match is None or not (match[1] or match[2]) or len(match[1]) > _DIGITS:
            return None
        unit = _UNITS[match[3]]
        fraction = (match[2] or "")[:18]
        total += int(match[1] or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = match.end()
    total *= sign
    return Duration(total) if position and INT_MINIMUM <= total <= INT_MAXIMUM else None


def parse_schema_duration(text: str) -> Duration | None:
    """Return what a text of the schema format `duration` says, which may have words such as `3 days`."""
    found = parse_duration(text)
    if found is not None:
        return found
    match = _WORDS.fullmatch(text.strip())
    if match is None or len(match[1]) > _DIGITS:
        return None
    word = match[2].lower().removesuffix("s") if len(match[2]) > 2 else match[2].lower()
    for names, unit in _WORD_UNITS.items():
        if word in names or any(len(name) > 2 and word.startswith(name) for name in names):
            return Duration(int(match[1]) * unit)
    return None


def format_duration(duration: Duration) -> str:
    """Return a duration as `string` does: in seconds."""
    sign = "-" if duration.nanoseconds < 0 else ""
    seconds, rest = divmod(abs(duration.nanoseconds), SECOND)
    return f"{sign}{seconds}{_fraction(rest)}s"


def parse_timestamp(text: str) -> Timestamp | None:
    """Return the moment that RFC 3339 text says, or None."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    offset = 0
    if match[8] not in ("Z", "z"):
        sign = -1 if match[8][0] == "-" else 1
        if int(match[8][1:3]) > 23 or int(match[8][4:6]) > 59:
            return None
        offset = sign * (int(match[8][1:3]) * 3600 + int(match[8][4:6]) * 60)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    seconds = int((moment - _EPOCH) // timedelta(seconds=1)) - offset
    nanoseconds = seconds * SECOND + int((match[7] or "0")[:9].ljust(9, "0"))
    return Timestamp(nanoseconds) if EARLIEST <= nanoseconds <= LATEST else None


def parse_date(text: str) -> Timestamp | None:
    """Return the beginning of the day that a text such as `2026-01-31` says, in UTC, or None."""
    return parse_timestamp(f"{text}T00:00:00Z") if _DATE.fullmatch(text) else None


def format_timestamp(timestamp: Timestamp) -> str:
    """Return a moment as RFC 3339 text in UTC, with as many digits as it needs."""
    seconds, rest = divmod(timestamp.nanoseconds, SECOND)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{_fraction(rest)}Z"


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""


def checked_duration(nanoseconds: int) -> Duration:
    """Return a duration; raises EvaluationError if it is too long."""
    if not INT_MINIMUM <= nanoseconds <= INT_MAXIMUM:
        raise EvaluationError("duration overflow")
    return Duration(nanoseconds)


def checked_timestamp(nanoseconds: int) -> Timestamp:
    """Return a moment; raises EvaluationError if it is in no year from 1 to 9999."""
    if not EARLIEST <= nanoseconds <= LATEST:
        raise EvaluationError("timestamp overflow")
    return Timestamp(nanoseconds)


def local(timestamp: Timestamp, zone: str) -> datetime:
    """Return the date and time of a moment in a zone: a name, or an offset such as `-08:00`; empty is UTC."""
    seconds = timestamp.nanoseconds // SECOND
    moment = _EPOCH + timedelta(seconds=seconds)
    if zone in ("", "UTC"):
        return moment
    try:
        return moment.astimezone(_zone(zone))
    except OverflowError as error:
        raise EvaluationError("timestamp overflow") from error


def _zone(zone: str) -> tzinfo:
    match = _OFFSET.fullmatch(zone)
    if match is not None:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if offset >= timedelta(hours=24):
            raise EvaluationError(f"unknown time zone {zone}")
        return timezone(-offset if match[1] == "-" else offset)
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise EvaluationError(f"unknown time zone {zone}") from error
