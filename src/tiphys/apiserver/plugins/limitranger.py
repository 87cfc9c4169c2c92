"""LimitRanger: what a namespace's LimitRanges give to containers that say nothing, and what they do not let in.

Looks at new pods, resized pods, and new or grown claims. Ranges are decoded once for each change of any of them.

Spec: Kubernetes documentation, "Limit Ranges"; admission controllers, "LimitRanger".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from tiphys.api.kind import JsonObject
from tiphys.api.qos import pod_limits, pod_requests
from tiphys.api.quantity import parse_quantity
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden

ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, str | int | float]


class LimitRanger(Plugin):
    """`ranges` is the cache of LimitRanges."""

    resources = (("", "pods"), ("", "persistentvolumeclaims"))

    def __init__(self, ranges: ResourceCache) -> None:
        self._ranges = ranges
        self._version = -1
        self._items: dict[str, list[JsonObject]] = {}

    async def mutate(self, attributes: Attributes) -> None:
        items = self._items_of(attributes.namespace)
        pod = attributes.obj
        if not items or pod is None or attributes.kind.plural != "pods":
            return
        if attributes.operation == "CREATE" and not attributes.subresource:
            for item in items:
                if item.get("type") == "Container":
                    _fill_defaults(pod, item)

    async def validate(self, attributes: Attributes) -> None:
        items = self._items_of(attributes.namespace)
        if not items or attributes.obj is None:
            return
        if attributes.kind.plural == "pods":
            if attributes.subresource != ("" if attributes.operation == "CREATE" else "resize"):
                return
            problems = [problem for item in items for problem in _pod_problems(attributes.obj, item)]
        elif attributes.subresource:
            return
        else:
            problems = [problem for item in items for problem in _claim_problems(attributes.obj, item)]
        if problems:
            why = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise forbidden(attributes.kind.group, attributes.kind.plural, attributes.name, why)

    def _items_of(self, namespace: str) -> list[JsonObject]:
        if self._version != self._ranges.changed_at:
            self._version, self._items = self._ranges.changed_at, {}
            for cached in self._ranges.objects():
                limits = (orjson.loads(cached.body).get("spec") or {}).get("limits") or []
                self._items.setdefault(cached.namespace, []).extend(limits)
        return self._items.get(namespace, [])


def _fill_defaults(pod: JsonObject, item: JsonObject) -> None:
    notes: list[str] = []
    for field, what in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            resources = container.get("resources") or {}
            for part, defaults in (
                ("requests", item.get("defaultRequest") or {}),
                ("limits", item.get("default") or {}),
            ):
                missing = [name for name in sorted(defaults) if name not in (resources.get(part) or {})]
                if missing:
                    resources[part] = {**(resources.get(part) or {}), **{name: defaults[name] for name in missing}}
                    notes.append(f"{', '.join(missing)} {part.removesuffix('s')} for {what} {container['name']}")
            if resources:
                container["resources"] = resources
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)


def _pod_problems(pod: JsonObject, item: JsonObject) -> Iterator[str]:
    kind, spec = item.get("type"), pod["spec"]
    if kind == "Container":
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            resources = container.get("resources") or {}
            yield from _problems(item, kind, resources.get("requests") or {}, resources.get("limits") or {})
    elif kind == "Pod":
        requests = {name: str(amount) for name, amount in pod_requests(pod).items()}
        yield from _problems(item, kind, requests, {name: str(amount) for name, amount in pod_limits(pod).items()})


def _claim_problems(claim: JsonObject, item: JsonObject) -> Iterator[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    for name, least in (item.get("min") or {}).items():
        yield from _below(name, "PersistentVolumeClaim", least, requests, {})
    for name, most in (item.get("max") or {}).items():
        start = f"maximum {name} usage per PersistentVolumeClaim is {most}"
        if name not in requests:
            yield f"{start}.  No request is specified"
        elif _nanos(requests[name]) > _nanos(most):
            yield f"{start}, but request is {requests[name]}"


def _problems(item: JsonObject, kind: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, least in (item.get("min") or {}).items():
        yield from _below(name, kind, least, requests, limits)
    for name, most in (item.get("max") or {}).items():
        yield from _above(name, kind, most, requests, limits)
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        yield from _too_far_apart(name, kind, ratio, requests, limits)


def _below(name: str, kind: str, least: Any, requests: Amounts, limits: Amounts) -> Iterator[str]:
    start = f"minimum {name} usage per {kind} is {least}"
    if name not in requests:
        yield f"{start}.  No request is specified"
    elif _nanos(requests[name]) < _nanos(least):
        yield f"{start}, but request is {requests[name]}"
    elif name in limits and _nanos(limits[name]) < _nanos(least):
        yield f"{start}, but limit is {limits[name]}"


def _above(name: str, kind: str, most: Any, requests: Amounts, limits: Amounts) -> Iterator[str]:
    start = f"maximum {name} usage per {kind} is {most}"
    if name not in limits:
        yield f"{start}.  No limit is specified"
    elif _nanos(limits[name]) > _nanos(most):
        yield f"{start}, but limit is {limits[name]}"
    elif name in requests and _nanos(requests[name]) > _nanos(most):
        yield f"{start}, but request is {requests[name]}"


def _too_far_apart(name: str, kind: str, ratio: Any, requests: Amounts, limits: Amounts) -> Iterator[str]:
    start = f"{name} max limit to request ratio per {kind} is {ratio}"
    request, limit = _nanos(requests.get(name, 0)), _nanos(limits.get(name, 0))
    if request == 0:
        yield f"{start}, but no request is specified or request is 0"
    elif limit == 0:
        yield f"{start}, but no limit is specified or limit is 0"
    elif limit * 1_000_000_000 > request * _nanos(ratio):
        yield f"{start}, but provided ratio is {limit / request:f}"


def _nanos(amount: Any) -> int:
    return parse_quantity(amount).nanos
