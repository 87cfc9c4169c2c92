"""Watches Services and EndpointSlices and keeps the machine's rules equal to them.

Decides, for each Service, where connections to it go from this node (`plan_service`, pure). Input: two reflectors;
output: a `ServiceProxy`. A change is applied in the turn of the loop in which it came; what comes while rules are being
changed is applied together afterwards. The cost depends on the Services that changed.

Invariant: once a change has been told by the API server, the rules are behind it by one update at the most; nothing
polls.

DIFFERS: topology hints, loadBalancerSourceRanges and healthCheckNodePort are not looked at.
Spec: Kubernetes docs, "Virtual IPs and Service Proxies", "Service Internal Traffic Policy", "EndpointSlices"
(conditions); KEP-1669 (terminating endpoints).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from tiphys.api.views import discovery
from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.service import Service
from tiphys.api.views.service import ServicePort as PortView
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.network.interface import Endpoint, ServiceKey, ServicePort, ServiceProxy
from tiphys.network.watches import BY_SERVICE, SERVICE_NAME_LABEL, service_names, service_reflector, slice_reflector
from tiphys.runtime.podnetwork import TransportProtocol

log = logging.getLogger(__name__)

OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
DEFAULT_AFFINITY_S = 10800
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class ProxyDeps:
    """What the proxy works with. `services` and `slices` share reflectors that run elsewhere; None: its own."""

    client: Client
    proxy: ServiceProxy
    clock: Clock
    randomness: Randomness
    node_name: str
    services: Reflector[Service] | None = None
    slices: Reflector[EndpointSlice] | None = None
    """Made by `watches.slice_reflector`."""


async def run_proxy(deps: ProxyDeps) -> None:
    """Keep the rules current until cancelled. The rules stay when it ends."""
    services = service_reflector(deps.client, deps.randomness) if deps.services is None else deps.services
    slices = slice_reflector(deps.client, deps.randomness) if deps.slices is None else deps.slices
    await deps.proxy.start()
    async with asyncio.TaskGroup() as group:
        if deps.services is None:
            group.create_task(services.run(), name="proxy-services")
        if deps.slices is None:
            group.create_task(slices.run(), name="proxy-slices")
        group.create_task(_follow(deps, services, slices), name="proxy-rules")


async def _follow(deps: ProxyDeps, services: Reflector[Service], slices: Reflector[EndpointSlice]) -> None:
    await services.synced()
    await slices.synced()
    changed = asyncio.Event()
    dirty: dict[ServiceKey, None] = {}

    def on_service(old: Service | None, new: Service | None) -> None:
        view = new or old
        assert view is not None
        dirty[view.metadata.namespace, view.metadata.name] = None
        changed.set()

    def on_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for view in (old, new):
            if view is not None and (name := view.metadata.labels.get(SERVICE_NAME_LABEL)):
                dirty[view.metadata.namespace, name] = None
                changed.set()

    services.on_change(on_service)
    slices.on_change(on_slice)
    complete = False
    while True:
        keys = [*dirty]
        dirty.clear()
        changed.clear()
        try:
            if complete:
                await deps.proxy.update({key: _plan_one(key, services, slices, deps.node_name) for key in keys})
            else:
                await deps.proxy.sync(plan_service_ports(services.list(), slices.list(), deps.node_name))
                complete = True
        except (TiphysError, OSError) as error:
            log.error("the rules of Services could not be changed, next try in %.0f s: %s", RETRY_S, error)
            complete = False
            await asyncio.sleep(RETRY_S)
            continue
        await changed.wait()


def _plan_one(
    key: ServiceKey, services: Reflector[Service], slices: Reflector[EndpointSlice], node_name: str
) -> list[ServicePort]:
    name = f"{key[0]}/{key[1]}"
    service = services.get(name)
    return plan_service(service, slices.by_index(BY_SERVICE, name), node_name) if service else []


def plan_service_ports(
    services: Iterable[Service], slices: Iterable[EndpointSlice], node_name: str
) -> list[ServicePort]:
    """Return the ports of all Services as this node's rules need them."""
    by_service: dict[str, list[EndpointSlice]] = {}
    for view in slices:
        for name in service_names(view):
            by_service.setdefault(name, []).append(view)
    ports: list[ServicePort] = []
    for service in services:
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        ports += plan_service(service, by_service.get(name, ()), node_name)
    return ports


def plan_service(service: Service, slices: Sequence[EndpointSlice], node_name: str) -> list[ServicePort]:
    """Return the ports of one Service; none when it is not this proxy's to serve."""
    spec, metadata = service.spec, service.metadata
    if not is_proxied(service):
        return []
    cluster_ips = spec.cluster_ips or (spec.cluster_ip,)
    external_ips = (*spec.external_ips, *_ingress_addresses(service))
    affinity_s = _affinity_s(service)
    outside_local = spec.external_traffic_policy == "Local" and bool(external_ips or spec.type != "ClusterIP")
    ports = []
    for port in spec.ports:
        backends = _backends(port, slices)
        local = [e for e in backends if e[1].node_name == node_name]
        inside = local if spec.internal_traffic_policy == "Local" else backends
        ports.append(
            ServicePort(
                namespace=metadata.namespace,
                name=metadata.name,
                port_name=port.name,
                protocol=cast(TransportProtocol, port.protocol or "TCP"),
                port=port.port or 0,
                cluster_ips=tuple(cluster_ips),
                node_port=port.node_port or 0,
                external_ips=tuple(dict.fromkeys(external_ips)),
                session_affinity_timeout_s=affinity_s,
                endpoints=_usable(inside),
                # NodePorts and external addresses do not follow the internal policy
                external_endpoints=_usable(local)
                if outside_local
                else (_usable(backends) if spec.internal_traffic_policy == "Local" else None),
            )
        )
    return ports


def is_proxied(service: Service) -> bool:
    """Say whether a Service has addresses that this proxy answers for."""
    spec, labels = service.spec, service.metadata.labels
    if OTHER_PROXY_LABEL in labels or HEADLESS_LABEL in labels:
        return False
    return spec.type != "ExternalName" and spec.cluster_ip not in ("", "None")


Backend = tuple[Endpoint, discovery.Endpoint]


def _backends(port: PortView, slices: Sequence[EndpointSlice]) -> list[Backend]:
    """Return every IPv4 endpoint of a service port, ready or not."""
    return [
        (Endpoint(endpoint.addresses[0], slice_port.port), endpoint)
        for view in slices
        if view.address_type == "IPv4"
        for slice_port in view.ports
        if slice_port.name == port.name and slice_port.port
        for endpoint in view.endpoints
        if endpoint.addresses
    ]


def _usable(backends: Iterable[Backend]) -> tuple[Endpoint, ...]:
    """Return the ready endpoints, or when there are none those that end but still serve; sorted, each once."""
    backends = [*backends]
    ready = {e for e, view in backends if view.conditions is None or view.conditions.ready is not False}
    if not ready:
        ready = {
            e for e, view in backends if view.conditions and view.conditions.serving and view.conditions.terminating
        }
    return tuple(sorted(ready, key=lambda e: (e.address, e.port)))


def _ingress_addresses(service: Service) -> list[str]:
    balancer = service.status.load_balancer
    if service.spec.type != "LoadBalancer" or balancer is None:
        return []
    return [ingress.ip for ingress in balancer.ingress if ingress.ip and ingress.ip_mode != "Proxy"]


def _affinity_s(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    return (config and config.client_ip and config.client_ip.timeout_seconds) or DEFAULT_AFFINITY_S
