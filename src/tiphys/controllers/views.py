"""Views that the controllers share: one lean view a resource, decoded once for all of them.

Pods are by far the most numerous, so `Pod` names only the fields that some controller decides on. Workloads keep their
pod template as undecoded bytes (`Raw`): it is copied into what they create and must not lose a field on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from msgspec import field

from tiphys.api.views import apps, batch
from tiphys.api.views.meta import Condition, LabelSelector, ObjectMeta, View
from tiphys.api.views.pod import ContainerPort, ContainerStatus, NodeSelector, PodCondition, PodIP, Toleration

Raw = msgspec.Raw
EMPTY = Raw(b"{}")


class Resources(View, frozen=True):
    limits: Mapping[str, str | int | float] = field(default_factory=dict)
    requests: Mapping[str, str | int | float] = field(default_factory=dict)


class Container(View, frozen=True):
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    resources: Resources | None = None
    restart_policy: str = ""


class NodeAffinity(View, frozen=True):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class AffinityTerm(View, frozen=True):
    """Of a term of pod affinity, whether it looks into other namespaces."""

    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None


class PreferredTerm(View, frozen=True):
    pod_affinity_term: AffinityTerm = AffinityTerm()


class PodAffinity(View, frozen=True):
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredTerm, ...] = ()
    required_during_scheduling_ignored_during_execution: tuple[AffinityTerm, ...] = ()


class Affinity(View, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class ClaimSource(View, frozen=True):
    claim_name: str = ""


class Volume(View, frozen=True):
    name: str = ""
    persistent_volume_claim: ClaimSource | None = None


class PodSpec(View, frozen=True):
    active_deadline_seconds: int | None = None
    affinity: Affinity | None = None
    containers: tuple[Container, ...] = ()
    host_network: bool | None = None
    hostname: str = ""
    init_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    overhead: Mapping[str, str | int | float] = field(default_factory=dict)
    priority_class_name: str = ""
    resources: Resources | None = None
    restart_policy: str = ""
    subdomain: str = ""
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()


class PodStatus(View, frozen=True):
    conditions: tuple[PodCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")
    reason: str = ""
    start_time: str | None = None


class Pod(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class TemplateView(View, frozen=True):
    """What decisions need of a pod template."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class DeploymentSpec(View, frozen=True):
    min_ready_seconds: int | None = None
    paused: bool | None = None
    progress_deadline_seconds: int | None = None
    replicas: int | None = None
    revision_history_limit: int | None = None
    selector: LabelSelector | None = None
    strategy: apps.DeploymentStrategy | None = None
    template: Raw = EMPTY


class Deployment(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: DeploymentSpec = DeploymentSpec()
    status: apps.DeploymentStatus = apps.DeploymentStatus()


class ReplicaSetSpec(View, frozen=True):
    min_ready_seconds: int | None = None
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: Raw = EMPTY


class ReplicaSet(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: apps.ReplicaSetStatus = apps.ReplicaSetStatus()


class ReplicationControllerSpec(View, frozen=True):
    min_ready_seconds: int | None = None
    replicas: int | None = None
    selector: Mapping[str, str] = field(default_factory=dict)
    template: Raw = EMPTY


class ReplicationController(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: apps.ReplicaSetStatus = apps.ReplicaSetStatus()


class DaemonSetSpec(View, frozen=True):
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    selector: LabelSelector | None = None
    template: Raw = EMPTY
    update_strategy: apps.DaemonSetUpdateStrategy | None = None


class DaemonSet(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: DaemonSetSpec = DaemonSetSpec()
    status: apps.DaemonSetStatus = apps.DaemonSetStatus()


class StatefulSetSpec(View, frozen=True):
    min_ready_seconds: int | None = None
    ordinals: apps.StatefulSetOrdinals | None = None
    persistent_volume_claim_retention_policy: apps.StatefulSetPersistentVolumeClaimRetentionPolicy | None = None
    pod_management_policy: str = ""
    replicas: int | None = None
    revision_history_limit: int | None = None
    selector: LabelSelector | None = None
    service_name: str = ""
    template: Raw = EMPTY
    update_strategy: apps.StatefulSetUpdateStrategy | None = None
    volume_claim_templates: tuple[Raw, ...] = ()


class StatefulSet(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: StatefulSetSpec = StatefulSetSpec()
    status: apps.StatefulSetStatus = apps.StatefulSetStatus()


class ControllerRevision(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    revision: int = 0
    data: Raw = EMPTY


class JobSpec(View, frozen=True):
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    completion_mode: str = ""
    completions: int | None = None
    managed_by: str = ""
    max_failed_indexes: int | None = None
    parallelism: int | None = None
    pod_failure_policy: batch.PodFailurePolicy | None = None
    pod_replacement_policy: str = ""
    selector: LabelSelector | None = None
    success_policy: batch.SuccessPolicy | None = None
    suspend: bool | None = None
    template: Raw = EMPTY
    ttl_seconds_after_finished: int | None = None


class Job(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec = JobSpec()
    status: batch.JobStatus = batch.JobStatus()


class CronJobSpec(View, frozen=True):
    concurrency_policy: str = ""
    failed_jobs_history_limit: int | None = None
    job_template: Raw = EMPTY
    schedule: str = ""
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int | None = None
    suspend: bool | None = None
    time_zone: str = ""


class CronJob(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: CronJobSpec = CronJobSpec()
    status: batch.CronJobStatus = batch.CronJobStatus()


class PodDisruptionBudgetSpec(View, frozen=True):
    max_unavailable: int | str | None = None
    min_available: int | str | None = None
    selector: LabelSelector | None = None


class PodDisruptionBudgetStatus(View, frozen=True):
    conditions: tuple[Condition, ...] = ()
    current_healthy: int | None = None
    desired_healthy: int | None = None
    disrupted_pods: Mapping[str, str] = field(default_factory=dict)
    disruptions_allowed: int | None = None
    expected_pods: int | None = None
    observed_generation: int | None = None


class PodDisruptionBudget(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


@lru_cache(maxsize=4096)
def decode_template(template: bytes) -> dict[str, Any]:
    """Return a template as a dict. It is shared by all callers: never change it."""
    result: dict[str, Any] = orjson.loads(template)
    return result


@lru_cache(maxsize=4096)
def view_template(template: bytes) -> TemplateView:
    """Return the typed view of a template."""
    return msgspec.json.decode(template, type=TemplateView)
