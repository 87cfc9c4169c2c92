"""What a CustomResourceDefinition's versions may say: structural schemas, printer columns, subresources, fields.

Names, scope and conversion are checked by the kind's strategy (api/strategies/extension.py); `with_version_rules` adds
the rules here to it, which know of schemas and JSON paths. The table of built-in kinds joins them.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.jsonpath import BadPath, parse_json_path
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.pattern import pattern_problem
from tiphys.base.errors import Cause

APPROVAL_ANNOTATION = "api-approved.kubernetes.io"

_PROTECTED = re.compile(r"(.*\.)?(k8s|kubernetes)\.io")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COMBINATORS = ("allOf", "anyOf", "oneOf")
_NOT_INSIDE_COMBINATORS = ("additionalProperties", "default", "description", "nullable", "title", "type")


def is_protected(group: str) -> bool:
    """Tell whether a group belongs to the Kubernetes community, whose resources need an approval."""
    return _PROTECTED.fullmatch(group) is not None


def storage_version(crd: JsonObject) -> str:
    """Return the name of the version in which objects are stored, "" if none is marked."""
    versions = (crd.get("spec") or {}).get("versions") or ()
    return next((version.get("name", "") for version in versions if version.get("storage")), "")


def is_established(crd: JsonObject) -> bool:
    """Tell whether the resource of a definition is served."""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def with_version_rules(strategy: Strategy) -> Strategy:
    """Return the strategy with the rules of this module added to its validation."""

    def validate(crd: JsonObject, context: Context) -> list[Cause]:
        return strategy.validate(crd, context) + validate_versions(crd)

    return replace(strategy, validate=validate)


def validate_versions(crd: JsonObject) -> list[Cause]:
    """Return the causes of everything in a definition's versions that cannot be served."""
    spec = crd.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("preserveUnknownFields"):
        text = "must be false in order to use defaults in the schema"
        causes.append(invalid_value("spec.preserveUnknownFields", True, text))
    for index, version in enumerate(spec.get("versions") or ()):
        path = f"spec.versions[{index}]"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None:
            causes += structural_causes(schema, f"{path}.schema.openAPIV3Schema")
        causes += _subresource_causes(version.get("subresources") or {}, f"{path}.subresources")
        for position, column in enumerate(version.get("additionalPrinterColumns") or ()):
            causes += _column_causes(column, f"{path}.additionalPrinterColumns[{position}]")
        for position, field in enumerate(version.get("selectableFields") or ()):
            causes += _path_causes(field.get("jsonPath", ""), f"{path}.selectableFields[{position}].jsonPath")
    return causes


def _subresource_causes(subresources: JsonObject, path: str) -> list[Cause]:
    scale = subresources.get("scale")
    if scale is None:
        return []
    causes: list[Cause] = []
    wanted = (("specReplicasPath", (".spec.",)), ("statusReplicasPath", (".status.",)))
    for field, prefixes in (*wanted, ("labelSelectorPath", (".spec.", ".status."))):
        text = scale.get(field, "")
        if not text:
            if field != "labelSelectorPath":
                causes.append(required(f"{path}.scale.{field}"))
        elif not text.startswith(prefixes):
            where = "either .spec or .status" if len(prefixes) > 1 else prefixes[0].rstrip(".")
            causes.append(invalid_value(f"{path}.scale.{field}", text, f"should be a json path under {where}"))
    return causes


def _column_causes(column: JsonObject, path: str) -> list[Cause]:
    causes = [required(f"{path}.{field}") for field in ("name", "type") if not column.get(field)]
    if column.get("type") and column["type"] not in _COLUMN_TYPES:
        causes.append(not_supported(f"{path}.type", column["type"], _COLUMN_TYPES))
    return causes + _path_causes(column.get("jsonPath", ""), f"{path}.jsonPath")


def _path_causes(text: str, path: str) -> list[Cause]:
    if not text:
        return [required(path)]
    try:
        parse_json_path(text)
    except BadPath as error:
        return [invalid_value(path, text, str(error))]
    return []


def structural_causes(schema: Mapping[str, Any], path: str) -> list[Cause]:
    """Return a cause for everything that keeps an OpenAPI v3 schema from being structural."""
    causes: list[Cause] = []
    kind = schema.get("type", "")
    if not kind:
        causes.append(required(f"{path}.type", "must not be empty at the root"))
    elif kind != "object":
        causes.append(invalid_value(f"{path}.type", kind, "must be object at the root"))
    metadata = (schema.get("properties") or {}).get("metadata") or {}
    if set(metadata.get("properties") or {}) - {"name", "generateName"}:
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        causes.append(forbidden(f"{path}.properties[metadata]", text))
    return causes + _node_causes(schema, path)


def _node_causes(schema: Mapping[str, Any], path: str) -> list[Cause]:
    """Return the causes of a schema node whose type was checked by its parent."""
    causes: list[Cause] = []
    if schema.get("$ref"):
        causes.append(forbidden(f"{path}.$ref", "$ref is not supported"))
    causes += _pattern_causes(schema, path)
    if schema.get("type") and schema["type"] not in _TYPES:
        causes.append(not_supported(f"{path}.type", schema["type"], _TYPES))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden(f"{path}.uniqueItems", text))
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    if additional is False:
        causes.append(forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    if properties and additional is not None:
        text = "additionalProperties and properties are mutual exclusive"
        causes.append(forbidden(f"{path}.additionalProperties", text))
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        causes.append(required(f"{path}.items", "must be specified"))
    for name, child in properties.items():
        causes += _child_causes(child, f"{path}.properties[{name}]", "specified object fields")
    if isinstance(additional, dict):
        causes += _child_causes(additional, f"{path}.additionalProperties", "specified object fields")
    if isinstance(schema.get("items"), dict):
        causes += _child_causes(schema["items"], f"{path}.items", "specified array items")
    for name in _COMBINATORS:
        for index, child in enumerate(schema.get(name) or ()):
            causes += _combined_causes(child, f"{path}.{name}[{index}]", bool(schema.get("x-kubernetes-int-or-string")))
    if isinstance(schema.get("not"), dict):
        causes += _combined_causes(schema["not"], f"{path}.not", False)
    return causes


def _pattern_causes(schema: Mapping[str, Any], path: str) -> list[Cause]:
    problem = pattern_problem(schema.get("pattern") or "")
    if not problem:
        return []
    text = f"must be a valid regular expression, but isn't: {problem}"
    return [invalid_value(f"{path}.pattern", schema["pattern"], text)]


def _child_causes(schema: Mapping[str, Any], path: str, where: str) -> list[Cause]:
    causes: list[Cause] = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free and not schema.get("$ref"):
        causes.append(required(f"{path}.type", f"must not be empty for {where}"))
    if schema.get("x-kubernetes-int-or-string") and schema.get("type"):
        text = "must be empty if x-kubernetes-int-or-string is true"
        causes.append(invalid_value(f"{path}.type", schema["type"], text))
    return causes + _node_causes(schema, path)


def _combined_causes(schema: Mapping[str, Any], path: str, int_or_string: bool) -> list[Cause]:
    """Return the causes of a schema inside allOf and the like, which may only restrict values."""
    causes = [
        forbidden(f"{path}.{name}", "must be empty to be structural")
        for name in _NOT_INSIDE_COMBINATORS
        if schema.get(name) and not (name == "type" and int_or_string)
    ]
    causes += _pattern_causes(schema, path)
    for name, child in (schema.get("properties") or {}).items():
        causes += _combined_causes(child, f"{path}.properties[{name}]", False)
    if isinstance(schema.get("items"), dict):
        causes += _combined_causes(schema["items"], f"{path}.items", False)
    for name in _COMBINATORS:
        for index, child in enumerate(schema.get(name) or ()):
            causes += _combined_causes(child, f"{path}.{name}[{index}]", int_or_string)
    return causes
