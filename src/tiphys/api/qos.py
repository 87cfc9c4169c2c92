"""What a pod asks for: its effective requests and its quality-of-service class.

Input is a defaulted pod, as a JSON object or as a typed view; the scheduler, the kubelet, quotas and the pod's
strategy read the result. Invariant: requests of a resource are never less than those of any moment of the pod's life:
all containers at once, or one init container beside the sidecars started before it, plus the overhead.

Spec: Kubernetes documentation, "Resource sharing within containers" (init containers), "Sidecar containers", "Pod
Overhead", "Configure Quality of Service for Pods"; KEP-2837 (pod-level resources).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tiphys.api.kind import JsonObject
from tiphys.api.quantity import Quantity, format_quantity, parse_quantity

if TYPE_CHECKING:  # views take 30 ms to define; who passes one has them already
    from tiphys.api.views.pod import Pod, PodSpec

_COMPUTE = ("cpu", "memory")
_Amounts = dict[str, Quantity]
_Source = tuple[Mapping[str, Any], bool]
"""Amounts of one container, and whether it is an init container that keeps running."""

ZERO = Quantity(0)


def _parsed(amounts: Mapping[str, Any]) -> _Amounts:
    return {name: parse_quantity(amount) for name, amount in amounts.items()}


def _add(total: _Amounts, more: _Amounts) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _raise_to(total: _Amounts, floor: _Amounts) -> None:
    for name, amount in floor.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def _aggregate(regular: list[Mapping[str, Any]], init: list[_Source]) -> _Amounts:
    total: _Amounts = {}
    for amounts in regular:
        _add(total, _parsed(amounts))
    sidecars: _Amounts = {}
    peak: _Amounts = {}
    for amounts, keeps_running in init:
        parsed = _parsed(amounts)
        if keeps_running:
            _add(total, parsed)
            _add(sidecars, parsed)
            _raise_to(peak, sidecars)
        else:
            moment = dict(sidecars)
            _add(moment, parsed)
            _raise_to(peak, moment)
    _raise_to(total, peak)
    return total


def _sources(spec: JsonObject, field: str) -> tuple[list[Mapping[str, Any]], list[_Source]]:
    regular = [(c.get("resources") or {}).get(field) or {} for c in spec.get("containers") or ()]
    init: list[_Source] = [
        ((c.get("resources") or {}).get(field) or {}, c.get("restartPolicy") == "Always")
        for c in spec.get("initContainers") or ()
    ]
    return regular, init


def container_requests(spec: JsonObject) -> dict[str, str]:
    """Return what the containers ask for together, in canonical text, without overhead and pod-level requests."""
    return {name: format_quantity(amount) for name, amount in _aggregate(*_sources(spec, "requests")).items()}


def pod_requests(pod: JsonObject | Pod) -> dict[str, Quantity]:
    """Return the effective requests of a pod by resource."""
    if not isinstance(pod, dict):
        return spec_requests(pod.spec)
    spec = pod.get("spec") or {}
    own = (spec.get("resources") or {}).get("requests") or {}
    return _finish(_aggregate(*_sources(spec, "requests")), own, spec.get("overhead") or {})


def pod_limits(pod: JsonObject) -> dict[str, Quantity]:
    """Return the effective limits of a pod by resource; a resource without any limit is absent."""
    spec = pod.get("spec") or {}
    own = (spec.get("resources") or {}).get("limits") or {}
    return _finish(_aggregate(*_sources(spec, "limits")), own, spec.get("overhead") or {})


def spec_requests(spec: PodSpec) -> dict[str, Quantity]:
    """Return the effective requests of a pod, by its typed spec."""
    regular = [c.resources.requests if c.resources else {} for c in spec.containers]
    init: list[_Source] = [
        (c.resources.requests if c.resources else {}, c.restart_policy == "Always") for c in spec.init_containers
    ]
    own = spec.resources.requests if spec.resources else {}
    return _finish(_aggregate(regular, init), own, spec.overhead)


def _finish(total: _Amounts, own: Mapping[str, Any], overhead: Mapping[str, Any]) -> _Amounts:
    for name, amount in own.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            total[name] = parse_quantity(amount)
    _add(total, _parsed(overhead))
    return total


def qos_class(pod: JsonObject) -> str:
    """Return Guaranteed, Burstable or BestEffort.

    Guaranteed: every container has limits of cpu and memory and no different request. BestEffort: nobody asks for
    cpu or memory. Amounts of zero count as absent.
    """
    spec = pod.get("spec") or {}
    own = spec.get("resources")
    if own and (own.get("requests") or own.get("limits")):
        return _class_of([_requests_and_limits(own)])
    holders = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return _class_of([_requests_and_limits(holder.get("resources") or {}) for holder in holders])


def spec_qos_class(spec: PodSpec) -> str:
    """Return the same of a typed view."""
    own = spec.resources
    if own is not None and (own.requests or own.limits):
        return _class_of([(own.requests, own.limits)])
    holders = [container.resources for container in (*spec.containers, *spec.init_containers)]
    return _class_of([(held.requests, held.limits) if held else ({}, {}) for held in holders])


def _requests_and_limits(resources: JsonObject) -> tuple[JsonObject, JsonObject]:
    return resources.get("requests") or {}, resources.get("limits") or {}


def _class_of(holders: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Return the class of what asks for these (requests, limits)."""
    asked = False
    guaranteed = True
    for requests, limits in holders:
        for name in _COMPUTE:
            limit = limits.get(name)
            request = requests.get(name, limit)
            if not _is_zero(request) or not _is_zero(limit):
                asked = True
            if _is_zero(limit) or request != limit:
                guaranteed = guaranteed and not _is_zero(limit) and _same(request, limit)
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _is_zero(amount: Any) -> bool:
    return amount is None or amount == "0" or parse_quantity(amount).nanos == 0


def _same(one: Any, other: Any) -> bool:
    return bool(parse_quantity(one).nanos == parse_quantity(other).nanos)
