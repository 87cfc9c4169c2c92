"""Requests that two servers could read differently, and offers to upgrade that nobody takes up."""

from __future__ import annotations

import asyncio

import pytest

from tiphys.wire.message import Answer, Request, Response
from tiphys.wire.server import HttpServer

BODY = b"0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /first HTTP/1.1\r\nHost: x\r\n"
AMBIGUOUS = {
    "two hosts": b"GET /first HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "gzip, then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY,
    "chunked in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a length and a coding": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_an_ambiguous_request_reaches_no_handler_and_nothing_behind_it_is_read(data: bytes, split: bool) -> None:
    handled, answer = await converse(data, split=split)
    assert not handled
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert b"Connection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_an_upgrade_that_nobody_takes_up_is_answered_and_ends_the_connection() -> None:
    offer = b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    handled, answer = await converse(offer + b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
    assert handled == ["/first"]
    assert answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close\r\n" in answer


async def converse(data: bytes, *, split: bool = False) -> tuple[list[str], bytes]:
    """Send bytes; return the paths that reached the handler and the first answer's bytes."""
    handled: list[str] = []

    async def handler(request: Request) -> Answer:
        handled.append(request.path)
        return Response(200, b"{}")

    server = HttpServer(handler)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in [data[i : i + 1] for i in range(len(data))] if split else [data]:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 5)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        return handled, answer + await asyncio.wait_for(reader.read(65_536), 5)
    finally:
        writer.transport.abort()
        await server.stop(0)
