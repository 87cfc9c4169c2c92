"""ResourceClaims, their templates, DeviceClasses and ResourceSlices (dynamic resource allocation).

DIFFERS: requests, constraints and devices are checked by their schema and the main rules only; CEL selectors are
checked where they are run. Spec: Kubernetes documentation, "Dynamic Resource Allocation".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import duplicate, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_label, validate_dns_subdomain, validate_label_value, validate_qualified_name
from tiphys.api.strategies.fields import (
    check_enum,
    check_required_text,
    check_same,
    check_text,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

_TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")


def _default_requests(devices: JsonObject | None) -> None:
    for request in (devices or {}).get("requests") or ():
        for exact in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if exact is not None:
                fill(exact, "allocationMode", "ExactCount")
                if exact["allocationMode"] == "ExactCount":
                    fill(exact, "count", 1)


def default_claim(claim: JsonObject) -> None:
    _default_requests(spec_of(claim).get("devices"))


def default_template(template: JsonObject) -> None:
    _default_requests((spec_of(template).get("spec") or {}).get("devices"))


def _check_requests(causes: list[Cause], spec: JsonObject, path: str) -> None:
    seen: set[str] = set()
    requests: list[Any] = (spec.get("devices") or {}).get("requests") or []
    for index, request in enumerate(requests):
        at = f"{path}.devices.requests[{index}]"
        name = request.get("name") or ""
        check_required_text(causes, f"{at}.name", name, validate_dns_label)
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        seen.add(name)
        exact = request.get("exactly")
        if exact is not None and not exact.get("deviceClassName"):
            causes.append(required(f"{at}.exactly.deviceClassName"))


def validate_claim(claim: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_requests(causes, spec_of(claim), "spec")
    return causes


def validate_template(template: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_requests(causes, spec_of(template).get("spec") or {}, "spec.spec")
    return causes


def validate_same_spec(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "spec", new.get("spec"), old.get("spec"))
    return causes


RESOURCE_CLAIM = Strategy(
    default=default_claim,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_claim,
    validate_update=validate_same_spec,
)
RESOURCE_CLAIM_TEMPLATE = Strategy(
    default=default_template, validate=validate_template, validate_update=validate_same_spec
)
DEVICE_CLASS = Strategy(generation=True)


def validate_taint_rule(rule: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(rule)
    taint = spec.get("taint") or {}
    check_required_text(causes, "spec.taint.key", taint.get("key"), validate_qualified_name)
    if taint.get("value"):
        check_text(causes, "spec.taint.value", taint["value"], validate_label_value)
    check_enum(causes, "spec.taint.effect", taint.get("effect"), _TAINT_EFFECTS)
    selector = spec.get("deviceSelector") or {}
    if selector.get("driver"):
        check_text(causes, "spec.deviceSelector.driver", selector["driver"], validate_dns_subdomain)
    if selector.get("device"):
        check_text(causes, "spec.deviceSelector.device", selector["device"], validate_dns_label)
    return causes


DEVICE_TAINT_RULE = Strategy(
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_taint_rule,
    generation=True,
)


def validate_slice(resource_slice: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(resource_slice)
    if not spec.get("driver"):
        causes.append(required("spec.driver"))
    if not (spec.get("pool") or {}).get("name"):
        causes.append(required("spec.pool.name"))
    return causes


def validate_slice_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    now, before = spec_of(new), spec_of(old)
    check_same(causes, "spec.nodeName", now.get("nodeName"), before.get("nodeName"))
    check_same(causes, "spec.driver", now.get("driver"), before.get("driver"))
    return causes


RESOURCE_SLICE = Strategy(validate=validate_slice, validate_update=validate_slice_update, generation=True)
