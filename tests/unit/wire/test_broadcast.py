"""Broadcasts over real sockets: whatever happens to its members, each gets every piece once and in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tiphys.wire.broadcast import Broadcast
from tiphys.wire.message import Answer, Request, Sink, Stream
from tiphys.wire.server import HttpServer

GET = b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n"
STEPS = 300
LARGE = 300_000
"""More than a socket takes while nobody reads."""


@dataclass
class Member:
    """One client and what it must get."""

    sink: Sink
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    owed: list[bytes] = field(default_factory=list)
    joined: bool = False
    closed: bool = False

    async def read(self) -> bytes:
        """Return what comes until the stream's end."""
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:size]
        return body


@asynccontextmanager
async def members(count: int, request: bytes = GET) -> AsyncIterator[list[Member]]:
    sinks: list[Sink] = []

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            return lambda: None

        return Stream(start)

    server = HttpServer(handler)
    port = await server.start("127.0.0.1", 0)
    made: list[Member] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            made.append(Member(sinks[-1], reader, writer))
        yield made
    finally:
        for member in made:
            member.writer.close()
        await server.stop(0)


def step(draw: random.Random, number: int, broadcast: Broadcast, made: list[Member]) -> None:
    """Do one thing to the broadcast or to one of its members, and note who must get what."""
    member = draw.choice(made)
    data = b"%d," % number * (LARGE // 4 if draw.random() < 0.1 else 1)
    what = draw.choice(("send", "send", "send", "alone", "join", "join", "leave", "close"))
    if what == "send":
        broadcast.send(data)
        for each in made:
            if each.joined:
                each.owed.append(data)
    elif what == "alone" and not member.closed:
        member.sink.send(data)
        member.owed.append(data)
    elif what == "join" and not member.joined and not member.closed:
        broadcast.add(member.sink)
        member.joined = True
    elif what == "leave" and member.joined:
        broadcast.discard(member.sink)
        member.joined = False
    elif what == "close" and draw.random() < 0.1:
        member.sink.close()
        broadcast.discard(member.sink)
        member.closed, member.joined = True, False


@pytest.mark.parametrize("seed", range(12))
async def test_each_member_gets_every_piece_once_and_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr("tiphys.wire.server.FLUSHED_A_TURN", draw.choice((1, 3, 256)))
    broadcast = Broadcast()
    async with members(6) as made:
        for number in range(STEPS):
            step(draw, number, broadcast, made)
            if draw.random() < 0.5:
                await asyncio.sleep(0)
        for member in made:
            member.sink.close()
            broadcast.discard(member.sink)
        got = await asyncio.wait_for(asyncio.gather(*(member.read() for member in made)), 10)
        for member, body in zip(made, got, strict=True):
            assert body == b"".join(member.owed)
        assert len(broadcast) == 0


async def test_one_who_takes_nothing_holds_nobody_and_catches_up() -> None:
    broadcast = Broadcast()
    async with members(3) as made:
        for member in made:
            broadcast.add(member.sink)
        slow, *quick = made
        reading = [asyncio.create_task(member.read()) for member in quick]
        pieces = [bytes([65 + number]) * LARGE for number in range(26)]
        for piece in pieces:
            broadcast.send(piece)
            await asyncio.sleep(0)
        assert slow.sink.pending_bytes() > LARGE
        for member in quick:
            member.sink.close()
        assert [len(body) for body in await asyncio.wait_for(asyncio.gather(*reading), 10)] == [26 * LARGE] * 2
        catching_up = asyncio.create_task(slow.read())
        await asyncio.wait_for(slow.sink.drain(), 10)
        broadcast.send(b"last")
        slow.sink.close()
        assert await asyncio.wait_for(catching_up, 10) == b"".join(pieces) + b"last"


async def test_one_who_goes_away_in_the_middle_is_let_go() -> None:
    broadcast = Broadcast()
    async with members(3) as made:
        for member in made:
            broadcast.add(member.sink)
        broadcast.send(b"first")
        await asyncio.sleep(0)
        made[0].writer.transport.abort()
        broadcast.send(b"second")
        for _ in range(50):
            await asyncio.sleep(0)
            broadcast.send(b".")
        for member in made[1:]:
            member.sink.close()
            assert await asyncio.wait_for(member.read(), 5) == b"firstsecond" + b"." * 50
        assert made[0].sink.pending_bytes() == 0


async def test_a_client_of_http_1_0_gets_the_bytes_without_chunks() -> None:
    broadcast = Broadcast()
    async with members(1, b"GET /watch HTTP/1.0\r\n\r\n") as [member]:
        broadcast.add(member.sink)
        for data in (b"a", b"b", b"c"):
            broadcast.send(data)
            await asyncio.sleep(0)
        member.sink.close()
        assert await asyncio.wait_for(member.reader.read(), 5) == b"abc"
