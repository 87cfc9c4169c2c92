"""CustomResourceDefinitions: what else the API serves.

Here are names, scope, versions and conversion; a definition's schemas are checked where custom resources are served.
Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import go_quote, invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.conversion import check_conversion
from tiphys.api.strategies.fields import check_enum, check_same, fill, keep_spec, spec_of
from tiphys.api.uri import BadUri, parse_uri
from tiphys.base.errors import Cause

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
"""Holds a deleted definition until its objects are gone; whoever serves custom resources takes it away."""

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


def prepare_definition_delete(definition: JsonObject, now: str) -> JsonObject:
    """A definition stays until its objects are gone."""
    metadata, status = dict(definition["metadata"]), dict(definition.get("status") or {})
    finalizers = metadata.get("finalizers") or []
    if CLEANUP_FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, CLEANUP_FINALIZER]
    condition = {
        "type": "Terminating",
        "status": "True",
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": now,
    }
    others = [each for each in status.get("conditions") or () if each.get("type") != "Terminating"]
    status["conditions"] = [*others, condition]
    return dict(definition, metadata=metadata, status=status)


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
        complaints = ",".join(names.validate_dns_subdomain(group))
        if complaints:
            causes.append(invalid_value("spec.group", group, complaints))
        elif len(group.split(".")) < 2:
            causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    check_enum(causes, "spec.scope", spec.get("scope"), _SCOPES)
    _check_versions(causes, spec.get("versions") or [])
    _check_names(causes, told, "spec.names")
    check_conversion(causes, spec.get("conversion") or {})
    if context.creating:
        _check_approval(causes, definition, None)
    return causes


def _check_versions(causes: list[Cause], versions: list[Any]) -> None:
    names_of: list[str] = []
    for index, version in enumerate(versions):
        name = version.get("name") or ""
        path = f"spec.versions[{index}]"
        names_of.append(name)
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        _check_label(causes, f"{path}.name", name)
    if len(set(names_of)) < len(names_of):
        causes.append(invalid_value("spec.versions", versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        causes.append(
            invalid_value("spec.versions", versions, "must have exactly one version marked as storage version")
        )


def _check_label(causes: list[Cause], path: str, value: str, *, mixed_case: bool = False) -> None:
    """A DNS label, whose complaints are told as one."""
    complaints = ",".join(names.validate_dns_1035_label(value.lower() if mixed_case else value))
    if complaints:
        told = "may have mixed case, but should otherwise match: " if mixed_case else ""
        causes.append(invalid_value(path, value, told + complaints))


def _check_names(causes: list[Cause], told: JsonObject, path: str, *, needed: bool = True) -> None:
    """`needed` False: the names of a status, which may be empty."""
    kinds = ("kind", "listKind")
    for field in ("plural", "singular", *kinds):
        if needed and not told.get(field):
            causes.append(required(f"{path}.{field}"))
    for field in ("plural", "singular", *kinds):
        if told.get(field):
            _check_label(causes, f"{path}.{field}", told[field], mixed_case=field in kinds)
    for index, value in enumerate(told.get("shortNames") or ()):
        _check_label(causes, f"{path}.shortNames[{index}]", value)
    if told.get("kind") and told.get("kind") == told.get("listKind"):
        causes.append(invalid_value(f"{path}.listKind", told["listKind"], "kind and listKind may not be the same"))
    for index, value in enumerate(told.get("categories") or ()):
        _check_label(causes, f"{path}.categories[{index}]", value)


def approval_of(annotations: JsonObject) -> tuple[str, str]:
    """Return the approval that a definition in a protected group carries, and the words for it.

    Missing, Invalid, Unapproved (a reason is told) or Approved (the address of the approval is told).
    """
    value = annotations.get(_APPROVAL) or ""
    where = "see https://github.com/kubernetes/enhancements/pull/1111"
    if not value:
        return "Missing", f'protected groups must have approval annotation "{_APPROVAL}", {where}'
    if value.startswith("unapproved"):
        return "Unapproved", f"not approved: {go_quote(value)}"
    try:
        parts = parse_uri(value)
    except BadUri:
        parts = None
    if parts is not None and parts.scheme and parts.netloc:
        return "Approved", f"approved in {value}"
    text = f'protected groups must have approval annotation "{_APPROVAL}" with either a URL or a reason starting with'
    return "Invalid", f'{text} "unapproved", {where}'


def _check_approval(causes: list[Cause], new: JsonObject, old: JsonObject | None) -> None:
    """Groups of the Kubernetes community need an annotation with the approval; one that stays as it was is not asked."""
    if not f".{spec_of(new).get('group') or ''}".endswith(_PROTECTED):
        return
    annotations = (new.get("metadata") or {}).get("annotations") or {}
    state, text = approval_of(annotations)
    if old is not None and approval_of((old.get("metadata") or {}).get("annotations") or {})[0] == state:
        return
    path = f"metadata.annotations[{_APPROVAL}]"
    if state == "Missing":
        causes.append(required(path, text))
    elif state == "Invalid":
        causes.append(invalid_value(path, annotations[_APPROVAL], text))


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
    _check_stored_versions(causes, new)
    _check_approval(causes, new, old)
    return causes


def _check_stored_versions(causes: list[Cause], definition: JsonObject) -> None:
    """A version in which objects may be stored stays, served or not, until it is taken from the status."""
    versions = spec_of(definition).get("versions") or ()
    stored = (definition.get("status") or {}).get("storedVersions") or []
    path = "status.storedVersions"
    if not stored:
        if versions:
            causes.append(invalid_value(path, stored, "must have at least one stored version"))
        return
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            causes.append(invalid_value(path, stored, f"must have the storage version {version.get('name')}"))
    known = {version.get("name") for version in versions}
    for index, name in enumerate(stored):
        if name not in known:
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            causes.append(invalid_value(f"{path}[{index}]", name, detail))


def validate_definition_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    _check_names(causes, status.get("acceptedNames") or {}, "status.acceptedNames", needed=False)
    return causes


CUSTOM_RESOURCE_DEFINITION = Strategy(
    default=default_definition,
    prepare_for_create=prepare_definition,
    prepare_for_update=prepare_definition_update,
    prepare_for_status_update=keep_spec,
    validate=validate_definition,
    validate_update=validate_definition_update,
    validate_status_update=validate_definition_status,
    prepare_for_delete=prepare_definition_delete,
    generation=True,
    allow_unconditional_update=False,
)
