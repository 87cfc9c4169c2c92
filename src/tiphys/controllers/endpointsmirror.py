"""Endpoints that somebody wrote by hand become EndpointSlices, so that proxies and DNS read only one kind.

In: a key of an Endpoints object whose Service has no selector. Decides (`plan_mirror`, pure) one slice for each set of
ports and address family. Out: EndpointSlices owned by the Endpoints object. Crash after any write: the next run
compares all slices again; own slices are read through the mirror, so a stale watch makes no second one.

Spec: Kubernetes docs, "Service" (custom Endpoints, EndpointSlice mirroring: skipped for those with the label
endpointslice.kubernetes.io/skip-mirror, a leader election annotation, no Service, or a Service with a selector; at most
1,000 addresses a subset).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.meta import View, metadata_of
from tiphys.api.views.service import EndpointAddress, Endpoints, Service
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.reflector import object_key
from tiphys.controllers.creation import is_namespace_ending
from tiphys.controllers.endpoints import MANAGED_BY, SERVICE_NAME, PortTuple, dump_ports, slice_ports, slices_of
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared

OWN_NAME = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
NOT_COPIED_ANNOTATIONS = (
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
)
LARGEST_SUBSET = 1000


@dataclass(slots=True)
class Wanted:
    """One slice that should exist."""

    family: str
    ports: tuple[PortTuple, ...]
    endpoints: list[dict[str, Any]] = field(default_factory=list)


def is_mirrored(endpoints: Endpoints | None, service: Service | None) -> bool:
    """Tell whether slices should follow an Endpoints object."""
    return (
        endpoints is not None
        and service is not None
        and not service.spec.selector
        and endpoints.metadata.deletion_timestamp is None
        and endpoints.metadata.labels.get(SKIP_MIRROR) != "true"
        and LEADER not in endpoints.metadata.annotations
    )


def plan_mirror(endpoints: Endpoints) -> list[Wanted]:
    """Return the slices of an Endpoints object; addresses that are none are left out."""
    wanted: dict[tuple[str, tuple[PortTuple, ...]], Wanted] = {}
    for subset in endpoints.subsets:
        ports: tuple[PortTuple, ...] = tuple(
            (p.name, p.port, p.protocol or "TCP", p.app_protocol) for p in subset.ports
        )
        addresses = [(a, True) for a in subset.addresses] + [(a, False) for a in subset.not_ready_addresses]
        for address, is_ready in addresses[:LARGEST_SUBSET]:
            family = _family(address.ip)
            if family:
                entry = wanted.setdefault((family, ports), Wanted(family, ports))
                entry.endpoints.append(_endpoint(address, is_ready))
    return list(wanted.values())


def _family(address: str) -> str:
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return ""


def _endpoint(address: EndpointAddress, is_ready: bool) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"addresses": [address.ip], "conditions": {"ready": is_ready}}
    if address.hostname:
        endpoint["hostname"] = address.hostname
    if address.node_name:
        endpoint["nodeName"] = address.node_name
    ref = address.target_ref
    if ref is not None:
        fields = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": ref.uid}
        endpoint["targetRef"] = {name: value for name, value in fields.items() if value}
    return endpoint


def _dump(slice_: EndpointSlice) -> list[dict[str, Any]]:
    return [
        {
            **_endpoint(
                EndpointAddress(
                    hostname=e.hostname, ip=e.addresses[0], node_name=e.node_name, target_ref=e.target_ref
                ),
                bool(e.conditions and e.conditions.ready),
            )
        }
        for e in slice_.endpoints
        if e.addresses
    ]  # fmt: skip


class EndpointsMirrorLoop:
    """The effects."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.services: Mirror[Service] = shared.mirror(resources.SERVICES, Service)
        self.endpoints: Mirror[Endpoints] = shared.mirror(resources.ENDPOINTS, Endpoints)
        self.slices: Mirror[EndpointSlice] = shared.mirror(resources.ENDPOINTSLICES, EndpointSlice)
        self.queue = shared.queue()
        self.services.on_change(self._changed)
        self.endpoints.on_change(self._changed)
        self.slices.on_change(self._slice_changed)

    def _changed(self, old: View | None, new: View | None) -> None:
        view = new if new is not None else old
        assert view is not None
        self.queue.add(object_key(metadata_of(view)))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for slice_ in (old, new):
            if slice_ is not None and slice_.metadata.labels.get(MANAGED_BY) == OWN_NAME:
                name = slice_.metadata.labels.get(SERVICE_NAME)
                if name:
                    self.queue.add(f"{slice_.metadata.namespace}/{name}")

    async def reconcile(self, key: str) -> None:
        endpoints = self.endpoints.get(key)
        uid = endpoints.metadata.uid if endpoints is not None else ""
        existing = slices_of(self.slices, key, OWN_NAME, uid)
        if endpoints is None or not is_mirrored(endpoints, self.services.get(key)):
            await asyncio.gather(*(self._delete(s) for s in existing))
            return
        try:
            await asyncio.gather(*self._writes(endpoints, plan_mirror(endpoints), existing))
        except ApiError as error:
            if not is_namespace_ending(error):
                raise

    def _writes(self, endpoints: Endpoints, wanted: Sequence[Wanted], existing: Sequence[EndpointSlice]) -> list[Any]:
        """Return the calls: a slice of the same ports is kept, another one of the family is used again."""
        left = list(existing)
        open_: list[Wanted] = []
        writes: list[Any] = []
        for entry in wanted:
            same = [s for s in left if s.address_type == entry.family and slice_ports(s) == entry.ports]
            if same:
                left.remove(same[0])
                writes += self._update(endpoints, same[0], entry)
            else:
                open_.append(entry)
        for entry in open_:
            other = next((s for s in left if s.address_type == entry.family), None)
            if other is not None:
                left.remove(other)
                writes += self._update(endpoints, other, entry)
            else:
                writes.append(self._create(endpoints, entry))
        return writes + [self._delete(s) for s in left]

    def _metadata(self, endpoints: Endpoints) -> tuple[dict[str, str], dict[str, str]]:
        labels = {**endpoints.metadata.labels, SERVICE_NAME: endpoints.metadata.name, MANAGED_BY: OWN_NAME}
        annotations = {k: v for k, v in endpoints.metadata.annotations.items() if k not in NOT_COPIED_ANNOTATIONS}
        return labels, annotations

    async def _create(self, endpoints: Endpoints, entry: Wanted) -> None:
        meta = endpoints.metadata
        labels, annotations = self._metadata(endpoints)
        owner = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "name": meta.name,
            "uid": meta.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{meta.name[:57]}-{self.shared.deps.randomness.suffix()}",
                "generateName": f"{meta.name}-",
                "namespace": meta.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner],
            },
            "addressType": entry.family,
            "endpoints": entry.endpoints,
            "ports": dump_ports(entry.ports),
        }
        await self.slices.create(meta.namespace, obj)

    def _update(self, endpoints: Endpoints, slice_: EndpointSlice, entry: Wanted) -> list[Any]:
        labels, annotations = self._metadata(endpoints)
        meta = slice_.metadata
        is_same = (
            slice_ports(slice_) == entry.ports
            and _dump(slice_) == entry.endpoints
            and (dict(meta.labels), dict(meta.annotations)) == (labels, annotations)
        )
        if is_same:
            return []
        metadata: Mapping[str, Any] = {
            "resourceVersion": meta.resource_version,
            "labels": {**dict.fromkeys(set(meta.labels) - set(labels)), **labels},
            "annotations": {**dict.fromkeys(set(meta.annotations) - set(annotations)), **annotations},
        }
        body = {"metadata": metadata, "endpoints": entry.endpoints, "ports": dump_ports(entry.ports)}
        return [self.slices.patch(slice_, body)]

    async def _delete(self, slice_: EndpointSlice) -> None:
        try:
            await self.slices.delete(slice_)
        except ApiError as error:
            if error.code != 404:
                raise


def endpoints_mirror_controller(shared: Shared) -> Controller:
    loop = EndpointsMirrorLoop(shared)
    mirrors = (loop.services, loop.endpoints, loop.slices)
    return Controller("endpointslicemirroring", loop.queue, loop.reconcile, mirrors, workers=5)
