"""Too much at once: writers, connections, requests, and watches that nobody reads. Bounded, and nobody else is hurt."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack

from apiserver_process import ApiServerProcess, Wire
from bad_input_fixtures import CONFIGMAPS, bystander, server, wire

__all__ = ["bystander", "server", "wire"]

MIB = 1024 * 1024
PENDING_BYTES = 4 * MIB
"""What the server keeps for a watcher that does not read."""
KERNEL_BYTES = 8 * MIB
"""At most what the kernel's buffers of one connection take here."""


async def _count_up(server: ApiServerProcess, name: str, times: int) -> int:
    """Add 1 to the counter in an object `times` times, again after each conflict; return the conflicts."""
    conflicts = 0
    async with server.wire() as wire:
        while times:
            current = (await wire.request("GET", f"{CONFIGMAPS}/{name}")).json
            current["data"]["n"] = str(int(current["data"]["n"]) + 1)
            reply = await wire.request("PUT", f"{CONFIGMAPS}/{name}", current)
            assert reply.status in (200, 409), reply.body
            if reply.status == 200:
                times -= 1
            else:
                conflicts += 1
    return conflicts


async def test_many_writers_of_one_object_lose_no_update(server: ApiServerProcess, wire: Wire) -> None:
    made = await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "counter"}, "data": {"n": "0"}})
    assert made.status == 201
    await asyncio.gather(*(_count_up(server, "counter", 10) for _ in range(10)))
    assert (await wire.request("GET", f"{CONFIGMAPS}/counter")).json["data"]["n"] == "100"
    assert (await wire.request("DELETE", f"{CONFIGMAPS}/counter")).status == 200


async def test_many_patches_of_one_object_all_happen(server: ApiServerProcess, wire: Wire) -> None:
    assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "patches"}})).status == 201

    async def patch(number: int) -> None:
        async with server.wire() as own:
            for step in range(5):
                body = {"data": {f"k{number}-{step}": "x"}}
                status = 409  # told when others were faster too often; nothing of it has happened then
                while status == 409:
                    reply = await own.request("PATCH", f"{CONFIGMAPS}/patches", body, "application/merge-patch+json")
                    status = reply.status
                assert status == 200, reply.body

    await asyncio.gather(*(patch(number) for number in range(20)))
    assert len((await wire.request("GET", f"{CONFIGMAPS}/patches")).json["data"]) == 100
    assert (await wire.request("DELETE", f"{CONFIGMAPS}/patches")).status == 200


async def test_every_2xx_of_a_storm_of_creates_is_there_with_its_own_revision(
    server: ApiServerProcess, wire: Wire
) -> None:
    revisions: dict[str, str] = {}

    async def create(number: int) -> None:
        async with server.wire() as own:
            for step in range(20):
                name = f"storm{number}-{step}"
                reply = await own.request("POST", CONFIGMAPS, {"metadata": {"name": name}})
                assert reply.status == 201, reply.body
                revisions[name] = reply.json["metadata"]["resourceVersion"]

    await asyncio.gather(*(create(number) for number in range(50)))
    assert len(set(revisions.values())) == 1_000
    assert b"database is locked" not in server.log.read_bytes()
    listed = (await wire.request("GET", CONFIGMAPS)).json["items"]
    assert revisions.items() <= {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in listed}.items()
    assert (await wire.request("DELETE", CONFIGMAPS + "?labelSelector=!keep")).status == 200
    assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "present"}})).status == 201


async def test_500_idle_connections_and_watches_cost_little_and_are_given_back(
    server: ApiServerProcess, wire: Wire
) -> None:
    context = server.context()
    assert (await wire.request("GET", "/version")).status == 200
    before_bytes, before_files = server.rss_bytes(), server.descriptors()
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(server.wire(context)) for _ in range(500)]
        for own in idle[:100]:
            await own.send(f"GET {CONFIGMAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await own.head() or (0, {}))[0] == 200
        assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "beside"}})).status == 201
        assert (await wire.request("DELETE", f"{CONFIGMAPS}/beside")).status == 200
        assert server.descriptors() >= before_files + 500
        assert server.rss_bytes() - before_bytes < 100 * MIB
    while server.descriptors() > before_files:  # the server sees the ends one after another
        assert (await wire.request("GET", "/version")).status == 200


async def _unread_watch(server: ApiServerProcess) -> Wire:
    """Open a watch on a socket with a small buffer and never read it."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=server.context(), server_hostname="127.0.0.1", limit=16 * 1024
    )
    unread = Wire(reader, writer)
    await unread.send(f"GET {CONFIGMAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await unread.head() or (0, {}))[0] == 200
    return unread


async def test_watches_that_nobody_reads_are_closed_within_their_bound(server: ApiServerProcess, wire: Wire) -> None:
    unread = [await _unread_watch(server) for _ in range(5)]
    before_bytes = server.rss_bytes()
    path = f"{CONFIGMAPS}/present"
    written = 0
    for _ in range(40):
        patch = {"data": {"x": os.urandom(250_000).hex()}}
        reply = await wire.request("PATCH", path, patch, "application/merge-patch+json")
        assert reply.status == 200
        written += len(reply.body)
    grown = server.rss_bytes() - before_bytes
    assert written > PENDING_BYTES + KERNEL_BYTES
    assert grown < len(unread) * PENDING_BYTES + 60 * MIB, grown
    for watch in unread:
        taken = 0
        try:
            while piece := await watch.chunk():
                taken += len(piece)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        assert 0 < taken < PENDING_BYTES + KERNEL_BYTES, taken
        watch.close()
    assert (await wire.request("DELETE", path)).status == 200


async def test_a_storm_of_requests_leaves_memory_and_descriptors_where_they_were(
    server: ApiServerProcess, wire: Wire
) -> None:
    context = server.context()

    async def storm(times: int) -> None:
        async def client(number: int) -> None:
            for step in range(times):
                async with server.wire(context) as own:
                    body = os.urandom(20_000).hex().encode()
                    assert (await own.request("POST", CONFIGMAPS, b'{"data":{"x":5,"' + body + b'":1}}')).status == 400
                    query = f"labelSelector=a{number}-{step}+in+(" + "b," * 500 + "c)"
                    assert (await own.request("GET", f"{CONFIGMAPS}?{query}")).status == 200
                    assert (await own.request("GET", f"{CONFIGMAPS}/no-{number}-{step}")).status == 404
                    token = {"Authorization": f"Bearer x{number}-{step}"}
                    await own.request("GET", "/api", headers=token)

        await asyncio.gather(*(client(number) for number in range(20)))

    await storm(3)  # what is learnt once: caches, arenas
    before_bytes, before_files = server.rss_bytes(), server.descriptors()
    await storm(8)
    assert server.rss_bytes() - before_bytes < 24 * MIB
    while server.descriptors() > before_files:
        assert (await wire.request("GET", "/version")).status == 200
