"""Which value of an object before an update a value after it was: for what may stay wrong, and for `oldSelf`.

Properties and values of maps are found by name, items of keyed lists (list type map) by their keys, items of lists
without a list type by position; those of sets and atomic lists cannot be told from one another.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Validation ratcheting"; KEP-4008.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiphys.api.patch import equal_json

Schema = Mapping[str, Any]


def item_key(item: Any, names: tuple[str, ...]) -> tuple[Any, ...] | None:
    """Return the values of an item's keys, None for an item without them. Booleans are no numbers."""
    if not isinstance(item, dict):
        return None
    return tuple((type(item.get(name)) is bool, _hashable(item.get(name))) for name in names)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value


class KeyedItems:
    """Items of a keyed list by their keys; the first of several with the same."""

    def __init__(self, schema: Schema, items: list[Any]) -> None:
        self._names = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        self._items: dict[tuple[Any, ...], Any] = {}
        for item in items:
            key = item_key(item, self._names)
            if key is not None:
                self._items.setdefault(key, item)

    def get(self, item: Any) -> Any:
        """Return the item with the same keys, None if there is none."""
        key = item_key(item, self._names)
        return None if key is None else self._items.get(key)


class Correlated:
    """A value after an update, the one that it was before, and the schema of both."""

    __slots__ = ("_keyed", "_same", "old", "schema", "value")

    def __init__(self, value: Any, old: Any, schema: Schema) -> None:
        self.value = value
        self.old = old
        self.schema = schema
        self._same: bool | None = None
        self._keyed: KeyedItems | None = None

    def key(self, name: str) -> Correlated | None:
        """Return the pair below a name; None if it was not there before, or the schema does not know it."""
        if not isinstance(self.value, dict) or not isinstance(self.old, dict):
            return None
        if name not in self.value or name not in self.old:
            return None
        properties, additional = self.schema.get("properties") or {}, self.schema.get("additionalProperties")
        schema = properties.get(name) or (additional if isinstance(additional, Mapping) else None)
        return Correlated(self.value[name], self.old[name], schema) if schema is not None else None

    def index(self, index: int) -> Correlated | None:
        """Return the pair of an item; None if it cannot be told which item it was."""
        items = self.schema.get("items")
        if not isinstance(self.value, list) or not isinstance(self.old, list) or not isinstance(items, Mapping):
            return None
        list_type = self.schema.get("x-kubernetes-list-type")
        if list_type == "map":
            if self._keyed is None:
                self._keyed = KeyedItems(self.schema, self.old)
            old = self._keyed.get(self.value[index])
            return None if old is None else Correlated(self.value[index], old, items)
        if list_type is not None or index >= len(self.old):
            return None
        return Correlated(self.value[index], self.old[index], items)

    def is_same(self) -> bool:
        """Return whether the update left the value as it was; the order of keyed lists does not matter."""
        if self._same is None:
            self._same = equal_json(self.value, self.old) or self._is_reordered()
        return self._same

    def _is_reordered(self) -> bool:
        if self.schema.get("x-kubernetes-list-type") != "map" or not isinstance(self.value, list):
            return False
        if not isinstance(self.old, list) or len(self.value) != len(self.old):
            return False
        pairs = [self.index(position) for position in range(len(self.value))]
        return all(pair is not None and pair.is_same() for pair in pairs)
