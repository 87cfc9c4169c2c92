"""What a Service's pods offer, as data: the pure part of the EndpointSlice and Endpoints controllers.

In: a Service and the pods that its selector matches. Out: for each address family the ports and endpoints that should
exist (`plan_groups`), spread over slices with as few changes as can be (`plan_slices`), and the subsets of the older
Endpoints object (`plan_subsets`). Read by endpointslice.py and endpointsmirror.py.

Spec: Kubernetes docs, "EndpointSlices" (conditions, distribution, at most 100 endpoints a slice), "Service"
(named target ports, publishNotReadyAddresses, headless).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.views.discovery import Endpoint, EndpointSlice
from tiphys.api.views.node import Node
from tiphys.api.views.service import Service, ServicePort
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import is_ready
from tiphys.controllers.views import Pod

LARGEST_SLICE = 100
LARGEST_ENDPOINTS = 1000
ZONE = "topology.kubernetes.io/zone"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"

PortTuple = tuple[str, int | None, str, str]
"""(name, port, protocol, application protocol)."""


@dataclass(slots=True)
class Group:
    """Endpoints with the same ports: they share slices."""

    ports: tuple[PortTuple, ...]
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Pod uid -> endpoint."""


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """The smallest change from the slices that exist to those that should."""

    create: tuple[dict[str, Any], ...]
    """Each has `ports` and `endpoints`."""
    update: tuple[tuple[EndpointSlice, dict[str, Any]], ...]
    delete: tuple[EndpointSlice, ...]


def families(service: Service) -> tuple[str, ...]:
    """Return the address types of a Service's slices."""
    found = tuple(service.spec.ip_families)
    if not found:
        found = ("IPv6",) if ":" in service.spec.cluster_ip else ("IPv4",)
    return found


def is_included(service: Service, pod: Pod) -> bool:
    """Return whether a pod has an endpoint at all: it has an address and has not ended."""
    return bool(pod.status.pod_ip or pod.status.pod_ips) and pod.status.phase not in ("Succeeded", "Failed")


def address_of(pod: Pod, family: str) -> str:
    """Return the pod's address of a family, "" if it has none."""
    addresses = [ip.ip for ip in pod.status.pod_ips] or [pod.status.pod_ip]
    return next((a for a in addresses if a and (":" in a) == (family == "IPv6")), "")


def find_port(pod: Pod, port: ServicePort) -> int | None:
    """Return the number of a Service's target port in a pod; None if the pod has no port of that name."""
    target = port.target_port
    if isinstance(target, int):
        return target or port.port
    if target is None or target == "":
        return port.port
    if target.isdigit():
        return int(target)
    sidecars = [c for c in pod.spec.init_containers if c.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for own in container.ports:
            if own.name == target and (own.protocol or "TCP") == (port.protocol or "TCP"):
                return own.container_port
    return None


def ports_for(service: Service, pod: Pod) -> tuple[PortTuple, ...]:
    """Return the ports that a Service has in this pod."""
    result: list[PortTuple] = []
    for port in service.spec.ports:
        number = find_port(pod, port)
        if number is not None:
            result.append((port.name, number, port.protocol or "TCP", port.app_protocol))
    return tuple(result)


def make_endpoint(service: Service, pod: Pod, address: str, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Return the endpoint of a pod. A pod that is ending is not ready, but serves as long as it says so."""
    serving = is_ready(pod)
    terminating = pod.metadata.deletion_timestamp is not None
    ready = bool(service.spec.publish_not_ready_addresses) or (serving and not terminating)
    endpoint: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    }
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        endpoint["hostname"] = pod.spec.hostname
    endpoint["targetRef"] = {
        "kind": "Pod",
        "namespace": pod.metadata.namespace,
        "name": pod.metadata.name,
        "uid": pod.metadata.uid,
    }
    if pod.spec.node_name:
        endpoint["nodeName"] = pod.spec.node_name
        node = nodes.get(pod.spec.node_name)
        if node is not None and (zone := node.metadata.labels.get(ZONE)):
            endpoint["zone"] = zone
    return endpoint


def plan_groups(service: Service, pods: Iterable[Pod], family: str, nodes: Mapping[str, Node]) -> list[Group]:
    """Return the wanted endpoints of one address family, grouped by their ports."""
    groups: dict[tuple[PortTuple, ...], Group] = {}
    for pod in pods:
        if not is_included(service, pod):
            continue
        address = address_of(pod, family)
        if not address:
            continue
        ports = ports_for(service, pod)
        if service.spec.ports and not ports:
            continue
        group = groups.setdefault(ports, Group(ports))
        group.endpoints[pod.metadata.uid] = make_endpoint(service, pod, address, nodes)
    return list(groups.values())


def plan_slices(groups: Sequence[Group], existing: Sequence[EndpointSlice]) -> SlicePlan:
    """Return what to create, update and delete, so that exactly the groups' endpoints are in slices.

    An endpoint stays in its slice; new ones fill slices that change anyway, then others with room, then new slices.
    """
    by_ports: dict[tuple[PortTuple, ...], list[EndpointSlice]] = {}
    for slice_ in existing:
        by_ports.setdefault(slice_ports(slice_), []).append(slice_)
    create: list[dict[str, Any]] = []
    update: list[tuple[EndpointSlice, dict[str, Any]]] = []
    delete: list[EndpointSlice] = []
    for group in groups:
        _plan_group(group, by_ports.pop(group.ports, []), create, update, delete)
    for left in by_ports.values():
        delete.extend(left)
    return SlicePlan(tuple(create), tuple(update), tuple(delete))


def _plan_group(
    group: Group,
    existing: Sequence[EndpointSlice],
    create: list[dict[str, Any]],
    update: list[tuple[EndpointSlice, dict[str, Any]]],
    delete: list[EndpointSlice],
) -> None:
    missing = dict(group.endpoints)
    kept: list[tuple[EndpointSlice, list[dict[str, Any]], bool]] = []
    for slice_ in existing:
        endpoints, is_changed = [], False
        for view in slice_.endpoints:
            uid = view.target_ref.uid if view.target_ref else ""
            wanted = missing.pop(uid, None)
            if wanted is None:
                is_changed = True
                continue
            is_changed = is_changed or not same_endpoint(view, wanted)
            endpoints.append(wanted)
        kept.append((slice_, endpoints, is_changed))
    new = list(missing.values())
    # Slices that are written anyway take new endpoints first; then the fullest that can take all the rest.
    kept.sort(key=lambda item: (not item[2], -len(item[1])))
    for slice_, endpoints, is_changed in kept:
        room = LARGEST_SLICE - len(endpoints)
        if new and room > 0 and (is_changed or len(new) <= room):
            endpoints.extend(new[:room])
            new = new[room:]
            is_changed = True
        if not endpoints:
            delete.append(slice_)
        elif is_changed:
            update.append((slice_, {"endpoints": endpoints}))
    ports = dump_ports(group.ports)
    starts = range(0, len(new), LARGEST_SLICE)
    create.extend({"ports": ports, "endpoints": new[start : start + LARGEST_SLICE]} for start in starts)


def slice_ports(slice_: EndpointSlice) -> tuple[PortTuple, ...]:
    return tuple((p.name, p.port, p.protocol, p.app_protocol) for p in slice_.ports)


def dump_ports(ports: Sequence[PortTuple]) -> list[dict[str, Any]]:
    return [
        {"name": name, "port": number, "protocol": protocol, **({"appProtocol": app} if app else {})}
        for name, number, protocol, app in ports
    ]


def same_endpoint(view: Endpoint, wanted: Mapping[str, Any]) -> bool:
    """Return whether an endpoint that exists says what it should."""
    conditions = view.conditions
    return (
        list(view.addresses) == wanted["addresses"]
        and conditions is not None
        and conditions.ready == wanted["conditions"]["ready"]
        and conditions.serving == wanted["conditions"]["serving"]
        and conditions.terminating == wanted["conditions"]["terminating"]
        and view.hostname == wanted.get("hostname", "")
        and view.node_name == wanted.get("nodeName", "")
        and view.zone == wanted.get("zone", "")
    )


def plan_subsets(service: Service, pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """Return the subsets of the Service's Endpoints object, in canonical order (so that equal means unchanged)."""
    family = families(service)[0]
    subsets: dict[tuple[PortTuple, ...], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    ordered = sorted(pods, key=lambda pod: (address_of(pod, family), pod.metadata.uid))
    for pod in ordered[:LARGEST_ENDPOINTS]:
        address = address_of(pod, family)
        if not address or not is_included(service, pod):
            continue
        if pod.metadata.deletion_timestamp and not service.spec.publish_not_ready_addresses:
            continue
        ports = ports_for(service, pod)
        if service.spec.ports and not ports:
            continue
        entry: dict[str, Any] = {"ip": address}
        if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
            entry["hostname"] = pod.spec.hostname
        if pod.spec.node_name:
            entry["nodeName"] = pod.spec.node_name
        entry["targetRef"] = {
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        }
        good, bad = subsets.setdefault(ports, ([], []))
        (good if service.spec.publish_not_ready_addresses or is_ready(pod) else bad).append(entry)
    return [
        {
            **({"addresses": good} if good else {}),
            **({"notReadyAddresses": bad} if bad else {}),
            **({"ports": _subset_ports(ports)} if ports else {}),
        }
        for ports, (good, bad) in sorted(subsets.items(), key=lambda item: str(item[0]))
    ]


def _subset_ports(ports: Sequence[PortTuple]) -> list[dict[str, Any]]:
    return [
        {
            **({"name": name} if name else {}),
            "port": number,
            "protocol": protocol,
            **({"appProtocol": app} if app else {}),
        }
        for name, number, protocol, app in ports
    ]


def slices_of(slices: Mirror[EndpointSlice], key: str, manager: str, owner_uid: str = "") -> list[EndpointSlice]:
    """Return the slices of a Service that one controller manages; with the uid of the object that they are made of also
    those of our own that the watch has not told yet."""
    known = {s.metadata.name: s for s in slices.by_index("service", key)}
    if owner_uid:
        known |= {s.metadata.name: s for s in slices.owned(owner_uid)}
    return [
        s
        for s in known.values()
        if s.metadata.labels.get(MANAGED_BY) == manager and s.metadata.deletion_timestamp is None
    ]
