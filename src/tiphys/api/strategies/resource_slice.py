"""ResourceSlices: the devices that a driver offers, on one node, some, or all.

Spec: Kubernetes documentation, "Dynamic Resource Allocation"; API reference of resource.k8s.io/v1 (limits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.causes import duplicate, invalid_value, required, too_long
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_subdomain
from tiphys.api.strategies.device_rules import (
    TAINTS_LIMIT,
    VALUE_LIMIT,
    check_attribute_name,
    check_count,
    check_driver,
    check_label,
    check_pool,
    check_taint,
)
from tiphys.api.strategies.fields import check_same, check_text, spec_of
from tiphys.base.errors import Cause

DEVICES_LIMIT = 128
TAINTED_DEVICES_LIMIT = 64
PROPERTIES_LIMIT = 32
COUNTER_SETS_LIMIT = 8
COUNTERS_LIMIT = 32
CONSUMPTIONS_LIMIT = 2
CONDITIONS_LIMIT = 4
_NODE_FIELDS = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_DEVICE_NODE_FIELDS = ("nodeName", "nodeSelector", "allNodes")
_VALUES = ("bool", "bools", "int", "ints", "string", "strings", "version", "versions")
_NUMBER = r"(?:0|[1-9]\d*)"
_LABEL = rf"(?:{_NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_LABEL}(?:\.{_LABEL})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


def validate_slice(resource_slice: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(resource_slice)
    check_driver(causes, "spec.driver", spec.get("driver"))
    _check_pool(causes, spec.get("pool") or {})
    chosen = [field for field in _NODE_FIELDS if spec.get(field)]
    if len(chosen) != 1:
        detail = f"exactly one of {', '.join(f'`{field}`' for field in _NODE_FIELDS)} is required"
        if chosen:
            causes.append(
                invalid_value("spec", "{" + ", ".join(chosen) + "}", f"{detail}, but multiple fields are set")
            )
        else:
            causes.append(required("spec", detail))
    if spec.get("nodeName"):
        check_text(causes, "spec.nodeName", spec["nodeName"], validate_dns_subdomain)
    devices: Sequence[Any] = spec.get("devices") or ()
    counters: Sequence[Any] = spec.get("sharedCounters") or ()
    if devices and counters and context.kubernetes_version >= (1, 35):
        causes.append(invalid_value("spec", None, "only one of `sharedCounters` or `devices` is allowed"))
    special = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    check_count(causes, "spec.devices", devices, TAINTED_DEVICES_LIMIT if special else DEVICES_LIMIT)
    seen: set[str] = set()
    for index, device in enumerate(devices):
        _check_device(causes, device, f"spec.devices[{index}]", per_device=bool(spec.get("perDeviceNodeSelection")))
        name = device.get("name") or ""
        if name in seen:
            causes.append(duplicate(f"spec.devices[{index}].name", name))
        seen.add(name)
    _check_counters(causes, counters)
    return causes


def _check_pool(causes: list[Cause], pool: Mapping[str, Any]) -> None:
    check_pool(causes, "spec.pool.name", pool.get("name"))
    count, generation = pool.get("resourceSliceCount") or 0, pool.get("generation") or 0
    if count <= 0:
        causes.append(invalid_value("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if generation < 0:
        causes.append(invalid_value("spec.pool.generation", generation, "must be greater than or equal to zero"))


def _check_device(causes: list[Cause], device: Mapping[str, Any], path: str, *, per_device: bool) -> None:
    check_label(causes, f"{path}.name", device.get("name"))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > PROPERTIES_LIMIT:
        detail = f"the total number of attributes and capacities must not exceed {PROPERTIES_LIMIT}"
        causes.append(invalid_value(path, len(attributes) + len(capacity), detail))
    for name, attribute in attributes.items():
        check_attribute_name(causes, f"{path}.attributes", name)
        _check_attribute(causes, attribute or {}, f"{path}.attributes[{name}]")
    for name in capacity:
        check_attribute_name(causes, f"{path}.capacity", name)
    taints: Sequence[Any] = device.get("taints") or ()
    check_count(causes, f"{path}.taints", taints, TAINTS_LIMIT)
    for index, taint in enumerate(taints):
        check_taint(causes, f"{path}.taints[{index}]", taint)
    chosen = [field for field in _DEVICE_NODE_FIELDS if device.get(field)]
    if per_device and len(chosen) != 1:
        detail = f"exactly one of {', '.join(f'`{field}`' for field in _DEVICE_NODE_FIELDS)} is required"
        causes.append(
            required(path, f"{detail} when `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
        )
    elif chosen and not per_device:
        detail = "must only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        causes.extend(invalid_value(f"{path}.{field}", device[field], detail) for field in chosen)
    _check_consumptions(causes, device.get("consumesCounters") or (), f"{path}.consumesCounters")
    for field in ("bindingConditions", "bindingFailureConditions"):
        check_count(causes, f"{path}.{field}", device.get(field) or (), CONDITIONS_LIMIT)


def _check_attribute(causes: list[Cause], attribute: Mapping[str, Any], path: str) -> None:
    given = [field for field in _VALUES if attribute.get(field) is not None]
    if not given:
        causes.append(required(path, "exactly one value must be specified"))
        return
    if len(given) > 1:
        causes.append(invalid_value(path, dict(attribute), "exactly one value must be specified"))
    for field in given:
        values = attribute[field] if field.endswith("s") else [attribute[field]]
        for value in values:
            if isinstance(value, str) and len(value) > VALUE_LIMIT:
                causes.append(too_long(f"{path}.{field}", VALUE_LIMIT))
            elif field.startswith("version") and not _SEMVER.fullmatch(value):
                detail = "must be a string compatible with semver.org spec 2.0.0"
                causes.append(invalid_value(f"{path}.{field}", value, detail))


def _check_counters(causes: list[Cause], sets: Sequence[Mapping[str, Any]]) -> None:
    check_count(causes, "spec.sharedCounters", sets, COUNTER_SETS_LIMIT)
    seen: set[str] = set()
    for index, counter_set in enumerate(sets):
        at, name = f"spec.sharedCounters[{index}]", counter_set.get("name") or ""
        check_label(causes, f"{at}.name", name)
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        seen.add(name)
        _check_counter_names(causes, counter_set.get("counters") or {}, f"{at}.counters")


def _check_counter_names(causes: list[Cause], counters: Mapping[str, Any], path: str) -> None:
    if not counters:
        causes.append(required(path))
    check_count(causes, path, counters, COUNTERS_LIMIT)
    for name in counters:
        check_label(causes, f"{path}[{name}]", name)


def _check_consumptions(causes: list[Cause], consumptions: Sequence[Mapping[str, Any]], path: str) -> None:
    check_count(causes, path, consumptions, CONSUMPTIONS_LIMIT)
    seen: set[str] = set()
    for index, consumption in enumerate(consumptions):
        name = consumption.get("counterSet") or ""
        check_label(causes, f"{path}[{index}].counterSet", name)
        if name in seen:
            causes.append(duplicate(f"{path}[{index}].counterSet", name))
        seen.add(name)
        _check_counter_names(causes, consumption.get("counters") or {}, f"{path}[{index}].counters")


def validate_slice_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    now, before = spec_of(new), spec_of(old)
    for field in ("nodeName", "driver"):
        check_same(causes, f"spec.{field}", now.get(field), before.get(field))
    pool, pool_before = now.get("pool") or {}, before.get("pool") or {}
    check_same(causes, "spec.pool.name", pool.get("name"), pool_before.get("name"))
    return causes


RESOURCE_SLICE = Strategy(validate=validate_slice, validate_update=validate_slice_update, generation=True)
