"""A server behind proxy paths that tells what it was asked, and a whole API server over plain HTTP in front of it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tiphys.apiserver.assembly import ApiServerConfig, assemble
from tiphys.apiserver.kubelets import KubeletDialer
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.http_client import HttpPool
from tiphys.wire.message import Answer, Connection, Peer, Request, Response, Upgrade
from tiphys.wire.server import HttpServer, Limits

ADMIN = Peer("127.0.0.1", "admin", ("system:masters",))


def own_address() -> str:
    """Return an address of this machine that is not its loopback: pods have no others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback: nothing can stand for a pod")
        return str(sock.getsockname()[0])


async def echo(request: Request) -> Answer:
    """Answer with the request as JSON; paths below /special answer in other ways."""
    if request.headers.get("upgrade"):

        async def run(connection: Connection) -> None:
            while data := await connection.read():
                await connection.write(data.upper())

        return Upgrade(request.headers["upgrade"], run)
    if request.path == "/special/redirect":
        return Response(302, b"", "", [("Location", "/elsewhere/?a=b"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    if request.path == "/special/page":
        return Response(200, b'<a href="/rewriteme">test</a>\n<img src=/x.png alt="/no">', "text/html; charset=utf-8")
    if request.path == "/special/large":
        return Response(200, b"x" * 1_000_000, "text/plain")
    if request.path == "/special/empty":
        return Response(204, b"", "")
    told = {
        "method": request.method,
        "path": request.raw_path,
        "query": request.raw_query,
        "headers": dict(request.headers),
        "body": request.body.decode(),
    }
    return Response(418 if request.path == "/special/teapot" else 200, orjson.dumps(told))


class Front:
    """The API server as a client sees it."""

    def __init__(self, pool: HttpPool, address: str, port: int) -> None:
        self.pool = pool
        self.address = address
        self.backend_port = port

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body, which is decoded if it is JSON."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        answer = await self.pool.request(method, path, sent, data)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return (
            answer.status,
            dict(answer.headers),
            orjson.loads(answer.body) if is_json and answer.body else answer.body,
        )

    async def make(self, path: str, body: Any) -> Any:
        status, _, obj = await self.ask("POST", path, body)
        assert status == 201, obj
        return obj

    async def pod(self, name: str, *, ports: tuple[int, ...] = (), address: str = "") -> None:
        """Make a pod whose address is this machine's."""
        listed = [{"containerPort": port, "name": f"p{number}"} for number, port in enumerate(ports)]
        container = {"name": "main", "image": "none", "ports": listed}
        pods = "/api/v1/namespaces/default/pods"
        await self.make(pods, {"metadata": {"name": name}, "spec": {"containers": [container]}})
        status = {"phase": "Running", "podIP": address or self.address, "podIPs": [{"ip": address or self.address}]}
        patch = {"status": status}
        code, _, answer = await self.ask(
            "PATCH", f"{pods}/{name}/status", patch, Content_Type="application/merge-patch+json"
        )
        assert code == 200, answer


@asynccontextmanager
async def front() -> AsyncIterator[Front]:
    """An API server over plain HTTP whose clients are whom they say in X-Test-User, or administrators, and a backend."""
    store = MemoryStore()
    await store.start()
    dialer = KubeletDialer(None)
    assembled = await assemble(ApiServerConfig(dialer=dialer), store, ManualClock(), Randomness(1))

    async def handle(request: Request) -> Answer:
        name = request.headers.get("x-test-user")
        request.peer = Peer("127.0.0.1", name) if name else ADMIN
        return await assembled.handle(request)

    server = HttpServer(handle, streams=assembled.sends_on)
    backend = HttpServer(echo, limits=Limits(body_bytes=64 * 1024 * 1024))
    address = own_address()
    pool = HttpPool("127.0.0.1", await server.start("127.0.0.1", 0))
    made = Front(pool, address, await backend.start(address, 0))
    try:
        await made.make("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        yield made
    finally:
        await pool.close()
        await dialer.close()
        await server.stop(0)
        await backend.stop(0)
        await assembled.stop()
        await store.stop()
