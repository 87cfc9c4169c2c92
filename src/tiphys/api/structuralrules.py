"""Whether a schema is structural: every field has one type, told outside of allOf, anyOf, oneOf and not.

Pure; a cause for each breach, sorted by text, in upstream's words. The other rules of a definition's schemas are in
crdschema.py.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tiphys.api.causes import forbidden, invalid_value, required
from tiphys.api.pattern import pattern_problem
from tiphys.base.errors import Cause

Schema = Mapping[str, Any]

_EMBEDDED = "x-kubernetes-embedded-resource"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EITHER = [{"type": "integer"}, {"type": "string"}]
_WHERE = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
_FREE_IN_METADATA = ("properties", "type", "default", "description")
_NOT_NESTED = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (_PRESERVE, "must be false to be structural"),
    (_EMBEDDED, "must be false to be structural"),
    (_INT_OR_STRING, "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)
"""What a schema inside of allOf and the like may not say, in upstream's order."""


def structural_causes(schema: Schema, path: str) -> list[Cause]:
    """Return a cause for everything that keeps an OpenAPI v3 schema from being structural."""
    causes = [*_invariants(schema, "root", path), *_incomplete(schema, schema, path, path)]
    return sorted(causes, key=lambda cause: (cause.field, cause.message))


def _children(schema: Schema, path: str) -> Iterator[tuple[Schema, str, str]]:
    """Yield (schema, level, path) of what stands below a place of the structure."""
    if isinstance(schema.get("items"), Mapping):
        yield schema["items"], "item", f"{path}.items"
    for name, child in (schema.get("properties") or {}).items():
        yield child, "field", f"{path}.properties[{name}]"
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield schema["additionalProperties"], "field", f"{path}.additionalProperties"


def _invariants(schema: Schema, level: str, path: str) -> Iterator[Cause]:
    if schema.get("type") == "array" and schema.get("items") is None:
        yield required(f"{path}.items", "must be specified")
    for child, child_level, child_path in _children(schema, path):
        yield from _invariants(child, child_level, child_path)
    if schema.get("additionalProperties") is not None and level == "root":
        yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
    yield from _extensions(schema, path)
    yield from _values(schema, path)
    yield from _types(schema, level, path)
    yield from _metadata(schema, level, path)


def _extensions(schema: Schema, path: str) -> Iterator[Cause]:
    if schema.get(_INT_OR_STRING):
        for name in (_PRESERVE, _EMBEDDED):
            if schema.get(name):
                yield invalid_value(f"{path}.{name}", True, "must be false if x-kubernetes-int-or-string is true")


def _types(schema: Schema, level: str, path: str) -> Iterator[Cause]:
    kind = schema.get("type") or ""
    if schema.get(_EMBEDDED):
        text = "must be object if x-kubernetes-embedded-resource is true"
        if not kind:
            yield required(f"{path}.type", text)
        elif kind != "object":
            yield invalid_value(f"{path}.type", kind, text)
        if schema.get("additionalProperties") is not None:
            text = "must not be used if x-kubernetes-embedded-resource is set"
            yield forbidden(f"{path}.additionalProperties", text)
        if not schema.get(_PRESERVE) and not schema.get("properties"):
            text = (
                "must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields"
            )
            yield required(f"{path}.properties", text)
    elif not kind and not schema.get(_INT_OR_STRING) and not schema.get(_PRESERVE):
        yield required(f"{path}.type", f"must not be empty {_WHERE[level]}")
    if level == "root" and kind and kind != "object":
        yield invalid_value(f"{path}.type", kind, "must be object at the root")
    if schema.get(_INT_OR_STRING) and kind:
        yield invalid_value(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")


def _metadata(schema: Schema, level: str, path: str) -> Iterator[Cause]:
    """The type and metadata of a resource are what they are everywhere."""
    properties = schema.get("properties") or {}
    resource = level == "root" or bool(schema.get(_EMBEDDED))
    for name, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object")):
        if resource and name in properties and properties[name].get("type") != wanted:
            told = properties[name].get("type") or ""
            yield invalid_value(f"{path}.properties[{name}].type", told, f"must be {wanted}")
    metadata = properties.get("metadata")
    if metadata is None or level != "root":
        return
    more = set(metadata.get("properties") or ()) - {"name", "generateName"}
    if more or any(metadata[name] for name in metadata if name not in _FREE_IN_METADATA):
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(f"{path}.properties[metadata]", text)


def _values(schema: Schema, path: str) -> Iterator[Cause]:
    """Check what only restricts values; the two usual spellings of int-or-string are allowed."""
    if schema.get("anyOf") != _EITHER:
        for index, part in enumerate(schema.get("anyOf") or ()):
            yield from _nested(part, f"{path}.anyOf[{index}]")
    for index, part in enumerate(schema.get("allOf") or ()):
        yield from _nested(part, f"{path}.allOf[{index}]", either=index == 0)
    for index, part in enumerate(schema.get("oneOf") or ()):
        yield from _nested(part, f"{path}.oneOf[{index}]")
    if isinstance(schema.get("not"), Mapping):
        yield from _nested(schema["not"], f"{path}.not")
    problem = pattern_problem(schema.get("pattern") or "")
    if problem:
        text = f"must be a valid regular expression, but isn't: {problem}"
        yield invalid_value(f"{path}.pattern", schema["pattern"], text)


def _nested(schema: Schema, path: str, *, either: bool = False) -> Iterator[Cause]:
    """Check a schema inside of allOf and the like. `either`: it may say int-or-string once more."""
    if schema.get("anyOf") == _EITHER and not either:
        for index, part in enumerate(schema["anyOf"]):
            yield from _nested(part, f"{path}.anyOf[{index}]")
    yield from _values(schema, path)
    if isinstance(schema.get("items"), Mapping):
        yield from _nested(schema["items"], f"{path}.items")
    for name, child in (schema.get("properties") or {}).items():
        yield from _nested(child, f"{path}.properties[{name}]")
    for name, text in _NOT_NESTED:
        value = schema.get(name)
        if value if not name.endswith("Properties") and name != "default" else value is not None:
            yield forbidden(f"{path}.{name}", text)
    if "metadata" in (schema.get("properties") or {}):
        yield forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _incomplete(values: Schema, structure: Schema, path: str, told: str) -> Iterator[Cause]:
    """Yield what the restrictions of `values` speak of and the structure does not have."""
    for name in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(values.get(name) or ()):
            yield from _unknown_parts(part, structure, path, f"{told}.{name}[{index}]")
    if isinstance(values.get("not"), Mapping):
        yield from _unknown_parts(values["not"], structure, path, f"{told}.not")
    if values is structure:
        for child, _, child_path in _children(structure, path):
            yield from _incomplete(child, child, child_path, child_path)


def _unknown_parts(part: Schema, structure: Schema | None, path: str, told: str) -> Iterator[Cause]:
    if structure is None:
        yield required(path, f"because it is defined in {told}")
        return
    yield from _incomplete(part, structure, path, told)
    if isinstance(part.get("items"), Mapping):
        items = structure.get("items")
        known = items if isinstance(items, Mapping) else None
        yield from _unknown_parts(part["items"], known, f"{path}.items", f"{told}.items")
    known_properties = structure.get("properties") or {}
    for name, child in (part.get("properties") or {}).items():
        step = f"properties[{name}]"
        yield from _unknown_parts(child, known_properties.get(name), f"{path}.{step}", f"{told}.{step}")
