"""What makes an applied configuration no part of an object: fields that nobody could own, items that nobody could tell
apart. Only configurations are held to it; a stored object may have two items with one key.

Spec: Kubernetes documentation, "Server-Side Apply", "Merge strategy"; sigs.k8s.io/structured-merge-diff (messages).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from tiphys.api.causes import go_quote
from tiphys.api.fieldset import item_step, missing_key, path_string
from tiphys.api.schemanode import Node

_MAXIMUM = 100
"""Problems told of one configuration."""


def typed_problems(applied: Mapping[str, Any], root: Node, unknown: Collection[str]) -> str:
    """Return what is wrong with a configuration, in upstream's words; "" if nothing is.

    `unknown` has the paths of the fields that the schema does not have, as decoding told them.
    """
    waiting = set(unknown)
    problems = list(islice(_walk(applied, root, "", (), waiting), _MAXIMUM))
    problems += [_undeclared(f".{place}") for place in sorted(waiting)[: _MAXIMUM - len(problems)]]
    return "\n  ".join(["errors:", *problems]) if len(problems) > 1 else "".join(problems)


def _walk(value: Any, node: Node, place: str, path: tuple[str, ...], unknown: set[str]) -> Iterator[str]:
    """Yield problems at and below a value; `place` is its path with indexes, `path` the steps that lead to it.

    What is told leaves `unknown`."""
    if isinstance(value, dict):
        for name, child in value.items():
            below = f"{place}.{name}".removeprefix(".")
            steps = (*path, f"f:{name}")
            if below in unknown:
                unknown.remove(below)
                yield _undeclared(path_string(steps))
            elif isinstance(child, dict | list) and (child_node := node.field(name)) is not None:
                yield from _walk(child, child_node, below, steps, unknown)
    elif isinstance(value, list):
        yield from _walk_items(value, node, place, path, unknown)


def _walk_items(items: list[Any], node: Node, place: str, path: tuple[str, ...], unknown: set[str]) -> Iterator[str]:
    item_node = node.item_node()
    told_apart = node.list_type in ("map", "set") and not node.atomic
    seen: set[str] = set()
    for index, item in enumerate(items):
        step = f"i:{index}"
        if told_apart:
            problem = _item_problem(item, node)
            if problem:
                yield f"{path_string(path)}: element {index}: {problem}"
                return
            step = item_step(item, node, index)
            if step in seen:
                yield f"{path_string(path)}: duplicate entries for key {path_string((step,))}"
            seen.add(step)
        if isinstance(item, dict | list) and item_node is not None:
            yield from _walk(item, item_node, f"{place}[{index}]", (*path, step), unknown)


def _undeclared(path: str) -> str:
    return f"{path}: field not declared in schema"


def _item_problem(item: Any, node: Node) -> str:
    """Return why an item of a list cannot be told from the others."""
    if node.list_type == "set":
        match item:
            case dict():
                return "associative list without keys has an element that's a map type"
            case list():
                return "not supported: associative list with lists as elements"
            case None:
                return "associative list without keys has an element that's an explicit null"
        return ""
    if item is None:
        return "associative list with keys may not have a null element"
    if not isinstance(item, dict):
        return "associative list with keys may not have non-map elements"
    name = missing_key(item, node)
    if not name:
        return ""
    return (
        f"associative list with keys has an element that omits key field {go_quote(name)} "
        "(and doesn't have default value)"
    )
