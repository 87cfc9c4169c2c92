"""Schemas of custom kinds as OpenAPI documents publish them.

A definition's schema is published as it is, with what every resource has: apiVersion, kind and metadata, also in
embedded resources. Version 2 of OpenAPI cannot say all of it: what it cannot say is left out, so that a client that
validates by it accepts more, never less.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Publish Validation Schema in
OpenAPI".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiphys.api.kind import Kind

Definitions = Mapping[str, Mapping[str, Any]]

_REFERENCE = "#/definitions/"
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_DESCRIBED = "io.k8s.api.core.v1.ConfigMap", "io.k8s.api.core.v1.ConfigMapList"
"""A kind and its list, whose descriptions of the common fields are those of all kinds."""
_PRESERVE, _EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_IDENTITY = "x-kubernetes-group-version-kind"
_NOT_IN_V2 = ("allOf", "anyOf", "not", "nullable", "oneOf")
_STRUCTURE = ("items", "properties", "additionalProperties")


def custom_schemas(kind: Kind, name: str, list_name: str, definitions: Definitions) -> dict[str, Mapping[str, Any]]:
    """Return the schemas of a custom kind and of its list, by name of the definition; references are those of v2."""
    common = _common(definitions, _DESCRIBED[0], _OBJECT_META)
    published = kind.published_schema or {"type": "object", _PRESERVE: True}
    schema = dict(_with_identity(published, common))
    schema["properties"] = {**(schema.get("properties") or {}), **common}
    schema[_IDENTITY] = [_identity(kind, kind.kind)]
    if kind.selectable_fields:
        schema["x-kubernetes-selectable-fields"] = [{"fieldPath": path} for path in sorted(kind.selectable_fields)]
    listing = {
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            **_common(definitions, _DESCRIBED[1], _LIST_META),
            "items": {
                "description": f"List of {kind.plural}. More info: https://git.k8s.io/community/contributors/devel/"
                "sig-architecture/api-conventions.md",
                "type": "array",
                "items": {"$ref": _REFERENCE + name},
            },
        },
        _IDENTITY: [_identity(kind, kind.list_kind)],
    }
    return {name: schema, list_name: listing}


def _identity(kind: Kind, name: str) -> dict[str, str]:
    return {"group": kind.group, "kind": name, "version": kind.version}


def _common(definitions: Definitions, like: str, metadata: str) -> dict[str, Any]:
    """Return apiVersion, kind and metadata with the descriptions that a built-in kind has."""
    told = (definitions.get(like) or {}).get("properties") or {}
    fields: dict[str, Any] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    fields["metadata"] = {"$ref": _REFERENCE + metadata}
    for name, field in fields.items():
        description = (told.get(name) or {}).get("description")
        if description:
            field["description"] = description
    return fields


def _with_identity(schema: Mapping[str, Any], common: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with apiVersion, kind and metadata in the embedded resources below."""
    changed: dict[str, Any] = {}
    properties = schema.get("properties")
    if properties:
        below = {name: _embedded(child, common) for name, child in properties.items()}
        if any(below[name] is not properties[name] for name in below):
            changed["properties"] = below
    for keyword in ("items", "additionalProperties"):
        child = schema.get(keyword)
        if isinstance(child, Mapping):
            made = _embedded(child, common)
            if made is not child:
                changed[keyword] = made
    return {**schema, **changed} if changed else schema


def _embedded(schema: Mapping[str, Any], common: Mapping[str, Any]) -> Mapping[str, Any]:
    made = _with_identity(schema, common)
    if not schema.get(_EMBEDDED):
        return made
    return {**made, "properties": {**(made.get("properties") or {}), **common}}


def as_v2(schema: Any) -> Any:
    """Return a schema of a custom kind, or of any other, without what OpenAPI v2 cannot say."""
    if isinstance(schema, list):
        return [as_v2(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get(_PRESERVE) and _IDENTITY in schema:
        return {"type": "object", _IDENTITY: schema[_IDENTITY]}
    dropped = set(_NOT_IN_V2)
    if schema.get(_PRESERVE):
        dropped.update(_STRUCTURE)
    if schema.get("nullable"):
        dropped.update(("type", *_STRUCTURE))
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in dropped:
            continue
        if key == "properties" and isinstance(value, dict):
            made[key] = {name: as_v2(child) for name, child in value.items()}
        elif key in ("default", "enum", "example") or key.startswith("x-kubernetes-"):
            made[key] = value
        else:
            made[key] = as_v2(value)
    if "required" in made and isinstance(schema.get("properties"), dict):
        _relax_required(made, schema["properties"])
    return made


def _relax_required(made: dict[str, Any], properties: Mapping[str, Any]) -> None:
    """A field that may be null may be absent for clients that do not know null."""
    kept = [name for name in made["required"] if not (properties.get(name) or {}).get("nullable")]
    if kept:
        made["required"] = kept
    else:
        del made["required"]
