"""What claims, classes and slices of devices share: names of drivers, pools and attributes, selectors, configuration.

Read by resource_claim.py, device_class.py and resource_slice.py. A selector is compiled with the environment that the
scheduler would run it in, so that a wrong one is told to who writes it.

Spec: Kubernetes documentation, "Dynamic Resource Allocation"; API reference of resource.k8s.io/v1 (limits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from tiphys.api.causes import forbidden, invalid_value, required, too_long, too_many
from tiphys.api.kind import Context
from tiphys.api.names import (
    validate_dns_label,
    validate_dns_subdomain,
    validate_label_value,
    validate_qualified_name,
)
from tiphys.api.strategies.fields import check_enum, check_required_text, check_text
from tiphys.base.errors import Cause

if TYPE_CHECKING:
    from tiphys.cel.cost import CostRange
    from tiphys.cel.environment import Environment

DRIVER_LIMIT = 63
POOL_LIMIT = 253
ATTRIBUTE_LIMIT = 32
VALUE_LIMIT = 64
SELECTORS_LIMIT = 32
CONFIGS_LIMIT = 32
TAINTS_LIMIT = 16
PARAMETERS_LIMIT = 10 * 1024
EXPRESSION_LIMIT = 10 * 1024
SELECTOR_COST_LIMIT = 1_000_000
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")
_TOLERATED = ("NoExecute", "NoSchedule")
_OPERATORS = ("Equal", "Exists")
_IDENTIFIER_DETAIL = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    "or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"
)


def check_driver(causes: list[Cause], path: str, name: str | None) -> None:
    """Append what is wrong with the name of a driver: a DNS subdomain in small letters."""
    if not name:
        causes.append(required(path))
    elif len(name) > DRIVER_LIMIT:
        causes.append(too_long(path, DRIVER_LIMIT))
    else:
        check_text(causes, path, name, validate_dns_subdomain)


def check_pool(causes: list[Cause], path: str, name: str | None) -> None:
    """Append what is wrong with the name of a pool: DNS subdomains with slashes between."""
    if not name:
        causes.append(required(path))
        return
    if len(name) > POOL_LIMIT:
        causes.append(too_long(path, POOL_LIMIT))
    for part in name.split("/"):
        check_text(causes, path, part, validate_dns_subdomain)


def check_attribute_name(causes: list[Cause], path: str, name: str, *, whole: bool = False) -> None:
    """Append what is wrong with a name of an attribute or capacity; `whole`: its domain must be there."""
    domain, slash, identifier = name.rpartition("/")
    if not name:
        causes.append(required(path, "name required"))
        return
    if whole and not slash:
        causes.append(invalid_value(path, name, "must include a domain"))
    if slash and not domain:
        causes.append(required(path, "the domain must not be empty"))
    elif domain:
        check_driver(causes, path, domain)
    if not identifier:
        causes.append(required(path, "the name must not be empty"))
    elif len(identifier) > ATTRIBUTE_LIMIT:
        causes.append(too_long(path, ATTRIBUTE_LIMIT))
    elif not _IDENTIFIER.fullmatch(identifier):
        causes.append(invalid_value(path, identifier, _IDENTIFIER_DETAIL))


def check_count(causes: list[Cause], path: str, items: Sequence[Any] | Mapping[str, Any], limit: int) -> None:
    if len(items) > limit:
        causes.append(too_many(path, len(items), limit))


@cache
def _device_environment(minor: int) -> Environment:
    from tiphys.api.cellibrary import libraries
    from tiphys.api.cellibrary.quantity import QUANTITY
    from tiphys.cel.environment import Environment
    from tiphys.cel.types import BOOL, DYN, STRING, ObjectType, map_of

    fields = {"driver": STRING, "attributes": map_of(STRING, map_of(STRING, DYN))}
    fields["capacity"] = map_of(STRING, map_of(STRING, QUANTITY))
    if minor >= 34:
        fields["allowMultipleAllocations"] = BOOL
    return Environment({"device": ObjectType("kubernetes.DRADevice", fields)}, libraries(minor), bindings=True)


def check_expression(
    causes: list[Cause], path: str, text: str | None, context: Context, *, result: str = "bool"
) -> None:
    """Append why an expression over `device` has no meaning, another type than `result` ("" for any), or its price."""
    from tiphys.cel.errors import CompileError

    if not text:
        causes.append(required(path))
        return
    if len(text.encode()) > EXPRESSION_LIMIT:
        causes.append(too_long(path, EXPRESSION_LIMIT))
        return
    try:
        program = _device_environment(context.kubernetes_version[1]).compile(text)
    except CompileError as error:
        causes.append(invalid_value(path, text, f"compilation failed: {error}"))
        return
    if result and str(program.result_type) not in (result, "dyn"):
        causes.append(
            invalid_value(path, text, f"must evaluate to {result} or the unknown type, not {program.result_type}")
        )
        return
    if program.estimate_cost(_device_sizes).max > SELECTOR_COST_LIMIT:
        causes.append(forbidden(path, "too complex, exceeds cost limit"))


def _device_sizes(path: tuple[str, ...]) -> CostRange | None:
    """Return how large what a device holds at a path may be, None where it is not known."""
    from tiphys.cel.cost import CostRange

    match path:
        case ("device", "driver"):
            return CostRange(0, DRIVER_LIMIT)
        case ("device", "attributes" | "capacity", *_):
            return CostRange(0, VALUE_LIMIT)
    return None


def check_selectors(causes: list[Cause], path: str, selectors: Sequence[Any], context: Context) -> None:
    check_count(causes, path, selectors, SELECTORS_LIMIT)
    for index, selector in enumerate(selectors[:SELECTORS_LIMIT]):
        at = f"{path}[{index}].cel"
        if not selector.get("cel"):
            causes.append(required(at))
        else:
            check_expression(causes, f"{at}.expression", selector["cel"].get("expression"), context)


def check_config(causes: list[Cause], path: str, config: Mapping[str, Any]) -> None:
    """Append what is wrong with a configuration: it is for a driver, and its parameters are an object."""
    opaque = config.get("opaque")
    if not opaque:
        causes.append(required(f"{path}.opaque"))
        return
    check_driver(causes, f"{path}.opaque.driver", opaque.get("driver"))
    check_raw(causes, f"{path}.opaque.parameters", opaque.get("parameters"), needed=True)


def check_raw(causes: list[Cause], path: str, value: Any, *, needed: bool = False) -> None:
    """Append why raw data is none: absent, too long, or no object."""
    if value is None:
        if needed:
            causes.append(required(path))
    elif not isinstance(value, dict):
        causes.append(invalid_value(path, "<value omitted>", "must be a valid JSON object"))
    elif len(orjson.dumps(value)) > PARAMETERS_LIMIT:
        causes.append(too_long(path, PARAMETERS_LIMIT))


def check_taint(causes: list[Cause], path: str, taint: Mapping[str, Any]) -> None:
    check_required_text(causes, f"{path}.key", taint.get("key"), validate_qualified_name)
    if taint.get("value"):
        check_text(causes, f"{path}.value", taint["value"], validate_label_value)
    check_enum(causes, f"{path}.effect", taint.get("effect"), _TAINT_EFFECTS)


def check_tolerations(causes: list[Cause], path: str, tolerations: Sequence[Mapping[str, Any]]) -> None:
    check_count(causes, path, tolerations, TAINTS_LIMIT)
    for index, toleration in enumerate(tolerations):
        at, operator = f"{path}[{index}]", toleration.get("operator") or ""
        if toleration.get("key"):
            check_text(causes, f"{at}.key", toleration["key"], validate_qualified_name)
        elif operator != "Exists":
            causes.append(invalid_value(f"{at}.operator", operator, 'must be "Exists" when `key` is empty'))
        check_enum(causes, f"{at}.operator", operator, _OPERATORS)
        if operator == "Exists" and toleration.get("value"):
            causes.append(invalid_value(f"{at}.value", toleration["value"], 'must be empty when operator is "Exists"'))
        elif toleration.get("value"):
            check_text(causes, f"{at}.value", toleration["value"], validate_label_value)
        check_enum(causes, f"{at}.effect", toleration.get("effect"), _TOLERATED, needed=False)


def check_label(causes: list[Cause], path: str, name: str | None) -> None:
    check_required_text(causes, path, name, validate_dns_label)
