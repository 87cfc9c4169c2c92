"""Lists at a revision, as pure functions over the newest entries and what they replaced."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from tiphys.store.interface import Entry, Page


def roll_back(newest: Sequence[Entry], before: Mapping[str, Entry | None]) -> list[Entry]:
    """Return the entries of an older revision, in key order.

    `newest` are the entries now; `before` maps each key changed since then to its entry at that revision (None: it
    did not exist).
    """
    if not before:
        return list(newest)
    entries = [entry for entry in newest if entry.key not in before]
    entries += [entry for entry in before.values() if entry is not None]
    entries.sort(key=lambda entry: entry.key)
    return entries


def page_of(entries: Sequence[Entry], revision: int, start_after: str, limit: int) -> Page:
    """Cut a page out of the sorted entries of a revision."""
    low = bisect_right(entries, start_after, key=lambda entry: entry.key) if start_after else 0
    high = min(low + limit, len(entries)) if limit else len(entries)
    return Page(entries[low:high], revision, len(entries) - high)
