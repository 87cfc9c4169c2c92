"""All nodes as columns: an array a property, a row a node.

`NodeTable` holds what nodes offer and what their pods take. A `Memo` is an array derived from it (do a pod's requests
fit, its score, does it tolerate the taints), kept between decisions and brought up to date for the rows that changed
since: after one pod was placed, that is one row. Invariants: a row that stands for no node has `exists` False, offers
nothing and holds nothing; `used` is the sum of the requests of the pods that were added and not removed.

Amounts are int64: cpu in thousandths, everything else in whole units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tiphys.api.quantity import cpu_milli, memory_bytes
from tiphys.api.views.node import Node, Taint
from tiphys.scheduler.profile import Requests

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

FIRST_CAPACITY = 8
PODS = "pods"
FIXED = ("cpu", "memory", "ephemeral-storage", PODS)
"""Columns that always exist, in this order."""
LOG_FACTOR = 2
"""The change log holds at most this many entries a row; a memo that is further behind is filled anew."""


class ChangeLog:
    """Rows in the order in which they changed. `version` counts all changes ever."""

    def __init__(self) -> None:
        self.version = 0
        self._rows: list[int] = []
        self._start = 0

    def note(self, row: int) -> None:
        self._rows.append(row)
        self.version += 1

    def trim(self, limit: int) -> None:
        if len(self._rows) > limit:
            drop = len(self._rows) // 2
            del self._rows[:drop]
            self._start += drop

    def since(self, version: int) -> list[int] | None:
        """Return the rows that changed after a version, None when it is too long ago."""
        if version < self._start:
            return None
        return list(dict.fromkeys(self._rows[version - self._start :]))


class Memo:
    """An array with one value a row. `fill(rows)` returns the values of some rows; it is called for stale rows only."""

    def __init__(self, log: ChangeLog, dtype: Any, fill: Callable[[Rows], Any]) -> None:
        self._log = log
        self._dtype = dtype
        self._fill = fill
        self._version = -1
        self._values: npt.NDArray[Any] = np.zeros(0, dtype)

    def values(self, capacity: int) -> npt.NDArray[Any]:
        """Return the current values. The array is the memo's own: never write to it."""
        if len(self._values) == capacity and self._version == self._log.version:
            return self._values
        stale = self._log.since(self._version) if len(self._values) == capacity and self._version >= 0 else None
        if stale is None or len(stale) * 2 > capacity:
            self._values = np.asarray(self._fill(np.arange(capacity, dtype=np.intp))).astype(self._dtype)
        elif stale:
            rows = np.array(stale, dtype=np.intp)
            self._values[rows] = self._fill(rows)
        self._version = self._log.version
        return self._values


class NodeTable:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.capacity = FIRST_CAPACITY
        self.count = 0
        """How many nodes there are."""
        self.rows: dict[str, int] = {}
        self.nodes: list[Node | None] = [None] * self.capacity
        self._free = list(range(self.capacity - 1, -1, -1))
        self.columns: dict[str, int] = {name: index for index, name in enumerate(FIXED)}
        self.exists: Bools = np.zeros(self.capacity, np.bool_)
        self.unschedulable: Bools = np.zeros(self.capacity, np.bool_)
        self.offered: Ints = np.zeros((len(FIXED), self.capacity), np.int64)
        """Allocatable amounts, a row of this array for each resource."""
        self.used: Ints = np.zeros((len(FIXED), self.capacity), np.int64)
        self.scored: Ints = np.zeros((2, self.capacity), np.int64)
        """Used cpu and memory as scores count them, with defaults for pods that do not say."""
        self.taint_set: Ints = np.zeros(self.capacity, np.int64)
        self.taint_sets: list[tuple[Taint, ...]] = [()]
        """Every combination of taints that some node ever had; `taint_set` is an index into it."""
        self._taint_ids: dict[tuple[tuple[str, str, str], ...], int] = {(): 0}
        self.statics = ChangeLog()
        """Changes of nodes: labels, taints, unschedulable, coming and going."""
        self.usage = ChangeLog()
        """Changes of what is offered or used."""

    # Nodes

    def set_node(self, node: Node) -> int:
        """Add a node or take over its new state; return its row."""
        name = node.metadata.name
        row = self.rows.get(name)
        old = self.nodes[row] if row is not None else None
        if row is None:
            if not self._free:
                self._grow()
            row = self.rows[name] = self._free.pop()
            self.count += 1
            self.exists[row] = True
        self.nodes[row] = node
        if old is None or old.spec != node.spec or old.metadata.labels != node.metadata.labels:
            self.unschedulable[row] = bool(node.spec.unschedulable)
            self.taint_set[row] = self._taint_set(node.spec.taints)
            self._note(self.statics, row)
        if old is None or old.status.allocatable != node.status.allocatable:
            self._offer(row, node.status.allocatable)
            self._note(self.usage, row)
        return row

    def remove_node(self, name: str) -> None:
        """Forget a node, and with it what was used on it."""
        row = self.rows.pop(name, None)
        if row is None:
            return
        self.nodes[row] = None
        self.exists[row] = self.unschedulable[row] = False
        self.offered[:, row] = 0
        self.used[:, row] = 0
        self.scored[:, row] = 0
        self.taint_set[row] = 0
        self.count -= 1
        self._free.append(row)
        self._note(self.statics, row)
        self._note(self.usage, row)

    def name(self, row: int) -> str:
        node = self.nodes[row]
        assert node is not None, f"row {row} stands for no node"
        return node.metadata.name

    # Pods

    def add_requests(self, row: int, requests: Requests, sign: int = 1) -> None:
        """Count a pod's requests on a node; `sign` -1 takes them back."""
        used = self.used
        for name, amount in requests.amounts:
            column = self.columns.get(name)
            if column is None:
                column = self._column(name)
                used = self.used
            used[column, row] += sign * amount
        used[3, row] += sign
        self.scored[0, row] += sign * requests.score_cpu_milli
        self.scored[1, row] += sign * requests.score_memory_bytes
        self._note(self.usage, row)

    # Insides

    def _note(self, log: ChangeLog, row: int) -> None:
        log.note(row)
        log.trim(LOG_FACTOR * self.capacity + 64)

    def _offer(self, row: int, allocatable: Mapping[str, Any]) -> None:
        self.offered[:, row] = 0
        for name, text in allocatable.items():
            column = self._column(name)
            self.offered[column, row] = cpu_milli(str(text)) if name == "cpu" else memory_bytes(str(text))

    def _column(self, name: str) -> int:
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = len(self.columns)
            empty = np.zeros((1, self.capacity), np.int64)
            self.offered = np.concatenate([self.offered, empty])
            self.used = np.concatenate([self.used, empty])
        return column

    def _taint_set(self, taints: tuple[Taint, ...]) -> int:
        key = tuple((t.key, t.value, t.effect) for t in taints)
        found = self._taint_ids.get(key)
        if found is None:
            found = self._taint_ids[key] = len(self.taint_sets)
            self.taint_sets.append(taints)
        return found

    def _grow(self) -> None:
        old = self.capacity
        self.capacity = old * 2 if old < 1024 else old + old // 4
        more = self.capacity - old
        self.nodes += [None] * more
        self._free = list(range(self.capacity - 1, old - 1, -1))
        for name in ("exists", "unschedulable", "taint_set"):
            setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more, getattr(self, name).dtype)]))
        for name in ("offered", "used", "scored"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((len(array), more), np.int64)], axis=1))
