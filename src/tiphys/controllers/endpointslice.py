"""The EndpointSlice controller and the Endpoints controller: keep a Service's endpoints true to its pods.

In: a key of a Service. Decides (endpoints.py) the smallest set of slice writes. Out: EndpointSlices and Endpoints. A pod
that becomes ready is in a slice after one pass of the event loop and one write; nothing is delayed for batching, the
work queue alone joins what happens at once. Crash after any write: the next run compares all slices again. Own slices
are read through the mirror, so a stale watch makes no second slice.

Spec: see endpoints.py; annotation endpoints.kubernetes.io/last-change-trigger-time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.node import Node
from tiphys.api.views.service import Endpoints, Service
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers import endpoints as rules
from tiphys.controllers.creation import is_namespace_ending
from tiphys.controllers.endpoints import MANAGED_BY, SERVICE_NAME, slices_of
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import is_ready, key_of, matches_labels
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod

OWN_NAME = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
NOT_COPIED_LABELS = (SERVICE_NAME, MANAGED_BY, HEADLESS)


class ServiceLoop:
    """What the two controllers share: which Services a changed pod concerns."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.services: Mirror[Service] = shared.mirror(resources.SERVICES, Service)
        self.pods = shared.pods
        self.queue = shared.queue()
        self.trigger_times: dict[str, float] = {}
        """Service key -> time of the earliest change that is not yet written."""
        self.services.on_change(self._service_changed)
        self.pods.on_change(self._pod_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new if new is not None else old
        if service is not None:
            self._add(key_of(service))

    def _add(self, key: str) -> None:
        self.trigger_times.setdefault(key, self.shared.deps.clock.now_s())
        self.queue.add(key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and _same_for_services(old, new):
            return
        labels = [pod.metadata.labels for pod in (old, new) if pod is not None]
        namespace = (new or old or Pod()).metadata.namespace
        if (old is None or not _has_address(old)) and (new is None or not _has_address(new)):
            return
        for service in self.services.all(namespace):
            selector = service.spec.selector
            if selector and any(matches_labels(selector, own) for own in labels):
                self._add(key_of(service))

    def selected(self, service: Service) -> list[Pod]:
        selector = service.spec.selector
        return [
            pod for pod in self.pods.all(service.metadata.namespace) if matches_labels(selector, pod.metadata.labels)
        ]


def _has_address(pod: Pod) -> bool:
    return bool(pod.status.pod_ip or pod.status.pod_ips)


def _same_for_services(old: Pod, new: Pod) -> bool:
    return (
        old.metadata.uid == new.metadata.uid
        and old.metadata.labels == new.metadata.labels
        and (old.metadata.deletion_timestamp is None) == (new.metadata.deletion_timestamp is None)
        and old.status.pod_ip == new.status.pod_ip
        and old.status.pod_ips == new.status.pod_ips
        and old.status.phase == new.status.phase
        and old.spec.node_name == new.spec.node_name
        and is_ready(old) == is_ready(new)
    )


class EndpointSliceLoop(ServiceLoop):
    """The effects of the EndpointSlice controller."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.slices: Mirror[EndpointSlice] = shared.mirror(resources.ENDPOINTSLICES, EndpointSlice)
        self.nodes = shared.nodes
        self.recorder = shared.recorder("endpoint-slice-controller")
        self.slices.on_change(self._slice_changed)
        self.nodes.on_change(self._node_changed)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for slice_ in (old, new):
            if slice_ is not None and slice_.metadata.labels.get(MANAGED_BY) == OWN_NAME:
                name = slice_.metadata.labels.get(SERVICE_NAME)
                if name:
                    self.queue.add(f"{slice_.metadata.namespace}/{name}")

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        zones = [node.metadata.labels.get(rules.ZONE) for node in (old, new) if node is not None]
        if (old is None or new is None or zones[0] != zones[1]) and any(zones):
            for service in self.services.all():
                self.queue.add(key_of(service))

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        if service is None:
            self.trigger_times.pop(key, None)
            await asyncio.gather(*(self._delete(s) for s in slices_of(self.slices, key, OWN_NAME)))
            return
        if service.spec.type == "ExternalName" or not service.spec.selector or service.metadata.deletion_timestamp:
            return
        triggered = self.trigger_times.pop(key, None)
        pods = self.selected(service)
        nodes = {n: node for n in {p.spec.node_name for p in pods} if n and (node := self.nodes.get(n))}
        existing = slices_of(self.slices, key, OWN_NAME, service.metadata.uid)
        wanted_families = rules.families(service)
        writes = [self._delete(s) for s in existing if s.address_type not in wanted_families]
        labels, annotations = self._labels(service), self._annotations(service, triggered)
        for family in wanted_families:
            mine = [s for s in existing if s.address_type == family]
            groups = rules.plan_groups(service, pods, family, nodes)
            if not groups and not mine:
                groups = [rules.Group(())]
                writes.append(self._create(service, family, {"ports": [], "endpoints": []}, labels, annotations))
                continue
            plan = rules.plan_slices(groups, mine)
            plan = self._keep_one(plan, mine)
            updated = {s.metadata.name for s, _ in plan.update}
            writes += [self._create(service, family, body, labels, annotations) for body in plan.create]
            writes += [self._update(s, body, labels, annotations) for s, body in plan.update]
            writes += [self._delete(s) for s in plan.delete]
            gone = {s.metadata.name for s in plan.delete}
            writes += [
                self._update(s, {}, labels, annotations)
                for s in mine
                if s.metadata.name not in updated | gone and dict(s.metadata.labels) != labels
            ]
        try:
            await asyncio.gather(*writes)
        except (ApiError, OSError) as error:
            if is_namespace_ending(error):
                return
            self.trigger_times.setdefault(key, triggered or self.shared.deps.clock.now_s())
            if not isinstance(error, ApiError) or error.code != 409:
                text = f"Error updating Endpoint Slices for Service {key}: {error}"
                self.recorder.record(service, "Warning", "FailedToUpdateEndpointSlices", text)
            raise

    def _keep_one(self, plan: rules.SlicePlan, mine: Sequence[EndpointSlice]) -> rules.SlicePlan:
        """A Service without endpoints keeps one empty slice, and a slice to delete is reused for one to create."""
        delete, create, update = list(plan.delete), list(plan.create), list(plan.update)
        while delete and create:
            slice_, body = delete.pop(), create.pop()
            update.append((slice_, body))
        if delete and not create and not update and len(delete) == len(mine):
            slice_ = delete.pop()
            if slice_.endpoints or slice_.ports:
                update.append((slice_, {"endpoints": [], "ports": []}))
        return rules.SlicePlan(tuple(create), tuple(update), tuple(delete))

    def _labels(self, service: Service) -> dict[str, str]:
        labels = {k: v for k, v in service.metadata.labels.items() if k not in NOT_COPIED_LABELS}
        labels |= {SERVICE_NAME: service.metadata.name, MANAGED_BY: OWN_NAME}
        if service.spec.cluster_ip in ("None", ""):
            labels[HEADLESS] = ""
        return labels

    def _annotations(self, service: Service, triggered: float | None) -> dict[str, str]:
        return {TRIGGER_TIME: format_time(triggered)} if triggered is not None else {}

    async def _create(
        self,
        service: Service,
        family: str,
        body: Mapping[str, Any],
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> None:
        meta = service.metadata
        name = f"{meta.name[:57]}-{self.shared.deps.randomness.suffix()}"
        obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "generateName": f"{meta.name}-",
                "namespace": meta.namespace,
                "labels": dict(labels),
                "annotations": dict(annotations),
                "ownerReferences": [
                    {
                        "apiVersion": "v1",
                        "kind": "Service",
                        "name": meta.name,
                        "uid": meta.uid,
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "addressType": family,
            "endpoints": body["endpoints"],
            "ports": body["ports"],
        }
        await self.slices.create(meta.namespace, obj)

    async def _update(
        self, slice_: EndpointSlice, body: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> None:
        gone = dict.fromkeys(set(slice_.metadata.labels) - set(labels))
        metadata: dict[str, Any] = {
            "resourceVersion": slice_.metadata.resource_version,
            "labels": {**gone, **labels},
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        await self.slices.patch(slice_, {"metadata": metadata, **body})

    async def _delete(self, slice_: EndpointSlice) -> None:
        try:
            await self.slices.delete(slice_)
        except ApiError as error:
            if error.code != 404:
                raise


class EndpointsLoop(ServiceLoop):
    """The effects of the Endpoints controller."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.endpoints: Mirror[Endpoints] = shared.mirror(resources.ENDPOINTS, Endpoints)
        self.recorder = shared.recorder("endpoint-controller")
        self.endpoints.on_change(self._endpoints_changed)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        view = new if new is not None else old
        if view is not None:
            self.queue.add(key_of(view))

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        current = self.endpoints.get(key)
        if service is None:
            # Endpoints carry no owner reference; those that we made carry our annotation or label.
            self.trigger_times.pop(key, None)
            if current is not None and current.metadata.labels.get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_NAME:
                await _ignore_missing(self.endpoints.delete(current))
            return
        if service.spec.type == "ExternalName" or not service.spec.selector or service.metadata.deletion_timestamp:
            return
        triggered = self.trigger_times.pop(key, None)
        subsets = rules.plan_subsets(service, self.selected(service))
        labels = {**service.metadata.labels, ENDPOINTS_MANAGED_BY: ENDPOINTS_NAME}
        if service.spec.cluster_ip in ("None", ""):
            labels[HEADLESS] = ""
        else:
            labels.pop(HEADLESS, None)
        annotations = {TRIGGER_TIME: format_time(triggered)} if triggered is not None else {}
        try:
            await self._write(service, current, subsets, labels, annotations)
        except ApiError as error:
            if is_namespace_ending(error):
                return
            text = f"Failed to {'update' if current else 'create'} endpoint {key}: {error}"
            reason = "FailedToUpdateEndpoint" if current else "FailedToCreateEndpoint"
            if error.code != 409:
                self.recorder.record(service, "Warning", reason, text)
            raise

    async def _write(
        self,
        service: Service,
        current: Endpoints | None,
        subsets: list[dict[str, Any]],
        labels: dict[str, str],
        annotations: dict[str, str],
    ) -> None:
        if current is None:
            metadata = {
                "name": service.metadata.name,
                "namespace": service.metadata.namespace,
                "labels": labels,
                "annotations": annotations,
            }
            obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
            await self.endpoints.create(service.metadata.namespace, obj)
            return
        if dump_subsets(current) == subsets and dict(current.metadata.labels) == labels:
            return
        gone = dict.fromkeys(set(current.metadata.labels) - set(labels))
        meta: dict[str, Any] = {
            "resourceVersion": current.metadata.resource_version,
            "labels": {**gone, **labels},
        }
        if annotations:
            meta["annotations"] = annotations
        await self.endpoints.patch(current, {"metadata": meta, "subsets": subsets or None})


ENDPOINTS_MANAGED_BY = "endpoints.kubernetes.io/managed-by"
ENDPOINTS_NAME = "endpoint-controller"


def dump_subsets(endpoints: Endpoints) -> list[dict[str, Any]]:
    """Return the subsets of an Endpoints object in the shape of `plan_subsets`."""

    def dump(address: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {"ip": address.ip}
        if address.hostname:
            entry["hostname"] = address.hostname
        if address.node_name:
            entry["nodeName"] = address.node_name
        if address.target_ref:
            ref = address.target_ref
            entry["targetRef"] = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": ref.uid}
        return entry

    result = []
    for subset in endpoints.subsets:
        ports = [
            {
                **({"name": p.name} if p.name else {}),
                "port": p.port,
                "protocol": p.protocol,
                **({"appProtocol": p.app_protocol} if p.app_protocol else {}),
            }
            for p in subset.ports
        ]
        result.append(
            {
                **({"addresses": [dump(a) for a in subset.addresses]} if subset.addresses else {}),
                **(
                    {"notReadyAddresses": [dump(a) for a in subset.not_ready_addresses]}
                    if subset.not_ready_addresses
                    else {}
                ),
                **({"ports": ports} if ports else {}),
            }
        )
    return result


async def _ignore_missing(call: Awaitable[object]) -> None:
    try:
        await call
    except ApiError as error:
        if error.code != 404:
            raise


def endpointslice_controller(shared: Shared) -> Controller:
    loop = EndpointSliceLoop(shared)
    mirrors = (loop.services, loop.pods, loop.slices, loop.nodes)
    return Controller("endpointslice", loop.queue, loop.reconcile, mirrors, workers=10)


def endpoints_controller(shared: Shared) -> Controller:
    loop = EndpointsLoop(shared)
    return Controller("endpoints", loop.queue, loop.reconcile, (loop.services, loop.pods, loop.endpoints), workers=5)
