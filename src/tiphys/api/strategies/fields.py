"""Checks of single fields that many kinds share.

Each `check_` appends to the list of causes that it gets, so that validating a good object makes no lists and formats
no paths beyond its own. `keep_`, `clear_` functions are strategy hooks for the usual split of spec and status.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from tiphys.api import names
from tiphys.api.causes import immutable, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject
from tiphys.base.errors import Cause

NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"

Complaints = Callable[[str], list[str]]


def check_text(causes: list[Cause], path: str, value: str, rule: Complaints) -> None:
    """Append one cause for each complaint of a rule of names.py."""
    for complaint in rule(value):
        causes.append(invalid_value(path, value, complaint))


def check_required_text(causes: list[Cause], path: str, value: str | None, rule: Complaints, detail: str = "") -> None:
    if not value:
        causes.append(required(path, detail))
    else:
        check_text(causes, path, value, rule)


def check_enum(causes: list[Cause], path: str, value: Any, allowed: Collection[str], needed: bool = True) -> None:
    """One of a fixed set; absent is a missing value if it is needed and fine otherwise."""
    if value in allowed:
        return
    if not value:
        if needed:
            causes.append(required(path))
    else:
        causes.append(not_supported(path, value, allowed))


def check_nonnegative(causes: list[Cause], path: str, value: int | None) -> None:
    if value is not None and value < 0:
        causes.append(invalid_value(path, value, NOT_NEGATIVE))


def check_port(causes: list[Cause], path: str, value: int) -> None:
    if not 1 <= value <= 65535:
        causes.append(invalid_value(path, value, names.range_message(1, 65535)))


def check_port_or_name(causes: list[Cause], path: str, value: int | str | None) -> None:
    if isinstance(value, str):
        check_text(causes, path, value, names.validate_port_name)
    else:
        check_port(causes, path, value or 0)


def is_same(new: Any, old: Any) -> bool:
    """Say whether two values mean the same to the API, where absent, null and empty are one."""
    if new == old:
        return True
    if isinstance(new, dict) and isinstance(old, dict):
        return all(is_same(new.get(key), old.get(key)) for key in new.keys() | old.keys())
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(is_same, new, old))
    return _is_empty(new) and _is_empty(old)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def check_same(causes: list[Cause], path: str, new: Any, old: Any) -> None:
    """A field that may not change after creation."""
    if not is_same(new, old):
        causes.append(immutable(path, new))


def check_nonnegative_int_or_percent(causes: list[Cause], path: str, value: Any) -> None:
    if isinstance(value, str):
        check_text(causes, path, value, names.validate_percent)
    else:
        check_nonnegative(causes, path, value)


def check_at_most_100_percent(causes: list[Cause], path: str, value: Any) -> None:
    percent = percent_of(value)
    if percent is not None and percent > 100:
        causes.append(invalid_value(path, value, "must not be greater than 100%"))


def percent_of(value: Any) -> int | None:
    """Return N of the text "N%", None for anything else."""
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdigit():
        return int(value[:-1])
    return None


def int_of(value: Any) -> int:
    """Return the number of an int-or-percent, in which "25%" counts as 25 and other text as 0."""
    if isinstance(value, int):
        return value
    return percent_of(value) or 0


def fill(obj: JsonObject, field: str, value: Any) -> None:
    """Set a field that is absent, null or empty text."""
    if obj.get(field) in (None, ""):
        obj[field] = value


def find_duplicates(values: Iterable[Any]) -> list[tuple[int, Any]]:
    """Return (index, value) of every value that came before."""
    seen: set[Any] = set()
    repeated = []
    for index, value in enumerate(values):
        if value in seen:
            repeated.append((index, value))
        seen.add(value)
    return repeated


def warn_of_name(obj: JsonObject, of_pod: bool = False) -> list[str]:
    """Return the warning about a name that makes a bad hostname: it has dots or is too long."""
    complaints = names.validate_dns_label((obj.get("metadata") or {}).get("name") or "a")
    if not complaints:
        return []
    used = "the Pod's hostname" if of_pod else "Pod names and hostnames"
    return [
        f"metadata.name: this is used in {used}, which can result in surprising behavior; "
        f"a DNS label is recommended: [{' '.join(complaints)}]"
    ]


def spec_of(obj: JsonObject) -> JsonObject:
    """Return the spec, empty if there is none."""
    return obj.get("spec") or {}


def clear_status(**initial: Any) -> Callable[[JsonObject, Context], None]:
    """Return a prepare_for_create hook that replaces the status by its initial value."""

    def prepare(obj: JsonObject, context: Context) -> None:
        obj["status"] = dict(initial)

    return prepare


def keep_status(new: JsonObject, old: JsonObject, context: Context) -> None:
    """prepare_for_update: the status is the old one."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def keep_spec(new: JsonObject, old: JsonObject, context: Context) -> None:
    """prepare_for_status_update: the spec is the old one."""
    if "spec" in old:
        new["spec"] = old["spec"]
