"""Sets of fields, in the very form in which managedFields holds them.

A set is a tree of dicts: a step (`f:<field>`, `k:<keys>`, `v:<value>`, `i:<index>`) leads to the set below it, the
step "." says that the place itself is a member, and an empty tree says the same when nothing is below. At the top, an
empty tree is the empty set. So encoding and decoding cost nothing, and sets of old entries are used as they came.
Functions here never change their arguments, and results may share parts with them; `None` is the empty set.

Three walks over objects, guided by the nodes of a schema: what a write changed (`compare`), which fields an applied
configuration names (`fields_of`), and steps for the items of lists (`item_step`).

DIFFERS: only the steps of what an applied configuration names stand in order, which clients compare as text. Sets of
other writes are in the order of the object, since sorting them would cost every write.
Spec: FieldsV1 in the API reference; Kubernetes documentation, "Server-Side Apply", for list and map types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from tiphys.api.causes import go_float, go_quote
from tiphys.api.schemanode import Node, StructNode

Tree = dict[str, Any]

MEMBER = "."
_ABSENT: Any = object()
_RAW = Node()

_STRIPPED = frozenset(
    (
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    )
)
"""Fields of metadata that nobody owns."""

_DEFAULT_KEYS: Mapping[str, Any] = {"protocol": "TCP"}
"""Defaults of fields that are list keys of built-in kinds and may be left out; the others' are the zero values."""


def is_member(tree: Tree) -> bool:
    """Return whether the place that leads to this tree is itself in the set."""
    return not tree or MEMBER in tree


def _made(children: Tree, member: bool) -> Tree | None:
    if not member:
        return children or None
    return {MEMBER: {}, **children} if children else children


def union(left: Tree, right: Tree) -> Tree:
    """Return the members of either, for trees below a step (an empty tree is a member)."""
    children = {step: tree for step, tree in left.items() if step != MEMBER}
    for step, tree in right.items():
        if step != MEMBER:
            mine = children.get(step)
            children[step] = tree if mine is None else union(mine, tree)
    return _made(children, is_member(left) or is_member(right)) or {}


def union_sets(left: Tree | None, right: Tree | None) -> Tree:
    """Return the union of whole sets."""
    if not left or not right:
        return left or right or {}
    return union(left, right)


def difference(left: Tree, right: Tree) -> Tree | None:
    """Return the members of left that are not in right. `left` itself comes back if nothing goes."""
    children: Tree = {}
    changed = False
    for step, tree in left.items():
        if step == MEMBER:
            continue
        other = right.get(step)
        kept = tree if other is None else difference(tree, other)
        if kept is not None:
            children[step] = kept
        changed = changed or kept is not tree
    member = is_member(left)
    if member and is_member(right):
        return _made(children, False)
    return _made(children, member) if changed else left


def intersection(left: Tree, right: Tree) -> Tree | None:
    """Return the members of both."""
    children: Tree = {}
    for step, tree in left.items():
        if step != MEMBER and step in right:
            common = intersection(tree, right[step])
            if common is not None:
                children[step] = common
    return _made(children, is_member(left) and is_member(right))


def members(tree: Tree, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all members, in order."""
    for step in sorted(tree):
        if step == MEMBER:
            continue
        path = (*above, step)
        if is_member(tree[step]):
            yield path
        yield from members(tree[step], path)


def path_string(path: tuple[str, ...]) -> str:
    """Return a path as conflicts tell it: `.spec.containers[name="web"].image`."""
    parts = []
    for step in path:
        kind, text = step[0], step[2:]
        if kind == "f":
            parts.append(f".{text}")
        elif kind == "k":
            keys = orjson.loads(text)
            parts.append("[" + ",".join(f"{name}={_shown(value)}" for name, value in sorted(keys.items())) + "]")
        elif kind == "v":
            parts.append(f"[={_shown(orjson.loads(text))}]")
        else:
            parts.append(f"[{text}]")
    return "".join(parts)


def _shown(value: Any) -> str:
    match value:
        case str():
            return go_quote(value)
        case float():
            return go_float(value)
        case _:
            return orjson.dumps(value).decode()


def item_step(item: Any, node: Node, index: int) -> str:
    """Return the step of a list item: its keys for a list of type map, its value for a set."""
    if node.list_type == "map" and isinstance(item, dict):
        keys = {}
        for name in sorted(node.list_keys):
            value = item.get(name)
            if value is None:
                value = _key_default(node, name)
            if value is not None:
                keys[name] = value
        return "k:" + orjson.dumps(keys).decode()
    if node.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    return f"i:{index}"


def missing_key(item: Mapping[str, Any], node: Node) -> str:
    """Return the first key that an item of a list of type map lacks and that has no default, "" if there is none."""
    missing = (name for name in node.list_keys if name not in item and _key_default(node, name) is None)
    return next(missing, "")


def _key_default(node: Node, name: str) -> Any:
    item = node.item_node()
    child = item.field(name) if item is not None else None
    default = child.definition.get("default") if child is not None else None
    if default is None and isinstance(item, StructNode):
        default = _DEFAULT_KEYS.get(name)
        return default if default is not None or child is None else child.zero()
    return default


def list_items(items: list[Any], node: Node) -> dict[str, Any]:
    """Return step -> item; of items with one key, the first counts."""
    result: dict[str, Any] = {}
    for index, item in enumerate(items):
        result.setdefault(item_step(item, node, index), item)
    return result


def is_leaf(value: Any, node: Node) -> bool:
    """Return whether a value is owned as a whole: a scalar, an atomic list or map, something empty."""
    if isinstance(value, dict):
        return not value or node.atomic
    if isinstance(value, list):
        return not value or node.list_type not in ("map", "set") or node.atomic
    return True


def below(value: Any, node: Node) -> Iterator[tuple[str, Any, Node]]:
    """Yield (step, value, node) of the fields or items of a value that is not a leaf."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield f"f:{name}", child, node.field(name) or _RAW
    else:
        item_node = node.item_node() or _RAW
        for step, item in list_items(value, node).items():
            yield step, item, item_node


def _all_of(value: Any, node: Node) -> Tree:
    """Return the set of a value that is there as a whole for the first time (or goes as a whole)."""
    if is_leaf(value, node):
        return {}
    tree: Tree = {MEMBER: {}}
    if isinstance(value, dict):
        for name, child in value.items():
            if isinstance(child, dict | list):
                tree[f"f:{name}"] = _all_of(child, node.field(name) or _RAW)
            else:
                tree[f"f:{name}"] = {}
    else:
        for step, child, child_node in below(value, node):
            tree[step] = _all_of(child, child_node)
    return tree


def _compare(old: Any, new: Any, node: Node) -> tuple[Tree | None, Tree | None]:
    """Return (added or modified, removed) below a place where both values are."""
    shape = type(old)
    if shape is not type(new) or shape not in (dict, list) or (is_leaf(old, node) and is_leaf(new, node)):
        return {}, None
    if node.atomic or (shape is list and node.list_type not in ("map", "set")):
        return {}, None
    if shape is dict:
        return _compare_fields(old, new, node)
    item_node = node.item_node() or _RAW
    before, after = list_items(old, node), list_items(new, node)
    taken: Tree = {}
    removed: Tree = {}
    for step, item in after.items():
        _put(step, before.get(step, _ABSENT), item, item_node, taken, removed)
    for step, item in before.items():
        if step not in after:
            removed[step] = _all_of(item, item_node)
    return taken or None, removed or None


def _put(step: str, old: Any, new: Any, node: Node, taken: Tree, removed: Tree) -> None:
    """Compare one child and put what was found into the parent's trees."""
    if old is _ABSENT:
        taken[step] = _all_of(new, node)
    elif old != new or (type(old) is not type(new)):
        below_taken, below_removed = _compare(old, new, node)
        if below_taken is not None:
            taken[step] = below_taken
        if below_removed is not None:
            removed[step] = below_removed


def _added(new: dict[str, Any], node: Node) -> Tree | None:
    """Return what `_compare_fields` finds where nothing was."""
    always = node.struct.always if isinstance(node, StructNode) else ()
    taken: Tree = {}
    for name, value in new.items():
        if not isinstance(value, dict | list):
            taken[f"f:{name}"] = {}
        elif name not in always:
            taken[f"f:{name}"] = _all_of(value, node.field(name) or _RAW)
        elif value:
            below_taken, _ = _compare(type(value)(), value, node.field(name) or _RAW)
            if below_taken is not None:
                taken[f"f:{name}"] = below_taken
    return taken or None


def _compare_fields(old: dict[str, Any], new: dict[str, Any], node: Node) -> tuple[Tree | None, Tree | None]:
    if not old:
        return _added(new, node), None
    always = node.struct.always if isinstance(node, StructNode) else ()
    taken: Tree = {}
    removed: Tree = {}
    for name, value in new.items():
        before = old.get(name, _ABSENT)
        if before == value and type(before) is type(value):
            continue
        if before is _ABSENT and name in always and isinstance(value, dict | list):
            before = type(value)()
        _put(f"f:{name}", before, value, node.field(name) or _RAW, taken, removed)
    for name, value in old.items():
        if name in new:
            continue
        child = node.field(name) or _RAW
        if name in always and isinstance(value, dict | list):
            _put(f"f:{name}", value, type(value)(), child, taken, removed)
        else:
            removed[f"f:{name}"] = _all_of(value, child)
    return taken or None, removed or None


def _owned_part(obj: Mapping[str, Any], ignore: tuple[str, ...]) -> dict[str, Any]:
    """Return the object without the fields that nobody owns."""
    part = dict(obj)
    for name in ("apiVersion", "kind", *ignore):
        part.pop(name, None)
    metadata = part["metadata"] = dict(obj.get("metadata") or {})
    for name in _STRIPPED:
        metadata.pop(name, None)
    return part


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], root: Node, ignore: tuple[str, ...] = ()
) -> tuple[Tree | None, Tree | None]:
    """Return (fields added or modified, fields removed) between two objects; `ignore` names fields at the top."""
    if not old:
        part = _owned_part(new, ignore)
        metadata = _added(part.pop("metadata"), root.field("metadata") or _RAW)
        taken = _added(part, root) or {}
        if metadata is not None:
            taken["f:metadata"] = metadata
        return taken or None, None
    return _compare_fields(_owned_part(old, ignore), _owned_part(new, ignore), root)


def fields_of(obj: Mapping[str, Any], root: Node, ignore: tuple[str, ...] = ()) -> Tree:
    """Return the set of fields that an applied configuration names: leaves, list items and map entries, in order."""
    part = _owned_part(obj, ignore)
    if not part["metadata"]:
        del part["metadata"]
    return ordered(_named(part, root))


def ordered(tree: Tree) -> Tree:
    """Return a set whose steps stand in the order in which the API shows them: the place itself, fields, keys, values."""
    if len(tree) < 2:
        return {step: ordered(inner) for step, inner in tree.items()}
    return {step: ordered(tree[step]) for step in sorted(tree, key=_rank)}


def _rank(step: str) -> tuple[int, Any]:
    kind, text = step[0], step[2:]
    match kind:
        case "f":
            return 1, text
        case "k":
            return 2, [(name, _value_rank(value)) for name, value in sorted(orjson.loads(text).items())]
        case "v":
            return 3, _value_rank(orjson.loads(text))
        case "i":
            return 4, int(text)
        case _:
            return 0, ""


def _value_rank(value: Any) -> tuple[int, Any]:
    """Numbers come first, in their order, then strings, booleans, and what has no order here by its text."""
    match value:
        case bool():
            return 2, value
        case int() | float():
            return 0, value
        case str():
            return 1, value
        case _:
            return 3, orjson.dumps(value)


def _named(value: Any, node: Node) -> Tree:
    tree: Tree = {}
    for step, child, child_node in below(value, node):
        if is_leaf(child, child_node):
            if not (isinstance(child, list) and not child and child_node.list_type in ("map", "set")):
                tree[step] = {}
            continue
        named = _named(child, child_node)
        if not isinstance(value, dict) or _is_map_entry(node, step):
            tree[step] = {MEMBER: {}, **named} if named else {}
        elif named:
            tree[step] = named
    return tree


def _is_map_entry(node: Node, step: str) -> bool:
    """Return whether a field is an entry of a map and not a field of a struct."""
    if node.shape == "map" or node.shape == "raw":
        return True
    return getattr(node, "fields", None) is not None and step[2:] not in getattr(node, "fields", {})
