"""ResourceQuota: a write that would take a namespace over one of its quotas is refused.

What is used is counted from the objects themselves, plus what writes under way have reserved, so that two creates at
once never pass a quota together, and nothing has to be given back after a crash. How much one object uses is decided in
api/quotausage.py.

DIFFERS: upstream counts on the quota's status, which its controller mends later; here a stale status refuses nobody.
Limit: a check decodes only objects that changed, but walks over all pods of a namespace that has a quota of pods.
Spec: Kubernetes documentation, "Resource Quotas"; admission controllers, "ResourceQuota".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.quantity import Quantity, format_quantity, parse_quantity
from tiphys.api.quotausage import Usage, missing_amounts, resource_names, scopes_include, usage_of
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden


@dataclass(slots=True)
class _Quota:
    """One decoded quota."""

    name: str
    hard: Mapping[str, Quantity]
    spec: JsonObject
    reserved: Usage = field(default_factory=dict)


class ResourceQuota(Plugin):
    """`quotas` is the cache of ResourceQuotas; `objects` returns the cache of a kind."""

    def __init__(self, quotas: ResourceCache, objects: Callable[[Kind], ResourceCache]) -> None:
        self._quotas = quotas
        self._objects = objects
        self._known: dict[str, tuple[int, _Quota]] = {}
        self._usages: dict[tuple[str, str], tuple[int, Usage, JsonObject]] = {}

    async def validate(self, attributes: Attributes) -> None:
        obj, kind = attributes.obj, attributes.kind
        if not self._quotas.count(attributes.namespace) or obj is None or not attributes.namespace:
            return
        if attributes.subresource not in ("", "resize", "scale"):
            return
        wanted = usage_of(kind.group, kind.plural, obj)
        if attributes.old is not None:
            before = usage_of(kind.group, kind.plural, attributes.old)
            wanted = {name: amount - before.get(name, 0) for name, amount in wanted.items()}
        wanted = {name: amount for name, amount in wanted.items() if amount > 0}
        if not wanted:
            return
        for quota in self._of(attributes.namespace):
            self._check(attributes, quota, obj, wanted)

    def _check(self, attributes: Attributes, quota: _Quota, obj: JsonObject, wanted: Usage) -> None:
        kind = attributes.kind
        named = {name: amount for name, amount in wanted.items() if name in quota.hard}
        if not scopes_include(quota.spec, kind.group, kind.plural, obj):
            return
        if attributes.operation == "CREATE" and kind.plural == "pods" and not kind.group:
            missing = missing_amounts(obj, quota.hard)
            if missing:
                why = f"failed quota: {quota.name}: must specify {missing}"
                raise forbidden(kind.group, kind.plural, attributes.name, why)
        if not named:
            return
        used = self._used(quota, kind, attributes.namespace, named)
        over = [name for name in sorted(named) if used[name] + named[name] > quota.hard[name].nanos]
        if over:
            requested = _text(over, named, quota)
            limited = ",".join(f"{name}={quota.hard[name]}" for name in over)
            why = (
                f"exceeded quota: {quota.name}, requested: {requested}, used: {_text(over, used, quota)}, "
                f"limited: {limited}"
            )
            raise forbidden(kind.group, kind.plural, attributes.name, why)
        if not attributes.dry_run:
            self._reserve(attributes, quota, named)

    def _reserve(self, attributes: Attributes, quota: _Quota, amounts: Usage) -> None:
        for name, amount in amounts.items():
            quota.reserved[name] = quota.reserved.get(name, 0) + amount

        def give_back(succeeded: bool) -> None:
            for name, amount in amounts.items():
                quota.reserved[name] -= amount

        attributes.finished.append(give_back)

    def _used(self, quota: _Quota, kind: Kind, namespace: str, named: Usage) -> Usage:
        total = {name: quota.reserved.get(name, 0) for name in named}
        cache = self._objects(kind)
        if not quota.spec.get("scopes") and not quota.spec.get("scopeSelector"):
            counted = {name for name in named if name in resource_names(kind.group, kind.plural)}
            for name in counted:
                total[name] += cache.count(namespace) * 1_000_000_000
            if counted == set(named):
                return total
        else:
            counted = set()
        for cached in cache.objects(namespace):
            key = (cache.prefix, cached.key)
            known = self._usages.get(key)
            if known is None or known[0] != cached.revision:
                obj = cached.decode()
                usage = usage_of(kind.group, kind.plural, obj)
                known = self._usages[key] = (cached.revision, usage, _scoped(kind, obj))
            if scopes_include(quota.spec, kind.group, kind.plural, known[2]):
                for name in named:
                    if name not in counted:
                        total[name] += known[1].get(name, 0)
        self._forget(cache, namespace)
        return total

    def _forget(self, cache: ResourceCache, namespace: str) -> None:
        """Drop what is remembered of objects that are gone, now and then."""
        if len(self._usages) > 2 * cache.count() + 10_000:
            self._usages.clear()

    def _of(self, namespace: str) -> list[_Quota]:
        quotas = []
        for cached in self._quotas.objects(namespace):
            known = self._known.get(cached.key)
            if known is None or known[0] != cached.revision:
                spec = cached.decode().get("spec") or {}
                hard = {name: parse_quantity(amount) for name, amount in (spec.get("hard") or {}).items()}
                reserved = known[1].reserved if known is not None else {}
                known = self._known[cached.key] = (cached.revision, _Quota(cached.name, hard, spec, reserved))
            quotas.append(known[1])
        return quotas


def _scoped(kind: Kind, obj: JsonObject) -> JsonObject:
    """Return of an object what scopes look at."""
    looked_at = ("spec", "status") if kind.plural == "persistentvolumeclaims" else ("spec",)
    return {field: obj.get(field) or {} for field in looked_at}


def _text(names: list[str], amounts: Usage, quota: _Quota) -> str:
    return ",".join(f"{name}={format_quantity(Quantity(amounts[name], quota.hard[name].format))}" for name in names)
