"""What a pod asks of the machine becomes runtime settings: cgroup parent, shares, quota, limit, OOM score.

Invariant: a container never gets more than its limit, and the OOM score orders containers by QoS class, so that the
kernel kills best-effort pods first. Reads specs only; container.py and sandbox.py read the results.

Spec: Kubernetes docs, "Pod Quality of Service Classes", "Node-pressure Eviction" (oom_score_adj table), "Sidecar
containers" (effective requests of a pod).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from tiphys.api.views.pod import Container, PodSpec, ResourceRequirements
from tiphys.kubelet.pod import BoundPod, Specced, is_sidecar
from tiphys.kubelet.quantity import Quantity, cpu_milli, memory_bytes, parse_quantity
from tiphys.runtime.interface import Resources

QUOTA_PERIOD_US = 100_000
MIN_SHARES = 2
MAX_SHARES = 262_144
MIN_QUOTA_US = 1_000

_NONE = ResourceRequirements()


def requirements(container: Specced) -> ResourceRequirements:
    resources = getattr(container, "resources", None)
    return resources if isinstance(resources, ResourceRequirements) else _NONE


def qos_class(spec: PodSpec) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    if spec.resources is not None and (spec.resources.requests or spec.resources.limits):
        return _qos_of([spec.resources])
    return _qos_of([requirements(c) for c in (*spec.init_containers, *spec.containers)])


def _qos_of(all_resources: Iterable[ResourceRequirements]) -> str:
    guaranteed = True
    any_set = False
    for resources in all_resources:
        for name in ("cpu", "memory"):
            limit = parse_quantity(resources.limits.get(name, 0))
            request = parse_quantity(resources.requests.get(name, 0)) or limit
            any_set = any_set or bool(limit or request)
            guaranteed = guaranteed and bool(limit) and limit == request
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _shares(milli: int) -> int:
    return min(max(milli * 1024 // 1000, MIN_SHARES), MAX_SHARES)


def _quota_us(milli: int) -> int:
    return max(milli * QUOTA_PERIOD_US // 1000, MIN_QUOTA_US) if milli else 0


def oom_score_adj(pod: BoundPod, container: Specced, machine_memory_bytes: int) -> int:
    """Return 2 to 1000: the less a Burstable container asked for, the earlier it is killed."""
    if (pod.spec.priority or 0) >= 2_000_000_000:
        return -997
    match qos_class(pod.spec):
        case "Guaranteed":
            return -997
        case "BestEffort":
            return 1000
    request = memory_bytes(requirements(container).requests)
    adjust = 1000 - 1000 * request // max(machine_memory_bytes, 1)
    return min(max(adjust, 3), 999)


def container_resources(pod: BoundPod, container: Specced, machine_memory_bytes: int) -> Resources:
    """Return the settings of one container."""
    resources = requirements(container)
    request = cpu_milli(resources.requests) or cpu_milli(resources.limits)
    return Resources(
        cpu_shares=_shares(request),
        cpu_quota_us=_quota_us(cpu_milli(resources.limits)),
        cpu_period_us=QUOTA_PERIOD_US,
        memory_limit_bytes=memory_bytes(resources.limits),
        oom_score_adj=oom_score_adj(pod, container, machine_memory_bytes),
    )


def pod_requests(spec: PodSpec) -> dict[str, Fraction]:
    """Return what the pod asks of a node: main containers and sidecars together, or the largest init step if that is
    more; then the overhead. Pod-level requests replace the sum where they are set."""
    running: dict[str, Fraction] = {}
    for container in spec.containers:
        _add(running, requirements(container).requests)
    sidecars: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in spec.init_containers:
        step = dict(sidecars)
        _add(step, requirements(container).requests)
        if is_sidecar(container):
            sidecars = dict(step)
        for name, value in step.items():
            peak[name] = max(peak.get(name, Fraction(0)), value)
    for name, value in sidecars.items():
        running[name] = running.get(name, Fraction(0)) + value
    total = {name: max(running.get(name, Fraction(0)), peak.get(name, Fraction(0))) for name in {*running, *peak}}
    if spec.resources is not None:
        total.update({name: parse_quantity(value) for name, value in spec.resources.requests.items()})
    _add(total, spec.overhead)
    return total


def _add(total: dict[str, Fraction], quantities: Mapping[str, Quantity]) -> None:
    for name, value in quantities.items():
        total[name] = total.get(name, Fraction(0)) + parse_quantity(value)


def _pod_limit(spec: PodSpec, name: str) -> Fraction:
    """Return the pod's limit of one resource, 0 when some container has none."""
    if spec.resources is not None and name in spec.resources.limits:
        return parse_quantity(spec.resources.limits[name])
    running: list[Container] = [*spec.containers, *(c for c in spec.init_containers if is_sidecar(c))]
    limits = [parse_quantity(requirements(c).limits.get(name, 0)) for c in running]
    steps = [parse_quantity(requirements(c).limits.get(name, 0)) for c in spec.init_containers if not is_sidecar(c)]
    if not all(limits) or not all(steps):
        return Fraction(0)
    return max(sum(limits, Fraction(0)), *steps) if steps else sum(limits, Fraction(0))


def pod_resources(spec: PodSpec) -> Resources:
    """Return the settings of the pod's cgroup."""
    requests = pod_requests(spec)
    return Resources(
        cpu_shares=_shares(int(requests.get("cpu", Fraction(0)) * 1000)),
        cpu_quota_us=_quota_us(int(_pod_limit(spec, "cpu") * 1000)),
        cpu_period_us=QUOTA_PERIOD_US,
        memory_limit_bytes=int(_pod_limit(spec, "memory")),
    )


def cgroup_parent(root: str, pod: BoundPod) -> str:
    """Return the path of the pod's cgroup below `root`, such as /kubepods/burstable/pod<uid>."""
    tier = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}[qos_class(pod.spec)]
    return f"{root.rstrip('/')}/kubepods{tier}/pod{pod.metadata.uid}"
