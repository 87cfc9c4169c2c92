"""The pods' network of one machine: a bridge, a veth pair a pod, an address pool, masquerading and host ports.

Decides where a pod's packets go. Every pod's address is a /32 whose only neighbour is the gateway, the bridge's own
address, so pod-to-pod packets pass the machine's routing and its connection tracking too: a Service reached from a pod
on the same bridge is translated back without br_netfilter. Called by the runtime (attach, detach); the rules of
Services are nftables.py's.

Invariant: a link `ti<8 hex digits>` on the bridge carries `<sandbox id> <address>` as its alias, and those links, not the
file, say which addresses are taken; so whatever a killed process left is adopted at the next start. Link addresses are
derived from IP addresses and all neighbours are permanent: nothing waits for ARP, and a reused address never goes to a
dead pod.

Nothing blocks the event loop: the work of an attach (about ten netlink messages in two batches) is done in a small pool
of threads, of which one enters the pod's namespace and comes back.

DIFFERS: IPv4 only.
Spec: Kubernetes docs, "Cluster Networking" (the network model: every pod reaches every pod without NAT); Pod API,
`hostPort` and `hostIP`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from tiphys.base.errors import TiphysError
from tiphys.network import netlink
from tiphys.network.bridgerules import (
    FORWARD_CHAIN,
    format_host_ports,
    format_table,
    plan_forwarding,
    plan_forwarding_removal,
)
from tiphys.network.ipam import AddressPool, Lease
from tiphys.network.netlink import Netlink
from tiphys.network.nft import Nft, NftFailed, remove_table
from tiphys.runtime.podnetwork import PodAddresses, PortMapping

log = logging.getLogger(__name__)

R = TypeVar("R")
POD_INTERFACE = "eth0"
WORKERS = 4
"""Threads for links. The kernel makes one link at a time, so more would only wait."""
_SYSCTL = Path("/proc/sys/net")


class AttachFailed(TiphysError):
    """A sandbox did not get its link; nothing of it is left."""


class BridgeNetwork:
    """See the module's docstring. `cluster_cidr` (default: the node's range) is reached without masquerading."""

    def __init__(
        self, bridge_name: str, node_pod_cidr: str, state_path: Path | None, *, cluster_cidr: str | None = None
    ) -> None:
        self.bridge = bridge_name
        self.table = f"{bridge_name}-pods"
        self._pool = AddressPool(node_pod_cidr, state_path)
        self._cluster = IPv4Network(cluster_cidr or node_pod_cidr)
        self._gateway = self._pool.range[1]
        self._threads: ThreadPoolExecutor | None = None
        self._rules = ThreadPoolExecutor(1, "pod-rules")
        """One thread for what must happen in order: nftables and the file."""
        self._nft = Nft()
        self._bridge_index = 0
        self._mtu = 1500
        self._started = False
        self._pending: dict[str, asyncio.Future[None]] = {}
        """Attaches and detaches at work; the next call for the same sandbox waits for the last one."""
        self._write_due = False

    # PodNetwork

    async def start(self) -> None:
        """Make or adopt the bridge, its rules and the pods' links. Idempotent."""
        if self._started:
            return
        self._threads = ThreadPoolExecutor(WORKERS, "pod-links")
        standing = await self._in(self._threads, self._set_up)
        self._pool.load(standing)
        await self._in(self._rules, partial(self._nft.run, self._table_text()))
        await self._in(self._rules, partial(self._pass_firewall, plan_forwarding))
        await self._save()
        self._started = True

    async def stop(self, *, remove: bool) -> None:
        for work in [*self._pending.values()]:
            await asyncio.wait([work])
        if remove:
            await self._in(self._rules, self._remove_all)
            self._pool.forget()
        await self._in(self._rules, self._nft.close)
        if self._threads:
            self._threads.shutdown(wait=False)
            self._threads = None
        self._started = False

    async def attach(
        self, sandbox_id: str, netns_path: str, *, hostname: str = "", ports: Sequence[PortMapping] = ()
    ) -> PodAddresses:
        """See PodNetwork. A cancelled call leaves the sandbox attached, or on its way; `detach` undoes it."""
        await self._settled(sandbox_id)
        lease = self._pool.leases.get(sandbox_id)
        if lease is None:
            lease = self._pool.take(sandbox_id, tuple(ports))
            await self._run(sandbox_id, self._attach(sandbox_id, netns_path, lease))
        return PodAddresses((lease.address,), POD_INTERFACE)

    async def detach(self, sandbox_id: str) -> None:
        await self._settled(sandbox_id)
        lease = self._pool.leases.get(sandbox_id)
        if lease is not None:
            await self._run(sandbox_id, self._detach(sandbox_id, lease))

    async def list_attached(self) -> Mapping[str, PodAddresses]:
        return {
            sandbox_id: PodAddresses((lease.address,), POD_INTERFACE) for sandbox_id, lease in self._pool.leases.items()
        }

    # One sandbox

    async def _attach(self, sandbox_id: str, netns_path: str, lease: Lease) -> None:
        assert self._threads, "attach before start"
        link = link_name(sandbox_id)
        try:
            await self._in(self._threads, partial(self._make_link, sandbox_id, netns_path, lease.address))
            await self._save(host_ports=bool(lease.ports))
        except (OSError, TiphysError) as error:
            try:
                await self._in(self._threads, partial(self._remove_link, link, lease.address))
            except (OSError, TiphysError) as also:
                log.warning("what was made for sandbox %s is left: %s", sandbox_id, also)
            self._pool.give_back(sandbox_id)
            raise AttachFailed(f"sandbox {sandbox_id} could not be attached to {self.bridge}: {error}") from error

    async def _detach(self, sandbox_id: str, lease: Lease) -> None:
        assert self._threads, "detach before start"
        await self._in(self._threads, partial(self._remove_link, link_name(sandbox_id), lease.address))
        self._pool.give_back(sandbox_id)
        await self._save(host_ports=bool(lease.ports))

    def _make_link(self, sandbox_id: str, netns_path: str, address: str) -> None:
        """Make and set up both ends. Runs in a worker thread; called again for a link that a crash left half made."""
        name, ip = link_name(sandbox_id), IPv4Address(address).packed
        mac = netlink.hardware_address(ip)
        namespace = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink() as host:
                host.apply(
                    [
                        netlink.delete_link(name),
                        netlink.add_pair(name, self._bridge_index, self._mtu, POD_INTERFACE, mac, namespace),
                        netlink.set_port(name, f"{sandbox_id} {address}"),
                        netlink.add_neighbour(self._bridge_index, ip, mac),
                    ]
                )
            netlink.run_inside(namespace, partial(self._set_up_inside, ip))
        finally:
            os.close(namespace)

    def _set_up_inside(self, ip: bytes) -> None:
        gateway = self._gateway.packed
        index = socket.if_nametoindex(POD_INTERFACE)
        with Netlink() as pod:
            pod.apply(
                [
                    netlink.set_up(1, "the loopback"),
                    netlink.set_up(index, POD_INTERFACE),
                    netlink.add_address(index, ip, 32, "the pod"),
                    netlink.add_neighbour(index, gateway, netlink.hardware_address(gateway)),
                    netlink.add_route(index, gateway, 32, b"", "the pod"),
                    netlink.add_route(index, b"", 0, gateway, "the pod"),
                ]
            )

    def _remove_link(self, name: str, address: str) -> None:
        with Netlink() as host:
            neighbour = netlink.delete_neighbour(self._bridge_index, IPv4Address(address).packed)
            host.apply([neighbour, netlink.delete_link(name)])

    # The machine

    def _set_up(self) -> dict[str, str]:
        """Make the bridge and the kernel's settings; return the address of each sandbox whose link stands."""
        self._mtu = uplink_mtu()
        gateway = self._gateway.packed
        with Netlink() as host:
            mac = netlink.hardware_address(gateway)
            host.apply([netlink.add_bridge(self.bridge, mac, self._mtu)])
            self._bridge_index = socket.if_nametoindex(self.bridge)
            host.apply(
                [
                    netlink.set_up(self._bridge_index, self.bridge),
                    netlink.add_address(self._bridge_index, gateway, self._pool.range.prefixlen, self.bridge),
                ]
            )
            standing, broken = self._find_links(host)
            host.apply([netlink.delete_link(name) for name in broken])
        write_sysctl("ipv4/ip_forward", "1", "pods will not reach anything beyond this machine, nor each other")
        # a client on this machine that connects to 127.0.0.1:<node port> gets its answers through the bridge
        write_sysctl(f"ipv4/conf/{self.bridge}/route_localnet", "1", "node ports do not answer at 127.0.0.1")
        write_sysctl(f"ipv4/conf/{self.bridge}/rp_filter", "2", "")
        # Pods stay with their gateway, so none may be told of a shorter way, and each redirect would use up what the
        # kernel may tell that pod by ICMP ("port unreachable") for a second. Both must be 0; other links keep theirs.
        write_sysctl("ipv4/conf/all/send_redirects", "0", "")
        write_sysctl(f"ipv4/conf/{self.bridge}/send_redirects", "0", "")
        write_sysctl(f"ipv6/conf/{self.bridge}/disable_ipv6", "1", "")
        return standing

    def _find_links(self, host: Netlink) -> tuple[dict[str, str], list[str]]:
        """Return sandbox id -> address of the links on the bridge, and the names of those that say neither."""
        standing: dict[str, str] = {}
        broken = []
        for link in netlink.list_links(host):
            if link.master != self._bridge_index:
                continue
            sandbox_id, _, address = link.alias.partition(" ")
            if is_address_of(address, self._pool.range) and link.name == link_name(sandbox_id):
                standing[sandbox_id] = address
            else:
                broken.append(link.name)
        return standing, broken

    def _remove_all(self) -> None:
        remove_table(self._nft, self.table)
        self._pass_firewall(plan_forwarding_removal)
        with Netlink() as host:
            links = netlink.list_links(host)
            index = next((link.index for link in links if link.name == self.bridge), None)
            if index is not None:
                names = [link.name for link in links if link.master == index]
                host.apply([netlink.delete_link(name) for name in (*names, self.bridge)])

    def _pass_firewall(self, plan: Callable[[str, str], str]) -> None:
        """Change the machine's own FORWARD chain as `plan(listing, bridge)` says. Does nothing where there is none."""
        try:
            listing = self._nft.run(f"list chain {FORWARD_CHAIN}")
        except NftFailed:
            return
        try:
            commands = plan(listing, self.bridge)
            if commands:
                self._nft.run(commands)
        except NftFailed as error:
            log.warning("the machine's firewall drops forwarded packets and may drop those of pods: %s", error)

    def _table_text(self) -> str:
        table = format_table(self.table, self.bridge, self._pool.range, self._cluster)
        return table + format_host_ports(self.table, self._pool.leases.values())

    # Order

    async def _save(self, *, host_ports: bool = False) -> None:
        """Write the file, and the host ports' rules if they changed. Calls that wait for the thread are written once."""
        if host_ports:
            await self._in(self._rules, self._apply_host_ports)
        if not self._write_due:
            self._write_due = True
            await self._in(self._rules, self._write)

    def _apply_host_ports(self) -> None:
        self._nft.run(format_host_ports(self.table, [*self._pool.leases.values()]))

    def _write(self) -> None:
        self._write_due = False
        try:
            self._pool.write(self._pool.snapshot())
        except OSError as error:
            log.warning(
                "the addresses of %s were not written, links tell them at the next start: %s", self.bridge, error
            )

    async def _settled(self, sandbox_id: str) -> None:
        while work := self._pending.get(sandbox_id):
            await asyncio.wait([work])

    async def _run(self, sandbox_id: str, work: Coroutine[None, None, None]) -> None:
        """Run work for one sandbox to its end, even if the caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._pending[sandbox_id] = task
        task.add_done_callback(lambda done: self._done(sandbox_id, done))
        await asyncio.shield(task)

    def _done(self, sandbox_id: str, work: asyncio.Future[None]) -> None:
        del self._pending[sandbox_id]
        if not work.cancelled():
            work.exception()  # an abandoned failure was undone; nobody is left to tell

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def link_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's link on the machine."""
    head = sandbox_id[:8].lower()
    if len(head) < 8 or not all(c in "0123456789abcdef" for c in head):
        head = hashlib.sha256(sandbox_id.encode()).hexdigest()[:8]
    return f"ti{head}"


def is_address_of(text: str, network: IPv4Network) -> bool:
    try:
        return IPv4Address(text) in network
    except ValueError:
        return False


def uplink_mtu() -> int:
    """Return the MTU of the link of the default route, 1500 without one."""
    try:
        rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]]
        name = min((int(row[6]), row[0]) for row in rows if row[1] == row[7] == "00000000")[1]
        return min(int(Path(f"/sys/class/net/{name}/mtu").read_text()), 65535)
    except (OSError, ValueError, IndexError):
        return 1500


def write_sysctl(name: str, value: str, otherwise: str) -> None:
    """Set a kernel setting unless it is so already; say once what fails to work when that is not allowed."""
    path = _SYSCTL / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        if otherwise:
            log.warning("net.%s could not be set to %s (%s): %s", name.replace("/", "."), value, error, otherwise)
