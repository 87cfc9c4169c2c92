"""The ResourceQuota controller: what a namespace uses of its quotas.

In: a key of a ResourceQuota. Decides `plan_usage` for pods and counts the other kinds. Out: `status.hard` and
`status.used`, with the resourceVersion, because quota admission in the API server raises `used` too. This controller is
what lowers it again after deletions.

Kinds that another controller watches are counted from its copy; others are listed when a quota names them.

Spec: Kubernetes docs, "Resource Quotas" (compute, storage and object count quotas, scopes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tiphys.api.quantity import NANOS, Quantity, format_quantity, parse_quantity
from tiphys.api.views.config import ConfigMap
from tiphys.api.views.meta import ObjectMeta, PartialObject, View
from tiphys.api.views.service import Service
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod, ReplicationController

Amounts = Mapping[str, str | int | float]
COMPUTE = frozenset({"cpu", "memory", "ephemeral-storage"})
PLAIN_COUNTS = ("configmaps", "secrets", "replicationcontrollers", "resourcequotas", "persistentvolumeclaims")
RECOUNT_S = 30.0
"""How often kinds without a watch of ours are counted again."""


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


class ClaimSpec(View, frozen=True):
    resources: Any = None
    storage_class_name: str = ""


class Claim(View, frozen=True):
    spec: ClaimSpec = ClaimSpec()


@dataclass(frozen=True, slots=True)
class Uses:
    """What one pod uses: nanos by resource, of requests and of limits."""

    requests: Mapping[str, int]
    limits: Mapping[str, int]


def uses_of(pod: Pod) -> Uses:
    """Return a pod's requests and limits: containers and sidecars together, or an init container that wants more."""
    return Uses(_total(pod, "requests"), _total(pod, "limits"))


def _total(pod: Pod, what: str) -> dict[str, int]:
    running: dict[str, int] = {}
    largest: dict[str, int] = {}

    def amounts(container: Any) -> dict[str, int]:
        found: Amounts = getattr(container.resources, what) if container.resources else {}
        return {name: parse_quantity(value).nanos for name, value in found.items()}

    for container in pod.spec.init_containers:
        own = amounts(container)
        if container.restart_policy == "Always":
            _add(running, own)
        for name in own if container.restart_policy != "Always" else running:
            with_sidecars = running.get(name, 0) + (own.get(name, 0) if container.restart_policy != "Always" else 0)
            largest[name] = max(largest.get(name, 0), with_sidecars)
    for container in pod.spec.containers:
        _add(running, amounts(container))
    total = {name: max(running.get(name, 0), largest.get(name, 0)) for name in running.keys() | largest.keys()}
    if what == "requests" or total:
        _add(total, {name: parse_quantity(value).nanos for name, value in pod.spec.overhead.items()})
    return total


def _add(into: dict[str, int], more: Mapping[str, int]) -> None:
    for name, nanos in more.items():
        into[name] = into.get(name, 0) + nanos


def matches_scopes(quota: ResourceQuota, pod: Pod, uses: Uses) -> bool:
    """Return whether all scopes of a quota include a pod."""
    needs = [ScopeNeed(operator="Exists", scope_name=name) for name in quota.spec.scopes]
    if quota.spec.scope_selector:
        needs += quota.spec.scope_selector.match_expressions
    is_terminating = pod.spec.active_deadline_seconds is not None
    is_best_effort = not any(uses.requests.values()) and not any(uses.limits.values())
    facts = {
        "Terminating": is_terminating,
        "NotTerminating": not is_terminating,
        "BestEffort": is_best_effort,
        "NotBestEffort": not is_best_effort,
    }
    for need in needs:
        if need.scope_name == "PriorityClass":
            name = pod.spec.priority_class_name
            fits = {
                "In": name in need.values,
                "NotIn": name not in need.values,
                "Exists": bool(name),
                "DoesNotExist": not name,
            }.get(need.operator, False)
        else:
            fits = facts.get(need.scope_name, False)
        if not fits:
            return False
    return True


def plan_usage(quota: ResourceQuota, pods: Iterable[Pod]) -> dict[str, int]:
    """Return the nanos that living pods use of a quota's pod resources."""
    used: dict[str, int] = {}
    for pod in pods:
        if pod.status.phase in ("Succeeded", "Failed"):
            continue
        uses = uses_of(pod)
        if not matches_scopes(quota, pod, uses):
            continue
        own = {"pods": NANOS, "count/pods": NANOS}
        own |= {f"requests.{name}": nanos for name, nanos in uses.requests.items()}
        own |= {f"limits.{name}": nanos for name, nanos in uses.limits.items()}
        own |= {name: nanos for name, nanos in uses.requests.items() if name in COMPUTE}
        _add(used, own)
    return used


def is_pod_resource(name: str) -> bool:
    """Return whether a quota's resource is counted over pods."""
    if name in COMPUTE or name in ("pods", "count/pods"):
        return True
    return name.startswith(("requests.", "limits.")) and name != "requests.storage"


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
        for mirror in self.watched:
            mirror.on_change(self._content_changed)

    def _add_quota(self, quota: ResourceQuota | None) -> None:
        if quota is not None:
            self.queue.add(key_of(quota))

    def _content_changed(self, old: Any, new: Any) -> None:
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
        if not is_watched:
            self.queue.add_after(key, RECOUNT_S)

    async def _count(self, quota: ResourceQuota) -> tuple[dict[str, int], bool]:
        """Return the nanos used of each hard resource, and whether all of it is watched."""
        namespace = quota.metadata.namespace
        is_watched = True
        names = [*quota.spec.hard]
        used: dict[str, int] = dict.fromkeys(names, 0)
        if any(is_pod_resource(name) for name in names):
            found = plan_usage(quota, self.pods.all(namespace))
            used |= {name: found.get(name, 0) for name in names if is_pod_resource(name)}
        if quota.spec.scopes or quota.spec.scope_selector:
            return used, True
        counts = service_counts(self.services.all(namespace))
        for name in names:
            if is_pod_resource(name):
                continue
            if name in counts:
                used[name] = counts[name] * NANOS
            elif "storage" in name and not name.startswith("count/"):
                used[name] = await self._storage(namespace, name)
                is_watched = False
            else:
                count, watched = await self._objects(namespace, name)
                used[name] = count * NANOS
                is_watched = is_watched and watched
        return used, is_watched

    async def _objects(self, namespace: str, name: str) -> tuple[int, bool]:
        plural, _, group = name.removeprefix("count/").partition(".")
        if not name.startswith("count/") and plural not in PLAIN_COUNTS:
            return 0, True
        for mirror in (*self.watched, self.quotas):
            if (mirror.resource.plural, mirror.resource.group) == (plural, group):
                return len(mirror.all(namespace)), True
        known = next((r for r in self.shared.mirrors if (r.plural, r.group) == (plural, group)), None)
        resource = known or Resource(group, "v1", plural, "")
        try:
            return len((await self.shared.deps.client.list(resource, namespace)).items), False
        except ApiError as error:
            if error.code == 404:
                return 0, False
            raise

    async def _storage(self, namespace: str, name: str) -> int:
        """Return the storage that claims request, or how many there are, of all or of one storage class."""
        class_name, _, what = name.rpartition(".storageclass.storage.k8s.io/")
        items = (await self.shared.deps.client.list(resources.PERSISTENTVOLUMECLAIMS, namespace)).items
        claims = [msgspec.json.decode(item, type=Claim) for item in items]
        claims = [c for c in claims if not class_name or c.spec.storage_class_name == class_name]
        if what == "persistentvolumeclaims":
            return len(claims) * NANOS
        if what not in ("", "requests.storage"):
            return 0
        requests = [(claim.spec.resources or {}).get("requests") or {} for claim in claims]
        return sum(parse_quantity(request.get("storage", "0")).nanos for request in requests)


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
