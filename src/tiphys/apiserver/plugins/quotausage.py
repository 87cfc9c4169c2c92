"""How much of each quota one object uses: pure.

Read by the ResourceQuota plugin. Amounts are nanos, so that counts, cpu and bytes add up alike.

Spec: Kubernetes documentation, "Resource Quotas": compute, storage and object count quotas, quota scopes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.qos import pod_limits, pod_requests, qos_class
from tiphys.api.quantity import NANOS, parse_quantity

Usage = dict[str, int]

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_PER_CONTAINER = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_PLAIN = frozenset(
    {"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"}
)
"""Core kinds that a quota may count by their bare name."""
_CLASS = ".storageclass.storage.k8s.io/"


def resource_names(kind: Kind) -> tuple[str, ...]:
    """Return the names under which a quota counts objects of a kind. Pods that ended are not counted as pods."""
    counted = f"count/{kind.plural}.{kind.group}" if kind.group else f"count/{kind.plural}"
    if kind.group or kind.plural not in _PLAIN or kind.plural == "pods":
        return (counted,)
    return (counted, kind.plural)


def usage_of(kind: Kind, obj: JsonObject) -> Usage:
    """Return what one object uses, by the quota's resource."""
    usage = dict.fromkeys(resource_names(kind), NANOS)
    if not kind.group:
        more = {"pods": _of_pod, "services": _of_service, "persistentvolumeclaims": _of_claim}.get(kind.plural)
        if more is not None:
            usage |= more(obj)
    return usage


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
        name = spec["storageClassName"] + _CLASS
        usage |= {f"{name}requests.storage": amount, f"{name}persistentvolumeclaims": NANOS}
    return usage


def missing_amounts(kind: Kind, obj: JsonObject, hard: Collection[str]) -> str:
    """Return what a new pod must say because a quota limits it, e.g. `cpu for: a,b; memory for: b`; "" for nothing."""
    if kind.group or kind.plural != "pods":
        return ""
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


def scopes_include(quota_spec: JsonObject, kind: Kind, obj: JsonObject) -> bool:
    """Tell whether an object is in all scopes of a quota. Only pods have scopes."""
    needs = _needs(quota_spec)
    if not needs:
        return True
    if kind.group or kind.plural != "pods":
        return False
    facts = _facts(obj)
    return all(_meets(need, facts, obj.get("spec") or {}) for need in needs)


def _needs(quota_spec: JsonObject) -> list[Mapping[str, Any]]:
    scopes: Iterable[str] = quota_spec.get("scopes") or ()
    selector = (quota_spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return [{"scopeName": scope, "operator": "Exists"} for scope in scopes] + selector


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


def _meets(need: Mapping[str, Any], facts: Mapping[str, bool], spec: JsonObject) -> bool:
    if need.get("scopeName") != "PriorityClass":
        return facts.get(need.get("scopeName", ""), False)
    name, values = spec.get("priorityClassName") or "", need.get("values") or ()
    return {
        "In": name in values,
        "NotIn": name not in values,
        "Exists": bool(name),
        "DoesNotExist": not name,
    }.get(need.get("operator", ""), False)
