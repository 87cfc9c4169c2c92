"""Which other pods belong with a pod: the selectors of its Services and of the workload that owns it.

Used for the default spreading of pods that name no constraints. Fed by the reflectors' changes.

Spec: Kubernetes docs, "Pod Topology Spread Constraints", cluster-level default constraints.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.selectors import NOTHING, LabelSelector, selector_of, selector_of_labels
from tiphys.api.views.meta import LabelSelector as LabelSelectorView
from tiphys.scheduler.profile import Profile

OWNERS = ("ReplicationController", "ReplicaSet", "StatefulSet")
CACHE = 4096


class Workloads:
    """Selectors of Services and owners, by namespace and name."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, LabelSelector]] = {}
        self._owners: dict[tuple[str, str, str], LabelSelector] = {}
        """(kind, namespace, name) -> selector."""
        self._known: dict[tuple[Profile, tuple[str, str]], LabelSelector] = {}

    def set_service(self, namespace: str, name: str, selector: Mapping[str, str] | None) -> None:
        """Take over a Service's selector; None: it is gone."""
        self._known.clear()
        services = self._services.setdefault(namespace, {})
        if selector:
            services[name] = selector_of_labels(selector)
        else:
            services.pop(name, None)

    def set_owner(
        self, kind: str, namespace: str, name: str, selector: LabelSelectorView | Mapping[str, str] | None
    ) -> None:
        """Take over a workload's selector; None: it is gone."""
        parsed = NOTHING
        if selector is not None:
            parsed = selector_of(selector) if isinstance(selector, LabelSelectorView) else selector_of_labels(selector)
        if self._owners.get((kind, namespace, name), NOTHING) == parsed:
            return
        self._known.clear()
        if selector is None:
            self._owners.pop((kind, namespace, name), None)
        else:
            self._owners[(kind, namespace, name)] = parsed

    def selector(self, profile: Profile, owner: tuple[str, str]) -> LabelSelector:
        """Return what selects the pod's siblings; `nothing` when it belongs to nothing. `owner`: kind and name."""
        key = (profile, owner)
        found = self._known.get(key)
        if found is None:
            if len(self._known) > CACHE:
                self._known.clear()
            found = self._known[key] = self._combined(profile, owner)
        return found

    def _combined(self, profile: Profile, owner: tuple[str, str]) -> LabelSelector:
        services = self._services.get(profile.namespace, {}).values()
        parts = [selector for selector in services if selector.matches(profile.labels)]
        owned = self._owners.get((owner[0], profile.namespace, owner[1]))
        if owned is not None:
            parts.append(owned)
        if not parts or any(part.nothing for part in parts):
            return NOTHING
        requirements = dict.fromkeys(r for part in parts for r in part.requirements)
        return LabelSelector(tuple(sorted(requirements, key=lambda r: (r.key, r.operator, r.values))))
