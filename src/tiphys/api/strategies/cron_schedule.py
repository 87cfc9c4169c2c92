"""The grammar of a CronJob's schedule, and what is wrong with a text that breaks it.

Five fields (minute, hour, day of month, month, day of week) or a macro such as `@hourly` and `@every 1h`. The words of
a complaint are behaviour that clients see. Spec: Kubernetes documentation, "CronJob", "Schedule syntax"; Unix cron.
"""

from __future__ import annotations

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_DURATION = re.compile(
    r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))*"
)
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: number for number, name in enumerate(_DAYS)}),
)


def schedule_complaint(schedule: str) -> str:
    """Return what is wrong with a schedule; "" if it is good."""
    if not schedule:
        return "empty spec string"
    if schedule.startswith("@"):
        return _macro_complaint(schedule)
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            complaint = _range_complaint(part, low, high, names) if part else ""
            if complaint:
                return complaint
    return ""


def _macro_complaint(macro: str) -> str:
    if macro in _MACROS:
        return ""
    if macro.startswith("@every "):
        text = macro.removeprefix("@every ")
        if _DURATION.fullmatch(text) or text == "0":
            return ""
        return f'failed to parse duration {macro}: time: invalid duration "{text}"'
    return f"unrecognized descriptor: {macro}"


def _range_complaint(text: str, low: int, high: int, names: dict[str, int]) -> str:
    """Check one part of a field: `*`, `n`, `a-b`, each with an optional `/step`."""
    range_, *steps = text.split("/")
    bounds = range_.split("-")
    if bounds[0] in ("*", "?"):
        start, end = low, high
    else:
        if len(bounds) > 2:
            return f"too many hyphens: {text}"
        numbers = []
        for bound in bounds:
            number = _number(bound, names)
            if isinstance(number, str):
                return number
            numbers.append(number)
        start, end = numbers[0], numbers[-1]
    if len(steps) > 1:
        return f"too many slashes: {text}"
    step = 1
    if steps:
        parsed = _number(steps[0], {})
        if isinstance(parsed, str):
            return parsed
        step = parsed
        if len(bounds) == 1:
            end = high
    if start < low:
        return f"beginning of range ({start}) below minimum ({low}): {text}"
    if end > high:
        return f"end of range ({end}) above maximum ({high}): {text}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {text}"
    return f"step of range should be a positive number: {text}" if step == 0 else ""


def _number(text: str, names: dict[str, int]) -> int | str:
    """Return the number that a text stands for, or the complaint about it."""
    known = names.get(text.lower())
    if known is not None:
        return known
    if not re.fullmatch("[-+]?[0-9]+", text):
        return f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
    number = int(text)
    return f"negative number ({number}) not allowed: {text}" if number < 0 else number
