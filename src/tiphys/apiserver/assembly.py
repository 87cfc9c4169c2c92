"""An API server from its parts: the one place that knows them all.

`assemble` takes a started store and returns an `Assembled` whose `handle` answers requests; who listens on sockets
(cluster/processes.py) or calls it in process (tests, simulation) is not decided here.

The order of admission plugins is in `_admission`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from tiphys.api.kind import Kind, Kinds
from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.addressobjects import AddressObjects
from tiphys.apiserver.admission import Chain, Plugin
from tiphys.apiserver.admissionmetrics import MeasuredChain
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.authentication import RequestAuthenticator
from tiphys.apiserver.bodyadmission import admitting_connections
from tiphys.apiserver.bootstrap import Advertised, bootstrap
from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.compaction import run_compaction
from tiphys.apiserver.componentstatus import component_status_handler
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.conversionmetrics import ConversionMetrics
from tiphys.apiserver.crds import CustomResources
from tiphys.apiserver.deadlines import REQUEST_TIMEOUT_S
from tiphys.apiserver.endpoints import ServiceResolver
from tiphys.apiserver.fairness.dumps import debug_paths
from tiphys.apiserver.fairness.flowmetrics import publish_fairness
from tiphys.apiserver.fairness.gate import Gate
from tiphys.apiserver.fairness.inflight import InFlight
from tiphys.apiserver.fairness.upkeep import Upkeep, served_kind
from tiphys.apiserver.frontproxy import FrontProxy
from tiphys.apiserver.health import Check, Health
from tiphys.apiserver.impersonation import CONSTRAINED_SINCE
from tiphys.apiserver.kubelets import KubeletDialer
from tiphys.apiserver.metrics import RequestMetrics
from tiphys.apiserver.nodeauthorizer import AuthorizerChain, NodeAuthorizer
from tiphys.apiserver.paths import server_paths
from tiphys.apiserver.pipeline import ApiServer, Authorizer, Paths
from tiphys.apiserver.plugins.certificates import CertificatePermissions
from tiphys.apiserver.plugins.claims import ClaimProtection, ClaimResize
from tiphys.apiserver.plugins.defaultclasses import DefaultIngressClass, DefaultStorageClass
from tiphys.apiserver.plugins.escalation import Escalation
from tiphys.apiserver.plugins.limitranger import LimitRanger
from tiphys.apiserver.plugins.namespacelifecycle import NamespaceLifecycle
from tiphys.apiserver.plugins.noderestriction import NodeRestriction
from tiphys.apiserver.plugins.nodetaint import NodeTaint
from tiphys.apiserver.plugins.podpriority import PodPriority
from tiphys.apiserver.plugins.podsecurity import PodSecurity
from tiphys.apiserver.plugins.podserviceaccount import PodServiceAccount
from tiphys.apiserver.plugins.resourcequota import ResourceQuota
from tiphys.apiserver.plugins.runtimeclass import RuntimeClass
from tiphys.apiserver.policies.metrics import PolicyMetrics
from tiphys.apiserver.policies.plugins import PolicyPlugins
from tiphys.apiserver.policies.status import PolicyStatus
from tiphys.apiserver.quickget import QuickGets
from tiphys.apiserver.rbac import RbacAuthorizer
from tiphys.apiserver.reads import Reads
from tiphys.apiserver.registry import Registry
from tiphys.apiserver.requestinfo import RequestInfo, parse_request_info
from tiphys.apiserver.resources import Resources, SubresourceHandler
from tiphys.apiserver.reviews import review_handlers
from tiphys.apiserver.service_addresses import ServiceAddresses
from tiphys.apiserver.statemetrics import MeasuredStore, publish_process, publish_state
from tiphys.apiserver.subresources.node import kubelet_handlers
from tiphys.apiserver.subresources.pod import handle_binding, handle_eviction
from tiphys.apiserver.subresources.scale import handle_scale
from tiphys.apiserver.subresources.token import token_handler
from tiphys.apiserver.tokens import Tokens
from tiphys.apiserver.webhooks.client import WebhookClient
from tiphys.apiserver.webhooks.plugins import webhook_plugins
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.base.metrics import Metrics
from tiphys.store.interface import Store
from tiphys.wire.message import Handler, Request
from tiphys.wire.tls import create_signing_key

if TYPE_CHECKING:
    from tiphys.apiserver.audit.recorder import Recorder

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
CACHE_LAG_S = 10.0
"""A watch cache that does not catch up for this long makes the server unready."""


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """What a cluster decides about its API server."""

    kubernetes_version: tuple[int, int] = (1, 37)
    service_cidr: str = "10.96.0.0/16"
    advertised: Advertised | None = None
    """Where pods reach the server; None in a simulation without a network."""
    issuer: str = DEFAULT_ISSUER
    signing_key_pem: bytes = b""
    """Of service-account tokens; b"" makes a new one, which does not survive a restart."""
    dialer: KubeletDialer | None = None
    """How logs, exec and the like reach kubelets; None refuses them."""
    request_timeout_s: float = REQUEST_TIMEOUT_S
    fairness: bool = True
    """False: only the two limits below bound what runs at once."""
    in_flight: tuple[int, int] = (400, 200)
    """Reads and writes at once; together they are the seats that fairness shares out."""
    upkeep_delay_s: float = 0.0
    """How long after a start FlowSchemas and priority levels are made."""
    recorder: Recorder | None = None
    """Tells the audit log; None: nothing is audited."""
    network: bool = True
    """False in a simulation: webhooks cannot be called, and writes that need them are told so."""
    front_proxy: FrontProxy | None = None
    """Whose word is taken for whom, and how this server names users to aggregated ones; None does neither."""


class BackgroundFailed(TiphysError):
    """Work beside the requests came to an end that should have none."""


@dataclass(slots=True)
class Assembled:
    """A running API server without sockets."""

    handle: Handler
    registry: Registry
    cache: WatchCache
    kinds: Kinds
    tokens: Tokens
    audiences: tuple[str, ...]
    reads: Reads
    webhooks: WebhookClient
    health: Health
    metrics: Metrics
    aggregator: Aggregator
    gate: Gate
    quick: QuickGets | None
    """Answers what needs no waiting, before `handle` is asked; None when every request is to be told."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def sends_on(self, request: Request) -> bool:
        """Tell whether a request goes on to another server, its body with it."""
        return self.aggregator.find(request.path) is not None or parse_request_info(request).subresource == "proxy"

    async def wait_for_failure(self) -> NoReturn:
        """Raise BackgroundFailed when something ends that should go on until `stop`: without it the server would answer
        and fall behind for ever."""
        follower = self.cache.follower
        assert follower is not None, "the cache is started"
        ended, _ = await asyncio.wait((follower, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        task = ended.pop()
        why = None if task.cancelled() else task.exception()
        raise BackgroundFailed(f"the background task {task.get_name()} of the API server ended: {why!r}") from why

    async def stop(self) -> None:
        """Stop background tasks and the watch cache; the store is the caller's."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reads.close()
        self.registry.heavy.close()
        await self.cache.stop()
        await self.webhooks.close()
        await self.aggregator.close()


async def assemble(config: ApiServerConfig, store: Store, clock: Clock, randomness: Randomness) -> Assembled:
    """Build the server on a started store, write what every cluster has, and start its background work."""
    kinds = Kinds(builtin_kinds(config.kubernetes_version), config.kubernetes_version)
    cache = WatchCache(store)
    await cache.start()
    tokens = Tokens(config.issuer, config.signing_key_pem or create_signing_key()[0], clock, randomness)
    audiences = (config.issuer,)
    webhooks = _webhooks(cache, kinds) if config.network else WebhookClient(None)
    metrics = Metrics()
    converter = Converter(randomness, webhooks.post, clock, ConversionMetrics(metrics))
    reads = Reads(cache, store, clock, randomness, converter=converter)
    rbac = RbacAuthorizer(cache, _finder(kinds, "rbac.authorization.k8s.io"))
    authorizer = AuthorizerChain(NodeAuthorizer(cache, _finder(kinds, "")), rbac)
    mutating, validating = webhook_plugins(cache, kinds, webhooks, converter, authorizer, clock, randomness, metrics)
    policies = PolicyPlugins(cache, kinds, converter, authorizer, PolicyMetrics(metrics, clock))
    dynamic = [*policies.mutating(), mutating, *policies.validating(), validating]
    admission = _admission(config, cache, kinds, clock, randomness, rbac, authorizer, dynamic)
    measured = MeasuredStore(store, metrics, clock), MeasuredChain(admission, metrics, clock)
    registry = Registry(measured[0], cache, kinds, measured[1], clock, randomness, converter)
    authenticator = RequestAuthenticator(tokens, audiences, cache, _finder(kinds, ""), config.front_proxy)
    subresources: dict[tuple[str, str], SubresourceHandler] = {
        ("*", "scale"): handle_scale,
        ("pods", "binding"): handle_binding,
        ("pods", "eviction"): handle_eviction,
        ("serviceaccounts", "token"): token_handler(tokens, audiences),
        **admitting_connections(kubelet_handlers(config.dialer, authorizer)),
    }
    virtual = {
        **review_handlers(authenticator, authorizer, rbac, audiences),
        ("", "bindings"): handle_binding,
        ("", "componentstatuses"): component_status_handler(store),
    }
    aggregator = Aggregator(registry, config.front_proxy, metrics)
    resources = Resources(kinds, registry, reads, subresources, virtual, aggregator)
    custom = CustomResources(registry, kinds, cache)
    health = Health(_checks(store, cache, clock))
    gate = _gate(kinds, cache, clock, sum(config.in_flight))
    paths = _paths(config, kinds, tokens, health, metrics, gate, aggregator)
    counted = _publish(config, metrics, kinds, paths, gate, clock)
    gates = gate if config.fairness else InFlight(clock, *config.in_flight)
    server = ApiServer(
        authenticator,
        authorizer,
        resources,
        paths,
        {kind.group for kind in kinds.all()},
        metrics=counted,
        clock=clock,
        request_timeout_s=config.request_timeout_s,
        gate=gates,
        recorder=config.recorder,
        constrained_impersonation=config.kubernetes_version >= CONSTRAINED_SINCE,
    )
    answering = (authenticator, authorizer, gates, kinds, cache, store, reads, counted, aggregator, clock)
    quick = QuickGets(*answering) if config.recorder is None else None
    publish_state(metrics, cache, store, reads, health, config.kubernetes_version)
    webhooks.loopback = server.handle
    await custom.load()
    await bootstrap(registry, config.advertised, config.front_proxy, config.service_cidr)
    tasks = [
        asyncio.create_task(custom.run(), name="custom-resources"),
        asyncio.create_task(aggregator.run(), name="aggregation"),
        asyncio.create_task(run_compaction(store, clock), name="compaction"),
        asyncio.create_task(Upkeep(registry, gate).run(config.upkeep_delay_s), name="fairness-upkeep"),
        asyncio.create_task(gate.run(), name="fairness-borrowing"),
    ]
    tasks += _policy_status(registry, kinds)
    health.complete()
    parts = (registry, cache, kinds, tokens, audiences, reads, webhooks, health, metrics, aggregator, gate, quick)
    return Assembled(server.handle, *parts, tasks)


def _paths(
    config: ApiServerConfig,
    kinds: Kinds,
    tokens: Tokens,
    health: Health,
    metrics: Metrics,
    gate: Gate,
    aggregator: Aggregator,
) -> Paths:
    address = _server_address(config)
    return server_paths(kinds, tokens, health, metrics, address, debug_paths(gate), aggregator=aggregator)


def _policy_status(registry: Registry, kinds: Kinds) -> list[asyncio.Task[None]]:
    """Start what checks policies and writes what it found; versions before policies have none."""
    kind = kinds.resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
    return [] if kind is None else [asyncio.create_task(PolicyStatus(registry, kind).run(), name="policy-status")]


def _publish(
    config: ApiServerConfig, metrics: Metrics, kinds: Kinds, paths: Paths, gate: Gate, clock: Clock
) -> RequestMetrics:
    """Publish what the request path and this process count; return what the path counts in."""
    publish_process(metrics, clock.now_s())
    publish_fairness(metrics, gate)
    if config.recorder is not None:
        config.recorder.publish(metrics)
    return RequestMetrics(metrics, kinds, paths.exact)


def _webhooks(cache: WatchCache, kinds: Kinds) -> WebhookClient:
    """Return the client of all webhooks; it finds Services and their endpoints in the cache."""
    core, slices = _finder(kinds, ""), _finder(kinds, "discovery.k8s.io")("endpointslices")
    known = (core("services"), slices, core("nodes"))
    return WebhookClient(ServiceResolver(*(cache.resource(kind.storage_prefix()) for kind in known)))


def _gate(kinds: Kinds, cache: WatchCache, clock: Clock, seats: int) -> Gate:
    """Return what lets requests in; what a list looks at is counted in the cache."""

    def count(info: RequestInfo) -> int:
        kind = kinds.resource(info.group, info.version, info.resource)
        return cache.resource(kind.storage_prefix()).count(info.namespace) if kind is not None else 0

    schemas, levels = (
        cache.resource(served_kind(kinds, plural).storage_prefix())
        for plural in ("flowschemas", "prioritylevelconfigurations")
    )
    return Gate(schemas, levels, clock, count, seats)


def _finder(kinds: Kinds, group: str) -> Callable[[str], Kind]:
    def find(plural: str) -> Kind:
        kind = kinds.resource(group, "v1", plural)
        assert kind is not None, f"{plural}.{group} is served by every version"
        return kind

    return find


def _admission(
    config: ApiServerConfig,
    cache: WatchCache,
    kinds: Kinds,
    clock: Clock,
    randomness: Randomness,
    rbac: RbacAuthorizer,
    authorizer: Authorizer,
    dynamic: Sequence[Plugin],
) -> Chain:
    """Return the plugins in upstream's order; what follows RuntimeClass has no order among itself there.

    `dynamic` are webhooks and policies: behind all that are built in but quotas, which count the last word.
    """
    core, roles = _finder(kinds, ""), _finder(kinds, "rbac.authorization.k8s.io")
    storage, networking = _finder(kinds, "storage.k8s.io"), _finder(kinds, "networking.k8s.io")

    def objects(kind: Kind) -> ResourceCache:
        return cache.resource(kinds.stored(kind).storage_prefix())

    namespaces = objects(core("namespaces"))
    chain = Chain(
        [
            NamespaceLifecycle(namespaces),
            LimitRanger(objects(core("limitranges"))),
            PodServiceAccount(objects(core("serviceaccounts")), randomness),
            NodeRestriction(),
            NodeTaint(),
            PodSecurity(namespaces, objects(core("pods"))),
            PodPriority(objects(_finder(kinds, "scheduling.k8s.io")("priorityclasses"))),
            DefaultStorageClass(objects(storage("storageclasses"))),
            ClaimProtection(),
            ClaimResize(objects(storage("storageclasses"))),
            RuntimeClass(objects(_finder(kinds, "node.k8s.io")("runtimeclasses"))),
            CertificatePermissions(authorizer),
            DefaultIngressClass(objects(networking("ingressclasses"))),
            Escalation(rbac, authorizer, objects(roles("roles")), objects(roles("clusterroles"))),
            ServiceAddresses(
                objects(core("services")),
                config.service_cidr,
                randomness,
                objects=_address_objects(kinds, objects, clock, randomness),
            ),
            *dynamic,
            ResourceQuota(objects(core("resourcequotas")), objects),
        ]
    )
    chain.follow(objects(kind) for kind in kinds.all() if kind.group == "admissionregistration.k8s.io")
    return chain


def _address_objects(
    kinds: Kinds, objects: Callable[[Kind], ResourceCache], clock: Clock, randomness: Randomness
) -> AddressObjects | None:
    """Return what keeps IPAddresses, None where the version has none."""
    group = "networking.k8s.io"
    addresses, cidrs = kinds.resource(group, "v1", "ipaddresses"), kinds.resource(group, "v1", "servicecidrs")
    if addresses is None or cidrs is None:
        return None
    return AddressObjects(addresses, objects(addresses), objects(cidrs), clock, randomness)


def _server_address(config: ApiServerConfig) -> str:
    return f"{config.advertised.address}:{config.advertised.port}" if config.advertised else "localhost"


def _checks(store: Store, cache: WatchCache, clock: Clock) -> dict[str, Check]:
    """Return what /livez and /readyz look at. Under load the cache is always some writes behind the store: only a
    revision that it does not reach for long is a fault."""
    awaited = (0, 0.0)

    def informer_sync() -> str:
        nonlocal awaited
        revision, since_s = awaited
        if cache.revision() >= revision:
            awaited = (store.current_revision(), clock.monotonic_s())
            return ""
        waited_s = clock.monotonic_s() - since_s
        return "" if waited_s < CACHE_LAG_S else f"the watch cache does not reach revision {revision} of the store"

    return {"etcd": lambda: "", "etcd-readiness": lambda: "", "informer-sync": informer_sync}
