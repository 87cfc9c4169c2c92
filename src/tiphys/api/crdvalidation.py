"""What a CustomResourceDefinition's versions may say: schemas, printer columns, subresources, fields, deprecations.

Names, scope and conversion are checked by the kind's strategy (api/strategies/extension.py); `with_version_rules` adds
the rules here to it, which know of schemas and paths. The table of built-in kinds joins them. Schemas are checked in
crdschema.py.

Paths are those of upstream's internal form of a definition, which holds what all versions have alike only once: with
one version the schema is `spec.validation.openAPIV3Schema`, not `spec.versions[0].schema.openAPIV3Schema`.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from tiphys.api.causes import duplicate, go_quote, invalid_value, required, too_many
from tiphys.api.crdschema import schema_causes
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.schemapath import BadSchemaPath, resolve_schema_path
from tiphys.api.valueformats import knows_format
from tiphys.base.errors import Cause

_PROTECTED = re.compile(r"(.*\.)?(k8s|kubernetes)\.io")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE_TYPES = ("string", "boolean", "integer")
_SELECTABLE_FIELDS_MAX = 8
_SELECTABLE_FIELDS_FROM = 31
"""Kubernetes minor from which selectable fields of custom resources are on by default."""
_WARNING_MAX_BYTES = 256


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
        causes = strategy.validate(crd, context)
        if context.creating:
            causes = causes + validate_versions(crd, None, context.kubernetes_version[1])
        return causes

    def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
        causes = strategy.validate_update(new, old, context)
        return causes + validate_versions(new, old, context.kubernetes_version[1])

    return replace(
        strategy, validate=validate, validate_update=validate_update, is_heavy=_has_rules, warnings=unknown_formats
    )


def unknown_formats(crd: JsonObject) -> list[str]:
    """Return a warning for each format in a definition's schemas that is not checked."""
    found: dict[str, None] = {}
    for version in (crd.get("spec") or {}).get("versions") or ():
        _find_formats((version.get("schema") or {}).get("openAPIV3Schema"), found)
    return [f"unrecognized format {go_quote(name)}" for name in found]


def _find_formats(schema: Any, found: dict[str, None]) -> None:
    if not isinstance(schema, dict):
        return
    name, kind = schema.get("format") or "", schema.get("type") or ""
    known = {"": knows_format, "string": knows_format, "integer": ("int32", "int64").__contains__}
    known["number"] = ("float", "double").__contains__
    if name and not (kind in known and known[kind](name)):
        found[name] = None
    for child in (schema.get("properties") or {}).values():
        _find_formats(child, found)
    for keyword in ("items", "additionalProperties", "not"):
        _find_formats(schema.get(keyword), found)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for child in schema.get(keyword) or ():
            _find_formats(child, found)


def _has_rules(crd: JsonObject) -> bool:
    """Tell whether a definition has rules that must be compiled."""
    return b'"x-kubernetes-validations"' in orjson.dumps(crd.get("spec"))


def validate_versions(crd: JsonObject, old: JsonObject | None = None, minor: int = 37) -> list[Cause]:
    """Return the causes of everything in a definition's versions that cannot be served.

    `old` is the definition before an update; a schema that it has already may stay, though its rules cost too much.
    """
    spec = crd.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("preserveUnknownFields") and not ((old or {}).get("spec") or {}).get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        causes.append(invalid_value("spec.preserveUnknownFields", True, text))
    versions = [version for version in spec.get("versions") or () if isinstance(version, dict)]
    known = {version.get("name"): version for version in ((old or {}).get("spec") or {}).get("versions") or ()}
    for index, version in enumerate(versions):
        causes += _deprecation_causes(version, f"spec.versions[{index}]")
    has_status = any("status" in (version.get("subresources") or {}) for version in versions)
    for version, path in _each(versions, "schema", "spec.validation"):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None:
            before = ((known.get(version.get("name")) or {}).get("schema") or {}).get("openAPIV3Schema")
            status = has_status if path == "spec.validation" else "status" in (version.get("subresources") or {})
            same = before is not None and before == schema
            causes += schema_causes(schema, f"{path}.openAPIV3Schema", has_status=status, minor=minor, unchanged=same)
    for version, path in _each(versions, "subresources", "spec.subresources"):
        causes += _scale_causes(version.get("subresources") or {}, path)
    for version, path in _each(versions, "additionalPrinterColumns", "spec.additionalPrinterColumns"):
        for position, column in enumerate(version.get("additionalPrinterColumns") or ()):
            causes += _column_causes(column, f"{path}[{position}]")
    if minor >= _SELECTABLE_FIELDS_FROM:
        for version, path in _each(versions, "selectableFields", "spec.selectableFields"):
            causes += _selectable_causes(version, path)
    return causes


def _each(versions: list[JsonObject], field: str, shared: str) -> list[tuple[JsonObject, str]]:
    """Return the versions with the path of a field of theirs: one shared path when all say the same."""
    told = [version.get(field) for version in versions]
    if told and told[0] and all(value == told[0] for value in told):
        return [(versions[0], shared)]
    return [(version, f"spec.versions[{index}].{field}") for index, version in enumerate(versions)]


def _deprecation_causes(version: JsonObject, path: str) -> Iterator[Cause]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return
    where = f"{path}.deprecationWarning"
    if not version.get("deprecated"):
        yield invalid_value(where, warning, "can only be set for deprecated versions")
        return
    if len(warning.encode("utf-8", "surrogatepass")) > _WARNING_MAX_BYTES:
        yield invalid_value(where, warning, f"must be <= {_WARNING_MAX_BYTES} characters long")
    if not warning:
        yield invalid_value(where, warning, "must not be an empty string")
    bad = next((index for index, char in enumerate(warning) if not char.isprintable()), None)
    if bad is not None:
        text = "must only contain printable UTF-8 characters; non-printable character found at index"
        yield invalid_value(where, warning, f"{text} {len(warning[:bad].encode('utf-8', 'surrogatepass'))}")


def _scale_causes(subresources: JsonObject, path: str) -> Iterator[Cause]:
    scale = subresources.get("scale")
    if scale is None:
        return
    wanted = (
        ("specReplicasPath", (".spec.",), ".spec"),
        ("statusReplicasPath", (".status.",), ".status"),
        ("labelSelectorPath", (".spec.", ".status."), "either .spec or .status"),
    )
    for field, prefixes, where in wanted:
        text, at = scale.get(field) or "", f"{path}.scale.{field}"
        if not text:
            if field != "labelSelectorPath":
                yield required(at)
        elif not text.startswith("."):
            yield invalid_value(at, text, "must be a simple json path starting with .")
        elif not text.startswith(prefixes):
            yield invalid_value(at, text, f"should be a json path under {where}")


def _column_causes(column: JsonObject, path: str) -> Iterator[Cause]:
    if not column.get("name"):
        yield required(f"{path}.name")
    kind, form, source = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    one_of = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        yield required(f"{path}.type", one_of)
    elif kind not in _COLUMN_TYPES:
        yield invalid_value(f"{path}.type", kind, one_of)
    if form and form not in _COLUMN_FORMATS:
        yield invalid_value(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not source:
        yield required(f"{path}.JSONPath")
    elif not source.startswith("."):
        yield invalid_value(f"{path}.JSONPath", source, "must be a simple json path starting with .")


def _selectable_causes(version: JsonObject, path: str) -> Iterator[Cause]:
    fields = version.get("selectableFields") or ()
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if fields and schema is None:
        text = "selectableFields may only be set when version.schema.openAPIV3Schema is not included"
        yield invalid_value(path, "", text)
        return
    seen: set[str] = set()
    for index, field in enumerate(fields):
        text, where = field.get("jsonPath") or "", f"{path}[{index}].jsonPath"
        if not text:
            yield required(where)
            continue
        try:
            shown, found = resolve_schema_path(text, schema or {}, brackets=False)
        except BadSchemaPath as error:
            yield invalid_value(where, text, f"is an invalid path: {error}")
            continue
        yield from _selectable_field_causes(text, shown, found, where)
        if shown in seen:
            yield duplicate(where, text)
        seen.add(shown)
    if len(seen) > _SELECTABLE_FIELDS_MAX:
        yield too_many(path, len(seen), _SELECTABLE_FIELDS_MAX)


def _selectable_field_causes(text: str, shown: str, schema: Any, path: str) -> Iterator[Cause]:
    if shown.partition(".")[0] == "metadata":
        yield invalid_value(path, text, "must not point to fields in metadata")
    if schema.get("type") not in _SELECTABLE_TYPES:
        detail = (
            "must point to a field of type string, boolean or integer. "
            "Enum string fields and strings with formats are allowed."
        )
        yield invalid_value(path, text, detail)
