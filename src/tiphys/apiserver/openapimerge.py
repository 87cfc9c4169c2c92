"""OpenAPI v2 documents of other servers: put into this server's own, and told as v3 where they have no v3. Pure.

In a merged document paths that this server has stay; a definition that is another one under the same name gets a new
name, and what refers to it follows.

Spec: Kubernetes documentation, "OpenAPI V2", "OpenAPI V3"; OpenAPI Specifications 2.0 and 3.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
_PREFIX = "#/definitions/"
_V3_PREFIX = "#/components/schemas/"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_TYPE_KEYS = ("type", "format", "enum", "items", "default", "uniqueItems")


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


def convert_to_v3(part: Mapping[str, Any]) -> Document:
    """Return the v3 document of the `paths` and `definitions` of a v2 document."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": {path: _v3_path(item) for path, item in part["paths"].items()},
        "components": {"schemas": {name: _v3_schema(schema) for name, schema in part["definitions"].items()}},
    }


def _v3_schema(node: Any) -> Any:
    if isinstance(node, list):
        return [_v3_schema(value) for value in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        moved = {"$ref": _V3_PREFIX + reference.removeprefix(_PREFIX)}
        others = {key: value for key, value in node.items() if key != "$ref"}
        return {**others, "allOf": [moved]} if others else moved
    return {key: _v3_schema(value) for key, value in node.items()}


def _v3_path(item: Mapping[str, Any]) -> Document:
    converted: Document = {}
    for key, value in item.items():
        if key in _METHODS:
            converted[key] = _v3_operation(value)
        elif key == "parameters":
            converted[key] = [_v3_parameter(parameter) for parameter in value]
        else:
            converted[key] = value
    return converted


def _v3_operation(operation: Mapping[str, Any]) -> Document:
    converted = {key: value for key, value in operation.items() if key not in ("consumes", "produces", "schemes")}
    parameters = operation.get("parameters") or []
    converted["parameters"] = [_v3_parameter(parameter) for parameter in parameters if parameter.get("in") != "body"]
    for body in (parameter for parameter in parameters if parameter.get("in") == "body"):
        converted["requestBody"] = {
            "content": _v3_content(operation.get("consumes"), body.get("schema") or {}),
            **({"required": True} if body.get("required") else {}),
        }
    converted["responses"] = {
        code: {
            "description": answer.get("description", ""),
            **({"content": _v3_content(operation.get("produces"), answer["schema"])} if "schema" in answer else {}),
        }
        for code, answer in (operation.get("responses") or {}).items()
    }
    return converted


def _v3_content(media_types: Any, schema: Any) -> Document:
    return {media_type: {"schema": _v3_schema(schema)} for media_type in media_types or ("application/json",)}


def _v3_parameter(parameter: Mapping[str, Any]) -> Document:
    kept = {key: value for key, value in parameter.items() if key not in _TYPE_KEYS}
    return {**kept, "schema": {key: parameter[key] for key in _TYPE_KEYS if key in parameter}}
