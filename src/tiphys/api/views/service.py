"""Typed views of Services and Endpoints. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from tiphys.api.views.meta import ObjectMeta, ObjectReference, View


class ServicePort(View, frozen=True):
    app_protocol: str = ""
    name: str = ""
    node_port: int | None = None
    port: int | None = None
    protocol: str = ""
    target_port: int | str | None = None


class ClientIPConfig(View, frozen=True):
    timeout_seconds: int | None = None


class SessionAffinityConfig(View, frozen=True):
    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(View, frozen=True):
    allocate_load_balancer_node_ports: bool | None = None
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = field(default=(), name="externalIPs")
    external_name: str = ""
    external_traffic_policy: str = ""
    health_check_node_port: int | None = None
    internal_traffic_policy: str = ""
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    load_balancer_class: str = ""
    load_balancer_ip: str = field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool | None = None
    selector: Mapping[str, str] = field(default_factory=dict)
    session_affinity: str = ""
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: str = ""
    type: str = ""


class LoadBalancerIngress(View, frozen=True):
    hostname: str = ""
    ip: str = ""
    ip_mode: str = ""


class LoadBalancerStatus(View, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(View, frozen=True):
    load_balancer: LoadBalancerStatus | None = None


class Service(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointAddress(View, frozen=True):
    hostname: str = ""
    ip: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None


class EndpointPort(View, frozen=True):
    app_protocol: str = ""
    name: str = ""
    port: int | None = None
    protocol: str = ""


class EndpointSubset(View, frozen=True):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    subsets: tuple[EndpointSubset, ...] = ()
