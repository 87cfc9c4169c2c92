"""What each process of a cluster runs: the API server, the controllers with the scheduler, the node agents.

Every `*_main` is the whole life of a forked child: it returns when the guardian asks it to stop (SIGTERM). Components
reach the API server over TLS with certificates of their own, even in one machine, so that one process a component and
one machine a component are the same thing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import uvloop

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.apiserver.bootstrap import Advertised
from tiphys.apiserver.frontproxy import FrontProxy
from tiphys.apiserver.kubelets import KubeletDialer
from tiphys.base.clock import Clock, Randomness, SystemClock
from tiphys.base.memory import settle_memory
from tiphys.client.http import HttpClient
from tiphys.client.interface import Client
from tiphys.cluster.config import ClusterConfig, Files
from tiphys.cluster.pki import FRONT_PROXY_CA, FRONT_PROXY_CLIENT, Pki, front_proxy_issuer, node_names
from tiphys.store.sqlite import SqliteStore
from tiphys.wire.server import HttpServer
from tiphys.wire.tls import client_context, server_context

if TYPE_CHECKING:
    from tiphys.apiserver.audit.recorder import Recorder

log = logging.getLogger(__name__)

UPKEEP_DELAY_S = 1.0
"""What every cluster has of fairness is made when the start is over: it takes 20 ms of the processor."""
Notify = Callable[[str], None]
"""Tells whoever started the cluster how far it is; it may be gone."""


def notifier(descriptor: int) -> Notify:
    """Return a Notify that writes lines to a pipe."""

    def notify(text: str) -> None:
        try:
            os.write(descriptor, text.encode() + b"\n")
        except OSError:
            pass  # nobody waits any more

    return notify


def run_until_stopped(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a component on uvloop until SIGTERM or SIGINT cancels it."""

    async def supervised() -> None:
        task = asyncio.ensure_future(main())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            pass  # asked to stop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    uvloop.run(supervised())


async def run_apiserver(config: ClusterConfig, pki: Pki, sockets: Sequence[socket.socket], notify: Notify) -> None:
    """Serve the API on sockets that the guardian bound."""
    clock, randomness = SystemClock(), Randomness()
    store = SqliteStore(str(Files.of(config.name).store))
    pair = pki.pair("apiserver-kubelet-client")
    dialer = KubeletDialer(client_context(pki.ca, *pair), lambda: client_context(None, *pair, verify=False))
    advertised = Advertised(config.gateway, config.api_port, config.api_service_address)
    settings = ApiServerConfig(
        kubernetes_version=config.kubernetes_version,
        service_cidr=config.service_cidr,
        advertised=advertised,
        signing_key_pem=pki.signing_key.read_bytes(),
        dialer=dialer,
        front_proxy=_front_proxy(config, pki),
        request_timeout_s=config.server.request_timeout_s,
        upkeep_delay_s=UPKEEP_DELAY_S,
        fairness=config.server.fairness,
        in_flight=(config.server.max_reads, config.server.max_writes),
        recorder=_recorder(config, clock, randomness),
    )
    async with AsyncExitStack() as cleanup:
        if settings.recorder is not None:
            cleanup.callback(settings.recorder.stop)
        cleanup.push_async_callback(store.stop)
        await store.start()
        assembled = await assemble(settings, store, clock, randomness)
        cleanup.push_async_callback(assembled.stop)
        cleanup.push_async_callback(dialer.close)
        context = server_context(*pki.pair("apiserver"), pki.ca, pki.pair(FRONT_PROXY_CA)[0])
        server = HttpServer(assembled.handle, quick=assembled.quick, streams=assembled.sends_on, ssl_context=context)
        cleanup.push_async_callback(server.stop, 2.0)
        cleanup.push_async_callback(_become_unready, assembled, config.server.shutdown_delay_s)
        await server.listen([s.dup() for s in sockets])
        notify("apiserver")
        settle_memory()
        await assembled.wait_for_failure()


async def _become_unready(assembled: Assembled, delay_s: float) -> None:
    """Tell load balancers to send their requests elsewhere, and serve on for the time that they need to hear it."""
    assembled.health.shut_down()
    await asyncio.sleep(delay_s)


def _recorder(config: ClusterConfig, clock: Clock, randomness: Randomness) -> Recorder | None:
    """Return what tells the audit log, if there is a policy. Raises BadPolicy, OSError."""
    options = config.server
    if not options.audit_policy_file:
        return None
    from tiphys.apiserver.audit.log import AuditLog
    from tiphys.apiserver.audit.policy import load_policy
    from tiphys.apiserver.audit.recorder import Recorder

    path = options.audit_log_path or str(Files.of(config.name).logs / "audit.log")
    log = AuditLog(
        path,
        clock,
        max_bytes=options.audit_log_max_mb << 20,
        backups=options.audit_log_backups,
        max_age_s=options.audit_log_days * 86400.0,
    )
    policy = load_policy(options.audit_policy_file)
    return Recorder(policy, log, clock, randomness, config.kubernetes_version[1])


def _front_proxy(config: ClusterConfig, pki: Pki) -> FrontProxy:
    certificate, key = pki.pair(FRONT_PROXY_CLIENT)
    authority = pki.pair(FRONT_PROXY_CA)[0].read_text()
    return FrontProxy(front_proxy_issuer(config), authority, pki.ca.read_text(), certificate, key)


def client_of(config: ClusterConfig, pki: Pki, name: str, *, user_agent: str = "") -> HttpClient:
    """Return a client with the certificate of a component."""
    context = client_context(pki.ca, *pki.pair(name))
    # A handshake costs both ends more than a request: no more connections than the pool keeps when they are idle.
    connections = 8 if name.startswith("kubelet-") else 32
    return HttpClient(config.server_url, context, user_agent=user_agent or f"tiphys-{name}", connections=connections)


async def run_controllers_process(config: ClusterConfig, pki: Pki, notify: Notify) -> None:
    """Run the controllers and the scheduler."""
    from tiphys.cluster.readiness import wait_for_default_account
    from tiphys.controllers.run import Deps, run_controllers
    from tiphys.scheduler.run import SchedulerDeps, run_scheduler

    clock, randomness = SystemClock(), Randomness()
    controllers = client_of(config, pki, "controllers", user_agent="kube-controller-manager")
    scheduler = client_of(config, pki, "scheduler", user_agent="kube-scheduler")
    try:
        async with asyncio.TaskGroup() as group:
            deps = Deps(
                client=controllers,
                clock=clock,
                randomness=randomness,
                cluster_ca=pki.ca.read_text(),
                cluster_ca_key_pem=pki.pair("ca")[1].read_bytes(),
                signing_key_pem=pki.signing_key.read_bytes(),
                pod_cidr=config.pod_cidr,
                kubernetes_version=config.kubernetes_version,
            )
            group.create_task(run_controllers(deps), name="controllers")
            # no pod can be made before; and what the scheduler imports would keep the controllers waiting
            await wait_for_default_account(controllers)
            notify("controllers")
            group.create_task(run_scheduler(SchedulerDeps(scheduler, clock, randomness)), name="scheduler")
    finally:
        await controllers.close()
        await scheduler.close()


async def run_node_process(config: ClusterConfig, pki: Pki, notify: Notify) -> None:
    """Run the agents of the machine's node, or of all simulated nodes."""
    clients: list[Client] = []

    def client(name: str, user_agent: str) -> HttpClient:
        made = client_of(config, pki, name, user_agent=user_agent)
        clients.append(made)
        return made

    try:
        if config.simulated:
            from tiphys.cluster.simulatednodes import run_simulated_nodes

            await run_simulated_nodes(config, pki, node_names(config), client, notify)
        else:
            from tiphys.cluster.node import run_node

            await run_node(config, pki, client, notify)
    finally:
        for made in clients:
            await made.close()
