"""In-place resize of a pod: which resources its containers have been granted, and what has to change in the runtime.

The spec says what is wanted, `granted` what this node has agreed to, `applied` what a running container has. A wish that
can never fit is Infeasible, one that does not fit now is Deferred and looked at again; a granted one is In Progress until
it is applied. Invariants: the sum of what is granted never exceeds the node's allocatable; a pod is shown with its granted
resources to everything else in the kubelet. After a restart of the kubelet `granted` is read from the pod's status and
`applied` from the container's annotation; what differs is applied again, which changes nothing if it was done.

Spec: Kubernetes docs, "Resize CPU and Memory Resources assigned to Containers"; KEP-1287.
DIFFERS: what was granted is kept in the pod's status and not in a file of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from tiphys.api.qos import ZERO, spec_requests
from tiphys.api.quantity import Written, parse_quantity
from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.api.views.pod import ResourceRequirements
from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.pod import BoundPod, find_container, is_sidecar, pod_reference
from tiphys.kubelet.resources import container_resources, pod_resources, requirements, shown_amount, total_requests
from tiphys.runtime.interface import Container, Resources, Sandbox

RESOURCES_ANNOTATION = "tiphys.dev/container-resources"
RESIZABLE = ("cpu", "memory")
PENDING = "PodResizePending"
IN_PROGRESS = "PodResizeInProgress"
RETRY_S = 10.0

Granted = Mapping[str, ResourceRequirements]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a wish is not granted. `reason` is Deferred or Infeasible."""

    reason: str
    message: str


def resizable(pod: BoundPod) -> list[ContainerSpec]:
    return [*pod.spec.containers, *(c for c in pod.spec.init_containers if is_sidecar(c))]


def same(one: ResourceRequirements, other: ResourceRequirements, names: Sequence[str] = RESIZABLE) -> bool:
    """Tell whether two requirements ask for the same cpu and memory, however they are spelled."""
    if one is other or one == other:
        return True
    return all(
        parse_quantity(a.get(name, 0)) == parse_quantity(b.get(name, 0))
        for name in names
        for a, b in ((one.requests, other.requests), (one.limits, other.limits))
    )


def first_grant(pod: BoundPod) -> dict[str, ResourceRequirements]:
    """Return what was granted before this kubelet started: the status's word, else the spec's."""
    statuses = [*(pod.status.get("containerStatuses") or ()), *(pod.status.get("initContainerStatuses") or ())]
    known = {s.get("name"): s for s in statuses}
    granted = {}
    for container in resizable(pod):
        status = known.get(container.name) or {}
        requests = status.get("allocatedResources")
        if requests:
            limits = (status.get("resources") or {}).get("limits") or {}
            granted[container.name] = ResourceRequirements(limits=limits, requests=requests)
        else:
            granted[container.name] = requirements(container)
    return granted


def with_granted(pod: BoundPod, granted: Granted) -> BoundPod:
    """Return the pod as it was granted: resources that it wishes but does not have are not shown."""
    if all(same(granted.get(c.name, requirements(c)), requirements(c)) for c in resizable(pod)):
        return pod

    def granted_of(container: ContainerSpec) -> ContainerSpec:
        mine = granted.get(container.name)
        if mine is None or same(mine, requirements(container)):
            return container
        old = requirements(container)
        resources = msgspec.structs.replace(old, limits=mine.limits, requests=mine.requests)
        return msgspec.structs.replace(container, resources=resources)

    spec = msgspec.structs.replace(
        pod.spec,
        containers=tuple(granted_of(c) for c in pod.spec.containers),
        init_containers=tuple(granted_of(c) for c in pod.spec.init_containers),
    )
    return msgspec.structs.replace(pod, spec=spec)


def plan_grant(pod: BoundPod, others: Iterable[BoundPod], allocatable: Mapping[str, Written]) -> Refused | None:
    """Return why the pod's wish cannot be granted, or None. `others` are the node's other pods as granted."""
    wanted, used = spec_requests(pod.spec), total_requests(others)
    deferred = None
    for name in RESIZABLE:
        capacity = parse_quantity(allocatable.get(name, 0))
        need, taken = wanted.get(name, ZERO), used.get(name, ZERO)
        if need == ZERO:
            continue
        asked, has = shown_amount(name, need), shown_amount(name, capacity)
        if need > capacity:
            message = f"Node didn't have enough capacity: {name}, requested: {asked}, capacity: {has}"
            return Refused("Infeasible", message)
        if need + taken > capacity and deferred is None:
            message = f"Node didn't have enough resource: {name}, requested: {asked}, "
            deferred = Refused("Deferred", f"{message}used: {shown_amount(name, taken)}, capacity: {has}")
    return deferred


def applied_of(container: Container) -> ResourceRequirements | None:
    """Return what a container was made with, if it is known."""
    text = container.annotations.get(RESOURCES_ANNOTATION)
    return msgspec.json.decode(text, type=ResourceRequirements) if text else None


def needs_restart(spec: ContainerSpec, now: ResourceRequirements, wanted: ResourceRequirements) -> bool:
    """Tell whether what changes has the policy to restart its container."""
    policies = {p.resource_name: p.restart_policy for p in spec.resize_policy}
    return any(policies.get(n) == "RestartContainer" and not same(now, wanted, (n,)) for n in RESIZABLE)


async def apply_grant(
    context: NodeContext, resizer: Resizer, pod: BoundPod, sandbox: Sandbox, containers: Sequence[Container]
) -> None:
    """Give running containers what was granted: the pod's limits grow first and shrink last. Raises TiphysError."""
    runtime, granted = context.runtime, with_granted(pod, resizer.granted)
    during, after = resizer.pod_steps(pod)
    try:
        await runtime.update_pod_sandbox_resources(sandbox.id, during)
        for container in containers:
            spec = find_container(granted, container.name)
            assert spec is not None
            wanted = container_resources(granted, spec, context.machine_memory_bytes)
            await runtime.update_container_resources(container.id, wanted)
            resizer.note(container)
        await runtime.update_pod_sandbox_resources(sandbox.id, after)
    except TiphysError as error:
        resizer.error = str(error)
        raise
    resizer.error = ""
    text = f"Pod resize completed: generation {pod.metadata.generation}"
    context.recorder.record(pod_reference(pod), "Normal", "ResizeCompleted", text)


class Resizer:
    """The grants of one pod. `others` returns the node's other pods as they were granted."""

    def __init__(self, pod: BoundPod, others: Callable[[], Iterable[BoundPod]]) -> None:
        self._others = others
        self.granted = first_grant(pod)
        self.refused: Refused | None = None
        self.error = ""
        """Why the last try to apply a grant failed."""
        self._applied: dict[str, ResourceRequirements] = {}
        """Container id -> what it has been given since it was made."""
        self._pod_applied: Resources | None = None

    def consider(self, pod: BoundPod, allocatable: Mapping[str, Written]) -> bool:
        """Grant or refuse what the spec wishes; tell whether something new was granted."""
        self.refused = None
        if all(same(self.granted.get(c.name, requirements(c)), requirements(c)) for c in resizable(pod)):
            return False
        self.refused = plan_grant(pod, self._others(), allocatable)
        if self.refused is not None:
            return False
        self._pod_applied = self._pod_applied or pod_resources(with_granted(pod, self.granted).spec)
        self.granted = {c.name: requirements(c) for c in resizable(pod)}
        return True

    def applied(self, container: Container) -> ResourceRequirements | None:
        return self._applied.get(container.id) or applied_of(container)

    def pending(self, pod: BoundPod, running: Iterable[Container]) -> list[tuple[Container, bool]]:
        """Return the running containers that have not what was granted, and whether each has to restart for it."""
        found = []
        for container in running:
            spec, wanted, now = (
                find_container(pod, container.name),
                self.granted.get(container.name),
                self.applied(container),
            )
            if isinstance(spec, ContainerSpec) and wanted is not None and now is not None and not same(now, wanted):
                found.append((container, needs_restart(spec, now, wanted)))
        return found

    def note(self, container: Container) -> None:
        """A container has what was granted."""
        self._applied[container.id] = self.granted[container.name]

    def pod_steps(self, pod: BoundPod) -> tuple[Resources, Resources]:
        """Return the limits of the pod's cgroup while its containers change, and after."""
        after = pod_resources(with_granted(pod, self.granted).spec)
        before = self._pod_applied or after
        self._pod_applied = after
        during = replace(
            after,
            cpu_quota_us=max(before.cpu_quota_us, after.cpu_quota_us),
            memory_limit_bytes=max(before.memory_limit_bytes, after.memory_limit_bytes),
        )
        return during, after

    def conditions(self, is_pending: bool) -> dict[str, tuple[str, str]]:
        """Return condition type -> (reason, message) of those that are True."""
        result = {}
        if self.refused is not None:
            result[PENDING] = (self.refused.reason, self.refused.message)
        if is_pending:
            result[IN_PROGRESS] = ("Error", self.error) if self.error else ("", "")
        return result
