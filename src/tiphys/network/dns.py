"""The cluster's DNS server: UDP and TCP on given addresses, the cluster's zone, and everything else forwarded.

Decides how questions become answers: from the bytes of an earlier answer when nothing changed since, from the zone
(dnszone.py), or from the machine's resolvers (dnsforward.py). Invariant: no packet makes it raise or stop; the answers
kept are thrown away at every change of a Service or EndpointSlice, so what is told is what the API server last told us.

Bounds: TCP_LIMIT connections, each with TCP_IDLE_S; CACHE_LIMIT answers kept.
Spec: RFC 1035, RFC 7766 (TCP); Kubernetes DNS-Based Service Discovery.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.meta import View
from tiphys.api.views.service import Service
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.network.dnsforward import Forwarder
from tiphys.network.dnsmessage import (
    AAAA,
    CNAME,
    SERVFAIL,
    A,
    Answer,
    Query,
    decode_records,
    encode_answer,
    encode_failure,
    parse_query,
    truncate,
    with_id,
)
from tiphys.network.dnszone import CHAIN_LIMIT, ClusterZone
from tiphys.network.watches import service_reflector, slice_reflector

log = logging.getLogger(__name__)

PORT = 53
CACHE_LIMIT = 8192
TCP_LIMIT = 256
TCP_IDLE_S = 10.0
LISTEN_RETRY_S = 5
UDP_BUFFER_BYTES = 1 << 20
_IP_FREEBIND = 15


class DnsNotListening(TiphysError):
    """A socket could not be bound."""


@dataclass(frozen=True, slots=True)
class DnsDeps:
    """What the server works with. `services` and `slices` share reflectors that run elsewhere (made by watches.py);
    None: its own."""

    client: Client
    clock: Clock
    randomness: Randomness
    cluster_domain: str
    addresses: tuple[str, ...]
    port: int = PORT
    services: Reflector[Service] | None = None
    slices: Reflector[EndpointSlice] | None = None
    forwarder: Forwarder | None = None
    """Whom to ask about other names; None: the machine's resolvers."""


async def run_dns(deps: DnsDeps) -> None:
    """Answer until cancelled. While an address cannot be bound (another server has the port) it is tried again, because
    pods run without DNS, but not without this process."""
    # an empty reflector is false, so None must be asked for
    services = service_reflector(deps.client, deps.randomness) if deps.services is None else deps.services
    slices = slice_reflector(deps.client, deps.randomness) if deps.slices is None else deps.slices
    forwarder = deps.forwarder or Forwarder(deps.clock, deps.randomness, deps.addresses)
    server = DnsServer(ClusterZone(deps.cluster_domain, services, slices), services, slices, forwarder)
    try:
        async with asyncio.TaskGroup() as group:
            if deps.services is None:
                group.create_task(services.run(), name="dns-services")
            if deps.slices is None:
                group.create_task(slices.run(), name="dns-slices")
            group.create_task(_listen(server, deps), name="dns-server")
    finally:
        await server.close()
        forwarder.close()


async def _listen(server: DnsServer, deps: DnsDeps) -> None:
    """Bind the sockets, however long it takes, and stay until cancelled."""
    told = False
    while True:
        try:
            await server.listen(deps.addresses, deps.port)
            await asyncio.Event().wait()
        except DnsNotListening as error:
            if not told:
                log.error("%s Names do not resolve in pods until it can; trying every %d s", error, LISTEN_RETRY_S)
                told = True
            await server.close()
            await asyncio.sleep(LISTEN_RETRY_S)


class DnsServer:
    """See the module's docstring."""

    def __init__(
        self,
        zone: ClusterZone,
        services: Reflector[Service],
        slices: Reflector[EndpointSlice],
        forwarder: Forwarder,
    ) -> None:
        self._zone = zone
        self._services = services
        self._slices = slices
        self._forwarder = forwarder
        self._cache: dict[tuple[bytes, bool, bool, bool, bool], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._connections = 0
        services.on_change(self._changed)
        slices.on_change(self._changed)

    async def listen(self, addresses: Sequence[str], port: int) -> None:
        """Bind UDP and TCP at all addresses. Raises DnsNotListening."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            udp = _bind(address, port, socket.SOCK_DGRAM)
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            self._transports.append(transport)
            tcp = _bind(address, port, socket.SOCK_STREAM)
            self._servers.append(await asyncio.start_server(self._serve_connection, sock=tcp))

    async def close(self) -> None:
        """Stop listening and drop what is being answered. Idempotent; `listen` may follow."""
        for transport in self._transports:
            transport.close()
        for server in self._servers:
            server.close()
        for task in [*self._tasks]:
            task.cancel()
        self._transports.clear()
        self._servers.clear()

    def answer_at_once(self, query: Query) -> bytes | None:
        """Return the answer if it needs nobody else's."""
        kept = self._cache.get(query.key)
        if kept is not None:
            return with_id(kept, query.id)
        answer = self._zone.answer(query)
        if answer is None:
            return None
        if not (self._services.is_synced and self._slices.is_synced):
            return encode_answer(query, Answer(SERVFAIL))
        target = _outside_target(query, answer)
        for _ in range(CHAIN_LIMIT):
            if target is None:
                break
            more = self._zone.answer(_about(query, target))
            if more is None:
                return None
            answer.records += more.records
            target = _outside_target(query, more)
        data = encode_answer(query, answer)
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[query.key] = data
        return data

    async def answer_later(self, query: Query, *, tcp: bool) -> bytes:
        """Return the answer, asking the machine's resolvers."""
        answer = self._zone.answer(query)
        if answer is None:
            forwarded = await self._forwarder.ask(query, tcp=tcp)
            return forwarded or encode_answer(query, Answer(SERVFAIL, authoritative=False))
        # an ExternalName: our CNAME, and the addresses of its target as the machine's resolvers know them
        target = _outside_target(query, answer)
        if target is not None:
            data = await self._forwarder.ask(_about(query, target), tcp=tcp)
            if data is not None:
                answer.records += decode_records(data)
        return encode_answer(query, answer)

    def handle(self, data: bytes) -> Query | bytes | None:
        """Return the query that is left to be answered later, or the answer, or None for no answer."""
        query = parse_query(data)
        if query is None or isinstance(query, int):
            return None if query is None else encode_failure(data, query)
        return self.answer_at_once(query) or query

    def start_task(self, work: asyncio.Task[None]) -> None:
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    def _changed(self, old: View | None, new: View | None) -> None:
        self._cache.clear()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.current_task()
        if task is not None:
            self.start_task(cast("asyncio.Task[None]", task))
        try:
            while self._connections <= TCP_LIMIT:
                async with asyncio.timeout(TCP_IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    answer = self.handle(await reader.readexactly(length))
                    if isinstance(answer, Query):
                        answer = await self.answer_later(answer, tcp=True)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """One UDP socket. What can be answered at once is, without a task."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.handle(data)
        if isinstance(answer, Query):
            work = self._answer_later(answer, addr)
            self._server.start_task(asyncio.get_running_loop().create_task(work, name="dns-answer"))
        elif answer is not None:
            query = parse_query(data)
            self._send(truncate(query, answer) if isinstance(query, Query) else answer, addr)

    async def _answer_later(self, query: Query, addr: tuple[str, int]) -> None:
        self._send(truncate(query, await self._server.answer_later(query, tcp=False)), addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("a DNS answer did not reach its client: %s", exc)


def _outside_target(query: Query, answer: Answer) -> str | None:
    """Return the name that an answer ends at when the asked records are still missing there."""
    if query.kind not in (A, AAAA) or not answer.records or answer.records[-1].rtype != CNAME:
        return None
    return str(answer.records[-1].rdata.label)


def _about(query: Query, name: str) -> Query:
    """Return the same query about another name."""
    labels = tuple(label for label in name.lower().split(".") if label)
    encoded = b"".join(bytes((len(label),)) + label.encode("latin-1") for label in labels)
    question = encoded + b"\0" + struct.pack("!2H", query.kind, 1)
    return Query(
        query.id, True, query.checking_disabled, labels, query.kind, question, query.udp_bytes, query.edns, False
    )


def _bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:  # for UDP it would let two servers have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # the bridge that has the address may come later
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_BYTES)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise DnsNotListening(
            f"DNS cannot listen at {address}:{port} ({error}): is another DNS server there, or is this not root?"
        ) from error
    return sock
