"""Pods reach each other and Services through the real kernel: bridge, links, nftables, connection tracking."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from leaks import assert_no_leaks, snapshot
from network_support import MARKER, NODE_PORT, POD_CIDR, PodNet, ask_by, cluster_ip, service

from tiphys.network.bridge import BridgeNetwork, link_name
from tiphys.network.interface import ServicePort
from tiphys.runtime.podnetwork import PortMapping

pytestmark = [pytest.mark.node, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[PodNet]:
    before = snapshot(MARKER)
    net = PodNet(tmp_path)
    try:
        yield net
    finally:
        await net.close()
    assert_no_leaks(before, snapshot(MARKER))
    assert not [name for name in os.listdir("/sys/class/net") if name in {link_name(p.sandbox_id) for p in net.pods}]


async def test_pods_reach_each_other_and_the_machine_without_translation(net: PodNet) -> None:
    one, two = await net.start(2)
    assert await one.ask(two.address) == f"pod1 {one.address}"
    assert await two.ask(one.address, udp=True) == f"pod0 {two.address}"
    assert await one.ask(one.address) == f"pod0 {one.address}"
    assert await net.machine.ask(one.address) == f"pod0 {net.gateway}"
    assert await one.ask(net.gateway, 9) == "ConnectionRefusedError"


async def test_a_cluster_ip_answers_pods_and_the_machine_and_a_pod_reaches_itself_through_it(net: PodNet) -> None:
    one, two = await net.start(2)
    await net.proxy.sync([service("a", 1, one.endpoint), service("u", 2, one.endpoint, protocol="UDP")])
    assert await two.ask(cluster_ip(1), 80) == f"pod0 {two.address}"
    assert await one.ask(cluster_ip(1), 80) == f"pod0 {net.gateway}"
    assert (await net.machine.ask(cluster_ip(1), 80)).startswith("pod0 ")
    assert await two.ask(cluster_ip(2), 80, udp=True) == f"pod0 {two.address}"
    assert (await net.machine.ask(cluster_ip(2), 80, udp=True)).startswith("pod0 ")


async def test_connections_are_spread_over_all_endpoints(net: PodNet) -> None:
    one, two, three = await net.start(3)
    await net.proxy.sync([service("a", 1, one.endpoint, two.endpoint)])
    answers = {(await three.ask(cluster_ip(1), 80)).split()[0] for _ in range(40)}
    assert answers == {"pod0", "pod1"}


async def test_a_node_port_answers_at_every_address_of_the_machine(net: PodNet) -> None:
    one, two = await net.start(2)
    udp = service("u", 2, one.endpoint, protocol="UDP", node_port=NODE_PORT)
    await net.proxy.sync([service("a", 1, one.endpoint, node_port=NODE_PORT), udp])
    assert await net.machine.ask("127.0.0.1", NODE_PORT) == f"pod0 {net.gateway}"
    assert await net.machine.ask("127.0.0.1", NODE_PORT, udp=True) == f"pod0 {net.gateway}"
    assert await net.machine.ask(net.gateway, NODE_PORT) == f"pod0 {net.gateway}"
    assert await two.ask(net.gateway, NODE_PORT) == f"pod0 {net.gateway}"
    assert await two.ask("127.0.0.1", NODE_PORT) == "ConnectionRefusedError"


async def test_with_the_local_policy_the_client_is_seen_and_without_local_endpoints_nothing_answers(
    net: PodNet,
) -> None:
    one, two = await net.start(2)
    local = service("a", 1, one.endpoint, node_port=NODE_PORT, external_endpoints=(one.endpoint,))
    elsewhere = service("b", 2, one.endpoint, node_port=NODE_PORT + 1, external_endpoints=())
    await net.proxy.sync([local, elsewhere])
    assert await two.ask(net.gateway, NODE_PORT) == f"pod0 {two.address}"
    assert await two.ask(net.gateway, NODE_PORT + 1, timeout_s=0.3) == "TimeoutError"
    assert await two.ask(cluster_ip(2), 80) == f"pod0 {two.address}"


async def test_an_external_address_answers_pods_and_the_machine(net: PodNet) -> None:
    one, two = await net.start(2)
    await net.proxy.sync([service("a", 1, one.endpoint, external_ips=(cluster_ip(200),))])
    assert await two.ask(cluster_ip(200), 80) == f"pod0 {net.gateway}"
    assert (await net.machine.ask(cluster_ip(200), 80)).startswith("pod0 ")


async def test_a_service_without_endpoints_refuses_at_once(net: PodNet) -> None:
    (one,) = await net.start(1)
    udp = service("u", 2, protocol="UDP")
    await net.proxy.sync([service("a", 1, node_port=NODE_PORT), udp])
    for asker in (one, net.machine):
        assert await asker.ask(cluster_ip(1), 80, timeout_s=0.5) == "ConnectionRefusedError"
    assert await net.machine.ask("127.0.0.1", NODE_PORT) == "ConnectionRefusedError"
    assert await one.ask(cluster_ip(2), 80, udp=True) == "ConnectionRefusedError"
    await net.proxy.update({("default", "a"): [service("a", 1, one.endpoint, node_port=NODE_PORT)]})
    assert await net.machine.ask("127.0.0.1", NODE_PORT) == f"pod0 {net.gateway}"


async def test_a_client_stays_with_its_endpoint_while_that_exists(net: PodNet) -> None:
    pods = await net.start(4)
    client, backends = pods[3], pods[:3]

    def sticky(*chosen: object) -> ServicePort:
        endpoints = tuple(p.endpoint for p in backends if p in chosen)
        return service("a", 1, *endpoints, session_affinity_timeout_s=600, node_port=NODE_PORT)

    await net.proxy.sync([sticky(*backends)])
    first = (await client.ask(cluster_ip(1), 80)).split()[0]
    assert {(await client.ask(cluster_ip(1), 80)).split()[0] for _ in range(20)} == {first}
    assert len({(await client.ask(net.gateway, NODE_PORT)).split()[0] for _ in range(20)}) == 1
    rest = [p for p in backends if p.name != first]
    await net.proxy.update({("default", "a"): [sticky(*rest)]})
    answers = {(await client.ask(cluster_ip(1), 80)).split()[0] for _ in range(20)}
    assert len(answers) == 1 and first not in answers


async def test_a_udp_client_that_keeps_its_port_follows_the_endpoints(net: PodNet) -> None:
    one, two, client = await net.start(3)
    await net.proxy.sync([service("u", 1, one.endpoint, protocol="UDP")])
    with await client.socket(socket.SOCK_DGRAM) as sock:
        assert (await ask_by(sock, cluster_ip(1), 80)).startswith("pod0")
        await net.proxy.update({("default", "u"): [service("u", 1, two.endpoint, protocol="UDP")]})
        assert (await ask_by(sock, cluster_ip(1), 80)).startswith("pod1")


async def test_rules_that_somebody_else_removed_are_loaded_anew(net: PodNet) -> None:
    one, two = await net.start(2)
    await net.proxy.sync([service("a", 1, one.endpoint), service("b", 2, one.endpoint)])
    await asyncio.to_thread(subprocess.run, ["nft", "delete", "table", "ip", net.proxy.table], check=True)
    await net.proxy.update({("default", "b"): [service("b", 2, two.endpoint)]})
    assert await two.ask(cluster_ip(1), 80) == f"pod0 {two.address}"
    assert await one.ask(cluster_ip(2), 80) == f"pod1 {one.address}"


async def test_an_address_that_two_services_claim_is_the_firsts_until_it_goes(net: PodNet) -> None:
    one, two = await net.start(2)
    await net.proxy.sync([service("a", 1, one.endpoint), service("b", 1, two.endpoint)])
    assert await two.ask(cluster_ip(1), 80) == f"pod0 {two.address}"
    await net.proxy.update({("default", "a"): []})
    assert await one.ask(cluster_ip(1), 80) == f"pod1 {one.address}"
    await net.proxy.update({("default", "b"): []})
    assert "pod" not in await one.ask(cluster_ip(1), 80, timeout_s=0.2)


async def test_a_host_port_answers_the_machine_and_pods_until_the_pod_goes(net: PodNet) -> None:
    one, two = await net.start(2)
    await net.network.detach(one.sandbox_id)
    host_port = NODE_PORT - 10000
    await one.attach(net.network, (PortMapping(host_port, 8080), PortMapping(host_port, 8080, "UDP", "127.0.0.1")))
    assert await net.machine.ask("127.0.0.1", host_port) == f"pod0 {net.gateway}"
    assert await net.machine.ask("127.0.0.1", host_port, udp=True) == f"pod0 {net.gateway}"
    assert await two.ask(net.gateway, host_port) == f"pod0 {two.address}"
    assert await one.ask(net.gateway, host_port) == f"pod0 {net.gateway}"
    await net.network.detach(one.sandbox_id)
    assert await net.machine.ask("127.0.0.1", host_port) == "ConnectionRefusedError"


async def test_the_next_run_adopts_what_a_killed_one_left(net: PodNet, tmp_path: Path) -> None:
    one, two = await net.start(2)
    other = BridgeNetwork(net.network.bridge, POD_CIDR, tmp_path / "lost.json")
    await other.start()
    assert {k: v.addresses for k, v in (await other.list_attached()).items()} == {
        one.sandbox_id: (one.address,),
        two.sandbox_id: (two.address,),
    }
    assert await one.ask(two.address) == f"pod1 {one.address}"
    await other.detach(one.sandbox_id)
    await other.stop(remove=True)
    assert other.bridge not in os.listdir("/sys/class/net")
