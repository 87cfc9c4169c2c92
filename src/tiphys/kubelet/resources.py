"""What a pod asks of the machine becomes runtime settings: cgroup parent, shares, quota, limit, OOM score.

Invariant: a container never gets more than its limit, and the OOM score orders containers by QoS class, so that the
kernel kills best-effort pods first. Reads specs only; container.py and sandbox.py read the results.

Spec: Kubernetes docs, "Pod Quality of Service Classes", "Node-pressure Eviction" (oom_score_adj table), "Sidecar
containers" (effective requests of a pod).
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.qos import ZERO, spec_qos_class, spec_requests
from tiphys.api.quantity import Quantity, cpu_milli, memory_bytes, parse_quantity
from tiphys.api.views.pod import Container, PodSpec, ResourceRequirements
from tiphys.kubelet.pod import BoundPod, Specced, is_sidecar
from tiphys.runtime.interface import Resources

QUOTA_PERIOD_US = 100_000
MIN_SHARES = 2
MAX_SHARES = 262_144
MIN_QUOTA_US = 1_000

_NONE = ResourceRequirements()


def requirements(container: Specced) -> ResourceRequirements:
    return container.resources or _NONE


def _shares(milli: int) -> int:
    return min(max(milli * 1024 // 1000, MIN_SHARES), MAX_SHARES)


def _quota_us(milli: int) -> int:
    return max(milli * QUOTA_PERIOD_US // 1000, MIN_QUOTA_US) if milli else 0


def oom_score_adj(pod: BoundPod, container: Specced, machine_memory_bytes: int) -> int:
    """Return 2 to 1000: the less a Burstable container asked for, the earlier it is killed."""
    if (pod.spec.priority or 0) >= 2_000_000_000:
        return -997
    match spec_qos_class(pod.spec):
        case "Guaranteed":
            return -997
        case "BestEffort":
            return 1000
    request = memory_bytes(requirements(container).requests.get("memory", 0))
    adjust = 1000 - 1000 * request // max(machine_memory_bytes, 1)
    return min(max(adjust, 3), 999)


def container_resources(pod: BoundPod, container: Specced, machine_memory_bytes: int) -> Resources:
    """Return the settings of one container."""
    resources = requirements(container)
    limit_milli = cpu_milli(resources.limits.get("cpu", 0))
    request_milli = cpu_milli(resources.requests.get("cpu", 0)) or limit_milli
    return Resources(
        cpu_shares=_shares(request_milli),
        cpu_quota_us=_quota_us(limit_milli),
        cpu_period_us=QUOTA_PERIOD_US,
        memory_limit_bytes=memory_bytes(resources.limits.get("memory", 0)),
        oom_score_adj=oom_score_adj(pod, container, machine_memory_bytes),
    )


def total_requests(pods: Iterable[BoundPod]) -> dict[str, Quantity]:
    """Return what pods ask of a node together."""
    total: dict[str, Quantity] = {}
    for pod in pods:
        for name, amount in spec_requests(pod.spec).items():
            total[name] = total.get(name, ZERO) + amount
    return total


def shown_amount(resource: str, amount: Quantity) -> int:
    """Return an amount as messages about full nodes have it: thousandths of cores, whole units of the rest."""
    return amount.milli if resource == "cpu" else amount.value()


def _pod_limit(spec: PodSpec, name: str) -> Quantity:
    """Return the pod's limit of one resource, 0 when some container has none."""
    if spec.resources is not None and name in spec.resources.limits:
        return parse_quantity(spec.resources.limits[name])
    running: list[Container] = [*spec.containers, *(c for c in spec.init_containers if is_sidecar(c))]
    limits = [parse_quantity(requirements(c).limits.get(name, 0)) for c in running]
    steps = [parse_quantity(requirements(c).limits.get(name, 0)) for c in spec.init_containers if not is_sidecar(c)]
    if any(limit.nanos == 0 for limit in (*limits, *steps)):
        return ZERO
    return max(sum(limits, ZERO), *steps) if steps else sum(limits, ZERO)


def pod_resources(spec: PodSpec) -> Resources:
    """Return the settings of the pod's cgroup."""
    return Resources(
        cpu_shares=_shares(spec_requests(spec).get("cpu", ZERO).milli),
        cpu_quota_us=_quota_us(_pod_limit(spec, "cpu").milli),
        cpu_period_us=QUOTA_PERIOD_US,
        memory_limit_bytes=_pod_limit(spec, "memory").value(),
    )


def cgroup_parent(root: str, pod: BoundPod) -> str:
    """Return the path of the pod's cgroup below `root`, such as /kubepods/burstable/pod<uid>."""
    tier = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}[spec_qos_class(pod.spec)]
    return f"{root.rstrip('/')}/kubepods{tier}/pod{pod.metadata.uid}"
