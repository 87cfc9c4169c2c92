"""Typed views of Nodes. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from tiphys.api.views.meta import Condition, ObjectMeta, View


class Taint(View, frozen=True):
    effect: str = ""
    key: str = ""
    time_added: str | None = None
    value: str = ""


class NodeSpec(View, frozen=True):
    external_id: str = field(default="", name="externalID")
    pod_cidr: str = field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = field(default=(), name="podCIDRs")
    provider_id: str = field(default="", name="providerID")
    taints: tuple[Taint, ...] = ()
    unschedulable: bool | None = None


class NodeAddress(View, frozen=True):
    address: str = ""
    type: str = ""


class NodeCondition(Condition, frozen=True):
    last_heartbeat_time: str | None = None


class DaemonEndpoint(View, frozen=True):
    port: int | None = field(default=None, name="Port")


class NodeDaemonEndpoints(View, frozen=True):
    kubelet_endpoint: DaemonEndpoint | None = None


class ContainerImage(View, frozen=True):
    names: tuple[str, ...] = ()
    size_bytes: int | None = None


class NodeSystemInfo(View, frozen=True):
    architecture: str = ""
    boot_id: str = field(default="", name="bootID")
    container_runtime_version: str = ""
    kernel_version: str = ""
    kube_proxy_version: str = ""
    kubelet_version: str = ""
    machine_id: str = field(default="", name="machineID")
    operating_system: str = ""
    os_image: str = ""
    running_in_user_namespace: bool | None = None
    system_uuid: str = field(default="", name="systemUUID")


class NodeStatus(View, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    allocatable: Mapping[str, str | int | float] = field(default_factory=dict)
    capacity: Mapping[str, str | int | float] = field(default_factory=dict)
    conditions: tuple[NodeCondition, ...] = ()
    daemon_endpoints: NodeDaemonEndpoints | None = None
    declared_features: tuple[str, ...] = ()
    images: tuple[ContainerImage, ...] = ()
    node_info: NodeSystemInfo | None = None
    phase: str = ""
    volumes_in_use: tuple[str, ...] = ()


class Node(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
