"""RFC 3339 texts of metav1.Time and metav1.MicroTime: checked, and rewritten as the server stores them.

Times are stored in UTC, `Time` with whole seconds, `MicroTime` with six digits. A text that does not parse is refused
in the words of Go's parser, which name the first element that failed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from tiphys.api.causes import go_quote

TIME_LAYOUT = "2006-01-02T15:04:05Z07:00"
MICRO_TIME_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"

_ELEMENTS = (
    ("2006", re.compile(r"[0-9]{4}")),
    ("-", re.compile("-")),
    ("01", re.compile(r"[0-9]{2}")),
    ("-", re.compile("-")),
    ("02", re.compile(r"[0-9]{2}")),
    ("T", re.compile("T")),
    ("15", re.compile(r"[0-9]{2}")),
    (":", re.compile(":")),
    ("04", re.compile(r"[0-9]{2}")),
    (":", re.compile(":")),
    ("05", re.compile(r"[0-9]{2}")),
)
_FRACTION = re.compile(r"[.,][0-9]+")
_MICRO_FRACTION = re.compile(r"\.[0-9]{6}")
_ZONE = re.compile(r"Z|[+-][0-9]{2}:[0-9]{2}")
_RANGES = ((5, 7, "month", 1, 12), (11, 13, "hour", 0, 23), (14, 16, "minute", 0, 59), (17, 19, "second", 0, 59))


def _refuse(text: str, layout: str, rest: str, element: str) -> ValueError:
    return ValueError(
        f"parsing time {go_quote(text)} as {go_quote(layout)}: cannot parse {go_quote(rest)} as {go_quote(element)}"
    )


def _parse(text: str, micro: bool) -> datetime:
    layout = MICRO_TIME_LAYOUT if micro else TIME_LAYOUT
    position = 0
    for element, pattern in _ELEMENTS:
        match = pattern.match(text, position)
        if match is None:
            raise _refuse(text, layout, text[position:], element)
        position = match.end()
    fraction = (_MICRO_FRACTION if micro else _FRACTION).match(text, position)
    if micro and fraction is None:
        raise _refuse(text, layout, text[position:], ".000000")
    seconds_end, position = position, fraction.end() if fraction else position
    zone = _ZONE.match(text, position)
    if zone is None:
        raise _refuse(text, layout, text[position:], "Z07:00")
    if zone.end() != len(text):
        raise ValueError(f"parsing time {go_quote(text)}: extra text: {go_quote(text[zone.end() :])}")
    for start, end, unit, low, high in _RANGES:
        if not low <= int(text[start:end]) <= high:
            raise ValueError(f"parsing time {go_quote(text)}: {unit} out of range")
    digits = (fraction[0][1:7].ljust(6, "0")) if fraction else "000000"
    try:
        return datetime.fromisoformat(f"{text[:seconds_end]}.{digits}{zone[0]}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"parsing time {go_quote(text)}: day out of range") from None


@lru_cache(maxsize=4096)
def canonical_time(text: str) -> str:
    """Return the text in UTC with whole seconds. Raises ValueError in Go's words."""
    return _parse(text, micro=False).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


@lru_cache(maxsize=1024)
def canonical_micro_time(text: str) -> str:
    """Return the text in UTC with six digits of the second. Raises ValueError in Go's words."""
    return _parse(text, micro=True).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
