"""A server that has no room says when to come again, and the client does; what is about an object is told at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tiphys.base.errors import ApiError
from tiphys.client.http import HttpClient
from tiphys.wire.message import Request, Response
from tiphys.wire.server import HttpServer

BUSY = Response(429, b"Too many requests, please try again later.\n", "text/plain", [("Retry-After", "0")])
STATUS = b'{"kind":"Status","status":"Failure","reason":"TooManyRequests","message":"budget","code":429}'


@asynccontextmanager
async def serving(*answers: Response) -> AsyncIterator[tuple[HttpClient, list[str]]]:
    left, asked = list(answers), []

    async def handle(request: Request) -> Response:
        asked.append(request.path)
        return left.pop(0) if len(left) > 1 else left[0]

    server = HttpServer(handle)
    client = HttpClient(f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}")
    try:
        yield client, asked
    finally:
        await client.close()
        await server.stop(0)


async def test_a_busy_server_is_asked_again() -> None:
    async with serving(BUSY, BUSY, Response(200, b'{"a":1}')) as (client, asked):
        assert await client.request("GET", "/x") == b'{"a":1}'
        assert len(asked) == 3


async def test_it_gives_up_in_the_end() -> None:
    async with serving(BUSY) as (client, asked):
        with pytest.raises(ApiError) as caught:
            await client.request("GET", "/x")
        assert caught.value.code == 429
        assert len(asked) == 10


async def test_a_refusal_that_is_about_an_object_is_told_at_once() -> None:
    async with serving(Response(429, STATUS, headers=[("Retry-After", "10")])) as (client, asked):
        with pytest.raises(ApiError, match="budget"):
            await client.request("POST", "/eviction", body=b"{}")
        assert len(asked) == 1
