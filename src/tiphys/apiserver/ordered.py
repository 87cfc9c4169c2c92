"""The objects of a resource in the order of their keys, for lists: any part is taken out by copying pointers.

Kept as blocks of at most BLOCK_KEYS, so that a change touches one block and a list of 150,000 objects neither sorts nor
looks up keys. Made and changed by cache.py alone.

Invariant: keys ascend through all blocks; no block is empty; `_lasts[i]` is the last key of block i.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from tiphys.apiserver.cached import CachedObject

BLOCK_KEYS = 1024


class OrderedObjects:
    """See the module's docstring. "" as a bound means no bound."""

    __slots__ = ("_keys", "_lasts", "_objects")

    def __init__(self) -> None:
        self._keys: list[list[str]] = []
        self._objects: list[list[CachedObject]] = []
        self._lasts: list[str] = []

    def put(self, key: str, obj: CachedObject) -> None:
        """Insert an object, or replace the one with its key."""
        number = bisect_left(self._lasts, key)
        if number == len(self._lasts):
            self._append(key, obj)
            return
        keys = self._keys[number]
        at = bisect_left(keys, key)
        if keys[at] == key:
            self._objects[number][at] = obj
            return
        keys.insert(at, key)
        self._objects[number].insert(at, obj)
        if len(keys) > BLOCK_KEYS:
            self._split(number)

    def discard(self, key: str) -> None:
        """Take out the object with a key, which must be there."""
        number = bisect_left(self._lasts, key)
        keys = self._keys[number]
        at = bisect_left(keys, key)
        assert keys[at] == key, f"{key} is not here"
        del keys[at]
        del self._objects[number][at]
        if not keys:
            del self._keys[number], self._objects[number], self._lasts[number]
        else:
            self._lasts[number] = keys[-1]

    def take(self, start: str = "", end: str = "", limit: int = 0, *, behind: bool = False) -> list[CachedObject]:
        """Return the objects from a key on (`behind`: behind it) and before another, at most `limit` if not 0."""
        number, at = self._find(start, behind)
        taken: list[CachedObject] = []
        while number < len(self._keys):
            keys, objects = self._keys[number], self._objects[number]
            stop = bisect_left(keys, end) if end and keys[-1] >= end else len(keys)
            if limit:
                stop = min(stop, at + limit - len(taken))
            taken += objects if at == 0 and stop == len(keys) else objects[at:stop]
            if stop < len(keys) or (limit and len(taken) == limit):
                break
            number, at = number + 1, 0
        return taken

    def count(self, start: str = "", end: str = "", *, behind: bool = False) -> int:
        """Return how many objects `take` would return."""
        number, at = self._find(start, behind)
        total = -at
        while number < len(self._keys):
            keys = self._keys[number]
            if end and keys[-1] >= end:
                return total + bisect_left(keys, end)
            total += len(keys)
            number += 1
        return max(total, 0)

    def clear(self) -> None:
        self._keys.clear()
        self._objects.clear()
        self._lasts.clear()

    def _find(self, start: str, behind: bool) -> tuple[int, int]:
        if not start:
            return 0, 0
        bisect = bisect_right if behind else bisect_left
        number = bisect(self._lasts, start)
        return number, bisect(self._keys[number], start) if number < len(self._keys) else 0

    def _append(self, key: str, obj: CachedObject) -> None:
        """Put an object behind all others: as objects come at a start."""
        if not self._keys or len(self._keys[-1]) >= BLOCK_KEYS:
            self._keys.append([key])
            self._objects.append([obj])
            self._lasts.append(key)
        else:
            self._keys[-1].append(key)
            self._objects[-1].append(obj)
            self._lasts[-1] = key

    def _split(self, number: int) -> None:
        keys, objects = self._keys[number], self._objects[number]
        half = len(keys) // 2
        self._keys[number : number + 1] = [keys[:half], keys[half:]]
        self._objects[number : number + 1] = [objects[:half], objects[half:]]
        self._lasts[number : number + 1] = [keys[half - 1], keys[-1]]
