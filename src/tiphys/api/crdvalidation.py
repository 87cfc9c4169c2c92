"""The rules of CustomResourceDefinition objects: names, versions, and schemas that must be structural.

`CUSTOM_RESOURCE_DEFINITION` is the strategy of the kind; the table of built-in kinds takes it from here. The status is
not decided here (apiserver/customresources.py plans it) but for `storedVersions`, which must name the storage version
before the first object is written.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tiphys.api.causes import forbidden, immutable, invalid_value, not_supported, required
from tiphys.api.jsonpath import BadPath, parse_json_path
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_1035_label, validate_dns_subdomain
from tiphys.base.errors import Cause

APPROVAL_ANNOTATION = "api-approved.kubernetes.io"

_PROTECTED = re.compile(r"(.*\.)?(k8s|kubernetes)\.io")
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


def _default(crd: JsonObject) -> None:
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if not names.get("singular") and kind:
        names["singular"] = kind.lower()
    if not names.get("listKind") and kind:
        names["listKind"] = f"{kind}List"
    spec.setdefault("conversion", {}).setdefault("strategy", "None")


def _prepare_for_create(crd: JsonObject, context: Context) -> None:
    crd["status"] = {
        "acceptedNames": {"kind": "", "plural": ""},
        "conditions": [],
        "storedVersions": [storage_version(crd)],
    }


def _prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    status = dict(old.get("status") or {})
    stored = list(status.get("storedVersions") or [])
    if storage_version(new) and storage_version(new) not in stored:
        stored.append(storage_version(new))
    new["status"] = {**status, "storedVersions": stored}


def _validate(crd: JsonObject, context: Context) -> list[Cause]:
    spec = crd.get("spec") or {}
    names = spec.get("names") or {}
    causes: list[Cause] = []
    metadata = crd.get("metadata") or {}
    if metadata.get("name") != f"{names.get('plural', '')}.{spec.get('group', '')}":
        causes.append(
            invalid_value("metadata.name", metadata.get("name", ""), 'must be spec.names.plural+"."+spec.group')
        )
    if is_protected(spec.get("group", "")) and not (metadata.get("annotations") or {}).get(APPROVAL_ANNOTATION):
        text = (
            f'protected groups must have approval annotation "{APPROVAL_ANNOTATION}", '
            "see https://github.com/kubernetes/enhancements/pull/1111"
        )
        causes.append(required(f"metadata.annotations[{APPROVAL_ANNOTATION}]", text))
    causes += _group_causes(spec.get("group", ""))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        scope = spec.get("scope", "")
        causes.append(
            not_supported("spec.scope", scope, ("Cluster", "Namespaced")) if scope else required("spec.scope")
        )
    causes += _names_causes(names)
    if spec.get("preserveUnknownFields"):
        text = "must be false in order to use defaults in the schema"
        causes.append(invalid_value("spec.preserveUnknownFields", True, text))
    causes += _versions_causes(spec.get("versions") or [])
    causes += _conversion_causes(spec.get("conversion") or {})
    stored = (crd.get("status") or {}).get("storedVersions") or ()
    known = {version.get("name") for version in spec.get("versions") or ()}
    for index, version in enumerate(stored):
        if version and version not in known:
            text = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            causes.append(invalid_value(f"status.storedVersions[{index}]", version, text))
    return causes


def _group_causes(group: str) -> list[Cause]:
    if not group:
        return [required("spec.group")]
    found = [invalid_value("spec.group", group, text) for text in validate_dns_subdomain(group)]
    if not found and "." not in group:
        found.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    return found


def _names_causes(names: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    for field in ("plural", "singular"):
        text = names.get(field, "")
        if not text and field == "plural":
            causes.append(required(f"spec.names.{field}"))
        elif text:
            causes += (invalid_value(f"spec.names.{field}", text, m) for m in validate_dns_1035_label(text))
    for field in ("kind", "listKind"):
        text = names.get(field, "")
        if not text:
            causes.append(required(f"spec.names.{field}"))
        for message in validate_dns_1035_label(text.lower()) if text else ():
            detail = f"may have mixed case, but should otherwise match: {message}"
            causes.append(invalid_value(f"spec.names.{field}", text, detail))
    for field in ("shortNames", "categories"):
        for index, text in enumerate(names.get(field) or ()):
            path = f"spec.names.{field}[{index}]"
            causes += (invalid_value(path, text, message) for message in validate_dns_1035_label(text))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(invalid_value("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    return causes


def _versions_causes(versions: list[JsonObject]) -> list[Cause]:
    causes: list[Cause] = []
    names = [version.get("name", "") for version in versions]
    if len(set(names)) != len(names):
        causes.append(invalid_value("spec.versions", versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", versions, text))
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name", "")
        causes += (invalid_value(f"{path}.name", name, message) for message in validate_dns_1035_label(name))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
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


def _conversion_causes(conversion: JsonObject) -> list[Cause]:
    strategy = conversion.get("strategy", "")
    webhook = conversion.get("webhook")
    if strategy not in ("None", "Webhook"):
        return [not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))]
    if strategy == "None":
        if webhook is None:
            return []
        return [forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")]
    causes = []
    if not (webhook or {}).get("clientConfig"):
        text = "required when strategy is set to Webhook"
        causes.append(required("spec.conversion.webhook.clientConfig", text))
    if not (webhook or {}).get("conversionReviewVersions"):
        causes.append(required("spec.conversion.webhook.conversionReviewVersions"))
    return causes


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
    for name, child in (schema.get("properties") or {}).items():
        causes += _combined_causes(child, f"{path}.properties[{name}]", False)
    if isinstance(schema.get("items"), dict):
        causes += _combined_causes(schema["items"], f"{path}.items", False)
    for name in _COMBINATORS:
        for index, child in enumerate(schema.get(name) or ()):
            causes += _combined_causes(child, f"{path}.{name}[{index}]", int_or_string)
    return causes


def is_established(crd: JsonObject) -> bool:
    """Tell whether the resource of a definition is served."""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def _validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    before, after = old.get("spec") or {}, new.get("spec") or {}
    fields = [("group", ("group",)), ("names.plural", ("names", "plural"))]
    if is_established(old):
        fields += [("scope", ("scope",)), ("names.kind", ("names", "kind"))]
    causes = []
    for text, keys in fields:
        if _at(before, keys) != _at(after, keys):
            causes.append(immutable(f"spec.{text}", _at(after, keys)))
    return causes


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = (value or {}).get(key)
    return value


CUSTOM_RESOURCE_DEFINITION = Strategy(
    default=_default,
    prepare_for_create=_prepare_for_create,
    prepare_for_update=_prepare_for_update,
    validate=_validate,
    validate_update=_validate_update,
    generation=True,
)
