"""The fields of objects that scheduling depends on, as typed views.

Parts of a pod that many pods have in common (affinity, tolerations, resources, ...) stay undecoded bytes: equal bytes
mean equal meaning, so that what is derived from them (profile.py) is made once for all the pods of a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec
from msgspec import field

from tiphys.api.views.meta import LabelSelector, ObjectMeta, View
from tiphys.api.views.pod import NodeSelector, PersistentVolumeClaimVolumeSource, PodCondition

NO_BYTES = msgspec.Raw()


@lru_cache(maxsize=8192)
def _shared(data: bytes) -> bytes:
    return data


def _share(view: View, *names: str) -> None:
    """Replace undecoded parts, which hold the whole object's bytes alive, by copies that equal parts share."""
    for name in names:
        msgspec.structs.force_setattr(view, name, _shared(bytes(getattr(view, name))))


class Container(View, frozen=True):
    image: str = ""
    ports: msgspec.Raw = NO_BYTES
    resources: msgspec.Raw = NO_BYTES
    restart_policy: str = ""

    def __post_init__(self) -> None:
        _share(self, "ports", "resources")


class EphemeralVolume(View, frozen=True):
    """A claim template; only that it is there matters."""


class DiskVolume(View, frozen=True):
    """A disk that one machine may hold: its identity is whichever of the names is set."""

    pd_name: str = ""
    volume_id: str = field(default="", name="volumeID")
    read_only: bool | None = None


class Volume(View, frozen=True):
    name: str = ""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolume | None = None
    gce_persistent_disk: DiskVolume | None = None
    aws_elastic_block_store: DiskVolume | None = None


class SchedulingGate(View, frozen=True):
    name: str = ""


class PodSpec(View, frozen=True):
    affinity: msgspec.Raw = NO_BYTES
    containers: tuple[Container, ...] = ()
    host_network: bool | None = None
    init_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    overhead: Mapping[str, str | int | float] = field(default_factory=dict)
    preemption_policy: str = ""
    priority: int | None = None
    resources: msgspec.Raw = NO_BYTES
    scheduler_name: str = ""
    scheduling_gates: tuple[SchedulingGate, ...] = ()
    tolerations: msgspec.Raw = NO_BYTES
    topology_spread_constraints: msgspec.Raw = NO_BYTES
    volumes: tuple[Volume, ...] = ()

    def __post_init__(self) -> None:
        _share(self, "affinity", "resources", "tolerations", "topology_spread_constraints")


class PodStatus(View, frozen=True):
    conditions: tuple[PodCondition, ...] = ()
    nominated_node_name: str = ""
    phase: str = ""
    start_time: str | None = None


class Pod(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ClaimResources(View, frozen=True):
    requests: Mapping[str, str | int | float] = field(default_factory=dict)


class ClaimSpec(View, frozen=True):
    access_modes: tuple[str, ...] = ()
    resources: ClaimResources | None = None
    storage_class_name: str | None = None
    volume_mode: str = ""
    volume_name: str = ""


class ClaimStatus(View, frozen=True):
    phase: str = ""


class PersistentVolumeClaim(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class VolumeNodeAffinity(View, frozen=True):
    required: NodeSelector | None = None


class ClaimReference(View, frozen=True):
    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeSpec(View, frozen=True):
    access_modes: tuple[str, ...] = ()
    capacity: Mapping[str, str | int | float] = field(default_factory=dict)
    claim_ref: ClaimReference | None = None
    node_affinity: VolumeNodeAffinity | None = None
    storage_class_name: str = ""
    volume_mode: str = ""


class VolumeStatus(View, frozen=True):
    phase: str = ""


class PersistentVolume(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: VolumeSpec = VolumeSpec()
    status: VolumeStatus = VolumeStatus()


class TopologyExpression(View, frozen=True):
    key: str = ""
    values: tuple[str, ...] = ()


class TopologyTerm(View, frozen=True):
    match_label_expressions: tuple[TopologyExpression, ...] = ()


class StorageClass(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    allowed_topologies: tuple[TopologyTerm, ...] = ()
    provisioner: str = ""
    volume_binding_mode: str = ""


class WorkloadSpec(View, frozen=True):
    selector: LabelSelector | None = None


class Workload(View, frozen=True):
    """A ReplicaSet or StatefulSet."""

    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()


class PlainWorkloadSpec(View, frozen=True):
    selector: Mapping[str, str] = field(default_factory=dict)


class PlainWorkload(View, frozen=True):
    """A ReplicationController."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PlainWorkloadSpec = PlainWorkloadSpec()


class BudgetStatus(View, frozen=True):
    disrupted_pods: Mapping[str, str] = field(default_factory=dict)
    disruptions_allowed: int | None = None


class PodDisruptionBudget(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()
    status: BudgetStatus = BudgetStatus()
