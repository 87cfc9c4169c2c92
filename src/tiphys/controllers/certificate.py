"""CertificateSigningRequests: signs approved ones for the cluster's own signers, and removes old ones.

In: a key of a CertificateSigningRequest. Decides `plan_request`: to sign, to tell why not (condition Failed), to remove it,
or when to look again. Out: one write of the status, or a delete. A crash between two keys changes nothing.

Spec: Kubernetes documentation, "Certificates and Certificate Signing Requests" (signers; garbage collection of requests).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from tiphys.api.views.meta import Condition, ObjectMeta, View
from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.signing import Wish, is_ours, objection, sign

DECIDED_S = 3600.0
"""How long a request that was decided is kept."""
PENDING_S = 24 * 3600.0
"""How long one that nobody decides is kept."""
FAILED_REASON = "SignerValidationFailure"


class RequestCondition(Condition, frozen=True):
    status: str = "True"
    last_update_time: str | None = None


class RequestSpec(View, frozen=True):
    request: str = ""
    signer_name: str = ""
    usages: tuple[str, ...] = ()
    expiration_seconds: int = 0


class RequestStatus(View, frozen=True):
    certificate: str = ""
    conditions: tuple[RequestCondition, ...] = ()


class SigningRequest(View, frozen=True):
    metadata: ObjectMeta
    spec: RequestSpec = msgspec.field(default_factory=RequestSpec)
    status: RequestStatus = msgspec.field(default_factory=RequestStatus)

    def condition(self, *kinds: str) -> RequestCondition | None:
        return next((c for c in self.status.conditions if c.type in kinds), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """`action` is sign, remove or "" for nothing; `again_s` is when to look again, in seconds from now."""

    action: str
    again_s: float


def plan_request(request: SigningRequest, now_s: float) -> Plan:
    """Return what a request needs."""
    decided = request.condition("Denied", "Failed", "Approved")
    since = decided.last_update_time if decided and decided.last_update_time else request.metadata.creation_timestamp
    ends_s = (parse_time(since) if since else now_s) + (DECIDED_S if decided else PENDING_S)
    if now_s >= ends_s:
        return Plan("remove", 0.0)
    refused = request.condition("Denied", "Failed") is not None
    ready = request.condition("Approved") is not None and not refused and not request.status.certificate
    return Plan("sign" if ready and is_ours(request.spec.signer_name) else "", ends_s - now_s)


class CertificateLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.requests: Mirror[SigningRequest] = shared.mirror(resources.CERTIFICATESIGNINGREQUESTS, SigningRequest)
        self.queue = shared.queue()
        self.requests.on_change(self._changed)

    def _changed(self, old: SigningRequest | None, new: SigningRequest | None) -> None:
        if new is not None:
            self.queue.add(new.metadata.name)

    async def reconcile(self, key: str) -> None:
        request = self.requests.get(key)
        if request is None:
            return
        plan = plan_request(request, self.shared.deps.clock.now_s())
        try:
            if plan.action == "remove":
                await self.requests.delete(request)
                return
            if plan.action == "sign":
                await self._sign(request)
        except ApiError as error:
            if error.code != 404:
                raise
        self.queue.add_after(key, plan.again_s)

    async def _sign(self, request: SigningRequest) -> None:
        deps, spec = self.shared.deps, request.spec
        try:
            data = base64.b64decode(spec.request)
        except binascii.Error:
            data = b""
        wish = Wish(data, spec.signer_name, spec.usages, spec.expiration_seconds)
        why_not = objection(wish)
        if why_not:
            now = format_time(deps.clock.now_s())
            failed = {"type": "Failed", "status": "True", "reason": FAILED_REASON, "message": why_not}
            times = {"lastUpdateTime": now, "lastTransitionTime": now}
            kept = [c.to_object() for c in request.status.conditions]
            await self._write(request, {"conditions": [*kept, {**failed, **times}]})
            return
        certificate = sign(wish, deps.cluster_ca.encode(), deps.cluster_ca_key_pem, deps.clock.now_s())
        await self._write(request, {"certificate": base64.b64encode(certificate).decode()})

    async def _write(self, request: SigningRequest, status: dict[str, object]) -> None:
        version = request.metadata.resource_version
        patch = {"metadata": {"resourceVersion": version}, "status": status}
        await self.requests.patch(request, patch, subresource="status")


def certificate_controller(shared: Shared) -> Controller:
    loop = CertificateLoop(shared)
    return Controller("certificate-signing", loop.queue, loop.reconcile, (loop.requests,), workers=1)
