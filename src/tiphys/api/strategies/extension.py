"""CustomResourceDefinitions: what else the API serves.

Here are names, scope, versions and conversion; a definition's schemas are checked where custom resources are served.
Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.conversion import check_conversion
from tiphys.api.strategies.fields import check_enum, check_same, check_text, fill, keep_spec, spec_of
from tiphys.base.errors import Cause

_SCOPES = ("Cluster", "Namespaced")
_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVAL = "api-approved.kubernetes.io"


def default_definition(definition: JsonObject) -> None:
    spec = definition.setdefault("spec", {})
    conversion = spec.setdefault("conversion", {})
    fill(conversion, "strategy", "None")
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        fill(service, "port", 443)
    told = spec.get("names")
    if told is not None:
        kind = told.get("kind")
        if kind:
            fill(told, "listKind", f"{kind}List")
            fill(told, "singular", kind.lower())


def prepare_definition(definition: JsonObject, context: Context) -> None:
    """Objects will be stored in the storage version from the start."""
    stored = [v.get("name") for v in definition["spec"].get("versions") or () if v.get("storage")]
    definition["status"] = {
        "acceptedNames": {"kind": "", "plural": ""},
        "conditions": [],
        "storedVersions": stored,
    }


def prepare_definition_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Keep the status, but remember a new storage version."""
    status = dict(old.get("status") or {})
    stored = list(status.get("storedVersions") or ())
    for version in spec_of(new).get("versions") or ():
        if version.get("storage") and version.get("name") not in stored:
            stored.append(version.get("name"))
    status["storedVersions"] = stored
    new["status"] = status


def validate_definition(definition: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(definition)
    metadata = definition.get("metadata") or {}
    told = spec.get("names") or {}
    group = spec.get("group") or ""
    expected = f"{told.get('plural') or ''}.{group}"
    if metadata.get("name") != expected:
        causes.append(
            invalid_value("metadata.name", metadata.get("name") or "", 'must be spec.names.plural+"."+spec.group')
        )
    if not group:
        causes.append(required("spec.group"))
    else:
        check_text(causes, "spec.group", group, names.validate_dns_subdomain)
        if len(group.split(".")) < 2:
            causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    check_enum(causes, "spec.scope", spec.get("scope"), _SCOPES)
    _check_versions(causes, spec.get("versions") or [])
    _check_names(causes, told, "spec.names")
    check_conversion(causes, spec.get("conversion") or {})
    if context.creating:
        _check_approval(causes, metadata, group)
    return causes


def _check_versions(causes: list[Cause], versions: list[Any]) -> None:
    if not versions:
        causes.append(required("spec.versions", "must have at least one version"))
    seen: set[str] = set()
    storing = 0
    for index, version in enumerate(versions):
        name = version.get("name") or ""
        path = f"spec.versions[{index}]"
        for complaint in names.validate_dns_1035_label(name):
            causes.append(invalid_value(f"{path}.name", name, complaint))
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        storing += bool(version.get("storage"))
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
    if versions and storing != 1:
        causes.append(
            invalid_value("spec.versions", versions, "must have exactly one version marked as storage version")
        )


def _check_names(causes: list[Cause], told: JsonObject, path: str) -> None:
    for field in ("plural", "singular", "kind", "listKind"):
        value = told.get(field) or ""
        if not value:
            causes.append(required(f"{path}.{field}"))
        else:
            text = value.lower() if field in ("kind", "listKind") else value
            if names.validate_dns_1035_label(text):
                for complaint in names.validate_dns_1035_label(text):
                    detail = (
                        complaint if text == value else f"may have mixed case, but should otherwise match: {complaint}"
                    )
                    causes.append(invalid_value(f"{path}.{field}", value, detail))
    if told.get("kind") and told.get("kind") == told.get("listKind"):
        causes.append(invalid_value(f"{path}.listKind", told["listKind"], "kind and listKind may not be the same"))
    for field in ("shortNames", "categories"):
        for index, value in enumerate(told.get(field) or ()):
            check_text(causes, f"{path}.{field}[{index}]", value, names.validate_dns_1035_label)


def _check_approval(causes: list[Cause], metadata: JsonObject, group: str) -> None:
    """Groups of the Kubernetes community need an annotation with the approval."""
    if not f".{group}".endswith(_PROTECTED):
        return
    value = (metadata.get("annotations") or {}).get(_APPROVAL)
    path = f"metadata.annotations[{_APPROVAL}]"
    if not value:
        causes.append(
            required(
                path,
                'protected groups must have approval annotation "api-approved.kubernetes.io", '
                "see https://github.com/kubernetes/enhancements/pull/1111",
            )
        )


def validate_definition_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Once names are accepted, scope, group and kind are fixed."""
    causes: list[Cause] = []
    now, before = spec_of(new), spec_of(old)
    conditions = (old.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        check_same(causes, "spec.scope", now.get("scope"), before.get("scope"))
        check_same(
            causes, "spec.names.kind", (now.get("names") or {}).get("kind"), (before.get("names") or {}).get("kind")
        )
    check_same(causes, "spec.group", now.get("group"), before.get("group"))
    check_same(
        causes, "spec.names.plural", (now.get("names") or {}).get("plural"), (before.get("names") or {}).get("plural")
    )
    known = {v.get("name") for v in now.get("versions") or ()}
    for index, version in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if version not in known:
            detail = (
                "missing from spec.versions; "
                + f"{version} was previously a storage version, and must remain in spec.versions until a storage "
                f"migration ensures no data remains persisted in {version} and removes {version} from "
                "status.storedVersions"
            )
            causes.append(invalid_value(f"status.storedVersions[{index}]", version, detail))
    return causes


CUSTOM_RESOURCE_DEFINITION = Strategy(
    default=default_definition,
    prepare_for_create=prepare_definition,
    prepare_for_update=prepare_definition_update,
    prepare_for_status_update=keep_spec,
    validate=validate_definition,
    validate_update=validate_definition_update,
    generation=True,
    allow_unconditional_update=False,
)
