"""Fixtures of the bad-input tests: one server for a module, and a bystander who must not be hurt by any test.

The bystander has a watch and a connection of its own. While a test runs it reads; after the test its watch must show
a new write, and the server's log must hold no defect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from apiserver_process import ApiServerProcess, Wire

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
_serial = iter(range(1_000_000_000))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    process = ApiServerProcess(tmp_path_factory.mktemp("tiphys"))
    try:
        process.start()
        asyncio.run(_make_target(process))
        yield process
        assert process.process is not None and process.process.poll() is None, "the API server died"
    finally:
        process.close()


async def _make_target(process: ApiServerProcess) -> None:
    """Make the ConfigMap `present`, which bad writes aim at."""
    async with process.wire() as opened:
        assert (await opened.request("POST", CONFIGMAPS, {"metadata": {"name": "present"}})).status == 201


@pytest.fixture
async def wire(server: ApiServerProcess) -> AsyncIterator[Wire]:
    async with server.wire() as opened:
        yield opened


@pytest.fixture(autouse=True)
async def bystander(server: ApiServerProcess) -> AsyncIterator[None]:
    start = server.log.stat().st_size
    name = f"bystander-{next(_serial)}"
    async with server.wire() as watching, server.wire() as reading:
        await watching.send(
            f"GET {CONFIGMAPS}?watch=1&fieldSelector=metadata.name%3D{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        head = await watching.head()
        assert head is not None and head[0] == 200
        stop = asyncio.Event()
        reader = asyncio.create_task(_read_on(reading, stop))
        yield
        stop.set()
        assert await reader > 0, "the bystander's reads were not answered"
        created = await reading.request("POST", CONFIGMAPS, {"metadata": {"name": name}})
        assert created.status == 201, created.body
        async with aclosing(watching.events()) as events:
            event = await anext(events)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", name)
        assert (await reading.request("DELETE", f"{CONFIGMAPS}/{name}")).status == 200
    assert not server.complaints(start)


async def _read_on(wire: Wire, stop: asyncio.Event) -> int:
    """Read one after another until told to stop; return how many were answered."""
    answered = 0
    while not answered or not stop.is_set():
        reply = await wire.request("GET", "/api/v1/namespaces/default")
        assert reply.status == 200
        answered += 1
        try:
            async with asyncio.timeout(0.02):
                await stop.wait()
        except TimeoutError:
            pass
    return answered
