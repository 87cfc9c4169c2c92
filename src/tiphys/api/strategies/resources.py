"""Validation of amounts: requests and limits of containers and pods, capacities, quotas.

Quantities are in canonical text here (decoding saw to that); a text that is no quantity counts as 0 because it has
been refused before. Spec: Kubernetes documentation, "Resource Management for Pods and Containers", "Resource Quotas".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tiphys.api.causes import duplicate, forbidden, invalid_value, not_found, required
from tiphys.api.kind import JsonObject
from tiphys.api.names import validate_qualified_name
from tiphys.api.quantity import NANOS, parse_quantity
from tiphys.api.strategies.fields import NOT_NEGATIVE
from tiphys.base.errors import Cause

CONTAINER_RESOURCES = frozenset(("cpu", "memory", "ephemeral-storage"))
_QUOTA_PREFIXES = ("requests.", "limits.")
_QUOTA_RESOURCES = frozenset(
    (
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    )
)
_INTEGER_RESOURCES = frozenset(
    (
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    )
)
STANDARD_RESOURCES = _QUOTA_RESOURCES | CONTAINER_RESOURCES | {"storage"}
NOT_STANDARD = "must be a standard resource type or fully qualified"
_NOT_INTEGER = "must be an integer"


@lru_cache(maxsize=8192)
def nanos(quantity: str | int | float) -> int:
    """Return billionths of a quantity; 0 for text that is none."""
    try:
        return parse_quantity(quantity).nanos
    except ValueError:
        return 0


def is_huge_page(name: str) -> bool:
    return name.startswith("hugepages-")


def is_extended(name: str) -> bool:
    """A resource of a vendor: it has a domain other than kubernetes.io and is not a quota's name."""
    if "/" not in name or "kubernetes.io/" in name or name.startswith("requests."):
        return False
    return not validate_qualified_name(f"requests.{name}")


def check_resource_name(causes: list[Cause], path: str, name: str) -> bool:
    """Check the grammar of a resource's name; say whether it is good."""
    complaints = validate_qualified_name(name)
    for complaint in complaints:
        causes.append(invalid_value(path, name, complaint))
    if complaints:
        return False
    if "/" not in name and name not in STANDARD_RESOURCES and not is_huge_page(name) and not _is_quota_of(name):
        causes.append(invalid_value(path, name, NOT_STANDARD))
        return False
    return True


def _is_quota_of(name: str) -> bool:
    return name.startswith(_QUOTA_PREFIXES) and is_huge_page(name.partition(".")[2])


def check_container_resource_name(causes: list[Cause], path: str, name: str) -> None:
    if name in CONTAINER_RESOURCES:
        return
    check_resource_name(causes, path, name)
    if "/" not in name:
        if not is_huge_page(name):
            causes.append(invalid_value(path, name, "must be a standard resource for containers"))
    elif "kubernetes.io/" not in name and not is_extended(name):
        causes.append(invalid_value(path, name, "doesn't follow extended resource name standard"))


def check_quota_resource_name(causes: list[Cause], path: str, name: str) -> None:
    if name in _QUOTA_RESOURCES:
        return
    good = check_resource_name(causes, path, name)
    if good and "/" not in name and not is_huge_page(name) and not _is_quota_of(name):
        causes.append(invalid_value(path, name, "must be a standard resource for quota"))


def check_amount(causes: list[Cause], path: str, name: str, amount: Any) -> None:
    """Check that an amount is not negative, and whole if the resource is counted in pieces."""
    value = nanos(amount)
    if value < 0:
        causes.append(invalid_value(path, str(amount), NOT_NEGATIVE))
    if value % NANOS and (name in _INTEGER_RESOURCES or is_extended(name)):
        causes.append(invalid_value(path, amount, _NOT_INTEGER))


def check_resources(causes: list[Cause], resources: JsonObject, claims: set[str], path: str) -> None:
    """Check the requests, limits and claims of a container."""
    limits = resources.get("limits") or {}
    requests = resources.get("requests") or {}
    huge = False
    basic = False
    for name, amount in limits.items():
        _check_entry(causes, f"{path}.limits[{name}]", name, amount)
        huge = huge or is_huge_page(name)
        basic = basic or name in ("cpu", "memory")
    for name, amount in requests.items():
        entry_path = f"{path}.requests[{name}]"
        _check_entry(causes, entry_path, name, amount)
        limit = limits.get(name)
        if limit is not None:
            _check_against_limit(causes, f"{path}.requests", name, amount, limit)
        elif is_huge_page(name) or is_extended(name):
            causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        huge = huge or is_huge_page(name)
        basic = basic or name in ("cpu", "memory")
    if huge and not basic:
        causes.append(forbidden(path, "HugePages require cpu or memory"))
    if resources.get("claims"):
        _check_claims(causes, resources["claims"], claims, f"{path}.claims")


def _check_entry(causes: list[Cause], path: str, name: str, amount: Any) -> None:
    if name in CONTAINER_RESOURCES:
        if nanos(amount) < 0:
            causes.append(invalid_value(path, str(amount), NOT_NEGATIVE))
        return
    check_container_resource_name(causes, path, name)
    check_amount(causes, path, name, amount)


def _check_against_limit(causes: list[Cause], path: str, name: str, amount: Any, limit: Any) -> None:
    asked = nanos(amount)
    most = nanos(limit)
    if asked == most:
        return
    if is_huge_page(name) or is_extended(name):
        causes.append(invalid_value(path, str(amount), f"must be equal to {name} limit of {limit}"))
    elif asked > most:
        causes.append(invalid_value(path, str(amount), f"must be less than or equal to {name} limit of {limit}"))


def _check_claims(causes: list[Cause], claims: list[Any], known: set[str], path: str) -> None:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(claims):
        name = claim.get("name") or ""
        if not name:
            causes.append(required(f"{path}[{index}]"))
            continue
        key = (name, claim.get("request") or "")
        if key in seen:
            causes.append(duplicate(f"{path}[{index}]", name if not key[1] else f"{key[0]}/{key[1]}"))
        elif name not in known:
            causes.append(not_found(f"{path}[{index}]", name))
        seen.add(key)


def check_pod_resources(causes: list[Cause], spec: JsonObject, path: str) -> None:
    """Check spec.resources: amounts for the pod as a whole."""
    from tiphys.api.qos import container_requests

    resources = spec["resources"]
    if resources.get("claims"):
        causes.append(forbidden(f"{path}.claims", "claims cannot be set for Resources at pod-level"))
    for field in ("limits", "requests"):
        for name in resources.get(field) or ():
            if name not in ("cpu", "memory") and not is_huge_page(name):
                causes.append(invalid_value(f"{path}.{field}[{name}]", name, "must be a standard resource for pods"))
    check_resources(causes, {**resources, "claims": None}, set(), path)
    requests = resources.get("requests") or {}
    for name, amount in container_requests(spec).items():
        if name in ("cpu", "memory") and nanos(amount) > nanos(requests.get(name, "0")):
            detail = f"must be greater than or equal to aggregate container requests of {amount}"
            causes.append(invalid_value(f"{path}.requests[{name}]", str(requests.get(name, "0")), detail))
    limits = resources.get("limits") or {}
    for index, container in enumerate(spec.get("containers") or ()):
        for name, limit in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and nanos(limit) > nanos(limits[name]):
                causes.append(
                    invalid_value(
                        f"{path}.containers[{index}][{name}].limits",
                        str(limit),
                        f"must be less than or equal to pod limits of {limits[name]}",
                    )
                )
