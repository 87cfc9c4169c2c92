"""What every ServiceProxy promises, told by what it holds: the simulated one's records, or the kernel's maps."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator

import pytest

from tiphys.network.interface import Endpoint, ServicePort, ServiceProxy
from tiphys.network.nft import Nft
from tiphys.network.nftables import NftablesProxy
from tiphys.network.simulatedproxy import SimulatedServiceProxy

TABLE = f"tiphys-ts{os.getpid()}"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="nftables needs root")
ONE, TWO, THREE = Endpoint("10.250.0.2", 80), Endpoint("10.250.0.3", 80), Endpoint("10.250.0.4", 81)


@pytest.fixture(
    params=[
        pytest.param("simulated"),
        pytest.param("libnftables", marks=[pytest.mark.node, NEEDS_ROOT]),
        pytest.param("nft", marks=[pytest.mark.node, NEEDS_ROOT]),
    ]
)
async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[ServiceProxy]:
    proxy: ServiceProxy
    if request.param == "simulated":
        proxy = SimulatedServiceProxy()
    else:
        proxy = NftablesProxy(TABLE, "10.250.0.0/16", "ti-none", in_process=request.param == "libnftables")
    await proxy.start()
    yield proxy
    await proxy.stop(remove=True)
    assert TABLE not in Nft().run("list tables") if request.param != "simulated" else True


def port(name: str, number: int, *endpoints: Endpoint, **more: object) -> ServicePort:
    values = {"port_name": "", "protocol": "TCP", "port": 80, "cluster_ips": (f"10.251.0.{number}",), **more}
    return ServicePort(namespace="default", name=name, endpoints=endpoints, **values)  # type: ignore[arg-type]


async def backends(proxy: ServiceProxy, address: str, number: int = 80) -> set[tuple[str, int]] | None:
    """Return where connections go: None without a service, empty when they are refused."""
    if isinstance(proxy, SimulatedServiceProxy):
        found = proxy.backends(address, number)
        return None if found is None else {(e.address, e.port) for e in found}
    return await asyncio.to_thread(kernel_backends, address, number)


def kernel_backends(address: str, number: int) -> set[tuple[str, int]] | None:
    elements = {}
    for name in ("endpoint", "node_endpoint", "unserved", "unserved_node"):
        done = subprocess.run(
            ["nft", "-j", "-n", "list", "map", "ip", TABLE, name], capture_output=True, text=True, check=True
        )
        listed = next(item["map"] for item in json.loads(done.stdout)["nftables"] if "map" in item)
        elements[name] = listed.get("elem", [])
    front = [address, 6, number] if address else [6, number]
    suffix = "" if address else "_node"
    if any(key["concat"] == front for key, _ in elements[f"unserved{suffix}"]):
        return set()
    which = elements["endpoint" if address else "node_endpoint"]
    found = {tuple(value["concat"]) for key, value in which if key["concat"][:-1] == front}
    return found or None


async def test_sync_makes_the_rules_equal_to_the_services(proxy: ServiceProxy) -> None:
    await proxy.sync([port("a", 1, ONE, TWO), port("b", 2)])
    assert await backends(proxy, "10.251.0.1") == {("10.250.0.2", 80), ("10.250.0.3", 80)}
    assert await backends(proxy, "10.251.0.2") == set()
    await proxy.sync([port("b", 2, THREE)])
    assert await backends(proxy, "10.251.0.1") is None
    assert await backends(proxy, "10.251.0.2") == {("10.250.0.4", 81)}


async def test_update_changes_the_named_services_only(proxy: ServiceProxy) -> None:
    await proxy.sync([port("a", 1, ONE), port("b", 2, TWO)])
    await proxy.update({("default", "a"): [port("a", 1, THREE)], ("default", "c"): [port("c", 3, ONE)]})
    assert await backends(proxy, "10.251.0.1") == {("10.250.0.4", 81)}
    assert await backends(proxy, "10.251.0.2") == {("10.250.0.3", 80)}
    assert await backends(proxy, "10.251.0.3") == {("10.250.0.2", 80)}
    await proxy.update({("default", "a"): [], ("default", "unknown"): []})
    assert await backends(proxy, "10.251.0.1") is None
    assert await backends(proxy, "10.251.0.2") == {("10.250.0.3", 80)}


async def test_an_address_passes_from_a_deleted_service_to_a_new_one_in_one_update(proxy: ServiceProxy) -> None:
    await proxy.sync([port("old", 1, ONE, node_port=30123)])
    await proxy.update({("default", "new"): [port("new", 1, TWO, node_port=30123)], ("default", "old"): []})
    assert await backends(proxy, "10.251.0.1") == {("10.250.0.3", 80)}
    assert await backends(proxy, "", 30123) == {("10.250.0.3", 80)}


async def test_node_ports_and_external_addresses_have_their_own_endpoints(proxy: ServiceProxy) -> None:
    external = ("198.51.100.7",)
    service = port("a", 1, ONE, TWO, node_port=30124, external_ips=external, external_endpoints=(TWO,))
    await proxy.sync([service])
    assert await backends(proxy, "", 30124) == {("10.250.0.3", 80)}
    assert await backends(proxy, "198.51.100.7") == {("10.250.0.3", 80)}
    await proxy.update({("default", "a"): [port("a", 1, ONE)]})
    assert await backends(proxy, "", 30124) is None
    assert await backends(proxy, "198.51.100.7") is None


async def test_affinity_and_changing_numbers_of_endpoints(proxy: ServiceProxy) -> None:
    for endpoints in ((ONE,), (ONE, TWO, THREE), (THREE,), (), (TWO, ONE)):
        await proxy.sync([port("a", 1, *endpoints, session_affinity_timeout_s=10800)])
        assert await backends(proxy, "10.251.0.1") == {(e.address, e.port) for e in endpoints}
