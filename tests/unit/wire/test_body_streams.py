"""Bodies that go on to another server as they come: the server's side, the client's, and both in a row."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tiphys.apiserver.backends import Backends, Target
from tiphys.base.errors import forbidden
from tiphys.wire.bodystream import BUFFER_BYTES
from tiphys.wire.http_client import HttpPool
from tiphys.wire.message import Answer, Request, Response
from tiphys.wire.server import HttpServer, Limits

LIMITS = Limits(body_bytes=64 * 1024, body_timeout_s=5.0, linger_s=1.0)
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB
Handle = Callable[[Request], Awaitable[Answer]]


@asynccontextmanager
async def serving(handler: Handle, limits: Limits = LIMITS, *, streams: bool = True) -> AsyncIterator[int]:
    server = HttpServer(handler, limits=limits, streams=(lambda request: request.path == "/on") if streams else None)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop(0)


async def digest(request: Request) -> Answer:
    """Answer with the length and the digest of the body."""
    if request.stream is None:
        return Response(200, b"whole %d" % len(request.body))
    seen, size = hashlib.sha256(), 0
    while data := await request.stream.read():
        size += len(data)
        seen.update(data)
    return Response(200, b"%d %b" % (size, seen.hexdigest().encode()))


TOLD = b"%d %b" % (len(LARGE), hashlib.sha256(LARGE).hexdigest().encode())


def chunked(data: bytes, size: int = 70_000) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head.split()[1]), await reader.readexactly(length)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


def head(*lines: str, path: str = "/on") -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


LENGTH = f"Content-Length: {len(LARGE)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(("line", "body"), [(LENGTH, LARGE), (CHUNKED, chunked(LARGE))], ids=["length", "chunked"])
async def test_a_body_of_any_length_is_read_as_it_comes_and_the_connection_goes_on(line: str, body: bytes) -> None:
    async with serving(digest) as port, connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(head(line) + body)
            assert await answer_of(reader) == (200, TOLD)
        writer.write(head("Content-Length: 3") + b"abc")
        assert await answer_of(reader) == (200, b"whole 3"), "small ones are there at once"


async def test_other_paths_keep_their_limit() -> None:
    async with serving(digest) as port, connected(port) as (reader, writer):
        writer.write(head(LENGTH, path="/other"))
        assert (await answer_of(reader))[0] == 413


async def test_a_client_that_expects_it_is_told_to_continue_when_its_body_is_wanted() -> None:
    async def handle(request: Request) -> Answer:
        if "x-refuse" in request.headers:
            raise forbidden("", "pods", "p", "no")
        return await digest(request)

    expect = "Expect: 100-continue"
    async with serving(handle) as port:
        async with connected(port) as (reader, writer):
            writer.write(head(LENGTH, expect))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(LARGE)
            assert await answer_of(reader) == (200, TOLD)
        async with connected(port) as (reader, writer):
            writer.write(head(LENGTH, expect, "X-Refuse: yes"))
            assert (await answer_of(reader))[0] == 403
            assert await reader.read() == b"", "what was not read cannot be followed by another request"


async def test_who_is_answered_early_may_still_be_sending() -> None:
    async def refuse(request: Request) -> Answer:
        raise forbidden("", "pods", "p", "no")

    async with serving(refuse) as port, connected(port) as (reader, writer):
        writer.write(head(LENGTH) + LARGE[:100_000])
        assert (await answer_of(reader))[0] == 403


async def test_a_client_that_breaks_off_is_told_to_the_reader() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(request: Request) -> Answer:
        try:
            return await digest(request)
        except (ConnectionError, asyncio.CancelledError) as error:
            told.set_result(type(error).__name__)
            raise

    async with serving(handle) as port:
        async with connected(port) as (_, writer):
            writer.write(head(LENGTH) + LARGE[:100_000])
            await writer.drain()
        assert await asyncio.wait_for(told, 5) in ("ConnectionError", "CancelledError")


async def test_a_client_that_stops_sending_is_given_up() -> None:
    async with (
        serving(digest, Limits(body_bytes=1024, body_timeout_s=0.05)) as port,
        connected(port) as (reader, writer),
    ):
        writer.write(head(LENGTH) + LARGE[:1000])
        status, body = await answer_of(reader)
        assert (status, b"the client sent nothing of its body" in body) == (500, True)


async def test_nobody_is_read_faster_than_the_body_is_taken() -> None:
    taken, release = asyncio.Event(), asyncio.Event()
    most = 0

    async def handle(request: Request) -> Answer:
        nonlocal most
        assert request.stream is not None
        taken.set()
        await release.wait()
        size = 0
        while data := await request.stream.read():
            size, most = size + len(data), max(most, len(data))
        return Response(200, b"%d" % size)

    body = LARGE * 5
    async with serving(handle) as port, connected(port) as (reader, writer):
        writer.write(head(f"Content-Length: {len(body)}"))
        await taken.wait()
        writer.write(body)
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert writer.transport.get_write_buffer_size() > 0
        release.set()
        assert await answer_of(reader) == (200, b"%d" % len(body))
        assert most < 2 * BUFFER_BYTES


@asynccontextmanager
async def forwarding(backend_port: int) -> AsyncIterator[int]:
    """A server that sends every request on."""
    backends, target = Backends(), Target("127.0.0.1", backend_port, None)

    async def forward(request: Request) -> Answer:
        return await backends.forward(request, target, request.path, timeout_s=5)

    async with serving(forward) as port:
        yield port
    await backends.close()


@pytest.mark.parametrize(("line", "body"), [(LENGTH, LARGE), (CHUNKED, chunked(LARGE))], ids=["length", "chunked"])
async def test_a_body_passes_through_a_proxy(line: str, body: bytes) -> None:
    async with serving(digest) as backend, forwarding(backend) as port, connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(head(line) + body)
            assert await answer_of(reader) == (200, TOLD)


async def test_what_a_backend_answers_before_it_has_the_body_comes_back() -> None:
    async with (
        serving(digest, streams=False) as backend,
        forwarding(backend) as port,
        connected(port) as (reader, writer),
    ):
        writer.write(head(LENGTH) + LARGE[:200_000])
        assert (await answer_of(reader))[0] == 413


async def test_a_backend_that_is_gone_is_told() -> None:
    async with serving(digest) as backend:
        pass
    async with forwarding(backend) as port, connected(port) as (reader, writer):
        writer.write(head(LENGTH) + LARGE)
        assert (await answer_of(reader))[0] == 503


async def test_a_stream_that_fails_on_the_way_fails_the_exchange() -> None:
    class Broken:
        length = None

        async def read(self) -> bytes:
            raise ConnectionError("gone")

        async def read_all(self, limit_bytes: int) -> bytes:
            return await self.read()

    async with serving(digest) as backend:
        pool = HttpPool("127.0.0.1", backend)
        with pytest.raises(ConnectionError, match="gone"):
            await pool.exchange("POST", "/on", None, Broken(), timeout_s=5)
        await pool.close()
