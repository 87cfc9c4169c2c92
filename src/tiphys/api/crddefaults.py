"""Whether the defaults in a definition's schema fit it: nothing unknown in them, valid values, valid metadata.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Defaulting".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tiphys.api.causes import invalid_value
from tiphys.api.patch import copy_json
from tiphys.api.schemanode import Findings
from tiphys.api.structural import CustomNode, embedded_causes
from tiphys.api.valuevalidation import validate_value
from tiphys.base.errors import Cause

Schema = Mapping[str, Any]

_EMBEDDED = "x-kubernetes-embedded-resource"
_META = ("metadata", "kind", "apiVersion")


def default_causes(schema: Schema, path: str) -> list[Cause]:
    """Return the causes of bad defaults in the schema of a resource, which is structural."""
    return list(_walk(schema, path, inside_metadata=False, resource=True))


def _walk(schema: Schema, path: str, *, inside_metadata: bool, resource: bool) -> Iterator[Cause]:
    if schema.get(_EMBEDDED):
        resource, inside_metadata = True, False
    if schema.get("default") is not None:
        yield from _one(schema, schema["default"], f"{path}.default", inside_metadata)
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield from _walk(items, f"{path}.items", inside_metadata=inside_metadata, resource=False)
    for name, child in (schema.get("properties") or {}).items():
        inside = inside_metadata or (resource and name in _META)
        yield from _walk(child, f"{path}.properties[{name}]", inside_metadata=inside, resource=False)


def _one(schema: Schema, value: Any, path: str, inside_metadata: bool) -> Iterator[Cause]:
    if not inside_metadata and isinstance(value, dict | list):
        pruned, found = copy_json(value), Findings(struct="")
        CustomNode(schema).decode(pruned, (), found)
        if found.unknown:
            yield invalid_value(path, value, "must not have unknown fields")
        for error in found.errors[:1]:
            yield invalid_value(path, value, f"must result in valid metadata: {error}")
    causes = embedded_causes(value, schema, path) or validate_value(value, schema, path)
    yield from causes
