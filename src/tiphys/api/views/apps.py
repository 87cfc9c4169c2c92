"""Typed views of parts of Deployments, ReplicaSets, DaemonSets and StatefulSets: their strategies and statuses. Every
field is optional here: validation is the API server's. See views/meta.py; controllers/views.py has the whole objects."""

from __future__ import annotations

from tiphys.api.views.meta import Condition, View


class RollingUpdateDeployment(View, frozen=True):
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None


class DeploymentStrategy(View, frozen=True):
    rolling_update: RollingUpdateDeployment | None = None
    type: str = ""


class DeploymentCondition(Condition, frozen=True):
    last_update_time: str | None = None


class DeploymentStatus(View, frozen=True):
    available_replicas: int | None = None
    collision_count: int | None = None
    conditions: tuple[DeploymentCondition, ...] = ()
    observed_generation: int | None = None
    ready_replicas: int | None = None
    replicas: int | None = None
    terminating_replicas: int | None = None
    unavailable_replicas: int | None = None
    updated_replicas: int | None = None


class ReplicaSetStatus(View, frozen=True):
    available_replicas: int | None = None
    conditions: tuple[Condition, ...] = ()
    fully_labeled_replicas: int | None = None
    observed_generation: int | None = None
    ready_replicas: int | None = None
    replicas: int | None = None
    terminating_replicas: int | None = None


class RollingUpdateDaemonSet(View, frozen=True):
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None


class DaemonSetUpdateStrategy(View, frozen=True):
    rolling_update: RollingUpdateDaemonSet | None = None
    type: str = ""


class DaemonSetStatus(View, frozen=True):
    collision_count: int | None = None
    conditions: tuple[Condition, ...] = ()
    current_number_scheduled: int | None = None
    desired_number_scheduled: int | None = None
    number_available: int | None = None
    number_misscheduled: int | None = None
    number_ready: int | None = None
    number_unavailable: int | None = None
    observed_generation: int | None = None
    updated_number_scheduled: int | None = None


class StatefulSetOrdinals(View, frozen=True):
    start: int | None = None


class StatefulSetPersistentVolumeClaimRetentionPolicy(View, frozen=True):
    when_deleted: str = ""
    when_scaled: str = ""


class RollingUpdateStatefulSetStrategy(View, frozen=True):
    max_unavailable: int | str | None = None
    partition: int | None = None


class StatefulSetUpdateStrategy(View, frozen=True):
    rolling_update: RollingUpdateStatefulSetStrategy | None = None
    type: str = ""


class StatefulSetStatus(View, frozen=True):
    available_replicas: int | None = None
    collision_count: int | None = None
    conditions: tuple[Condition, ...] = ()
    current_replicas: int | None = None
    current_revision: str = ""
    observed_generation: int | None = None
    ready_replicas: int | None = None
    replicas: int | None = None
    update_revision: str = ""
    updated_replicas: int | None = None
