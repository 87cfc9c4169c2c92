"""ServiceCIDRs: ready as long as they stay, and removed only when no IPAddress needs them any more.

In: a key of a ServiceCIDR. Decides `plan_service_cidr`: our finalizer and the Ready condition of one that stays; of one
that is deleted, whether every IPAddress in it lies in another one too. Out: one patch. A crash changes nothing: the
finalizer is the memory.

Spec: Kubernetes documentation, "Extend Service IP Ranges" (deleting a ServiceCIDR); KEP-1880.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tiphys.api.views.meta import Condition, ObjectMeta, PartialObject, View, decode_view
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY = "Kubernetes Service CIDR is ready"
IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


class ServiceCidrSpec(View, frozen=True):
    cidrs: tuple[str, ...] = ()


class ServiceCidrStatus(View, frozen=True):
    conditions: tuple[Condition, ...] = ()


class ServiceCidr(View, frozen=True):
    metadata: ObjectMeta
    spec: ServiceCidrSpec = msgspec.field(default_factory=ServiceCidrSpec)
    status: ServiceCidrStatus = msgspec.field(default_factory=ServiceCidrStatus)

    def ready(self) -> str:
        """Return the status of its Ready condition, "" without one."""
        return next((c.status for c in self.status.conditions if c.type == "Ready"), "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write: the whole list of finalizers or None, and (status, reason, message) of Ready or None."""

    finalizers: tuple[str, ...] | None = None
    ready: tuple[str, str, str] | None = None


def plan_service_cidr(cidr: ServiceCidr, others: Iterable[ServiceCidr], addresses: Iterable[str]) -> Plan:
    """Return what a ServiceCIDR needs. `others` are those that stay, without it; `addresses` are all IPAddresses."""
    metadata = cidr.metadata
    has = FINALIZER in metadata.finalizers
    if metadata.deletion_timestamp is None:
        finalizers = None if has else (*metadata.finalizers, FINALIZER)
        return Plan(finalizers, None if cidr.ready() == "True" else ("True", "", READY))
    if not has:
        return Plan()
    if orphans(cidr, others, addresses):
        return Plan(None, None if cidr.ready() == "False" else ("False", "Terminating", IN_USE))
    return Plan(tuple(f for f in metadata.finalizers if f != FINALIZER))


def orphans(cidr: ServiceCidr, others: Iterable[ServiceCidr], addresses: Iterable[str]) -> bool:
    """Return whether an address would be in no ServiceCIDR without this one."""
    mine = [ipaddress.ip_network(text, strict=False) for text in cidr.spec.cidrs]
    theirs = [ipaddress.ip_network(text, strict=False) for other in others for text in other.spec.cidrs]
    for text in addresses:
        address = ipaddress.ip_address(text)
        if any(address in network for network in mine) and not any(address in network for network in theirs):
            return True
    return False


class ServiceCidrLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.cidrs: Mirror[ServiceCidr] = shared.mirror(resources.SERVICECIDRS, ServiceCidr)
        self.addresses: Mirror[PartialObject] = shared.mirror(resources.IPADDRESSES, PartialObject)
        self.queue = shared.queue()
        self.cidrs.on_change(self._cidr_changed)
        self.addresses.on_change(self._address_changed)

    def _cidr_changed(self, old: ServiceCidr | None, new: ServiceCidr | None) -> None:
        if new is not None:
            self.queue.add(new.metadata.name)
        self._look_at_deleted()

    def _address_changed(self, old: PartialObject | None, new: PartialObject | None) -> None:
        if new is None:
            self._look_at_deleted()

    def _look_at_deleted(self) -> None:
        for cidr in self.cidrs.all():
            if cidr.metadata.deletion_timestamp:
                self.queue.add(cidr.metadata.name)

    async def reconcile(self, key: str) -> None:
        cidr = self.cidrs.get(key)
        if cidr is None:
            return
        others = [o for o in self.cidrs.all() if o.metadata.name != key and not o.metadata.deletion_timestamp]
        plan = plan_service_cidr(cidr, others, (a.metadata.name for a in self.addresses.all()))
        try:
            if cidr.metadata.deletion_timestamp and plan.finalizers is not None:
                # a copy may not know the newest Service; the server gives no address of this one any more
                page = await self.addresses.client.list(resources.IPADDRESSES)
                plan = plan_service_cidr(
                    cidr, others, (decode_view(i, PartialObject).metadata.name for i in page.items)
                )
            await self._apply(cidr, plan)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _apply(self, cidr: ServiceCidr, plan: Plan) -> None:
        if plan.finalizers is not None:
            finalizers: Sequence[str] | None = plan.finalizers or None
            version = cidr.metadata.resource_version
            await self.cidrs.patch(cidr, {"metadata": {"resourceVersion": version, "finalizers": finalizers}})
        if plan.ready is not None:
            status, reason, message = plan.ready
            now = format_time(self.shared.deps.clock.now_s())
            condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
            changed = {"conditions": [{**condition, "lastTransitionTime": now}]}
            await self.cidrs.patch(cidr, {"status": changed}, subresource="status")


def service_cidr_controller(shared: Shared) -> Controller:
    loop = ServiceCidrLoop(shared)
    return Controller("service-cidr", loop.queue, loop.reconcile, (loop.cidrs, loop.addresses), workers=1)
