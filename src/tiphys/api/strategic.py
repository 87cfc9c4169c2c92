"""Strategic merge patches: merge patches that know which lists merge by a key.

What a list does (replace, merge as a set, merge by key) comes from the kind's schema. Directives inside the patch
change that: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`,
`$setElementOrder/<field>`. Pure: the inputs are not changed and the result shares nothing with them.

The order of a merged list: items that the patch names come in the patch's order (or that of `$setElementOrder`), the
others keep their places between them as the live list had them.

Spec: Kubernetes documentation, "Update API objects in place using kubectl patch"; the design document of strategic
merge patch for the directives.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import orjson

from tiphys.api.causes import format_go
from tiphys.api.kind import JsonObject, Schema
from tiphys.api.patch import copy_json, equal_json, rejected
from tiphys.api.schemanode import Node, root_of
from tiphys.base.errors import ApiError, bad_request

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_LIST = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def apply_strategic_patch(obj: JsonObject, patch: Any, schema: Schema) -> JsonObject:
    """Return the object after a strategic merge patch. Raises ApiError for a patch that is malformed or does not fit."""
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    return _merge_map(copy_json(obj), copy_json(patch), root_of(schema))


def _no_merge_key(item: Any, key: str) -> ApiError:
    return ApiError(500, "", f"map: {format_go(item)} does not contain declared merge key: {key}")


def _strategies(node: Node | None) -> frozenset[str]:
    return node.patch_strategies if node is not None else frozenset()


def _merge_map(original: Any, patch: dict[str, Any], node: Node | None) -> dict[str, Any]:
    """Merge a patch into a map, both of which may be changed."""
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        cleaned = _without_directives(patch)
        return cleaned if isinstance(cleaned, dict) else {}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise ApiError(500, "", f"unknown patch type: {directive} in map: {format_go(patch)}")
    merged: dict[str, Any] = original if isinstance(original, dict) else {}
    _retain_keys(merged, patch)
    _merge_ordered_lists(merged, patch, node)
    for key, value in patch.items():
        if key.startswith(_DELETE_LIST):
            _delete_from_list(merged, key.removeprefix(_DELETE_LIST), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, node.field(key) if node is not None else None)
    return merged


def _merge_value(original: Any, value: Any, node: Node | None) -> Any:
    """Return what a field becomes. `original` None means that it is absent."""
    if isinstance(value, dict):
        if isinstance(original, dict) and "replace" not in _strategies(node):
            return _merge_map(original, value, node)
        return _without_directives(value)
    if isinstance(value, list):
        if isinstance(original, list) and "merge" in _strategies(node):
            return _merge_list(original, value, node)
        return _without_directives(value)
    return value


def _without_directives(value: Any) -> Any:
    """Return a value taken from a patch as it is: nulls and directives gone, items marked for deletion too."""
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return {}
        return {
            key: _without_directives(child)
            for key, child in value.items()
            if child is not None and not key.startswith((_ORDER, _DELETE_LIST)) and key not in (_PATCH, _RETAIN_KEYS)
        }
    if isinstance(value, list):
        return [_without_directives(item) for item in value if not _is_directive(item)]
    return value


def _is_directive(item: Any) -> bool:
    """Return whether a list item only commands: a deletion, or the replacement of the list."""
    return isinstance(item, dict) and (
        item.get(_PATCH) == "delete" or (item.get(_PATCH) == "replace" and len(item) == 1)
    )


def _retain_keys(original: dict[str, Any], patch: dict[str, Any]) -> None:
    """Obey `$retainKeys`: drop what the list does not name (a Deployment's strategy changing its type)."""
    if _RETAIN_KEYS not in patch:
        return
    keys = patch.pop(_RETAIN_KEYS)
    if not isinstance(keys, list):
        raise bad_request("invalid patch format of retainKeys")
    keys = frozenset(key for key in keys if isinstance(key, str))
    for key, value in patch.items():
        if value is not None and not key.startswith((_DELETE_LIST, _ORDER)) and key not in keys:
            raise rejected()
    for key in [key for key in original if key not in keys]:
        del original[key]


def _delete_from_list(original: dict[str, Any], key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise bad_request("invalid patch format of primitive list")
    if isinstance(original.get(key), list):
        removed = _positions(values, "")
        original[key] = [item for item in original[key] if _identity(item, "") not in removed]


def _merge_ordered_lists(original: dict[str, Any], patch: dict[str, Any], node: Node | None) -> None:
    """Merge the lists whose order the patch gives, and take them out of the patch."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        if not isinstance(order, list):
            raise bad_request("invalid patch format of setElementOrder list")
        key = directive.removeprefix(_ORDER)
        child = node.field(key) if node is not None else None
        merge_key = child.merge_key if child is not None else ""
        deletions = patch.pop(_DELETE_LIST + key, None)
        if deletions is not None:
            _delete_from_list(original, key, deletions)
        live, change = original.get(key), patch.get(key)
        if isinstance(change, list):
            _check_order(change, order, merge_key)
        elif key in patch:
            continue
        if isinstance(live, list) and change is not None:
            merged = _merge_value(copy_json(live), change, child)
        elif isinstance(live, list):
            merged = live
        elif change is not None:
            merged = _without_directives(change)
        else:
            continue
        patch.pop(key, None)
        original[key] = _in_order(merged, order, live if isinstance(live, list) else [], merge_key)


def _check_order(change: list[Any], order: list[Any], merge_key: str) -> None:
    """Refuse a patch whose order list does not name every item that it changes, in the same order."""
    position = 0
    for item in change:
        if isinstance(item, dict) and _PATCH in item:
            continue
        while position < len(order) and not _same(order[position], item, merge_key):
            position += 1
        if position == len(order):
            raise ApiError(
                500,
                "",
                f"The order in patch list:\n{format_go(change)}\n doesn't match $setElementOrder list:\n{format_go(order)}\n",
            )


def _same(left: Any, right: Any, merge_key: str) -> bool:
    if merge_key and isinstance(left, dict) and isinstance(right, dict):
        return merge_key in left and equal_json(left[merge_key], right.get(merge_key))
    return equal_json(left, right)


def _identity(item: Any, merge_key: str) -> Hashable:
    """Return what is equal for items that are the same: a list of many items is merged in linear time by it.

    Keys are texts or numbers nearly always, and stand for themselves; everything else does as JSON."""
    keyed = bool(merge_key) and isinstance(item, dict)
    value = item.get(merge_key) if keyed else item
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if keyed and (type(value) is str or type(value) is int):
        return value
    return orjson.dumps((keyed, value), option=orjson.OPT_SORT_KEYS)


def _positions(items: list[Any], merge_key: str) -> dict[Hashable, int]:
    """Return the first position of each item; maps without the key are no item that could be found."""
    positions: dict[Hashable, int] = {}
    for index, item in enumerate(items):
        if not merge_key or not isinstance(item, dict) or merge_key in item:
            positions.setdefault(_identity(item, merge_key), index)
    return positions


def _in_order(items: list[Any], order: list[Any], live: list[Any], merge_key: str) -> list[Any]:
    """Put the items named by `order` in that order, the others between them where the live list had them."""
    named: list[tuple[int, Any]] = []
    others: list[Any] = []
    places: dict[int, int] = {}
    in_order, in_live = _positions(order, merge_key), _positions(live, merge_key)
    for item in items:
        identity = _identity(item, merge_key)
        places[id(item)] = in_live.get(identity, -1)
        position = in_order.get(identity, -1)
        if position >= 0:
            named.append((position, item))
        else:
            others.append(item)
    named.sort(key=lambda pair: pair[0])
    others.sort(key=lambda item: places[id(item)])
    result: list[Any] = []
    waiting = iter(others)
    other = next(waiting, None)
    for _, item in named:
        while other is not None and 0 <= places[id(other)] < places[id(item)]:
            result.append(other)
            other = next(waiting, None)
        result.append(item)
    if other is not None:
        result += [other, *waiting]
    return result


def _merge_list(original: list[Any], patch: list[Any], node: Node | None) -> list[Any]:
    """Merge a list with strategy merge: by key if its items are maps, else as a set."""
    merge_key = node.merge_key if node is not None else ""
    sample = next(iter([*original, *patch]), None)
    if isinstance(sample, list):
        raise rejected()
    if not isinstance(sample, dict):
        both = [*original, *patch]
        merged = [both[position] for position in _positions(both, "").values()]
        return _in_order(merged, patch, original, "")
    if not merge_key:
        raise ApiError(500, "", "cannot merge lists without merge key")
    live = list(original)
    original, changes, replaced = _obey_directives(original, patch, merge_key)
    if replaced:
        return original
    item_node = node.item_node() if node is not None else None
    merged = list(original)
    positions = _positions(merged, merge_key)
    changed: list[int] = []
    for item in changes:
        position = positions.setdefault(_identity(item, merge_key), len(merged))
        if position == len(merged):
            merged.append(_without_directives(item))
        else:
            merged[position] = _merge_map(merged[position], dict(item), item_node)
        changed.append(position)
    if changed == [*range(len(merged))] and len(live) == len(original):
        return merged  # the patch names every item as they stand: what kubelets send
    return _in_order(merged, changes, live, merge_key)


def _obey_directives(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any], bool]:
    """Return (what is left of the original, the items to merge, whether the patch replaces the whole list)."""
    changes: list[Any] = []
    deleted: list[Any] = []
    replace = False
    for item in patch:
        if not isinstance(item, dict):
            raise rejected()
        directive = item.get(_PATCH)
        if directive == "replace":
            replace = True
        elif directive == "delete":
            if merge_key not in item:
                raise _no_merge_key(item, merge_key)
            deleted.append(item)
        elif directive not in (None, "merge"):
            raise ApiError(500, "", f"unknown patch type: {directive} in map: {format_go(item)}")
        else:
            if merge_key not in item:
                raise _no_merge_key(item, merge_key)
            changes.append(item)
    if replace:
        return [_without_directives(item) for item in patch if _PATCH not in item], [], True
    if deleted:
        gone = _positions(deleted, merge_key)
        original = [item for item in original if _identity(item, merge_key) not in gone]
    return original, changes, False
