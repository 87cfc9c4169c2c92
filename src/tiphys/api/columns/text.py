"""Texts that tables are made of: ages, label lists, selectors, and the compact notation of columns.

Ages are spelled as Kubernetes clients expect: two units at most, fewer the older a thing is ("5m12s", "3d4h", "2y").
Everything is a pure function; `now_s` is seconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.kind import Column
from tiphys.base.clock import parse_time

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400


def columns(text: str) -> tuple[Column, ...]:
    """Return the columns of a notation: one a line, `Name | type[/format] [wide] | description`.

    The type `string` may be left out; `wide` means that the column shows with -o wide only.
    """
    found = []
    for line in text.strip().splitlines():
        name, kind, description = (part.strip() for part in line.split("|"))
        words = kind.split()
        priority = 1 if "wide" in words else 0
        type_, _, format_ = next((word for word in words if word != "wide"), "string").partition("/")
        found.append(Column(name, type_, format_, description, priority))
    return tuple(found)


def duration(seconds: float) -> str:
    """Return a length of time as people read it: `47s`, `5m12s`, `3h`, `6d4h`, `2y40d`."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 2 * _MINUTE_S:
        return f"{total}s"
    if total < 10 * _MINUTE_S:
        return _two(total // _MINUTE_S, "m", total % _MINUTE_S, "s")
    if total < 3 * _HOUR_S:
        return f"{total // _MINUTE_S}m"
    if total < 8 * _HOUR_S:
        return _two(total // _HOUR_S, "h", total % _HOUR_S // _MINUTE_S, "m")
    if total < 2 * _DAY_S:
        return f"{total // _HOUR_S}h"
    return _days(total)


def _days(total: int) -> str:
    days = total // _DAY_S
    if days < 8:
        return _two(days, "d", total % _DAY_S // _HOUR_S, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(time: str | None, now_s: float) -> str:
    """Return how long ago a time of the API was; `<unknown>` for none."""
    return duration(now_s - parse_time(time)) if time else UNKNOWN


def age(obj: Mapping[str, Any], now_s: float) -> str:
    """Return the age of an object."""
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now_s)


def name(obj: Mapping[str, Any]) -> str:
    """Return the name of an object."""
    return str((obj.get("metadata") or {}).get("name") or "")


def part(obj: Mapping[str, Any] | None, *keys: str) -> dict[str, Any]:
    """Return the mapping at a path, an empty one where anything on the way is unset."""
    value: Any = obj
    for key in keys:
        value = value.get(key) if value else None
    return value or {}


def labels(values: Mapping[str, str] | None) -> str:
    """Return `a=1,b=2` in order of keys, `<none>` for none."""
    return ",".join(f"{key}={values[key]}" for key in sorted(values)) if values else NONE


_OPERATORS = {"In": "in", "NotIn": "notin"}


def selector(value: Mapping[str, Any] | None) -> str:
    """Return a LabelSelector as text, `<none>` for none or an empty one."""
    if not value:
        return NONE
    terms = [(key, f"{key}={text}") for key, text in (value.get("matchLabels") or {}).items()]
    for expression in value.get("matchExpressions") or ():
        key = expression.get("key", "")
        operator = expression.get("operator")
        if operator in _OPERATORS:
            terms.append((key, f"{key} {_OPERATORS[operator]} ({','.join(sorted(expression.get('values') or ()))})"))
        else:
            terms.append((key, f"!{key}" if operator == "DoesNotExist" else key))
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0])) or NONE


def containers(template: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names and the images of a pod template's containers, each joined by commas."""
    found = part(template, "spec").get("containers") or ()
    return ",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)


def first(values: Iterable[str], limit: int, empty: str) -> str:
    """Return at most `limit` values joined by commas, and how many more there are."""
    every = list(values)
    if not every:
        return empty
    shown = ",".join(every[:limit])
    return f"{shown} + {len(every) - limit} more..." if len(every) > limit else shown


def boolean(value: bool | None) -> str:
    """Return `True` or `False`, `<unset>` for None."""
    return UNSET if value is None else str(bool(value))


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the condition of one type in an object's status."""
    return next((c for c in part(obj, "status").get("conditions") or () if c.get("type") == kind), None)


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Tell whether a condition is there and True."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"
