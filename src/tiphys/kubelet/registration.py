"""Keeps the Node object and its Lease current.

The Lease (every 10 s) is the heartbeat; the Node's status is written when it changes and every 5 min. Losing the API
server for any time does no harm: the next round writes again.

Spec: Kubernetes docs, "Nodes", "Node heartbeats", "Leases".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from tiphys.api.views.meta import ObjectReference
from tiphys.base.clock import Clock, Randomness, format_micro_time
from tiphys.base.errors import ApiError, TiphysError
from tiphys.client.events import EventKind, EventRecorder
from tiphys.client.interface import STRATEGIC_PATCH, Client
from tiphys.client.resources import LEASES, NODES
from tiphys.kubelet.machine import Pressure
from tiphys.kubelet.node import NodeFacts, changed, node_labels, node_object, node_status
from tiphys.runtime.interface import Image, Runtime

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S = 40
LEASE_EVERY_S = 10.0
STATUS_EVERY_S = 300.0
CHECK_EVERY_S = 10.0
RETRY_S = 0.2
LONGEST_RETRY_S = 7.0

_PRESSURE_EVENTS = {
    ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
    ("MemoryPressure", "False"): "NodeHasSufficientMemory",
    ("DiskPressure", "True"): "NodeHasDiskPressure",
    ("DiskPressure", "False"): "NodeHasNoDiskPressure",
    ("PIDPressure", "True"): "NodeHasInsufficientPID",
    ("PIDPressure", "False"): "NodeHasSufficientPID",
    ("Ready", "True"): "NodeReady",
    ("Ready", "False"): "NodeNotReady",
}


class Registration:
    """See the module's docstring."""

    def __init__(
        self, client: Client, runtime: Runtime, recorder: EventRecorder, clock: Clock, randomness: Randomness,
        facts: NodeFacts,
    ) -> None:  # fmt: skip
        self._client, self._runtime, self._recorder = client, runtime, recorder
        self._clock, self._randomness = clock, randomness
        self.facts = facts
        self._status: dict[str, Any] = {}
        self._uid = ""
        self._written_at_s = 0.0
        self._registered = asyncio.Event()
        self.not_ready: Callable[[], str] = lambda: ""
        """Says why the node cannot run pods, or ""."""

    async def registered(self) -> None:
        """Wait until the Node object stands."""
        await self._registered.wait()

    async def run(self) -> None:
        """Register, then keep the status current until cancelled."""
        await self._until_done(self._register)
        self._registered.set()
        self._event("Normal", "Starting", "Starting kubelet.")
        self._transition_events({}, self._status)
        self._event("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self._until_done(self._write_status)

    async def run_lease(self) -> None:
        """Renew the Lease until cancelled."""
        await self.registered()
        held: dict[str, Any] | None = None
        while True:
            try:
                held = await self._renew(held)
            except (ApiError, OSError) as error:
                log.warning("the lease of node %s is renewed again soon: %s", self.facts.name, error)
                held = None
            await asyncio.sleep(LEASE_EVERY_S * self._randomness.uniform(0.96, 1.04) if held else 1.0)

    async def _until_done(self, action: Callable[[], Any]) -> None:
        wait_s = RETRY_S
        while True:
            try:
                await action()
                return
            except (TiphysError, OSError) as error:
                log.log(
                    logging.DEBUG if wait_s < LONGEST_RETRY_S else logging.WARNING,
                    "node %s is written again in %.1f s: %s", self.facts.name, wait_s, error,
                )  # fmt: skip
            await asyncio.sleep(self._randomness.uniform(wait_s, wait_s * 1.3))
            wait_s = min(wait_s * 2, LONGEST_RETRY_S)

    async def _wanted(self) -> dict[str, Any]:
        images: list[Image] = list(await self._runtime.list_images())
        pressure: Pressure = self.facts.machine.pressure()
        return node_status(self.facts, self._status, images, pressure, self.not_ready(), self._clock.now_s())

    async def _register(self) -> None:
        wanted = await self._wanted()
        try:
            answer = await self._client.create(NODES, "", node_object(self.facts, wanted))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            patch = {"metadata": {"labels": node_labels(self.facts)}}
            answer = await self._client.patch(NODES, "", self.facts.name, patch, patch_type=STRATEGIC_PATCH)
        node = msgspec.json.decode(answer)
        self._uid = node["metadata"].get("uid", "")
        self._status = node.get("status") or {}
        if changed(self._status, wanted):
            await self._write_status()
        self._written_at_s = self._clock.now_s()

    async def _write_status(self) -> None:
        # Others write conditions too: a node that was cut off is Unknown on the server and must say that it is ready
        # as soon as it can, not with its next heartbeat.
        answer = await self._client.get(NODES, "", self.facts.name)
        self._status = msgspec.json.decode(answer).get("status") or {}
        wanted = await self._wanted()
        due = self._clock.now_s() - self._written_at_s >= STATUS_EVERY_S
        if not due and not changed(self._status, wanted):
            return
        patch = {"status": {k: v for k, v in wanted.items() if k == "conditions" or self._status.get(k) != v}}
        answer = await self._client.patch(
            NODES, "", self.facts.name, patch, subresource="status", patch_type=STRATEGIC_PATCH
        )
        old, self._status = self._status, {**(msgspec.json.decode(answer).get("status") or {}), **wanted}
        self._written_at_s = self._clock.now_s()
        if self._registered.is_set():
            self._transition_events(old, wanted)

    def _transition_events(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        before = {c["type"]: c["status"] for c in old.get("conditions") or ()}
        for condition in new.get("conditions") or ():
            reason = _PRESSURE_EVENTS.get((condition["type"], condition["status"]))
            if reason and before.get(condition["type"]) != condition["status"]:
                self._event("Normal", reason, f"Node {self.facts.name} status is now: {reason}")

    async def _renew(self, held: dict[str, Any] | None) -> dict[str, Any]:
        name = self.facts.name
        now = format_micro_time(self._clock.now_s())
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now}
        if held is not None:
            held = {**held, "spec": {**held.get("spec", {}), **spec}}
            return dict(msgspec.json.decode(await self._client.update(LEASES, LEASE_NAMESPACE, name, held)))
        try:
            found = dict(msgspec.json.decode(await self._client.get(LEASES, LEASE_NAMESPACE, name)))
        except ApiError as error:
            if error.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uid}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
                "spec": spec,
            }
            return dict(msgspec.json.decode(await self._client.create(LEASES, LEASE_NAMESPACE, lease)))
        return await self._renew(found)

    def _event(self, kind: EventKind, reason: str, message: str) -> None:
        # Events about nodes carry the node's name as uid: that is how clients find them.
        reference = ObjectReference(api_version="v1", kind="Node", name=self.facts.name, uid=self.facts.name)
        self._recorder.record(reference, kind, reason, message)
