"""Filters for the persistent volumes that a pod uses, and what has to be done about them once a node is chosen.

A claim that is bound ties the pod to the nodes that reach its volume. One that waits for its first consumer may take a
volume that is there, or have one made: then the node is written on the claim (`plan_volumes`), and the pod waits, its
place kept, until the claim is bound.

Spec: Kubernetes docs, "Persistent Volumes", "Storage Classes" (volumeBindingMode, allowedTopologies); KEP-2485
(ReadWriteOncePod). DIFFERS: capacity of CSI drivers and limits of volumes a node are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tiphys.api.quantity import memory_bytes
from tiphys.api.views.node import Node
from tiphys.scheduler.matching import matches_any_term
from tiphys.scheduler.nodefit import node_matches
from tiphys.scheduler.profile import NodeNeeds
from tiphys.scheduler.state import ClusterState, PodInfo
from tiphys.scheduler.table import Bools, Memo
from tiphys.scheduler.views import PersistentVolume, PersistentVolumeClaim, StorageClass

SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"

UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
OUT_OF_REACH = "node(s) didn't match PersistentVolume's node affinity"
VANISHED = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What has to happen before the pod can be bound; `ready` True: nothing."""

    ready: bool
    take: tuple[tuple[PersistentVolume, PersistentVolumeClaim], ...] = ()
    """Volumes to reserve for claims."""
    provision: tuple[PersistentVolumeClaim, ...] = ()
    """Claims to write the node on."""


@dataclass(slots=True)
class Refusals:
    """Rows that storage refuses, by reason; all are beyond what eviction can change but those of `in_use`."""

    reasons: dict[str, Bools] = field(default_factory=dict)
    in_use: bool = False


def is_bound(claim: PersistentVolumeClaim) -> bool:
    return bool(claim.spec.volume_name) and (
        BIND_COMPLETED in claim.metadata.annotations or claim.status.phase == "Bound"
    )


def class_name(claim: PersistentVolumeClaim) -> str:
    return claim.metadata.annotations.get(BETA_CLASS, claim.spec.storage_class_name or "")


def _class_of(claim: PersistentVolumeClaim, state: ClusterState) -> StorageClass | None:
    return state.classes.get(class_name(claim))


def _waits(claim: PersistentVolumeClaim, state: ClusterState) -> bool:
    """Return whether a claim waits for its first consumer."""
    found = _class_of(claim, state)
    return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"


def refuse_everywhere(info: PodInfo, state: ClusterState) -> str:
    """Return why the pod's claims rule out every node, "" when they do not."""
    ephemeral = {f"{info.name}-{v.name}" for v in info.pod.spec.volumes if v.ephemeral is not None}
    immediate = False
    for name in info.claims:
        claim = state.claims.get(f"{info.namespace}/{name}")
        if claim is None:
            if name in ephemeral:
                return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
            return f'persistentvolumeclaim "{name}" not found'
        if claim.status.phase == "Lost":
            volume = claim.spec.volume_name
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
        if claim.metadata.deletion_timestamp is not None:
            return f'persistentvolumeclaim "{name}" is being deleted'
        immediate = immediate or (not is_bound(claim) and not _waits(claim, state))
    return UNBOUND if immediate else ""


def refusals(info: PodInfo, state: ClusterState) -> Refusals:
    """Return the rows that the pod's claims refuse. `refuse_everywhere` must have let the pod pass."""
    found = Refusals()
    for name in info.claims:
        key = f"{info.namespace}/{name}"
        claim = state.claims[key]
        if "ReadWriteOncePod" in claim.spec.access_modes and state.claim_users.get(key):
            found.in_use = True
        if is_bound(claim):
            volume = state.volumes.get(claim.spec.volume_name)
            if volume is None:
                _refuse(found, VANISHED, state.table.exists.copy())
            else:
                _refuse(found, OUT_OF_REACH, ~_reached_rows(volume, state))
        else:
            _refuse(found, NO_VOLUME, ~_claim_rows(claim, state))
    return found


def _refuse(found: Refusals, reason: str, rows: Bools) -> None:
    found.reasons[reason] = found.reasons[reason] | rows if reason in found.reasons else rows


def _reached_rows(volume: PersistentVolume, state: ClusterState) -> Bools:
    """Return the rows that can use a volume."""
    table, affinity = state.table, volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return np.ones(table.capacity, np.bool_)
    needs = NodeNeeds((), affinity.required.node_selector_terms)
    key = ("needs", needs)
    memo = state.memo(key) or state.keep_memo(
        key, Memo(table.statics, np.bool_, lambda rows: node_matches(table, needs, rows))
    )
    reached: Bools = memo.values(table.capacity)
    return reached


def _claim_rows(claim: PersistentVolumeClaim, state: ClusterState) -> Bools:
    """Return the rows on which an unbound claim can have a volume."""
    table = state.table
    selected = claim.metadata.annotations.get(SELECTED_NODE)
    found = _class_of(claim, state)
    if selected:
        rows = np.zeros(table.capacity, np.bool_)
        if selected in table.rows:
            rows[table.rows[selected]] = True
        return rows
    if found is not None and _provisions(found) and not found.allowed_topologies:
        return np.ones(table.capacity, np.bool_)
    return np.array([node is not None and _can_have(claim, node, state) for node in table.nodes], dtype=np.bool_)


def reaches(volume: PersistentVolume, node: Node) -> bool:
    """Return whether a node can use a volume."""
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return True
    return matches_any_term(affinity.required.node_selector_terms, node.metadata.name, node.metadata.labels)


def _can_have(claim: PersistentVolumeClaim, node: Node, state: ClusterState) -> bool:
    return find_volume(claim, node, state) is not None or _can_provision(claim, node, state)


def find_volume(
    claim: PersistentVolumeClaim, node: Node, state: ClusterState, taken: frozenset[str] = frozenset()
) -> PersistentVolume | None:
    """Return the smallest free volume that serves a claim on a node."""
    fitting = [
        volume
        for volume in state.volumes.values()
        if volume.metadata.name not in taken and _serves(volume, claim) and reaches(volume, node)
    ]
    return min(fitting, key=lambda v: (_storage(v.spec.capacity), v.metadata.name), default=None)


def _serves(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    reserved = volume.spec.claim_ref
    if reserved is not None:
        own = (reserved.namespace, reserved.name) == (claim.metadata.namespace, claim.metadata.name)
        return own and reserved.uid in ("", claim.metadata.uid)
    requests = claim.spec.resources.requests if claim.spec.resources else {}
    return (
        volume.status.phase in ("", "Available", "Pending")
        and volume.metadata.deletion_timestamp is None
        and volume.spec.storage_class_name == class_name(claim)
        and (volume.spec.volume_mode or "Filesystem") == (claim.spec.volume_mode or "Filesystem")
        and set(claim.spec.access_modes) <= set(volume.spec.access_modes)
        and _storage(volume.spec.capacity) >= _storage(requests)
    )


def _storage(amounts: object) -> int:
    text = amounts.get("storage", "0") if hasattr(amounts, "get") else "0"
    return memory_bytes(str(text))


def _can_provision(claim: PersistentVolumeClaim, node: Node, state: ClusterState) -> bool:
    found = _class_of(claim, state)
    if found is None or not _provisions(found):
        return False
    labels = node.metadata.labels
    return not found.allowed_topologies or any(
        all(labels.get(e.key) in e.values for e in term.match_label_expressions) for term in found.allowed_topologies
    )


def _provisions(storage_class: StorageClass) -> bool:
    return bool(storage_class.provisioner) and storage_class.provisioner != NO_PROVISIONER


def plan_volumes(info: PodInfo, state: ClusterState, node_name: str) -> VolumePlan:
    """Return what has to be done about the claims of a pod that goes to a node."""
    node = state.table.nodes[state.table.rows[node_name]]
    assert node is not None, f"{node_name} was just chosen"
    take: list[tuple[PersistentVolume, PersistentVolumeClaim]] = []
    provision: list[PersistentVolumeClaim] = []
    ready = True
    for name in info.claims:
        claim = state.claims[f"{info.namespace}/{name}"]
        if is_bound(claim):
            continue
        ready = False
        if claim.metadata.annotations.get(SELECTED_NODE):
            continue  # somebody is making its volume
        volume = find_volume(claim, node, state, frozenset(v.metadata.name for v, _ in take))
        if volume is None:
            provision.append(claim)
        elif volume.spec.claim_ref is None or not volume.spec.claim_ref.uid:
            take.append((volume, claim))
    return VolumePlan(ready, tuple(take), tuple(provision))
