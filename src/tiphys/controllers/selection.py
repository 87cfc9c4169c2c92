"""Small pure rules that all workloads share: label selectors, owner references, keys, int-or-percent, pod predicates.

Spec: Kubernetes docs, "Labels and Selectors", "Garbage Collection" (owner references), "Pod Lifecycle".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from tiphys.api.views.meta import LabelSelector, ObjectMeta, OwnerReference
from tiphys.base.clock import parse_time
from tiphys.client.interface import Resource
from tiphys.controllers.views import Pod


class HasMeta(Protocol):
    """Any view with metadata."""

    @property
    def metadata(self) -> ObjectMeta: ...


def key_of(view: HasMeta) -> str:
    """Return `namespace/name`, or the name of a cluster-scoped object: the key of caches and queues."""
    meta = view.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def matches_selector(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Return whether labels satisfy a selector. None matches nothing, an empty selector everything."""
    if selector is None:
        return False
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for need in selector.match_expressions:
        value_now = labels.get(need.key)
        if need.operator == "In" and value_now not in need.values:
            return False
        if need.operator == "NotIn" and value_now in need.values:
            return False
        if need.operator == "Exists" and value_now is None:
            return False
        if need.operator == "DoesNotExist" and value_now is not None:
            return False
    return True


def is_empty_selector(selector: LabelSelector | None) -> bool:
    """Return whether a selector selects everything (or is missing)."""
    return selector is None or not (selector.match_labels or selector.match_expressions)


def matches_labels(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether labels hold every pair of an equality selector."""
    return all(labels.get(key) == value for key, value in selector.items())


def controller_of(meta: ObjectMeta) -> OwnerReference | None:
    """Return the reference to the managing controller, if there is one."""
    for reference in meta.owner_references:
        if reference.controller:
            return reference
    return None


def owner_index(view: HasMeta) -> Iterable[str]:
    """Index by the uid of the controller; objects without one are under their namespace, as `orphans/<namespace>`."""
    owner = controller_of(view.metadata)
    return (owner.uid,) if owner else (f"orphans/{view.metadata.namespace}",)


def owner_reference(resource: Resource, owner: ObjectMeta) -> dict[str, Any]:
    """Return the reference that makes `owner` the controller of a new object."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def resolve_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Return an int-or-percent as a number of `total`; None and text that is no percentage are 0."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    text = value.rstrip("%")
    if text == value or not text.isdigit():
        return int(value) if value.isdigit() else 0
    product = int(text) * total
    return -(-product // 100) if round_up else product // 100


def is_active(pod: Pod) -> bool:
    """Return whether a pod counts for its controller: neither finished nor being deleted."""
    return pod.status.phase not in ("Succeeded", "Failed") and pod.metadata.deletion_timestamp is None


def ready_since_s(pod: Pod) -> float | None:
    """Return when the pod became ready (seconds since the epoch), None if it is not ready."""
    for condition in pod.status.conditions:
        if condition.type == "Ready":
            if condition.status != "True":
                return None
            return parse_time(condition.last_transition_time) if condition.last_transition_time else 0.0
    return None


def is_ready(pod: Pod) -> bool:
    """Return whether the pod's Ready condition is True."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def is_available(pod: Pod, min_ready_s: int, now_s: float) -> bool:
    """Return whether the pod has been ready for `min_ready_s` seconds."""
    if min_ready_s == 0:
        return is_ready(pod)
    since = ready_since_s(pod)
    return since is not None and since > 0 and since + min_ready_s <= now_s


def created_s(meta: ObjectMeta) -> float:
    """Return the creation time in seconds since the epoch, 0 if it is not known."""
    return parse_time(meta.creation_timestamp) if meta.creation_timestamp else 0.0


def omit_zero(value: int) -> int | None:
    """Return None for 0: a merge patch then removes the field, as upstream omits it."""
    return value or None
