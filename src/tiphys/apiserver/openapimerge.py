"""OpenAPI v2 documents of other servers put into this server's own. Pure.

Paths that this server has stay; a definition that is another one under the same name gets a new name, and what refers to
it follows.

Spec: Kubernetes documentation, "OpenAPI V2"; OpenAPI Specification 2.0, "Reference Object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
_PREFIX = "#/definitions/"


def merge_v2(own: Document, others: Sequence[Mapping[str, Any]]) -> Document:
    """Return a document with the `paths` and `definitions` of others added; the arguments are not changed."""
    if not others:
        return own
    paths, definitions = dict(own["paths"]), dict(own["definitions"])
    for other in others:
        names = _new_names(definitions, other["definitions"])
        for name, definition in other["definitions"].items():
            definitions.setdefault(names.get(name, name), _renamed(definition, names))
        for path, item in other["paths"].items():
            paths.setdefault(path, _renamed(item, names))
    return {**own, "paths": paths, "definitions": definitions}


def _new_names(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, str]:
    """Return old name -> new name of the added definitions whose names stand for something else already."""
    names: dict[str, str] = {}
    for name, definition in added.items():
        candidate, number = name, 1
        while candidate in known and known[candidate] != definition:
            number += 1
            candidate = f"{name}_v{number}"
        if candidate != name:
            names[name] = candidate
    return names


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _PREFIX + names.get(value.removeprefix(_PREFIX), value.removeprefix(_PREFIX))
        if key == "$ref" and isinstance(value, str)
        else _renamed(value, names)
        for key, value in node.items()
    }
