"""APIServices: which server answers for a group version.

A local one (no service) is available from its creation; what becomes of the others is found out where they are reached
(apiserver/aggregation/).

Spec: Kubernetes documentation, "Kubernetes API Aggregation Layer"; API reference, APIService v1.
"""

from __future__ import annotations

import base64
import binascii

from tiphys.api import names
from tiphys.api.causes import invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import check_text, fill, keep_status, spec_of
from tiphys.base.errors import Cause

GROUP_PRIORITY_LIMIT = 20_000
VERSION_PRIORITY_LIMIT = 1_000
_STATUSES = ("False", "True", "Unknown")


def default_api_service(service: JsonObject) -> None:
    reference = spec_of(service).get("service")
    if reference is not None:
        fill(reference, "port", 443)


def local_condition(now: str) -> JsonObject:
    """Return the condition of an APIService that this server answers for itself."""
    return {
        "lastTransitionTime": now,
        "message": "Local APIServices are always available",
        "reason": "Local",
        "status": "True",
        "type": "Available",
    }


def prepare_api_service(service: JsonObject, context: Context) -> None:
    local = spec_of(service).get("service") is None
    service["status"] = {"conditions": [local_condition(context.now)]} if local else {}


def validate_api_service(service: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(service)
    group, version = spec.get("group") or "", spec.get("version") or ""
    name = (service.get("metadata") or {}).get("name") or ""
    if name != f"{version}.{group}":
        causes.append(
            invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{version}.{group}"')
        )
    if group:
        check_text(causes, "spec.group", group, names.validate_dns_subdomain)
    elif version != "v1":
        causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    check_text(causes, "spec.version", version, names.validate_dns_1035_label)
    limits = (("groupPriorityMinimum", GROUP_PRIORITY_LIMIT), ("versionPriority", VERSION_PRIORITY_LIMIT))
    for field, most in limits:
        value = spec.get(field) or 0
        if not 0 < value <= most:
            causes.append(invalid_value(f"spec.{field}", value, f"must be positive and less than {most}"))
    return causes + _validate_target(spec)


def _validate_target(spec: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    reference, bundle = spec.get("service"), spec.get("caBundle") or ""
    path = "spec.insecureSkipTLSVerify"
    if reference is None:
        if bundle:
            size = f"{_decoded_bytes(bundle)} bytes"
            causes.append(invalid_value("spec.caBundle", size, "local APIServices may not have a caBundle"))
        if spec.get("insecureSkipTLSVerify"):
            causes.append(invalid_value(path, True, "local APIServices may not have insecureSkipTLSVerify"))
        return causes
    for field in ("namespace", "name"):
        if not reference.get(field):
            causes.append(required(f"spec.service.{field}"))
    if spec.get("insecureSkipTLSVerify") and bundle:
        causes.append(invalid_value(path, True, "may not be true if caBundle is present"))
    return causes


def _decoded_bytes(text: str) -> int:
    try:
        return len(base64.b64decode(text))
    except (binascii.Error, ValueError):
        return len(text)


def prepare_status_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Nothing but the status may change: not even what the status subresource of other kinds may."""
    new["spec"] = old.get("spec") or {}
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in old["metadata"]:
            new["metadata"][field] = old["metadata"][field]
        else:
            new["metadata"].pop(field, None)


def validate_api_service_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    conditions = (new.get("status") or {}).get("conditions") or ()
    return [
        not_supported(f"status.conditions[{index}].status", condition.get("status") or "", _STATUSES)
        for index, condition in enumerate(conditions)
        if condition.get("status") not in _STATUSES
    ]


API_SERVICE = Strategy(
    default=default_api_service,
    prepare_for_create=prepare_api_service,
    prepare_for_update=keep_status,
    prepare_for_status_update=prepare_status_update,
    validate=validate_api_service,
    validate_status_update=validate_api_service_status,
    name_rule="path-segment",
    allow_unconditional_update=False,
)
