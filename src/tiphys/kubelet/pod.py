"""The kubelet's view of a pod, and small questions about one.

Spec is typed; status stays JSON, because it is compared with and patched against what `status.py` makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import field

from tiphys.api.views.meta import ObjectMeta, ObjectReference, View
from tiphys.api.views.pod import Container, EphemeralContainer, PodSpec

Specced = Container | EphemeralContainer

DEFAULT_GRACE_S = 30


class BoundPod(View, frozen=True):
    """A pod that is bound to this node. `status` is the JSON that the server has."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: Mapping[str, Any] = field(default_factory=dict)


def is_sidecar(container: Specced) -> bool:
    """Tell whether an init container goes on beside the main ones (restartPolicy Always)."""
    return container.restart_policy == "Always"


def all_containers(pod: BoundPod) -> Iterator[Specced]:
    """Yield init, main and ephemeral containers."""
    yield from pod.spec.init_containers
    yield from pod.spec.containers
    yield from pod.spec.ephemeral_containers


def find_container(pod: BoundPod, name: str) -> Specced | None:
    return next((c for c in all_containers(pod) if c.name == name), None)


def is_terminal(pod: BoundPod) -> bool:
    """Tell whether the server knows the pod as finished."""
    return pod.status.get("phase") in ("Succeeded", "Failed")


def grace_period_s(pod: BoundPod) -> int:
    """Return the seconds that the pod's containers get to stop, the deletion's before the spec's."""
    if pod.metadata.deletion_timestamp and pod.metadata.deletion_grace_period_seconds is not None:
        return pod.metadata.deletion_grace_period_seconds
    grace = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE_S if grace is None else grace


def full_name(pod: BoundPod) -> str:
    """Return `name_namespace(uid)`, as messages name a pod."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def pod_reference(pod: BoundPod, container: str = "") -> ObjectReference:
    """Return the involvedObject of an event about a pod or one of its containers."""
    return ObjectReference(
        api_version="v1",
        kind="Pod",
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        resource_version=pod.metadata.resource_version,
        field_path=_field_path(pod, container) if container else "",
    )


def _field_path(pod: BoundPod, container: str) -> str:
    for field_name, group in (
        ("containers", pod.spec.containers),
        ("initContainers", pod.spec.init_containers),
        ("ephemeralContainers", pod.spec.ephemeral_containers),
    ):
        if any(c.name == container for c in group):
            return f"spec.{field_name}{{{container}}}"
    return ""
