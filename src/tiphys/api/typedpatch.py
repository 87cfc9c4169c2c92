"""What makes an applied configuration no part of an object: values of another form than their field's, fields that
nobody could own, items that nobody could tell apart. Only configurations are held to it; a stored object may have two
items with one key.

A form is coarse, as upstream's: text, number, boolean, list, map. Integers, formats and limits are validated later.

Spec: Kubernetes documentation, "Server-Side Apply", "Merge strategy"; sigs.k8s.io/structured-merge-diff (messages).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from tiphys.api.causes import format_go, go_quote
from tiphys.api.fieldset import item_step, missing_key, path_string
from tiphys.api.schemanode import (
    BoolNode,
    BytesNode,
    ConvertedNode,
    FloatNode,
    IntegerNode,
    IntOrStringNode,
    ListNode,
    MapNode,
    Node,
    StringNode,
    StructNode,
)
from tiphys.api.structural import CustomNode

_SCALAR = "any scalar"
_ANY = ""
_HAS_FORM: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "numeric": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    _SCALAR: lambda value: isinstance(value, str | int | float),
    "list": lambda value: isinstance(value, list),
    "map": lambda value: isinstance(value, dict),
}
_FORMS = {"string": "string", "boolean": "boolean", "integer": "numeric", "number": "numeric"}
_PLAIN = ("int32", "int64", "float", "double", "byte", "")
"""Formats that leave a type what it is; upstream takes any scalar where it is told another one."""
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
            elif (child_node := node.field(name)) is not None:
                yield from _value(child, child_node, below, steps, unknown)
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
        if item_node is not None:
            yield from _value(item, item_node, f"{place}[{index}]", (*path, step), unknown)


def _value(value: Any, node: Node, place: str, path: tuple[str, ...], unknown: set[str]) -> Iterator[str]:
    problem = _form_problem(value, node)
    if problem:
        unknown -= {other for other in unknown if other.startswith((f"{place}.", f"{place}["))}
        yield f"{path_string(path)}: {problem}"
    elif isinstance(value, dict | list):
        yield from _walk(value, node, place, path, unknown)


def _form_problem(value: Any, node: Node) -> str:
    """Return why a value has not the form of its field, in Go's words; "" if it has, or is null."""
    form = _form_of(node)
    if value is None or form == _ANY or _HAS_FORM[form](value):
        return ""
    if form == "numeric":
        return f"expected numeric (int or float), got {_go_type(value)}"
    if form == "string":
        return f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    return f"expected {form}, got &{{{format_go(value)}}}"


def _form_of(node: Node) -> str:
    match node:
        case CustomNode():
            return _custom_form(node)
        case StringNode() | BytesNode():
            return "string"
        case BoolNode():
            return "boolean"
        case IntegerNode() | FloatNode():
            return "numeric"
        case IntOrStringNode() | ConvertedNode():
            return _SCALAR
        case ListNode():
            return "list"
        case MapNode() | StructNode():
            return "map"
    return _ANY


def _custom_form(node: CustomNode) -> str:
    if node.kind != "scalar":
        return {"list": "list", "raw": _ANY}.get(node.kind, "map")
    if node.definition.get("x-kubernetes-int-or-string") or node.definition.get("format") not in (*_PLAIN, None):
        return _SCALAR
    return _FORMS.get(node.definition.get("type", ""), _ANY)


def _go_type(value: Any) -> str:
    match value:
        case str():
            return "string"
        case bool():
            return "bool"
        case dict():
            return "map[string]interface {}"
    return "[]interface {}"


def _go_syntax(value: Any) -> str:
    """Return a value as Go's %#v prints it."""
    match value:
        case str():
            return go_quote(value)
        case dict():
            entries = ", ".join(f"{go_quote(key)}:{_go_syntax(value[key])}" for key in sorted(value))
            return f"map[string]interface {{}}{{{entries}}}"
        case list():
            return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
        case None:
            return "interface {}(nil)"
    return format_go(value)


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
