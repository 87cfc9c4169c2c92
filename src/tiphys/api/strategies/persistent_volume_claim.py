"""PersistentVolumeClaims: defaults, validation, and growth as the only change of a claim.

Spec: Kubernetes documentation, "Persistent Volumes"; API reference, core/v1 PersistentVolumeClaimSpec.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_subdomain
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_text, fill, is_same, keep_spec, keep_status, spec_of
from tiphys.api.strategies.resources import nanos
from tiphys.base.errors import Cause

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
STORAGE_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_CORE_SOURCES = ("PersistentVolumeClaim",)
_IMMUTABLE = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def default_claim(claim: JsonObject) -> None:
    spec = claim.setdefault("spec", {})
    fill(spec, "volumeMode", "Filesystem")
    status = claim.get("status")
    if status is not None and not status.get("phase"):
        status["phase"] = "Pending"
    if spec.get("dataSource") and not spec.get("dataSourceRef"):
        spec["dataSourceRef"] = dict(spec["dataSource"])
    elif spec.get("dataSourceRef") and not spec.get("dataSource") and not spec["dataSourceRef"].get("namespace"):
        spec["dataSource"] = dict(spec["dataSourceRef"])


def prepare_for_create(claim: JsonObject, context: Context) -> None:
    claim["status"] = {"phase": "Pending"}


def check_access_modes(causes: list[Cause], modes: list[Any], path: str) -> None:
    for mode in modes:
        if mode not in ACCESS_MODES:
            causes.append(not_supported(path, mode, ACCESS_MODES))
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def check_claim_spec(causes: list[Cause], spec: JsonObject, path: str) -> None:
    """Check the spec of a claim, or of a claim that a pod's ephemeral volume makes."""
    modes = spec.get("accessModes") or []
    if not modes:
        causes.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    selector = spec.get("selector")
    if selector is not None:
        causes += validate_label_selector(selector, f"{path}.selector")
    check_access_modes(causes, modes, f"{path}.accessModes")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    elif nanos(storage) <= 0:
        causes.append(invalid_value(f"{path}.resources[storage]", str(storage), "must be greater than zero"))
    if spec.get("storageClassName"):
        check_text(causes, f"{path}.storageClassName", spec["storageClassName"], validate_dns_subdomain)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        causes.append(not_supported(f"{path}.volumeMode", mode, VOLUME_MODES))
    for field in ("dataSource", "dataSourceRef"):
        source = spec.get(field)
        if source is not None:
            _check_data_source(causes, source, f"{path}.{field}")
    if spec.get("volumeAttributesClassName"):
        check_text(
            causes, f"{path}.volumeAttributesClassName", spec["volumeAttributesClassName"], validate_dns_subdomain
        )


def _check_data_source(causes: list[Cause], source: JsonObject, path: str) -> None:
    for field in ("name", "kind"):
        if not source.get(field):
            causes.append(required(f"{path}.{field}"))
    if not source.get("apiGroup") and source.get("kind") not in _CORE_SOURCES:
        causes.append(
            invalid_value(
                path, source.get("kind"), "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            )
        )


def validate(claim: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_claim_spec(causes, spec_of(claim), "spec")
    return causes


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """A claim's spec is fixed, but that it is bound once and may grow while bound."""
    causes: list[Cause] = []
    now, before = dict(spec_of(new)), dict(spec_of(old))
    if not before.get("volumeName") and now.get("volumeName"):
        now["volumeName"] = before.get("volumeName")
    if _class_was_unset(new, old):
        now["storageClassName"] = before.get("storageClassName")
    bound = (old.get("status") or {}).get("phase") == "Bound"
    grown = (now.get("resources") or {}).get("requests") or {}
    was = (before.get("resources") or {}).get("requests") or {}
    for spec in (now, before):
        spec["resources"] = {**(spec.get("resources") or {}), "requests": None} if bound else spec.get("resources")
        if bound:
            spec.pop("volumeAttributesClassName", None)
    if not is_same(now, before):
        causes.append(forbidden("spec", _IMMUTABLE))
    elif nanos(grown.get("storage", "0")) < nanos(was.get("storage", "0")):
        capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
        if nanos(grown.get("storage", "0")) <= nanos(capacity):
            causes.append(forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"))
    return causes


def _class_was_unset(new: JsonObject, old: JsonObject) -> bool:
    """A claim without any class may get one later: the default class, when there is one."""
    annotations = (old.get("metadata") or {}).get("annotations") or {}
    return spec_of(old).get("storageClassName") is None and STORAGE_CLASS_ANNOTATION not in annotations


def warnings(claim: JsonObject) -> list[str]:
    found = []
    if STORAGE_CLASS_ANNOTATION in ((claim.get("metadata") or {}).get("annotations") or {}):
        found.append(
            f"metadata.annotations[{STORAGE_CLASS_ANNOTATION}]: deprecated since v1.8; "
            'use "storageClassName" attribute instead'
        )
    storage = ((spec_of(claim).get("resources") or {}).get("requests") or {}).get("storage")
    if storage is not None and nanos(storage) % 10**9:
        found.append(
            f'spec.resources.requests[storage]: fractional byte value "{storage}" is invalid, must be an integer'
        )
    return found


PERSISTENT_VOLUME_CLAIM = Strategy(
    default=default_claim,
    prepare_for_create=prepare_for_create,
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    warnings=warnings,
)
