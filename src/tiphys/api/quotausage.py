"""How much of each quota one object uses: pure.

Read by the ResourceQuota plugin, which refuses, and by the controller, which tells: what they count is the same. Amounts
are nanos, so that counts, cpu and bytes add up alike.

Spec: Kubernetes documentation, "Resource Quotas": compute, storage and object count quotas, quota scopes; "Dynamic
Resource Allocation", quotas of device classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from tiphys.api.kind import JsonObject
from tiphys.api.qos import pod_limits, pod_requests, qos_class
from tiphys.api.quantity import NANOS, parse_quantity

Usage = dict[str, int]

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_PER_CONTAINER = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_PLAIN = frozenset(
    {"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"}
)
"""Core kinds that a quota may count by their bare name."""
STORAGE_CLASS = ".storageclass.storage.k8s.io/"
DEVICE_CLASS = ".deviceclass.resource.k8s.io/devices"
_VOLUME_CLASS = "VolumeAttributesClass"
_MOST_DEVICES = 32
"""How many devices one claim may get: what a request of all devices counts."""


def resource_names(group: str, plural: str) -> tuple[str, ...]:
    """Return the names under which a quota counts objects of a kind. Pods that ended are not counted as pods."""
    counted = f"count/{plural}.{group}" if group else f"count/{plural}"
    if group or plural not in _PLAIN or plural == "pods":
        return (counted,)
    return (counted, plural)


def usage_of(group: str, plural: str, obj: JsonObject) -> Usage:
    """Return what one object uses, by the quota's resource."""
    usage = dict.fromkeys(resource_names(group, plural), NANOS)
    more = _MORE.get((group, plural))
    if more is not None:
        usage |= more(obj)
    return usage


def is_counted_by_content(group: str, plural: str) -> bool:
    """Tell whether objects of a kind use more than their number."""
    return (group, plural) in _MORE


def _of_pod(pod: JsonObject) -> Usage:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    usage = {"pods": NANOS}
    for name, amount in pod_requests(pod).items():
        usage[f"requests.{name}"] = amount.nanos
        if name in _COMPUTE or name.startswith("hugepages-"):
            usage[name] = amount.nanos
    for name, amount in pod_limits(pod).items():
        usage[f"limits.{name}"] = amount.nanos
    return usage


def _of_service(service: JsonObject) -> Usage:
    spec = service.get("spec") or {}
    ports = spec.get("ports") or []
    if spec.get("type") == "NodePort":
        return {"services.nodeports": len(ports) * NANOS}
    if spec.get("type") == "LoadBalancer":
        node_ports = sum(1 for port in ports if port.get("nodePort"))
        return {"services.loadbalancers": NANOS, "services.nodeports": node_ports * NANOS}
    return {}


def _of_claim(claim: JsonObject) -> Usage:
    spec = claim.get("spec") or {}
    amount = parse_quantity(((spec.get("resources") or {}).get("requests") or {}).get("storage", 0)).nanos
    usage = {"requests.storage": amount}
    if spec.get("storageClassName"):
        name = spec["storageClassName"] + STORAGE_CLASS
        usage |= {f"{name}requests.storage": amount, f"{name}persistentvolumeclaims": NANOS}
    return usage


def _of_device_claim(claim: JsonObject) -> Usage:
    usage: Usage = {}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        alternatives = request.get("firstAvailable") or [request.get("exactly") or {}]
        worst: Usage = {}
        for one in alternatives:
            if class_name := one.get("deviceClassName"):
                count = _MOST_DEVICES if one.get("allocationMode") == "All" else one.get("count") or 1
                name = f"{class_name}{DEVICE_CLASS}"
                worst[name] = max(worst.get(name, 0), count * NANOS)
        for name, amount in worst.items():
            usage[name] = usage.get(name, 0) + amount
    return usage


_MORE: Mapping[tuple[str, str], Callable[[JsonObject], Usage]] = {
    ("", "pods"): _of_pod,
    ("", "services"): _of_service,
    ("", "persistentvolumeclaims"): _of_claim,
    ("resource.k8s.io", "resourceclaims"): _of_device_claim,
}


def missing_amounts(obj: JsonObject, hard: Collection[str]) -> str:
    """Return what a new pod must say because a quota limits it, e.g. `cpu for: a,b; memory for: b`; "" for nothing."""
    spec = obj.get("spec") or {}
    pod_level = spec.get("resources") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    texts = []
    for name in sorted(name for name in _PER_CONTAINER if name in hard):
        if _says(pod_level, name):
            continue
        silent = sorted({c["name"] for c in containers if not _says(c.get("resources") or {}, name)})
        if silent:
            texts.append(f"{name} for: {','.join(silent)}")
    return "; ".join(texts)


def _says(resources: JsonObject, name: str) -> bool:
    part, _, plain = name.rpartition(".")
    return plain in (resources.get(part or "requests") or {})


def scopes_include(quota_spec: JsonObject, group: str, plural: str, obj: JsonObject) -> bool:
    """Tell whether an object is in all scopes of a quota. Only pods and claims of volumes have scopes."""
    needs = _needs(quota_spec)
    if not needs:
        return True
    if group or plural not in ("pods", "persistentvolumeclaims"):
        return False
    if plural == "persistentvolumeclaims":
        return all(need.get("scopeName") == _VOLUME_CLASS and _meets_any(need, _classes(obj)) for need in needs)
    facts = _facts(obj)
    name = (obj.get("spec") or {}).get("priorityClassName")
    return all(
        _meets_any(need, {name} if name else set())
        if need.get("scopeName") == "PriorityClass"
        else facts.get(need.get("scopeName", ""), False)
        for need in needs
    )


def _classes(claim: JsonObject) -> set[str]:
    """Return the volume attributes classes that a claim has, or may soon have."""
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    names = {
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    }
    return {name for name in names if name}


def _needs(quota_spec: JsonObject) -> list[Mapping[str, Any]]:
    scopes: Iterable[str] = quota_spec.get("scopes") or ()
    selector = (quota_spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return [*({"scopeName": scope, "operator": "Exists"} for scope in scopes), *selector]


def _facts(pod: JsonObject) -> dict[str, bool]:
    spec = pod.get("spec") or {}
    terminating = spec.get("activeDeadlineSeconds") is not None
    best_effort = qos_class(pod) == "BestEffort"
    return {
        "Terminating": terminating,
        "NotTerminating": not terminating,
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
        "CrossNamespacePodAffinity": _crosses_namespaces(spec),
    }


def _crosses_namespaces(spec: JsonObject) -> bool:
    affinity = spec.get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(field) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        weighted = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [preference.get("podAffinityTerm") or {} for preference in weighted]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def _meets_any(need: Mapping[str, Any], names: set[str]) -> bool:
    """Tell whether a need of classes is met by those of an object."""
    values = need.get("values") or ()
    return {
        "In": not names.isdisjoint(values),
        "NotIn": names.isdisjoint(values),
        "Exists": bool(names),
        "DoesNotExist": not names,
    }.get(need.get("operator", ""), False)
