"""The ResourceQuota controller: what a namespace uses of its quotas.

In: a key of a ResourceQuota. Decides `plan_usage` for pods and counts the other kinds, as quota admission does
(api/quotausage.py). Out: `status.hard` and `status.used`, with the resourceVersion, so that two countings never cross.

Kinds that another controller watches are counted from its copy, all others from those of the garbage collector, which
follows every kind: so a status is right a moment after each change, for custom kinds too. Claims are listed, because
what they ask for is counted and not only their number. A kind that nobody watches is listed now and then.

Spec: Kubernetes docs, "Resource Quotas" (compute, storage and object count quotas, scopes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import orjson

from tiphys.api.kind import JsonObject
from tiphys.api.quantity import NANOS, Quantity, format_quantity, parse_quantity
from tiphys.api.quotausage import (
    DEVICE_CLASS,
    Usage,
    is_counted_by_content,
    resource_names,
    scopes_include,
    usage_of,
)
from tiphys.api.views.config import ConfigMap
from tiphys.api.views.meta import ObjectMeta, PartialObject, View
from tiphys.api.views.service import Service
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.client.reflector import Reflector
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod, ReplicationController

Amounts = Mapping[str, str | int | float]
COMPUTE = frozenset({"cpu", "memory", "ephemeral-storage"})
PLAIN_COUNTS = ("configmaps", "secrets", "replicationcontrollers", "resourcequotas", "persistentvolumeclaims")
DEVICE_CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
RECOUNT_FIRST_S, RECOUNT_S = 1.0, 30.0
"""When a kind without a watch is counted again: soon, since a new kind is watched a moment later, then less often."""


class ScopeNeed(View, frozen=True):
    operator: str = ""
    scope_name: str = ""
    values: tuple[str, ...] = ()


class ScopeSelector(View, frozen=True):
    match_expressions: tuple[ScopeNeed, ...] = ()


class ResourceQuotaSpec(View, frozen=True):
    hard: Amounts = msgspec.field(default_factory=dict)
    scope_selector: ScopeSelector | None = None
    scopes: tuple[str, ...] = ()


class ResourceQuotaStatus(View, frozen=True):
    hard: Amounts = msgspec.field(default_factory=dict)
    used: Amounts = msgspec.field(default_factory=dict)


class ResourceQuota(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pod uses, and what scopes look at."""

    revision: str
    usage: Usage
    scoped: JsonObject


def measure(pod: Pod) -> Measured:
    """Return what a pod uses: nothing but its number if it ended."""
    plain = {"spec": msgspec.to_builtins(pod.spec), "status": {"phase": pod.status.phase}}
    return Measured(pod.metadata.resource_version, usage_of("", "pods", plain), {"spec": plain["spec"]})


def plan_usage(quota: ResourceQuota, pods: Iterable[Measured]) -> Usage:
    """Return the nanos that pods use of a quota's pod resources."""
    spec = msgspec.to_builtins(quota.spec)
    used: Usage = {}
    for pod in pods:
        if scopes_include(spec, "", "pods", pod.scoped):
            _add(used, pod.usage)
    return used


def _add(into: Usage, more: Usage) -> None:
    for name, nanos in more.items():
        into[name] = into.get(name, 0) + nanos


def is_pod_resource(name: str) -> bool:
    """Return whether a quota's resource is counted over pods."""
    if name in COMPUTE or name.startswith("hugepages-") or name in ("pods", "count/pods"):
        return True
    return name.startswith(("requests.", "limits.")) and name != "requests.storage"


def is_claim_resource(name: str) -> bool:
    """Return whether a quota's resource is counted over what claims of volumes ask for."""
    return "storage" in name and not name.startswith("count/") and not is_pod_resource(name)


def service_counts(services: Sequence[Service]) -> dict[str, int]:
    """Return how many Services there are, and how many node ports and load balancers they take."""
    node_ports = sum(
        sum(
            1
            for port in s.spec.ports
            if s.spec.type == "NodePort" or (s.spec.type == "LoadBalancer" and port.node_port)
        )
        for s in services
    )
    return {
        "services": len(services),
        "count/services": len(services),
        "services.nodeports": node_ports,
        "services.loadbalancers": sum(1 for s in services if s.spec.type == "LoadBalancer"),
    }


class QuotaLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.quotas: Mirror[ResourceQuota] = shared.mirror(resources.RESOURCEQUOTAS, ResourceQuota)
        self.pods = shared.pods
        self.services: Mirror[Service] = shared.mirror(resources.SERVICES, Service)
        self.queue = shared.queue()
        self.quotas.on_change(lambda old, new: self._add_quota(new))
        self.watched: tuple[Mirror[Any], ...] = (
            self.pods,
            self.services,
            shared.mirror(resources.CONFIGMAPS, ConfigMap),
            shared.mirror(resources.SECRETS, PartialObject),
            shared.mirror(resources.REPLICATIONCONTROLLERS, ReplicationController),
        )
        self.measured: dict[str, Measured] = {}
        """What pods use, by uid."""
        self.recounts: dict[str, float] = {}
        """How long the next recount of a quota of kinds that nobody watches waits."""
        for mirror in self.watched:
            mirror.on_change(self._content_changed)
        shared.copies.on_added(self._follow)

    def _follow(self, resource: Resource, copy: Reflector[Any]) -> None:
        """Count a kind again when it changes, from now on."""
        own = {mirror.resource for mirror in (*self.watched, self.quotas)}
        if resource.namespaced and resource not in own:
            copy.on_change(partial(self._object_changed, resource))

    def _object_changed(self, resource: Resource, old: Any, new: Any) -> None:
        by_content = is_counted_by_content(resource.group, resource.plural)
        if old is not None and new is not None and not by_content:
            return
        names = resource_names(resource.group, resource.plural)
        for quota in self.quotas.all((new if new is not None else old).metadata.namespace):
            hard = quota.spec.hard
            if any(n in hard for n in names) or (
                by_content and any(is_claim_resource(n) or n.endswith(DEVICE_CLASS) for n in hard)
            ):
                self._add_quota(quota)

    def _add_quota(self, quota: ResourceQuota | None) -> None:
        if quota is not None:
            self.queue.add(key_of(quota))

    def _content_changed(self, old: Any, new: Any) -> None:
        if new is None:
            self.measured.pop(old.metadata.uid, None)
        if old is not None and new is not None and not isinstance(new, Service):
            if not isinstance(new, Pod):
                return
            is_same = new.spec == old.spec and (new.status.phase in ("Succeeded", "Failed")) == (
                old.status.phase in ("Succeeded", "Failed")
            )
            if is_same:
                return
        for quota in self.quotas.all((new if new is not None else old).metadata.namespace):
            self._add_quota(quota)

    async def reconcile(self, key: str) -> None:
        quota = self.quotas.get(key)
        if quota is None:
            self.recounts.pop(key, None)
            return
        used, is_watched = await self._count(quota)
        hard = {name: str(value) for name, value in quota.spec.hard.items()}
        status = plan_status(quota, hard, used)
        if status is not None:
            body = {"metadata": {"resourceVersion": quota.metadata.resource_version}, "status": status}
            try:
                await self.quotas.patch(quota, body, subresource="status")
            except ApiError as error:
                if error.code != 404:
                    raise
        if is_watched:
            self.recounts.pop(key, None)
        else:
            wait_s = self.recounts.get(key, RECOUNT_FIRST_S)
            self.recounts[key] = min(2 * wait_s, RECOUNT_S)
            self.queue.add_after(key, wait_s)

    async def _count(self, quota: ResourceQuota) -> tuple[Usage, bool]:
        """Return the nanos used of each hard resource, and whether all of it is watched."""
        namespace = quota.metadata.namespace
        is_watched = True
        names = [*quota.spec.hard]
        used: Usage = dict.fromkeys(names, 0)
        if any(is_pod_resource(name) for name in names):
            found = plan_usage(quota, map(self._measured, self.pods.all(namespace)))
            used |= {name: found.get(name, 0) for name in names if is_pod_resource(name)}
        by_content = [
            (resources.PERSISTENTVOLUMECLAIMS, any(map(is_claim_resource, names))),
            (DEVICE_CLAIMS, any(name.endswith(DEVICE_CLASS) for name in names)),
        ]
        has_scopes = bool(quota.spec.scopes or quota.spec.scope_selector)
        if has_scopes and "persistentvolumeclaims" in names:
            by_content[0] = (resources.PERSISTENTVOLUMECLAIMS, True)
        for resource, is_named in by_content:
            if is_named:
                found = await self._contents(quota, resource)
                used |= {name: found[name] for name in names if name in found}
                is_watched = is_watched and self.shared.copies.of(resource.group, resource.plural) is not None
        if has_scopes:
            return used, is_watched
        counts = service_counts(self.services.all(namespace))
        for name in names:
            if name in counts:
                used[name] = counts[name] * NANOS
            elif not (is_pod_resource(name) or is_claim_resource(name) or name.endswith(DEVICE_CLASS)):
                count, watched = await self._objects(namespace, name)
                used[name] = count * NANOS
                is_watched = is_watched and watched
        return used, is_watched

    def _measured(self, pod: Pod) -> Measured:
        known = self.measured.get(pod.metadata.uid)
        if known is None or known.revision != pod.metadata.resource_version:
            known = self.measured[pod.metadata.uid] = measure(pod)
        return known

    async def _objects(self, namespace: str, name: str) -> tuple[int, bool]:
        plural, _, group = name.removeprefix("count/").partition(".")
        if not name.startswith("count/") and plural not in PLAIN_COUNTS:
            return 0, True
        for mirror in (*self.watched, self.quotas):
            if (mirror.resource.plural, mirror.resource.group) == (plural, group):
                return len(mirror.all(namespace)), True
        copy = self.shared.copies.of(group, plural)
        if copy is not None:
            return len(copy.list(namespace)), True
        known = next((r for r in self.shared.mirrors if (r.plural, r.group) == (plural, group)), None)
        return len(await self._list(known or Resource(group, "v1", plural, ""), namespace)), False

    async def _contents(self, quota: ResourceQuota, resource: Resource) -> Usage:
        """Return what the objects of a kind use that are in a quota's scopes."""
        spec = msgspec.to_builtins(quota.spec)
        used: Usage = {}
        for item in await self._list(resource, quota.metadata.namespace):
            obj = orjson.loads(item)
            if scopes_include(spec, resource.group, resource.plural, obj):
                _add(used, usage_of(resource.group, resource.plural, obj))
        return used

    async def _list(self, resource: Resource, namespace: str) -> Sequence[bytes]:
        try:
            return (await self.shared.deps.client.list(resource, namespace)).items
        except ApiError as error:
            if error.code == 404:
                return ()
            raise


def plan_status(quota: ResourceQuota, hard: Mapping[str, str], used: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the status patch, None if the status is right already."""
    texts = {}
    for name, nanos in used.items():
        format_ = parse_quantity(hard[name]).format
        texts[name] = format_quantity(Quantity(nanos, format_))
    old = quota.status
    same_hard = {n: str(v) for n, v in old.hard.items()} == dict(hard)
    same_used = {n: parse_quantity(v).nanos for n, v in old.used.items()} == dict(used)
    if same_hard and same_used:
        return None
    gone_hard = dict.fromkeys(set(old.hard) - set(hard))
    gone_used = dict.fromkeys(set(old.used) - set(texts))
    return {"hard": {**gone_hard, **hard}, "used": {**gone_used, **texts}}


def quota_controller(shared: Shared) -> Controller:
    loop = QuotaLoop(shared)
    return Controller("resourcequota", loop.queue, loop.reconcile, (loop.quotas, *loop.watched), workers=5)
