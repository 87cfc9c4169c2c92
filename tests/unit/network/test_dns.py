"""Answers of the cluster's DNS server, as a resolver reads them."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

import pytest
from dnslib import QTYPE, RCODE, RR, DNSRecord
from dnslib import A as ARecord
from hypothesis import given
from hypothesis import strategies as st
from network_objects import ListClient, service_object, slice_object

from tiphys.base.clock import ManualClock, Randomness
from tiphys.client.interface import Client
from tiphys.network.dns import DnsDeps, DnsNotListening, DnsServer, run_dns
from tiphys.network.dnsforward import Address, Forwarder, parse_resolv_conf
from tiphys.network.dnsmessage import Query, parse_query, shortest_ttl_s, truncate
from tiphys.network.dnszone import ClusterZone
from tiphys.network.watches import service_reflector, slice_reflector

WEB = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
SERVICES = [
    service_object("web", {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ports": WEB}),
    service_object("db", {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}),
    service_object("slow", {"clusterIP": "None", "publishNotReadyAddresses": True}),
    service_object("inside", {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}),
    service_object("outside", {"type": "ExternalName", "externalName": "www.example.com"}),
    service_object("loop", {"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"}),
    service_object("many", {"clusterIP": "None"}),
]
SQL = [{"name": "sql", "port": 5432, "protocol": "TCP"}]
NOT_READY = {"ready": False}
SLICES = [
    slice_object("db", [{"addresses": ["10.1.0.2"], "hostname": "db-0"}, {"addresses": ["10.1.0.3"]}], SQL),
    slice_object("db", [{"addresses": ["10.1.0.4"], "conditions": NOT_READY}], SQL, name="db-y"),
    slice_object("slow", [{"addresses": ["10.1.0.5"], "conditions": NOT_READY}], []),
    slice_object("many", [{"addresses": [f"10.2.{i // 250}.{i % 250}"]} for i in range(300)], []),
]
DOMAIN = "svc.cluster.local"
SOA = "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"


class Outside(Forwarder):
    """A resolver that knows www.example.com."""

    def __init__(self) -> None:
        super().__init__(ManualClock(), Randomness(1), ())
        self.asked: list[tuple[str, bool]] = []

    async def ask(self, query: Query, *, tcp: bool = False) -> bytes | None:
        name = ".".join(query.labels)
        self.asked.append((name, tcp))
        if name != "www.example.com":
            return None
        question = DNSRecord.question(name, QTYPE[query.kind])
        question.header.id = query.id
        answer = question.reply()
        if query.kind == QTYPE.A:
            answer.add_answer(RR(name, QTYPE.A, ttl=60, rdata=ARecord("192.0.2.80")))
        return bytes(answer.pack())


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    client = cast(Client, ListClient(SERVICES, SLICES))
    services, slices = service_reflector(client, Randomness(1)), slice_reflector(client, Randomness(1))
    tasks = [asyncio.create_task(services.run()), asyncio.create_task(slices.run())]
    await services.synced()
    await slices.synced()
    server = DnsServer(ClusterZone("cluster.local", services, slices), services, slices, Outside())
    yield server
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()


async def resolve(server: DnsServer, name: str, kind: str = "A") -> DNSRecord:
    question = DNSRecord.question(name, kind)
    answer = server.handle(bytes(question.pack()))
    if isinstance(answer, Query):
        answer = await server.answer_later(answer, tcp=False)
    assert answer is not None
    record = DNSRecord.parse(answer)
    assert record.header.id == question.header.id
    assert record.header.qr
    return record


def told(record: DNSRecord) -> list[str]:
    return [f"{rr.rname} {QTYPE[rr.rtype]} {rr.rdata}" for rr in record.rr]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (f"web.default.{DOMAIN}", "A", [f"web.default.{DOMAIN}. A 10.0.0.1"]),
        (f"web.default.{DOMAIN}", "AAAA", [f"web.default.{DOMAIN}. AAAA fd00::1"]),
        (f"WEB.Default.{DOMAIN}", "A", [f"web.default.{DOMAIN}. A 10.0.0.1"]),
        (
            f"_http._tcp.web.default.{DOMAIN}",
            "SRV",
            [f"_http._tcp.web.default.{DOMAIN}. SRV 0 100 80 web.default.{DOMAIN}."],
        ),
        (
            f"_dns._udp.web.default.{DOMAIN}",
            "SRV",
            [f"_dns._udp.web.default.{DOMAIN}. SRV 0 100 53 web.default.{DOMAIN}."],
        ),
        (f"db.default.{DOMAIN}", "A", [f"db.default.{DOMAIN}. A 10.1.0.2", f"db.default.{DOMAIN}. A 10.1.0.3"]),
        (f"db-0.db.default.{DOMAIN}", "A", [f"db-0.db.default.{DOMAIN}. A 10.1.0.2"]),
        (f"10-1-0-3.db.default.{DOMAIN}", "A", [f"10-1-0-3.db.default.{DOMAIN}. A 10.1.0.3"]),
        (
            f"_sql._tcp.db.default.{DOMAIN}",
            "SRV",
            [
                f"_sql._tcp.db.default.{DOMAIN}. SRV 0 50 5432 db-0.db.default.{DOMAIN}.",
                f"_sql._tcp.db.default.{DOMAIN}. SRV 0 50 5432 10-1-0-3.db.default.{DOMAIN}.",
            ],
        ),
        (f"slow.default.{DOMAIN}", "A", [f"slow.default.{DOMAIN}. A 10.1.0.5"]),
        ("10-1-0-9.default.pod.cluster.local", "A", ["10-1-0-9.default.pod.cluster.local. A 10.1.0.9"]),
        ("1.0.0.10.in-addr.arpa", "PTR", [f"1.0.0.10.in-addr.arpa. PTR web.default.{DOMAIN}."]),
        ("2.0.1.10.in-addr.arpa", "PTR", [f"2.0.1.10.in-addr.arpa. PTR db-0.db.default.{DOMAIN}."]),
        (
            f"inside.default.{DOMAIN}",
            "A",
            [f"inside.default.{DOMAIN}. CNAME web.default.{DOMAIN}.", f"web.default.{DOMAIN}. A 10.0.0.1"],
        ),
        (
            f"outside.default.{DOMAIN}",
            "A",
            [f"outside.default.{DOMAIN}. CNAME www.example.com.", "www.example.com. A 192.0.2.80"],
        ),
        (f"outside.default.{DOMAIN}", "CNAME", [f"outside.default.{DOMAIN}. CNAME www.example.com."]),
        ("dns-version.cluster.local", "TXT", ['dns-version.cluster.local. TXT "1.1.0"']),
        ("www.example.com", "A", ["www.example.com. A 192.0.2.80"]),
    ],
)
async def test_names_that_exist(server: DnsServer, name: str, kind: str, expected: list[str]) -> None:
    for _ in range(2):  # the second answer is a kept one
        record = await resolve(server, name, kind)
        assert told(record) == expected
        assert record.header.rcode == RCODE.NOERROR
        assert str(record.q.qname) == f"{name}."
        assert all(rr.ttl == 5 for rr in record.rr if str(rr.rname).endswith("cluster.local."))


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        (f"none.default.{DOMAIN}", "A", "NXDOMAIN"),
        (f"web.none.{DOMAIN}", "A", "NXDOMAIN"),
        (f"none.{DOMAIN}", "A", "NXDOMAIN"),
        (f"x.web.default.{DOMAIN}", "A", "NXDOMAIN"),
        (f"db-1.db.default.{DOMAIN}", "A", "NXDOMAIN"),
        (f"10-1-0-4.db.default.{DOMAIN}", "A", "NXDOMAIN"),
        (f"_https._tcp.web.default.{DOMAIN}", "SRV", "NXDOMAIN"),
        (f"_dns._tcp.web.default.{DOMAIN}", "SRV", "NXDOMAIN"),
        ("none.cluster.local", "A", "NXDOMAIN"),
        ("x.default.pod.cluster.local", "A", "NXDOMAIN"),
        (f"www.example.com.default.{DOMAIN}", "A", "NXDOMAIN"),
        (f"default.{DOMAIN}", "A", "NOERROR"),
        (f"_tcp.web.default.{DOMAIN}", "A", "NOERROR"),
        ("svc.cluster.local", "A", "NOERROR"),
        ("cluster.local", "A", "NOERROR"),
        (f"db.default.{DOMAIN}", "AAAA", "NOERROR"),
        (f"web.default.{DOMAIN}", "MX", "NOERROR"),
    ],
)
async def test_names_and_types_that_do_not_exist(server: DnsServer, name: str, kind: str, code: str) -> None:
    record = await resolve(server, name, kind)
    assert (RCODE[record.header.rcode], told(record), record.header.aa) == (code, [], 1)
    assert [f"{rr.rname} {QTYPE[rr.rtype]} {rr.rdata}" for rr in record.auth] == [SOA]


async def test_srv_answers_bring_the_addresses_of_their_targets(server: DnsServer) -> None:
    record = await resolve(server, f"_sql._tcp.db.default.{DOMAIN}", "SRV")
    assert [f"{rr.rname} {rr.rdata}" for rr in record.ar] == [
        f"db-0.db.default.{DOMAIN}. 10.1.0.2",
        f"10-1-0-3.db.default.{DOMAIN}. 10.1.0.3",
    ]


async def test_an_external_name_that_names_itself_ends(server: DnsServer) -> None:
    assert told(await resolve(server, f"loop.default.{DOMAIN}"))


async def test_names_of_others_that_nobody_answers_fail(server: DnsServer) -> None:
    record = await resolve(server, "www.example.org")
    assert RCODE[record.header.rcode] == "SERVFAIL"
    assert RCODE[(await resolve(server, "9.9.9.9.in-addr.arpa", "PTR")).header.rcode] == "SERVFAIL"


async def test_a_large_answer_is_cut_for_udp_to_the_size_that_the_client_takes(server: DnsServer) -> None:
    question = DNSRecord.question(f"many.default.{DOMAIN}")
    data = bytes(question.pack())
    query, answer = parse_query(data), server.handle(data)
    assert isinstance(query, Query) and isinstance(answer, bytes)
    short = DNSRecord.parse(truncate(query, answer))
    assert (short.header.tc, short.rr, len(DNSRecord.parse(answer).rr)) == (1, [], 300)
    with_edns = data[:10] + b"\0\1" + data[12:] + struct.pack("!BHHIH", 0, 41, 4096, 0, 0)
    query = parse_query(with_edns)
    assert isinstance(query, Query) and query.udp_bytes == 1232
    answer = server.handle(with_edns)
    assert isinstance(answer, bytes)
    short = DNSRecord.parse(truncate(query, answer))
    assert short.header.tc == 1 and short.ar[0].rtype == QTYPE.OPT


async def test_a_change_is_answered_at_once() -> None:
    client = ListClient([], [])
    services = service_reflector(cast(Client, client), Randomness(1))
    slices = slice_reflector(cast(Client, client), Randomness(1))
    server = DnsServer(ClusterZone("cluster.local", services, slices), services, slices, Outside())
    name = f"web.default.{DOMAIN}"
    assert RCODE[(await resolve(server, name)).header.rcode] == "SERVFAIL", "nothing is known yet"
    tasks = [asyncio.create_task(services.run()), asyncio.create_task(slices.run())]
    await services.synced()
    await slices.synced()
    assert RCODE[(await resolve(server, name)).header.rcode] == "NXDOMAIN"
    changed = asyncio.Event()
    services.on_change(lambda old, new: changed.set())
    client.tell("services", "ADDED", SERVICES[0])
    await changed.wait()
    assert told(await resolve(server, name)) == [f"{name}. A 10.0.0.1"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@given(st.binary(max_size=80))
def test_no_packet_makes_the_parser_raise(data: bytes) -> None:
    parse_query(data)
    shortest_ttl_s(data)


@given(st.binary(max_size=60), st.integers(0, 59))
def test_no_damaged_query_makes_the_parser_raise(noise: bytes, at: int) -> None:
    data = bytearray(DNSRecord.question(f"web.default.{DOMAIN}").pack())
    data[at : at + len(noise)] = noise
    query = parse_query(bytes(data))
    if isinstance(query, Query):
        assert truncate(query, bytes(2000))


def test_resolvers_are_read_without_our_own() -> None:
    text = "# x\nnameserver 10.0.0.1\nnameserver 192.0.2.1\nsearch a.b\nnameserver\n nameserver fd00::1 \n"
    assert parse_resolv_conf(text, {"10.0.0.1"}) == [("192.0.2.1", 53), ("fd00::1", 53)]


class TestForwarder(Forwarder):
    """Asks the given resolvers."""

    __test__ = False

    def __init__(self, servers: list[Address]) -> None:
        super().__init__(ManualClock(), Randomness(1), ())
        self._given = servers

    def servers(self) -> list[Address]:
        return self._given


class Resolver(asyncio.DatagramProtocol):
    """Answers every question with one address, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.count += 1
        answer = DNSRecord.parse(data).reply()
        answer.add_answer(RR(answer.q.qname, QTYPE.A, ttl=60, rdata=ARecord("192.0.2.7")))
        self.transport.sendto(b"garbage", addr)
        self.transport.sendto(bytes(answer.pack()), addr)


async def test_equal_questions_are_forwarded_once_and_a_dead_resolver_is_passed_over() -> None:
    loop = asyncio.get_running_loop()
    transport, resolver = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 0))
    closed, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    dead = closed.get_extra_info("sockname")
    closed.close()
    await asyncio.sleep(0)
    forwarder = TestForwarder([dead, transport.get_extra_info("sockname")])
    queries = [parse_query(bytes(DNSRecord.question("x.example").pack())) for _ in range(3)]
    answers = await asyncio.gather(*(forwarder.ask(q) for q in queries if isinstance(q, Query)))
    again = await forwarder.ask(cast(Query, queries[0]))
    for query, answer in zip([*queries, queries[0]], [*answers, again], strict=True):
        assert answer is not None and DNSRecord.parse(answer).header.id == cast(Query, query).id
        assert told(DNSRecord.parse(answer)) == ["x.example. A 192.0.2.7"]
    assert resolver.count == 1
    assert await TestForwarder([]).ask(cast(Query, queries[0])) is None
    transport.close()


async def test_the_server_answers_by_udp_and_tcp_and_says_when_it_cannot_listen(server: DnsServer) -> None:
    address, port = f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}", 5353
    await server.listen([address], port)
    question = DNSRecord.question(f"many.default.{DOMAIN}")

    def ask(tcp: bool) -> DNSRecord:
        return DNSRecord.parse(question.send(address, port, tcp=tcp, timeout=5))

    assert (await asyncio.to_thread(ask, False)).header.tc == 1
    assert len((await asyncio.to_thread(ask, True)).rr) == 300
    with pytest.raises(DnsNotListening, match="is another DNS server there"):
        await server.listen([address], port)


async def test_a_server_that_cannot_listen_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.network.dns.LISTEN_RETRY_S", 0)
    address, port = f"127.78.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}", 5353
    client = cast(Client, ListClient(SERVICES, SLICES))
    services, slices = service_reflector(client, Randomness(1)), slice_reflector(client, Randomness(1))
    outside = Outside()
    deps = DnsDeps(client, ManualClock(), Randomness(1), "cluster.local", (address,), port, services, slices, outside)
    running = [asyncio.create_task(services.run()), asyncio.create_task(slices.run())]
    with socket.socket() as other:
        other.bind((address, port))
        other.listen()
        task = asyncio.create_task(run_dns(deps))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
    question = DNSRecord.question(f"web.default.{DOMAIN}")
    for _ in range(1000):
        try:
            answer = DNSRecord.parse(await asyncio.to_thread(question.send, address, port, True, 5))
        except ConnectionError:
            continue
        if answer.header.rcode != RCODE.SERVFAIL:
            break
    assert told(answer) == [f"web.default.{DOMAIN}. A 10.0.0.1"]
    assert not task.done()
    for one in (task, *running):
        one.cancel()
    await asyncio.gather(task, *running, return_exceptions=True)
