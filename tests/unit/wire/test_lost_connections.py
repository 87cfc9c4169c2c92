"""What a connection held is free when its client is gone, not when the garbage collector comes by."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tiphys.wire import tls
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade
from tiphys.wire.server import HttpServer

HEAD = b" HTTP/1.1\r\nHost: x\r\n"
REQUESTS = {
    "idle": b"GET /plain" + HEAD + b"\r\n",
    "in a request": b"GET /plain" + HEAD + b"\r\nPOST /plain" + HEAD + b"Content-Length: 10\r\n\r\nabc",
    "large answer": b"GET /large" + HEAD + b"\r\n",
    "stream": b"GET /watch" + HEAD + b"\r\n",
    "upgraded": b"GET /session" + HEAD + b"Connection: Upgrade\r\nUpgrade: test\r\n\r\n",
}


async def handler(request: Request) -> Answer:
    if request.path == "/large":
        return Response(200, b"x" * 20_000_000)
    if request.path == "/watch":

        def start(sink: Sink) -> Callable[[], None]:
            sink.send(b"x" * 20_000_000)
            return lambda: None

        return Stream(start)
    if request.path == "/session":

        async def run(connection: Connection) -> None:
            while await connection.read():
                pass

        return Upgrade("test", run)
    return Response(200, b"plain")


def server_tls(folder: Path) -> ssl.SSLContext:
    pair = tls.issue(tls.create_ca("test"), "test", ip_addresses=["127.0.0.1"], server=True)
    pair.write(folder / "tls.crt", folder / "tls.key")
    return tls.server_context(folder / "tls.crt", folder / "tls.key")


@pytest.mark.parametrize("what", REQUESTS)
def test_a_lost_connection_is_freed_at_once(what: str, tmp_path: Path) -> None:
    async def lose() -> None:
        server = HttpServer(handler, ssl_context=server_tls(tmp_path))
        port = await server.start("127.0.0.1", 0)
        context = tls.client_context(verify=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1000)
        writer.write(REQUESTS[what])
        await reader.readuntil(b"\r\n\r\n")
        [connection] = [weakref.ref(connection) for connection in server.connections]
        gc.disable()
        try:
            writer.transport.abort()
            async with asyncio.timeout(5):
                while connection() is not None:  # noqa: ASYNC110 - nothing tells when memory is free
                    await asyncio.sleep(0.001)
        finally:
            gc.enable()
        await server.stop(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lose())
