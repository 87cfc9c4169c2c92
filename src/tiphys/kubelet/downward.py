"""Values of fieldRef and resourceFieldRef, for environment variables and downward API files. Pure.

Spec: Kubernetes docs, "Downward API".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tiphys.api.quantity import NANOS, Written, parse_quantity
from tiphys.api.views.pod import ResourceFieldSelector
from tiphys.base.errors import TiphysError
from tiphys.kubelet.pod import BoundPod, find_container
from tiphys.kubelet.resources import requirements

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class FieldMissing(TiphysError):
    """A reference names a field or container that does not exist."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod can learn of itself that its own object does not hold yet."""

    node_name: str = ""
    pod_addresses: tuple[str, ...] = ()
    host_addresses: tuple[str, ...] = ()
    allocatable: Mapping[str, Written] = field(default_factory=dict)
    """Of the node: the value of a limit that is not set."""


def field_value(pod: BoundPod, path: str, around: Surroundings) -> str:
    """Return the text of one field. Raises FieldMissing for a path that the downward API does not have."""
    meta = pod.metadata
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return (meta.labels if subscript[1] == "labels" else meta.annotations).get(subscript[2], "")
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": format_map(meta.labels),
        "metadata.annotations": format_map(meta.annotations),
        "spec.nodeName": pod.spec.node_name or around.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": around.host_addresses[0] if around.host_addresses else "",
        "status.hostIPs": ",".join(around.host_addresses),
        "status.podIP": around.pod_addresses[0] if around.pod_addresses else "",
        "status.podIPs": ",".join(around.pod_addresses),
    }
    if path not in simple:
        raise FieldMissing(f"unsupported fieldPath: {path}")
    return simple[path]


def format_map(values: Mapping[str, str]) -> str:
    """Return labels or annotations as a file shows them: `key="value"` a line, sorted."""
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\x{ord(c):02x}") for c in text) + '"'


def resource_value(pod: BoundPod, selector: ResourceFieldSelector, own_container: str, around: Surroundings) -> str:
    """Return the text of a container's request or limit, divided by the divisor and rounded up."""
    name = selector.container_name or own_container
    container = find_container(pod, name)
    if container is None:
        raise FieldMissing(f"container {name} not found")
    kind, _, resource = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise FieldMissing(f"unsupported container resource : {selector.resource}")
    resources = requirements(container)
    value: Written | None = (resources.limits if kind == "limits" else resources.requests).get(resource)
    if value is None or parse_quantity(value).nanos == 0:
        value = resources.limits.get(resource, 0) if kind == "requests" else around.allocatable.get(resource, 0)
    unit = parse_quantity(selector.divisor or 1).nanos or NANOS  # a divisor of 0 counts as 1
    return str(-(-parse_quantity(value).nanos // unit))
