"""The newest entry of every key, and the rules of a commit: pure state, no medium.

`apply_operations` decides what a commit does; both stores use it, so both have the same semantics. `Ledger` holds the
entries that readers see. Invariant: a ledger changes only by whole commits, in revision order.

Spec: etcd v3 transactions (compare mod revisions, then put or delete, all at one revision; no key twice).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, MutableMapping, Sequence

from tiphys.store.interface import Entry, Event, ExpectationFailed, Operation

FIRST_REVISION = 1
"""Revision of a fresh store, as etcd's."""
MAX_OPERATIONS = 65_535
"""Most operations of one commit."""


def apply_operations(
    operations: Sequence[Operation],
    revision: int,
    current: Mapping[str, Entry],
    pending: MutableMapping[str, Entry | None],
) -> list[Change]:
    """Return the changes that a commit makes at `revision` and put them into `pending`, which lies over `current`.

    Raises ExpectationFailed, or ValueError for operations that no store takes, with `pending` as it was. Deletions of absent keys make no change.
    """
    if len(operations) > MAX_OPERATIONS:
        raise ValueError(f"a commit of {len(operations)} operations; at most {MAX_OPERATIONS} are allowed")
    changes: list[Change] = []
    for operation in operations:
        key = operation.key
        if not key.isascii():
            key.encode()  # lone surrogates have no place in a file; UnicodeEncodeError is a ValueError
        entry = pending[key] if key in pending else current.get(key)
        if operation.expected is not None and operation.expected != (entry.revision if entry else 0):
            raise ExpectationFailed(key, entry)
        if operation.value is not None:
            created = entry.create_revision if entry else revision
            changes.append((key, Entry(key, operation.value, revision, created), entry))
        elif entry is not None:
            changes.append((key, None, entry))
    if len(operations) > 1 and len({operation.key for operation in operations}) != len(operations):
        raise ValueError("a commit may name each key only once")
    for key, new, _ in changes:
        pending[key] = new
    return changes


Change = tuple[str, Entry | None, Entry | None]
"""Key, the entry now (None: deleted), the entry before (None: created)."""


def change_event(change: Change, revision: int) -> Event:
    """Return the watch event of a change."""
    key, new, old = change
    return Event(key, revision, new.value if new else None, old.value if old else None)


class Ledger:
    """The newest entries, with key order on demand."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = FIRST_REVISION
        self.compacted = 0
        self._order: list[str] | None = []

    def load(self, entries: dict[str, Entry], revision: int, compacted: int) -> None:
        """Take over a recovered state."""
        self.entries, self.revision, self.compacted, self._order = entries, revision, compacted, None

    def apply(self, changes: Sequence[Change], revision: int) -> None:
        """Make the changes of one commit visible."""
        for key, new, old in changes:
            if new is None:
                del self.entries[key]
                self._order = None
            else:
                self.entries[key] = new
                if old is None:
                    self._order = None
        self.revision = revision

    def select(self, prefix: str) -> list[Entry]:
        """Return the entries with a prefix in key order."""
        if self._order is None:
            self._order = sorted(self.entries)
        order = self._order
        low = bisect_left(order, prefix)
        high = bisect_left(order, prefix_end(prefix), low) if prefix else len(order)
        entries = self.entries
        return [entries[key] for key in order[low:high]]


def prefix_end(prefix: str) -> str:
    """Return the smallest text greater than every key with the (non-empty) prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
