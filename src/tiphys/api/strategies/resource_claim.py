"""ResourceClaims and their templates: which devices are asked for, fixed once made; the allocation is in the status.

Spec: Kubernetes documentation, "Dynamic Resource Allocation"; API reference of resource.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.causes import duplicate, forbidden, immutable, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_subdomain
from tiphys.api.strategies.device_rules import (
    CONFIGS_LIMIT,
    check_attribute_name,
    check_config,
    check_count,
    check_driver,
    check_expression,
    check_label,
    check_pool,
    check_raw,
    check_selectors,
    check_tolerations,
)
from tiphys.api.strategies.fields import (
    check_required_text,
    clear_status,
    fill,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

REQUESTS_LIMIT = 32
ALTERNATIVES_LIMIT = 8
CONSUMERS_LIMIT = 256
CONDITIONS_LIMIT = 8
_MODES = ("All", "ExactCount")
_ONE_OF = "exactly one of `exactly` or `firstAvailable` is required"


def _default_requests(devices: JsonObject | None) -> None:
    for request in (devices or {}).get("requests") or ():
        for exact in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if exact is not None:
                fill(exact, "allocationMode", "ExactCount")
                if exact["allocationMode"] == "ExactCount":
                    fill(exact, "count", 1)
                for toleration in exact.get("tolerations") or ():
                    fill(toleration, "operator", "Equal")


def default_claim(claim: JsonObject) -> None:
    _default_requests(spec_of(claim).get("devices"))


def default_template(template: JsonObject) -> None:
    _default_requests((spec_of(template).get("spec") or {}).get("devices"))


def _check_devices(causes: list[Cause], devices: Mapping[str, Any], path: str, context: Context) -> None:
    requests: Sequence[Any] = devices.get("requests") or ()
    check_count(causes, f"{path}.requests", requests, REQUESTS_LIMIT)
    names = _check_names(causes, requests, f"{path}.requests", plain=True)
    for index, request in enumerate(requests):
        _check_request(causes, request, f"{path}.requests[{index}]", context)
        names |= {f"{request.get('name')}/{sub.get('name')}" for sub in request.get("firstAvailable") or ()}
    constraints: Sequence[Any] = devices.get("constraints") or ()
    check_count(causes, f"{path}.constraints", constraints, REQUESTS_LIMIT)
    for index, constraint in enumerate(constraints):
        _check_constraint(causes, constraint, f"{path}.constraints[{index}]", names)
    configs: Sequence[Any] = devices.get("config") or ()
    check_count(causes, f"{path}.config", configs, CONFIGS_LIMIT)
    for index, config in enumerate(configs):
        _check_references(causes, config.get("requests") or (), f"{path}.config[{index}].requests", names)
        check_config(causes, f"{path}.config[{index}]", config)


def _check_names(causes: list[Cause], items: Sequence[Any], path: str, *, plain: bool) -> set[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        at, name = f"{path}[{index}].name" if plain else f"{path}[{index}]", item.get("name") or ""
        check_label(causes, at, name)
        if name in seen:
            causes.append(duplicate(at, name))
        seen.add(name)
    return seen


def _check_request(causes: list[Cause], request: Mapping[str, Any], path: str, context: Context) -> None:
    exact, alternatives = request.get("exactly"), request.get("firstAvailable") or ()
    if exact is not None and alternatives:
        causes.append(invalid_value(path, None, f"{_ONE_OF}, but multiple fields are set"))
    elif exact is not None:
        _check_exact(causes, exact, f"{path}.exactly", context)
    elif alternatives:
        check_count(causes, f"{path}.firstAvailable", alternatives, ALTERNATIVES_LIMIT)
        _check_names(causes, alternatives, f"{path}.firstAvailable", plain=True)
        for index, alternative in enumerate(alternatives):
            _check_exact(causes, alternative, f"{path}.firstAvailable[{index}]", context)
    else:
        causes.append(required(path, _ONE_OF))


def _check_exact(causes: list[Cause], exact: Mapping[str, Any], path: str, context: Context) -> None:
    check_required_text(causes, f"{path}.deviceClassName", exact.get("deviceClassName"), validate_dns_subdomain)
    check_selectors(causes, f"{path}.selectors", exact.get("selectors") or (), context)
    mode, count = exact.get("allocationMode"), exact.get("count") or 0
    if mode == "ExactCount" and count <= 0:
        causes.append(invalid_value(f"{path}.count", count, "must be greater than zero"))
    elif mode == "All" and count:
        causes.append(invalid_value(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode not in _MODES:
        causes.append(not_supported(f"{path}.allocationMode", mode, _MODES))
    check_tolerations(causes, f"{path}.tolerations", exact.get("tolerations") or ())
    for name in (exact.get("capacity") or {}).get("requests") or {}:
        check_attribute_name(causes, f"{path}.capacity.requests[{name}]", name)
    for index, derived in enumerate(exact.get("derivedAttributes") or ()):
        at = f"{path}.derivedAttributes[{index}]"
        check_attribute_name(causes, f"{at}.name", derived.get("name") or "", whole=True)
        check_expression(causes, f"{at}.expression", derived.get("expression"), context, result="")


def _check_constraint(causes: list[Cause], constraint: Mapping[str, Any], path: str, names: set[str]) -> None:
    _check_references(causes, constraint.get("requests") or (), f"{path}.requests", names)
    fields = [field for field in ("matchAttribute", "distinctAttribute") if constraint.get(field) is not None]
    if not fields:
        causes.append(required(f"{path}.matchAttribute"))
    elif len(fields) > 1:
        causes.append(invalid_value(path, None, "exactly one of `matchAttribute` or `distinctAttribute` is required"))
    for field in fields:
        check_attribute_name(causes, f"{path}.{field}", constraint[field], whole=True)


def _check_references(causes: list[Cause], references: Sequence[str], path: str, names: set[str]) -> None:
    check_count(causes, path, references, REQUESTS_LIMIT)
    seen: set[str] = set()
    for index, name in enumerate(references):
        if name in seen:
            causes.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
        if name not in names:
            detail = (
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
            )
            causes.append(invalid_value(f"{path}[{index}]", name, detail))


def validate_claim(claim: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_devices(causes, spec_of(claim).get("devices") or {}, "spec.devices", context)
    return causes


def validate_template(template: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(template).get("spec") or {}
    _check_devices(causes, spec.get("devices") or {}, "spec.spec.devices", context)
    return causes


def validate_same_spec(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    return [] if is_same(new.get("spec"), old.get("spec")) else [immutable("spec", new.get("spec"))]


def validate_claim_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status, before = new.get("status") or {}, old.get("status") or {}
    allocation, allocated = status.get("allocation"), before.get("allocation")
    consumers: Sequence[Any] = status.get("reservedFor") or ()
    check_count(causes, "status.reservedFor", consumers, CONSUMERS_LIMIT)
    uids: set[str] = set()
    for index, consumer in enumerate(consumers):
        _check_consumer(causes, consumer, f"status.reservedFor[{index}]", uids)
    if allocation is None and consumers:
        causes.append(forbidden("status.reservedFor", "may not be specified when `allocated` is not set"))
    if allocated is not None and allocation is not None and not is_same(allocation, allocated):
        causes.append(immutable("status.allocation", allocation))
    if new["metadata"].get("deletionTimestamp"):
        known = {consumer.get("uid") for consumer in before.get("reservedFor") or ()}
        if any(consumer.get("uid") not in known for consumer in consumers):
            causes.append(forbidden("status.reservedFor", "new entries may not be added while the claim is deleted"))
        if allocated is None and allocation is not None:
            causes.append(forbidden("status.allocation", "a claim may not be allocated while it is deleted"))
    devices = _check_allocation(causes, allocation or {})
    _check_statuses(causes, status.get("devices") or (), devices)
    return causes


def _check_consumer(causes: list[Cause], consumer: Mapping[str, Any], path: str, seen: set[str]) -> None:
    for field in ("resource", "name", "uid"):
        if not consumer.get(field):
            causes.append(required(f"{path}.{field}"))
    uid = consumer.get("uid")
    if uid and uid in seen:
        causes.append(duplicate(path, uid))
    seen.add(uid or "")


def _check_allocation(causes: list[Cause], allocation: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Return the (driver, pool, device) that are allocated."""
    path = "status.allocation.devices"
    found: set[tuple[str, str, str]] = set()
    devices = allocation.get("devices") or {}
    results: Sequence[Any] = devices.get("results") or ()
    check_count(causes, f"{path}.results", results, REQUESTS_LIMIT)
    for index, result in enumerate(results):
        at = f"{path}.results[{index}]"
        if not result.get("request"):
            causes.append(required(f"{at}.request"))
        check_driver(causes, f"{at}.driver", result.get("driver"))
        check_pool(causes, f"{at}.pool", result.get("pool"))
        check_label(causes, f"{at}.device", result.get("device"))
        found.add((result.get("driver") or "", result.get("pool") or "", result.get("device") or ""))
    for index, config in enumerate(devices.get("config") or ()):
        at = f"{path}.config[{index}]"
        if config.get("source") not in ("FromClaim", "FromClass"):
            causes.append(not_supported(f"{at}.source", config.get("source") or "", ("FromClaim", "FromClass")))
        check_config(causes, at, config)
    return found


def _check_statuses(causes: list[Cause], statuses: Sequence[Any], allocated: set[tuple[str, str, str]]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for index, status in enumerate(statuses):
        at = f"status.devices[{index}]"
        device = (status.get("driver") or "", status.get("pool") or "", status.get("device") or "")
        if device in seen:
            causes.append(duplicate(f"{at}.deviceID", "/".join(device)))
        elif device not in allocated:
            causes.append(invalid_value(at, "/".join(device), "must be an allocated device in the claim"))
        seen.add(device)
        check_count(causes, f"{at}.conditions", status.get("conditions") or (), CONDITIONS_LIMIT)
        check_raw(causes, f"{at}.data", status.get("data"))


RESOURCE_CLAIM = Strategy(
    default=default_claim,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_claim,
    validate_update=validate_same_spec,
    validate_status_update=validate_claim_status,
)
RESOURCE_CLAIM_TEMPLATE = Strategy(
    default=default_template, validate=validate_template, validate_update=validate_same_spec
)
