"""Services on this machine by nftables: one table a cluster, loaded once, then changed element by element.

Decides the smallest change that makes the table equal to the wanted services. Called by proxy.py; the rules' shape is
nftablesrules.py's. Invariant: after a call that returned, the table holds exactly the elements of `_held`; after one
that failed, nothing is believed and the next call loads everything. An address or node port that two services claim is
the first one's, until it gives it up.

All state belongs to one worker thread: calls are done in their order, and a large load never blocks the event loop.

Spec: Kubernetes docs, "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from tiphys.network.conntrack import Frontend, forget_stale_flows
from tiphys.network.interface import Endpoint, ServiceKey, ServicePort
from tiphys.network.nft import Nft, NftFailed, remove_table
from tiphys.network.nftablesrules import (
    Chain,
    Elements,
    format_chains,
    format_elements,
    format_table,
    keep_slots,
    plan_elements,
)

log = logging.getLogger(__name__)

PortKey = tuple[str, str, str, str]
"""(namespace, name, port name, protocol)"""
Claim = tuple[str, str, int]
"""(address or "" for node ports, protocol, port): what only one service can have."""


class NftablesProxy:
    """See the module's docstring. `pod_cidr` is the cluster's, kept for callers that name it; `bridge_name` is the
    pods' bridge, through which clients at 127.0.0.1 must be masqueraded."""

    def __init__(self, table_name: str, pod_cidr: str, bridge_name: str, *, in_process: bool = True) -> None:
        self.table = table_name
        self._pod_cidr = pod_cidr
        self._bridge = bridge_name
        self._nft = Nft(in_process=in_process)
        self._thread = ThreadPoolExecutor(1, "service-rules")
        self._given: dict[ServiceKey, tuple[ServicePort, ...]] = {}
        """What was asked for."""
        self._held: dict[PortKey, ServicePort] = {}
        """What is on the machine: as asked, without contested addresses, endpoints in their slots."""
        self._claims: dict[Claim, PortKey] = {}
        self._contested: dict[Claim, dict[ServiceKey, None]] = {}
        """Services that wait for a claim of another one."""
        self._chains: set[Chain] = set()
        self._loaded = False

    # ServiceProxy

    async def start(self) -> None:
        """Put an empty table in place of what an earlier run left. The first `sync` fills it; until then the services
        of an earlier run stay as they are, so that a restart interrupts nobody."""

    async def sync(self, ports: Sequence[ServicePort]) -> None:
        await self._do(partial(self._sync, ports))

    async def update(self, changes: Mapping[ServiceKey, Sequence[ServicePort]]) -> None:
        await self._do(partial(self._update, changes))

    async def stop(self, *, remove: bool) -> None:
        if remove:
            await self._do(partial(remove_table, self._nft, self.table))
            await self._do(self._forget)
        await self._do(self._nft.close)

    # The worker thread

    async def _do(self, work: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _sync(self, ports: Sequence[ServicePort]) -> None:
        wanted: dict[ServiceKey, list[ServicePort]] = {}
        for port in ports:
            wanted.setdefault((port.namespace, port.name), []).append(port)
        changes: dict[ServiceKey, Sequence[ServicePort]] = {key: () for key in self._given if key not in wanted}
        changes.update({key: new for key, new in wanted.items() if self._given.get(key) != tuple(new)})
        self._update(changes)

    def _update(self, changes: Mapping[ServiceKey, Sequence[ServicePort]]) -> None:
        if not self._loaded:
            self._given.update({key: tuple(ports) for key, ports in changes.items()})
            self._load()
            return
        change = self._plan(changes)
        before, after = change.before, change.after
        commands = [*format_chains(self.table, sorted(change.chains - self._chains))]
        stale = {key: value for key, value in before.items() if after.get(key) != value}
        commands += format_elements("delete", self.table, stale)
        new = {key: value for key, value in after.items() if before.get(key) != value}
        commands += format_elements("add", self.table, new)
        if commands:
            try:
                self._nft.run("\n".join(commands) + "\n")
            except NftFailed as error:
                log.warning("the table %s is not as it was left and is loaded anew: %s", self.table, error)
                self._load()
                return
        self._chains |= change.chains
        if change.udp:
            forget_stale_flows(change.udp)

    def _load(self) -> None:
        """Replace the whole table in one transaction. Raises NftFailed; then the next call loads again."""
        given = {key: ports for key, ports in self._given.items() if ports}
        self._forget()
        change = self._plan(given)
        commands = [format_table(self.table, self._bridge), *format_chains(self.table, sorted(change.chains))]
        commands += format_elements("add", self.table, change.after)
        self._nft.run("\n".join(commands) + "\n")
        self._chains = set(change.chains)
        self._loaded = True
        if change.udp:
            forget_stale_flows(change.udp)

    def _forget(self) -> None:
        for state in (self._given, self._held, self._claims, self._contested, self._chains):
            state.clear()
        self._loaded = False

    def _plan(self, changes: Mapping[ServiceKey, Sequence[ServicePort]]) -> _Change:
        """Become the new state and say what it changes on the machine."""
        released: set[Claim] = set()
        old = {key: self._release(key, released) for key in changes}
        for key, ports in changes.items():
            self._become(key, ports, old[key])
        for claim in released:
            for key in [*self._contested.get(claim, ())]:
                if claim not in self._claims:
                    held = self._release(key, set())
                    old.setdefault(key, held)
                    self._become(key, self._given[key], held)
        change = _Change()
        for key, ports_before in old.items():
            now = [self._held[_port_key(port)] for port in self._given.get(key, ())]
            for port in ports_before.values():
                change.before.update(plan_elements(port).elements)
            for port in now:
                needs = plan_elements(port)
                change.after.update(needs.elements)
                change.chains |= needs.chains
            change.udp.update(changed_udp(ports_before.values(), now))
        return change

    def _release(self, key: ServiceKey, released: set[Claim]) -> dict[PortKey, ServicePort]:
        """Take back what a service holds, and return it."""
        held = {}
        for port in self._given.get(key, ()):
            port_key = _port_key(port)
            if port_key in self._held:
                held[port_key] = self._held.pop(port_key)
            for claim in _claims(port):
                if self._claims.get(claim) == port_key:
                    del self._claims[claim]
                    released.add(claim)
                elif waiting := self._contested.get(claim):
                    waiting.pop(key, None)
                    if not waiting:
                        del self._contested[claim]
        return held

    def _become(self, key: ServiceKey, ports: Sequence[ServicePort], old: Mapping[PortKey, ServicePort]) -> None:
        """Hold `ports` for a service that holds nothing."""
        if not ports:
            self._given.pop(key, None)
            return
        self._given[key] = tuple(ports)
        for port in ports:
            port_key = _port_key(port)
            lost = [claim for claim in _claims(port) if self._claims.setdefault(claim, port_key) != port_key]
            for claim in lost:
                self._contested.setdefault(claim, {})[key] = None
                log.warning("%s %s:%d of service %s/%s is another service's and stays so until that gives it up",
                            claim[1], claim[0] or "node port", claim[2], *key)  # fmt: skip
            if lost:
                port = _without(port, lost)
            before = old.get(port_key)
            if port.session_affinity_timeout_s and before:
                port = _in_slots(port, before)
            self._held[port_key] = port


@dataclass(slots=True)
class _Change:
    """Elements before and after, of the services that changed; the chains that they use now; changed UDP frontends."""

    before: Elements = field(default_factory=dict)
    after: Elements = field(default_factory=dict)
    chains: set[Chain] = field(default_factory=set)
    udp: dict[Frontend, Collection[Endpoint]] = field(default_factory=dict)


def _port_key(port: ServicePort) -> PortKey:
    return (port.namespace, port.name, port.port_name, port.protocol)


def _claims(port: ServicePort) -> list[Claim]:
    claims: list[Claim] = [(address, port.protocol, port.port) for address in (*port.cluster_ips, *port.external_ips)]
    return [*claims, ("", port.protocol, port.node_port)] if port.node_port else claims


def _without(port: ServicePort, lost: Collection[Claim]) -> ServicePort:
    def kept(addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(a for a in addresses if (a, port.protocol, port.port) not in lost)

    node_port = 0 if ("", port.protocol, port.node_port) in lost else port.node_port
    return replace(port, cluster_ips=kept(port.cluster_ips), external_ips=kept(port.external_ips), node_port=node_port)


def _in_slots(port: ServicePort, before: ServicePort) -> ServicePort:
    outside = port.external_endpoints
    return replace(
        port,
        endpoints=keep_slots(before.endpoints, port.endpoints),
        external_endpoints=None if outside is None else keep_slots(before.external_endpoints or (), outside),
    )


def changed_udp(before: Iterable[ServicePort], now: Iterable[ServicePort]) -> dict[Frontend, Collection[Endpoint]]:
    """Return the UDP frontends that lost a backend or got their first, with the backends that they have now."""
    old, new = _udp_frontends(before), _udp_frontends(now)
    return {
        frontend: new.get(frontend, frozenset())
        for frontend in old.keys() | new.keys()
        if old.get(frontend, frozenset()) - new.get(frontend, frozenset())
        or (new.get(frontend) and not old.get(frontend))
    }


def _udp_frontends(ports: Iterable[ServicePort]) -> dict[Frontend, frozenset[Endpoint]]:
    found = {}
    for port in ports:
        if port.protocol != "UDP":
            continue
        inside = frozenset(port.endpoints)
        outside = inside if port.external_endpoints is None else frozenset(port.external_endpoints)
        found.update({Frontend(address, port.port): inside for address in port.cluster_ips})
        found.update({Frontend(address, port.port): outside for address in port.external_ips})
        if port.node_port:
            found[Frontend("", port.node_port)] = outside
    return found
