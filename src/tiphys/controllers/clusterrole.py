"""ClusterRole aggregation: fills the rules of a ClusterRole from those that its aggregationRule selects.

In: the name of a ClusterRole. Out: its `rules`, the union of the selected roles' rules in the order of their names. Any
change of any ClusterRole looks at all that aggregate; there are few.

Spec: Kubernetes docs, "Using RBAC Authorization" (aggregated ClusterRoles).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import Raw

from tiphys.api.views.meta import LabelSelector, ObjectMeta, View
from tiphys.client.interface import Resource
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import matches_selector
from tiphys.controllers.shared import Controller, Shared

CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)


class AggregationRule(View, frozen=True):
    cluster_role_selectors: tuple[LabelSelector, ...] = ()


class ClusterRole(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    aggregation_rule: AggregationRule | None = None
    rules: tuple[Raw, ...] | None = None


def plan_rules(role: ClusterRole, others: Sequence[ClusterRole]) -> list[dict[str, Any]] | None:
    """Return the rules that the role should have, None if it has them (or does not aggregate)."""
    if role.aggregation_rule is None:
        return None
    rules: list[dict[str, Any]] = []
    for selector in role.aggregation_rule.cluster_role_selectors:
        chosen = [
            other
            for other in others
            if other.metadata.name != role.metadata.name and matches_selector(selector, other.metadata.labels)
        ]
        for other in sorted(chosen, key=lambda r: r.metadata.name):
            for raw in other.rules or ():
                rule = orjson.loads(bytes(raw))
                if rule not in rules:
                    rules.append(rule)
    return rules if rules != [orjson.loads(bytes(raw)) for raw in role.rules or ()] else None


class AggregationLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.roles: Mirror[ClusterRole] = shared.mirror(CLUSTERROLES, ClusterRole)
        self.queue = shared.queue()
        self.roles.on_change(self._changed)

    def _changed(self, old: ClusterRole | None, new: ClusterRole | None) -> None:
        for role in self.roles.all():
            if role.aggregation_rule is not None:
                self.queue.add(role.metadata.name)

    async def reconcile(self, key: str) -> None:
        role = self.roles.get(key)
        rules = plan_rules(role, self.roles.all()) if role is not None else None
        if role is not None and rules is not None:
            await self.roles.patch(
                role, {"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules}
            )


def clusterrole_controller(shared: Shared) -> Controller:
    loop = AggregationLoop(shared)
    return Controller("clusterrole-aggregation", loop.queue, loop.reconcile, (loop.roles,), workers=1)
