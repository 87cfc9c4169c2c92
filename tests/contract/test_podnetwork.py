"""What every PodNetwork promises, run over the simulated one and (as root) the bridge."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tiphys.base.errors import TiphysError
from tiphys.network.bridge import BridgeNetwork
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime import syscalls
from tiphys.runtime.podnetwork import PodNetwork

NUMBER = os.getpid() % 4000
CIDR = f"10.{248 + NUMBER % 2}.{NUMBER // 2 % 256}.{NUMBER // 512 * 8}/29"
"""Six addresses for hosts: one is the gateway's."""
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a bridge needs root")
PARAMETERS = [
    pytest.param("simulated"),
    pytest.param("bridge", marks=[pytest.mark.node, NEEDS_ROOT]),
]
Build = Callable[[], PodNetwork]


@pytest.fixture(params=PARAMETERS)
async def build(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Build]:
    made: list[PodNetwork] = []

    def make() -> PodNetwork:
        if request.param == "simulated":
            network: PodNetwork = SimulatedPodNetwork(CIDR)
        else:
            network = BridgeNetwork(f"ti-tc{NUMBER}", CIDR, tmp_path / "network.json")
        made.append(network)
        return network

    yield make
    for network in made:
        await network.stop(remove=True)


@pytest.fixture
async def network(build: Build) -> PodNetwork:
    network = build()
    await network.start()
    return network


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a maker of network namespaces' paths."""

    def make() -> str:
        if "simulated" in request.node.name:
            return "/nowhere"
        found: list[int] = []

        def work() -> None:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        request.addfinalizer(lambda: os.close(found[0]))
        return f"/proc/{os.getpid()}/fd/{found[0]}"

    return make


Maker = Callable[[], str]


async def test_attach_gives_each_sandbox_its_own_address_and_the_same_one_again(
    network: PodNetwork, namespace: Maker
) -> None:
    path = namespace()
    one = await network.attach("one", path)
    two = await network.attach("two", namespace())
    assert one.addresses != two.addresses and one.interface == "eth0"
    assert await network.attach("one", path) == one
    assert dict(await network.list_attached()) == {"one": one, "two": two}


async def test_all_may_attach_at_once(network: PodNetwork, namespace: Maker) -> None:
    attached = await asyncio.gather(*(network.attach(f"sandbox-{i}", namespace()) for i in range(5)))
    assert len({a.addresses[0] for a in attached}) == 5
    await asyncio.gather(*(network.detach(f"sandbox-{i}") for i in range(5)))
    assert not await network.list_attached()


async def test_addresses_rest_as_long_as_possible(network: PodNetwork, namespace: Maker) -> None:
    addresses = [(await network.attach(f"s{i}", namespace())).addresses[0] for i in range(3)]
    await network.detach("s1")
    await network.detach("s0")
    fresh = [(await network.attach(f"t{i}", namespace())).addresses[0] for i in range(4)]
    assert fresh[2:] == [addresses[1], addresses[0]]
    assert not set(fresh[:2]) & set(addresses)


async def test_an_empty_pool_is_told_and_the_next_detach_helps(network: PodNetwork, namespace: Maker) -> None:
    for i in range(5):
        await network.attach(f"s{i}", namespace())
    with pytest.raises(TiphysError, match="no pod address is left"):
        await network.attach("late", namespace())
    await network.detach("s3")
    assert (await network.attach("late", namespace())).addresses


async def test_detach_of_an_unknown_sandbox_does_nothing(network: PodNetwork) -> None:
    await network.detach("never")
    await network.detach("never")


async def test_stop_with_remove_forgets_all_and_may_be_said_twice(network: PodNetwork, namespace: Maker) -> None:
    await network.attach("one", namespace())
    await network.stop(remove=True)
    await network.stop(remove=True)
    await network.start()
    assert not await network.list_attached()
