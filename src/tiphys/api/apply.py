"""Server-side apply, and the record of who set which field (managedFields) for every other write.

`track_update` runs on each create, update and patch: fields that the write added or changed now belong to its manager
alone, fields that it removed belong to nobody. `apply` merges a configuration into the live object: fields that the
manager named before and names no more go, unless somebody else owns them; changing a field that somebody else owns is
a conflict, told as a 409 with every field, unless forced.

Invariant: the objects passed in are not changed, except that `track_update` sets `metadata.managedFields` of `new`.
Entries of managers that a write does not touch are kept as they are.

Spec: Kubernetes documentation, "Server-Side Apply"; KEP-555.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from tiphys.api.causes import go_quote
from tiphys.api.fieldset import (
    Tree,
    below,
    compare,
    difference,
    fields_of,
    intersection,
    is_leaf,
    is_member,
    item_step,
    list_items,
    members,
    path_string,
    union_sets,
)
from tiphys.api.kind import JsonObject, Schema
from tiphys.api.patch import copy_json
from tiphys.api.schemanode import Node, root_of
from tiphys.base.errors import ApiError, bad_request

APPLY = "Apply"
UPDATE = "Update"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT_CHANGES = "ancient-changes"
MAX_UPDATE_MANAGERS = 10
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Manager(msgspec.Struct, frozen=True):
    """Who owns fields. An applier is one manager whatever version it applies; updaters differ by version."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def same(self, other: Manager) -> bool:
        return (
            self.name == other.name
            and self.operation == other.operation
            and self.subresource == other.subresource
            and (self.operation == APPLY or self.api_version == other.api_version)
        )

    def shown(self) -> str:
        """Return the manager as conflicts tell it."""
        text = go_quote(self.name)
        if self.subresource:
            text += f" with subresource {go_quote(self.subresource)}"
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


class Owned(msgspec.Struct, frozen=True, eq=False):
    """One entry of managedFields. `entry` is its JSON form if it has not changed since it was read."""

    manager: Manager
    fields: Tree
    time: str | None
    entry: Mapping[str, Any] | None = None

    def encode(self) -> Mapping[str, Any]:
        if self.entry is not None:
            return self.entry
        entry: dict[str, Any] = {
            "manager": self.manager.name,
            "operation": self.manager.operation,
            "apiVersion": self.manager.api_version,
        }
        if self.time:
            entry["time"] = self.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = self.fields
        if self.manager.subresource:
            entry["subresource"] = self.manager.subresource
        return entry

    def with_fields(self, fields: Tree | None) -> Owned:
        return self if fields is self.fields else Owned(self.manager, fields or {}, self.time)


def _decode(entries: Iterable[Mapping[str, Any]] | None) -> list[Owned] | None:
    """Return the entries, None if one of them is not to be understood."""
    result = []
    for entry in entries or ():
        fields = entry.get("fieldsV1")
        if entry.get("operation") not in (APPLY, UPDATE) or not isinstance(fields, dict):
            return None
        manager = Manager(
            entry.get("manager", ""), entry["operation"], entry.get("apiVersion", ""), entry.get("subresource", "")
        )
        result.append(Owned(manager, fields, entry.get("time"), entry))
    return result


def _entries(obj: Mapping[str, Any] | None) -> Any:
    return (obj.get("metadata") or {}).get("managedFields") if obj else None


def _store(obj: JsonObject, owners: list[Owned]) -> None:
    """Write the entries into an object: appliers first, older ones first."""
    metadata = obj.setdefault("metadata", {})
    kept = [owned for owned in owners if owned.fields]
    if not kept:
        metadata.pop("managedFields", None)
        return
    kept.sort(
        key=lambda owned: (
            owned.manager.operation,
            owned.time or "",
            owned.manager.name,
            owned.manager.api_version,
            owned.manager.subresource,
        )
    )
    metadata["managedFields"] = [owned.encode() for owned in kept]


def _find(owners: list[Owned], manager: Manager) -> Owned | None:
    return next((owned for owned in owners if owned.manager.same(manager)), None)


def track_update(
    old: JsonObject | None,
    new: JsonObject,
    manager: str,
    operation: str,
    subresource: str,
    api_version: str,
    now: str,
    schema: Schema,
    ignore: tuple[str, ...] = (),
) -> None:
    """Set the managedFields of `new` for a write that is not an apply. `old` None means create.

    `now` is RFC 3339 text. `ignore` names top-level fields that this endpoint does not write. An object whose
    managedFields a client cleared stays untracked until the next apply.
    """
    sent = _entries(new)
    if sent == [{}]:
        new["metadata"].pop("managedFields", None)
        return
    owners = _decode(sent) if sent else None
    if not owners:
        owners = _decode(_entries(old)) or []
        if old is not None and not owners:
            new.get("metadata", {}).pop("managedFields", None)
            return
    me = Manager(manager, operation or UPDATE, api_version, subresource)
    taken, removed = compare(old or {}, new, root_of(schema), ignore)
    if taken and not owners:
        new.setdefault("metadata", {})["managedFields"] = [Owned(me, taken, now).encode()]
        return
    _store(new, _capped(_updated(owners, me, taken, removed, now)))


def _updated(owners: list[Owned], me: Manager, taken: Tree | None, removed: Tree | None, now: str) -> list[Owned]:
    """Return the owners after a write by `me` that took and removed fields."""
    result = []
    for owned in owners:
        fields: Tree | None = owned.fields
        if removed and fields:
            fields = difference(fields, removed)
        if taken and fields and not owned.manager.same(me):
            fields = difference(fields, taken)
        result.append(owned.with_fields(fields))
    if taken:
        mine = _find(result, me)
        result = [owned for owned in result if owned is not mine]
        result.append(Owned(me, union_sets(mine.fields if mine else None, taken), now))
    return result


def _capped(owners: list[Owned]) -> list[Owned]:
    """Merge the oldest updaters into one entry for each version when there are too many of them."""
    updaters = [owned for owned in owners if owned.manager.operation == UPDATE and owned.fields]
    excess = len(updaters) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return owners
    updaters.sort(key=lambda owned: (owned.time or "", owned.manager.name))
    first: dict[str, Owned] = {}
    for owned in updaters:
        if excess == 0:
            break
        version = owned.manager.api_version
        bucket = first.get(version)
        if bucket is None:
            first[version] = owned
            continue
        manager = Manager(ANCIENT_CHANGES, UPDATE, version)
        merged = Owned(manager, union_sets(bucket.fields, owned.fields), owned.time)
        owners = [other for other in owners if other is not bucket and other is not owned]
        owners.append(merged)
        first[version] = merged
        excess -= 1
    return owners


def apply(
    live: JsonObject | None,
    applied: JsonObject,
    manager: str,
    force: bool,
    schema: Schema,
    api_version: str,
    now: str,
    subresource: str = "",
    ignore: tuple[str, ...] = (),
) -> JsonObject:
    """Return the live object with an applied configuration merged in. `live` None creates.

    `applied` has been decoded by the kind's schema. Raises ApiError 409 that names every conflicting field, and 400
    for a configuration that carries managedFields. An apply that changes nothing returns an equal object.
    """
    if _entries(applied) is not None:
        raise bad_request("metadata.managedFields must be nil")
    root = root_of(schema)
    me = Manager(manager, APPLY, api_version, subresource)
    owners = _decode(_entries(live)) or []
    if live and not owners:
        taken, _ = compare({}, live, root)
        owners = [Owned(Manager(BEFORE_FIRST_APPLY, UPDATE, api_version), taken, now)] if taken else []
    named = fields_of(applied, root, ignore)
    last = _find(owners, me)
    others = [owned for owned in owners if owned is not last]
    merged = copy_json(live) if live else {"apiVersion": api_version, "kind": applied.get("kind", ""), "metadata": {}}
    merged.setdefault("metadata", {}).pop("managedFields", None)
    merged = _merge_fields(merged, {name: value for name, value in applied.items() if name not in ignore}, root)
    if last is not None:
        managed = named
        for owned in others:
            managed = union_sets(managed, owned.fields)
        managed = {"f:metadata": {}, **managed}  # the object's name must outlive its last owned label
        _prune(merged, root, last.fields, managed)
    taken, removed = compare(live or {}, merged, root)
    if not force and taken:
        _refuse_conflicts(others, taken, me, live, root)
    others = _updated(others, me, None, removed, now)
    if taken:
        others = [owned.with_fields(difference(owned.fields, taken) if owned.fields else None) for owned in others]
    changed = bool(taken or removed) or last is None or last.fields != named
    changed = changed or last.manager.api_version != api_version if last is not None else changed
    mine = Owned(me, named, now) if changed or last is None else last
    _sync_last_applied(merged, applied, manager)
    _store(merged, [*others, mine])
    return merged


def merge_configuration(live: JsonObject, applied: JsonObject, schema: Schema) -> JsonObject:
    """Return the live object with a configuration merged in, as an apply merges but without owners: nothing that the
    configuration leaves out goes away."""
    return _merge_fields(copy_json(live), applied, root_of(schema))


def _refuse_conflicts(others: list[Owned], taken: Tree, me: Manager, live: JsonObject | None, root: Node) -> None:
    """Raise the 409 if the configuration changes fields that others own.

    What kubectl applied on the client side before is its own: such fields do not conflict for its manager name.
    """
    conflicts: list[tuple[Manager, tuple[str, ...]]] = []
    allowed = _last_applied_fields(live, root) if me.name == "kubectl" else None
    for owned in others:
        common = intersection(owned.fields, taken) if owned.fields else None
        if common and allowed:
            common = difference(common, allowed)
        if common:
            conflicts += [(owned.manager, path) for path in members(common)]
    if conflicts:
        raise _conflict(sorted(conflicts, key=lambda pair: (pair[0].shown(), pair[1])))


def _conflict(conflicts: list[tuple[Manager, tuple[str, ...]]]) -> ApiError:
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {owner.shown()}: {path_string(path)}"
    else:
        by_manager: dict[str, list[str]] = {}
        for owner, path in conflicts:
            by_manager.setdefault(owner.shown(), []).append(f"- {path_string(path)}")
        lines = [line for owner, paths in by_manager.items() for line in (f"conflicts with {owner}:", *paths)]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {owner.shown()}",
            "field": path_string(path),
        }
        for owner, path in conflicts
    ]
    return ApiError(409, "Conflict", message, details={"causes": causes})


def _last_applied_fields(live: JsonObject | None, root: Node) -> Tree | None:
    """Return the fields of the configuration that kubectl last applied on the client side, and that still have the
    values that it gave them: those kubectl may take over. A field that somebody changed since is a conflict."""
    text = ((live or {}).get("metadata") or {}).get("annotations", {}).get(LAST_APPLIED)
    if not text:
        return None
    try:
        config = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(config, dict):
        return None
    fields: Tree | None = fields_of(config, root)
    for changed in compare(config, live or {}, root):
        if fields and changed:
            fields = difference(fields, changed)
    return fields


def _sync_last_applied(merged: JsonObject, applied: JsonObject, manager: str) -> None:
    """Keep kubectl's client-side annotation true where it exists, so that either way of applying can follow."""
    annotations = merged["metadata"].get("annotations") or {}
    if manager != "kubectl" or LAST_APPLIED not in annotations:
        return
    config = copy_json(applied)
    config.get("metadata", {}).get("annotations", {}).pop(LAST_APPLIED, None)
    annotations[LAST_APPLIED] = orjson.dumps(config).decode() + "\n"


def _merge_fields(live: dict[str, Any], applied: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Merge a configuration into an object that may be changed, and return it."""
    for name, value in applied.items():
        child = node.field(name)
        live[name] = _merge_value(live.get(name), value, child) if child is not None else copy_json(value)
    return live


def _merge_value(live: Any, value: Any, node: Node) -> Any:
    if isinstance(value, dict) and isinstance(live, dict) and not node.atomic:
        return _merge_fields(live, value, node)
    if isinstance(value, list) and isinstance(live, list) and not is_leaf(value, node):
        return _merge_items(live, value, node)
    if isinstance(value, list) and not value and isinstance(live, list) and node.list_type in ("map", "set"):
        return live
    return copy_json(value)


def _merge_items(live: list[Any], applied: list[Any], node: Node) -> list[Any]:
    """Merge lists by their items' steps: applied items in their order, the others between them as they were."""
    mine, theirs = list_items(live, node), list_items(applied, node)
    item_node = node.item_node() or node
    waiting = deque(mine)
    done: set[str] = set()
    result: list[Any] = []
    for step, item in theirs.items():
        while waiting and (waiting[0] not in theirs or waiting[0] in done):
            ahead = waiting.popleft()
            if ahead not in done:
                result.append(mine[ahead])
        done.add(step)
        result.append(_merge_value(mine[step], item, item_node) if step in mine else copy_json(item))
    result += [mine[step] for step in waiting if step not in theirs]
    return result


def _prune(value: Any, node: Node, last: Tree, managed: Tree) -> None:
    """Remove what the manager named before (`last`) and nobody owns now (`managed`), in place.

    A field that only leads to owned fields stays; a list item stays only if the item itself is owned.
    """
    if isinstance(value, list):
        item_node = node.item_node() or node
        kept = []
        for index, item in enumerate(value):
            step = item_step(item, node, index)
            if step in last:
                owned = managed.get(step)
                if is_member(last[step]) and (owned is None or not is_member(owned)):
                    continue
                _prune(item, item_node, last[step], owned or {})
            kept.append(item)
        value[:] = kept
    elif isinstance(value, dict):
        for step, child, child_node in list(below(value, node)):
            if step in last:
                owned = managed.get(step)
                if owned is None:
                    del value[step[2:]]
                else:
                    _prune(child, child_node, last[step], owned)
