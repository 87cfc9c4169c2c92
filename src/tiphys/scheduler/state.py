"""What the scheduler believes about the cluster: nodes, the pods on them, and pods it has just assumed there.

Fed by the reflectors' changes (run.py); read by plan.py. A pod that was decided is `assume`d at once, so that the next
decision counts it before its binding is seen; `forget` takes that back when the binding fails. Invariants: each pod is
counted on at most one node; a pod on a node that is not there (yet) is kept aside and counted when the node comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tiphys.api.selectors import LabelSelector
from tiphys.api.views.node import Node
from tiphys.base.clock import parse_time
from tiphys.client.reflector import object_key
from tiphys.scheduler.counts import PodCounts
from tiphys.scheduler.images import ImageTable
from tiphys.scheduler.profile import Profile, profile_of
from tiphys.scheduler.table import Memo, NodeTable
from tiphys.scheduler.views import PersistentVolume, PersistentVolumeClaim, Pod, StorageClass
from tiphys.scheduler.workloads import Workloads

MEMOS = 512
"""How many derived arrays of one sort are kept; the longest unused go first."""


@dataclass(frozen=True, slots=True, eq=False)
class PodInfo:
    """A pod as decisions see it."""

    key: str
    uid: str
    name: str
    profile: Profile
    priority: int
    node_name: str
    """Where it runs or is assumed, "" for one that waits."""
    created_s: float
    pod: Pod
    terminating: bool = False
    claims: tuple[str, ...] = ()
    """Names of its persistent volume claims, those of ephemeral volumes included."""

    owner: tuple[str, str] = ("", "")
    """Kind and name of its controller."""

    @property
    def namespace(self) -> str:
        return self.profile.namespace


def _claims_of(pod: Pod) -> tuple[str, ...]:
    names = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            names.append(volume.persistent_volume_claim.claim_name)
        elif volume.ephemeral is not None:
            names.append(f"{pod.metadata.name}-{volume.name}")
    return tuple(names)


def info_of(pod: Pod) -> PodInfo:
    """Return what decisions need of a pod."""
    metadata = pod.metadata
    return PodInfo(
        key=object_key(metadata),
        uid=metadata.uid,
        name=metadata.name,
        profile=profile_of(pod),
        priority=pod.spec.priority or 0,
        node_name=pod.spec.node_name,
        created_s=parse_time(metadata.creation_timestamp) if metadata.creation_timestamp else 0.0,
        pod=pod,
        terminating=metadata.deletion_timestamp is not None,
        claims=_claims_of(pod) if pod.spec.volumes else (),
        owner=next(((o.kind, o.name) for o in metadata.owner_references if o.controller), ("", "")),
    )


def is_finished(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


class ClusterState:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.table = NodeTable()
        self.pods: dict[str, PodInfo] = {}
        """Every pod that holds a place on a node: running there, or assumed."""
        self.assumed: set[str] = set()
        self.by_row: dict[int, dict[str, PodInfo]] = {}
        self._homeless: dict[str, dict[str, PodInfo]] = {}
        """Pods on nodes that we do not know, by the node's name."""
        self.ports: dict[tuple[str, int], dict[str, dict[int, int]]] = {}
        """Host ports in use: (protocol, port) -> address -> row -> how many pods."""
        self.namespace_labels: dict[str, Mapping[str, str]] = {}
        self.by_namespace: dict[str, dict[str, PodInfo]] = {}
        """Placed pods whose node is known."""
        self.counts = PodCounts(self.table.capacity, self._labels_of, self._placed_in)
        self.workloads = Workloads()
        self.images = ImageTable()
        self.evicting: set[str] = set()
        """Uids of victims whose deletion was decided and is not seen yet."""
        self.claims: dict[str, PersistentVolumeClaim] = {}
        self.volumes: dict[str, PersistentVolume] = {}
        self.classes: dict[str, StorageClass] = {}
        self.priorities: dict[int, int] = {}
        """How many placed pods have a priority."""
        self.revision = 0
        """Counts the changes that decisions can depend on."""
        self.refused: dict[Profile, tuple[int, Any]] = {}
        """The plan of the last pod of a profile that got no node, and the revision that it was made at."""
        self.claim_users: dict[str, int] = {}
        """How many placed pods use a claim."""
        self.nominated: dict[str, PodInfo] = {}
        """Pods that wait for their victims to go; `node_name` is the node that is cleared for them."""
        self.domains: dict[str, Any] = {}
        """Topology domains by label (podfit.py)."""
        self.memos: dict[object, Memo] = {}
        self.preferences: dict[tuple[bytes, int], Any] = {}
        """Counts of untolerated soft taints for each taint set, by tolerations and number of sets (nodefit.py)."""

    # Nodes

    def set_node(self, node: Node) -> None:
        name = node.metadata.name
        known = name in self.table.rows
        row = self.table.rows.get(name)
        old = self.table.nodes[row] if row is not None else None
        row = self.table.set_node(node)
        if old is None or old.spec != node.spec or old.metadata != node.metadata or old.status != node.status:
            self.revision += 1
        if old is None or old.status.images != node.status.images:
            self.images.set(row, node.status.images, self.table.capacity)
        self.counts.grow(self.table.capacity)
        if not known:
            for info in self._homeless.pop(name, {}).values():
                self._place(info, row)

    def remove_node(self, name: str) -> None:
        row = self.table.rows.get(name)
        if row is None:
            return
        pods = self.by_row.pop(row, {})
        for info in pods.values():
            self._displaced(info, row)
        self.table.remove_node(name)
        self.revision += 1
        self.images.set(row, (), self.table.capacity)
        if pods:
            self._homeless[name] = pods

    # Pods

    def set_pod(self, pod: Pod) -> None:
        """Take over a pod that has a node; one that finished holds no place."""
        key = object_key(pod.metadata)
        self.assumed.discard(key)
        old = self.pods.get(key)
        if is_finished(pod) or not pod.spec.node_name:
            if old is not None:
                self.remove_pod(key)
            return
        info = info_of(pod)
        if old is not None and old.node_name == info.node_name and self._same_place(old, info):
            self._replace(info)
            return
        if old is not None:
            self.remove_pod(key)
        self._add(info)

    def remove_pod(self, key: str) -> None:
        self.assumed.discard(key)
        info = self.pods.pop(key, None)
        if info is None:
            return
        self.evicting.discard(info.uid)
        row = self.table.rows.get(info.node_name)
        if row is None:
            homeless = self._homeless.get(info.node_name, {})
            homeless.pop(key, None)
            if not homeless:
                self._homeless.pop(info.node_name, None)
            return
        self.by_row[row].pop(key, None)
        self.table.add_requests(row, info.profile.requests, -1)
        self._displaced(info, row)

    def assume(self, info: PodInfo, node_name: str) -> None:
        """Count a pod on a node before its binding is seen."""
        assert info.key not in self.pods, f"{info.key} is already placed"
        self._add(replace(info, node_name=node_name))
        self.assumed.add(info.key)

    def forget(self, key: str, uid: str) -> None:
        """Take an assumed pod back. One that was seen on its node meanwhile stays, and so does another of its name."""
        if key in self.assumed and self.pods[key].uid == uid:
            self.remove_pod(key)

    def holds(self, info: PodInfo) -> bool:
        """Return whether a placed pod is counted on its node (it is not while it is lifted)."""
        return info.key in self.by_row.get(self.table.rows.get(info.node_name, -1), {})

    def lift(self, info: PodInfo) -> None:
        """Take a placed pod off its node in thought; `restore` puts it back."""
        row = self.table.rows[info.node_name]
        self.by_row[row].pop(info.key)
        self.table.add_requests(row, info.profile.requests, -1)
        self._displaced(info, row)

    def restore(self, info: PodInfo) -> None:
        """Put a pod on its node: one that was lifted, or in thought one that is nominated."""
        self._place(info, self.table.rows[info.node_name])

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Take over a namespace's labels; None: it is gone."""
        if self.namespace_labels.get(name) == labels:
            return
        if labels is None:
            self.namespace_labels.pop(name, None)
        else:
            self.namespace_labels[name] = labels
        self.counts.namespaces_changed()
        self.revision += 1

    def default_selector(self, info: PodInfo) -> LabelSelector:
        """Return what selects the siblings of a pod that names no spread constraints."""
        return self.workloads.selector(info.profile, info.owner)

    def pods_on(self, row: int) -> Mapping[str, PodInfo]:
        return self.by_row.get(row, {})

    def memo(self, key: object) -> Memo | None:
        """Return a derived array that was kept; it counts as used just now."""
        memo = self.memos.pop(key, None)
        if memo is not None:
            self.memos[key] = memo
        return memo

    def keep_memo(self, key: object, memo: Memo) -> Memo:
        self.memos[key] = memo
        if len(self.memos) > MEMOS:
            del self.memos[next(iter(self.memos))]
        return memo

    # Insides

    @staticmethod
    def _same_place(old: PodInfo, new: PodInfo) -> bool:
        return old.profile is new.profile and old.terminating == new.terminating and old.uid == new.uid

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        return self.namespace_labels.get(namespace, {})

    def _placed_in(self, namespaces: frozenset[str] | None) -> Iterable[tuple[Profile, int, bool]]:
        names = self.by_namespace if namespaces is None else namespaces
        for name in names:
            for info in self.by_namespace.get(name, {}).values():
                yield info.profile, self.table.rows[info.node_name], info.terminating

    def _replace(self, info: PodInfo) -> None:
        self.pods[info.key] = info
        row = self.table.rows.get(info.node_name)
        place = self.by_row[row] if row is not None else self._homeless[info.node_name]
        place[info.key] = info
        if row is not None:
            self.by_namespace[info.namespace][info.key] = info

    def _add(self, info: PodInfo) -> None:
        self.pods[info.key] = info
        row = self.table.rows.get(info.node_name)
        if row is None:
            self._homeless.setdefault(info.node_name, {})[info.key] = info
        else:
            self._place(info, row)

    def _place(self, info: PodInfo, row: int) -> None:
        self.by_row.setdefault(row, {})[info.key] = info
        self.table.add_requests(row, info.profile.requests)
        self._placed(info, row)

    def _placed(self, info: PodInfo, row: int) -> None:
        """A pod came to a row."""
        self.by_namespace.setdefault(info.namespace, {})[info.key] = info
        self.counts.change(info.profile, row, info.terminating, 1)
        self.revision += 1
        self.priorities[info.priority] = self.priorities.get(info.priority, 0) + 1
        self._count_ports(info.profile, row, 1)
        self._count_claims(info, 1)

    def _displaced(self, info: PodInfo, row: int) -> None:
        """A pod left a row."""
        self.by_namespace[info.namespace].pop(info.key, None)
        self.counts.change(info.profile, row, info.terminating, -1)
        self.revision += 1
        self.priorities[info.priority] -= 1
        if not self.priorities[info.priority]:
            del self.priorities[info.priority]
        self._count_ports(info.profile, row, -1)
        self._count_claims(info, -1)

    def _count_claims(self, info: PodInfo, change: int) -> None:
        for name in info.claims:
            key = f"{info.namespace}/{name}"
            self.claim_users[key] = self.claim_users.get(key, 0) + change
            if not self.claim_users[key]:
                del self.claim_users[key]

    def _count_ports(self, profile: Profile, row: int, change: int) -> None:
        for protocol, address, number in profile.ports:
            rows = self.ports.setdefault((protocol, number), {}).setdefault(address, {})
            rows[row] = rows.get(row, 0) + change
            if not rows[row]:
                del rows[row]
