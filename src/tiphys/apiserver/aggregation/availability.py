"""Whether remote API servers can be reached: the Available condition of APIServices, with upstream's reasons.

A remote APIService is looked at when it, its Service or the Service's endpoints change, every RESYNC_S, and after a
failed answer again and again with growing pauses. The judgement up to the point where the server itself is asked is
pure (`judge`). Crashes leave a condition as it was; the next look mends it.

Spec: Kubernetes documentation, "Set up an Extension API Server"; API reference, APIService v1, status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.aggregation.apiservices import ApiService, ApiServices, ServiceReference
from tiphys.apiserver.aggregation.documents import RemoteDocuments
from tiphys.apiserver.aggregation.forwarding import AGGREGATOR, BadAuthority, Forwarder
from tiphys.apiserver.backends import Target, dial_error
from tiphys.apiserver.cache import CachedEvent, ResourceCache
from tiphys.apiserver.endpoints import SERVICE_NAME, NotRoutable, ServiceResolver, ready_endpoints
from tiphys.apiserver.registry import Registry, WriteContext, take_status
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError
from tiphys.base.metrics import Counter

log = logging.getLogger(__name__)

RESYNC_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 30.0
ATTEMPTS = 5
ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one APIService."""

    status: str
    reason: str
    message: str


PASSED = Finding("True", "Passed", "all checks passed")


def judge(reference: ServiceReference, service: JsonObject | None, slices: Sequence[JsonObject]) -> Finding | None:
    """Return what stands in the way of asking the server, None if nothing does."""
    name, namespace = reference.name, reference.namespace
    if service is None:
        return Finding("False", "ServiceNotFound", f'service/{name} in "{namespace}" is not present')
    spec = service.get("spec") or {}
    if spec.get("type", "ClusterIP") != "ClusterIP":
        return None
    names = [port.get("name") or "" for port in spec.get("ports") or () if port.get("port") == reference.port]
    if not names:
        text = f'service/{name} in "{namespace}" is not listening on port {reference.port}'
        return Finding("False", "ServicePortError", text)
    if not slices:
        text = f'cannot find endpointslices for service/{name} in "{namespace}"'
        return Finding("False", "EndpointsNotFound", text)
    if not any(True for part in slices for _ in ready_endpoints(part, names[0])):
        text = f'endpointslices for service/{name} in "{namespace}" have no addresses with port name "{names[0]}"'
        return Finding("False", "MissingEndpoints", text)
    return None


def with_condition(service: JsonObject, finding: Finding, now: str) -> JsonObject:
    """Return an APIService with its Available condition as found; the time moves only when the status does."""
    told = (service.get("status") or {}).get("conditions") or []
    since = next(
        (c.get("lastTransitionTime") for c in told if c.get("type") == "Available" and c["status"] == finding.status),
        now,
    )
    condition = {
        "lastTransitionTime": since,
        "message": finding.message,
        "reason": finding.reason,
        "status": finding.status,
        "type": "Available",
    }
    conditions = [condition if c.get("type") == "Available" else c for c in told]
    if condition not in conditions:
        conditions.append(condition)
    return {**service, "status": {**(service.get("status") or {}), "conditions": conditions}}


class ConditionWriter:
    """Writes findings into APIServices; counts those that make one unavailable, by name and reason."""

    def __init__(self, registry: Registry, kind: Kind, losses: Counter) -> None:
        self._registry = registry
        self._kind = kind
        self._losses = losses

    async def write(self, name: str, finding: Finding) -> None:
        """Write the condition unless it says the same already. Raises ApiError."""
        now = self._registry.now()
        current = self._registry.current(self._kind, "", name)
        if current is None or with_condition(current.obj, finding, now).get("status") == current.obj.get("status"):
            return
        context = WriteContext(API_SERVER, field_manager="kube-apiserver", subresource="status")
        change = partial(with_condition, finding=finding, now=now)
        await self._registry.update(self._kind, "", name, change, context, combine=take_status)
        if finding.status != "True":
            self._losses.inc((name, finding.reason))


class Availability:
    """Keeps the conditions of remote APIServices true. `run` until cancelled.

    A server's discovery document is fetched before it is called available: who saw the condition finds its resources.
    """

    def __init__(
        self,
        services: ApiServices,
        resolver: ServiceResolver,
        forwarder: Forwarder,
        documents: RemoteDocuments,
        writer: ConditionWriter,
    ) -> None:
        self._services = services
        self._resolver = resolver
        self._forwarder = forwarder
        self._documents = documents
        self._writer = writer
        self._dirty: dict[str, None] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        services.listeners.add(self._on_names)
        self._on_names(list(services.by_name))

    def watch(self, services: ResourceCache, slices: ResourceCache) -> None:
        """Look again at what changes of Services and EndpointSlices concern."""
        services.listeners.add(self._on_services)
        slices.listeners.add(self._on_slices)

    async def run(self) -> None:
        """Look at what is to be looked at, each on its own, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for name in [name for name in self._dirty if name not in self._busy]:
                    del self._dirty[name]
                    task = asyncio.create_task(self._look(name), name=f"availability-{name}")
                    self._busy[name] = task
                    task.add_done_callback(partial(self._looked, name))
        finally:
            for timer in self._timers.values():
                timer.cancel()
            busy = list(self._busy.values())
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    def mark(self, name: str) -> None:
        """Look at an APIService soon."""
        self._dirty[name] = None
        self._wake.set()

    def _looked(self, name: str, task: asyncio.Task[None]) -> None:
        self._busy.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("APIService %s is looked at again later", name, exc_info=task.exception())
            self._look_later(name, LONGEST_PAUSE_S)
        if self._dirty:
            self._wake.set()

    def _on_names(self, names: Sequence[str]) -> None:
        for name in names:
            service = self._services.by_name.get(name)
            if service is not None and service.service is not None:
                self.mark(name)
            elif name in self._timers:
                self._timers.pop(name).cancel()
                self._pauses.pop(name, None)

    def _on_services(self, events: Sequence[CachedEvent]) -> None:
        if self._services.remote:
            self._mark_those_of({(event.object.namespace, event.object.name) for event in events})

    def _on_slices(self, events: Sequence[CachedEvent]) -> None:
        if self._services.remote:
            self._mark_those_of(
                {(event.object.namespace, event.object.labels.get(SERVICE_NAME) or "") for event in events}
            )

    def _mark_those_of(self, changed: set[tuple[str, str]]) -> None:
        for service in self._services.remote.values():
            assert service.service is not None
            if (service.service.namespace, service.service.name) in changed:
                self.mark(service.name)

    async def _look(self, name: str) -> None:
        service = self._services.by_name.get(name)
        if service is None or service.service is None:
            return
        where = service.service.namespace, service.service.name
        finding = judge(service.service, self._resolver.service(*where), self._resolver.slices(*where))
        asked = finding is None
        if finding is None:
            finding = await self._ask(service)
        if finding is PASSED:
            await self._documents.fetch(service)
        else:
            self._documents.lose(name)
        try:
            await self._writer.write(name, finding)
        except ApiError as error:
            if error.code != 404:
                log.warning("the condition of APIService %s is written again: %s", name, error)
                self._look_later(name, FIRST_PAUSE_S)
            return
        if asked and finding is not PASSED:
            pause_s = min(self._pauses.get(name, FIRST_PAUSE_S / 2) * 2, LONGEST_PAUSE_S)
            self._pauses[name] = pause_s
            self._look_later(name, pause_s)
            return
        self._pauses.pop(name, None)
        self._look_later(name, RESYNC_S)

    def _look_later(self, name: str, pause_s: float) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(pause_s, self.mark, name)

    async def _ask(self, service: ApiService) -> Finding:
        """Ask up to ATTEMPTS of its servers for their group version, at once: one answer is enough."""
        if not self._forwarder.reaches:
            return Finding("False", "FailedDiscoveryCheck", "this API server runs without a network")
        assert service.service is not None
        try:
            addresses = self._forwarder.addresses(service.service)[:ATTEMPTS]
            targets = [self._forwarder.at(service, *address, checked=False) for address in addresses]
        except (NotRoutable, BadAuthority) as error:
            return Finding("False", "FailedDiscoveryCheck", str(error))
        asking = [asyncio.ensure_future(self._ask_one(service, target)) for target in targets]
        problem = ""
        try:
            for answered in asyncio.as_completed(asking):
                problem = await answered
                if not problem:
                    return PASSED
        finally:
            for task in asking:
                task.cancel()
        return Finding("False", "FailedDiscoveryCheck", problem)

    async def _ask_one(self, service: ApiService, target: Target) -> str:
        """Return "" if the server answers for its group version, otherwise what it did instead."""
        url = f"https://{target.host}{service.root}"
        try:
            answer = await self._forwarder.ask(target, service.root, AGGREGATOR, {}, timeout_s=ANSWER_TIMEOUT_S)
        except TimeoutError:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return f'failing or missing response from {url}: Get "{url}": {why}'
        except OSError as error:
            return f'failing or missing response from {url}: Get "{url}": {dial_error(target, error)}'
        if 200 <= answer.status < 300:
            return ""
        return f"failing or missing response from {url}: bad status from {url}: {answer.status}"
