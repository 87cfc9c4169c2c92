"""A whole API server over a memory store, asked in process: test support of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.interface import Store
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Answer, Peer, Request, Response

USERS: Mapping[str, Peer] = {
    "admin": Peer("127.0.0.1", "admin", ("system:masters",)),
    "anonymous": Peer("127.0.0.1"),
}
"""Anybody else is `name` or `name:group`, as a client certificate tells it."""


class Server:
    """One assembled server. `call` sends one request and returns (status, decoded answer or text)."""

    def __init__(self, assembled: Assembled, store: Store, clock: ManualClock) -> None:
        self.assembled = assembled
        self.store = store
        self.clock = clock

    async def answer(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str = "admin",
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        path, _, query = path.partition("?")
        sent = {"user-agent": "test/1.0", **(headers or {})}
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        if data:
            sent.setdefault("content-type", content_type)
        return await self.assembled.handle(Request(method, path, query, sent, data, peer_of(user)))

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        answer = await self.answer(method, path, body, **more)
        assert isinstance(answer, Response), f"{method} {path} answered with a {type(answer).__name__}"
        data = answer.body_bytes()
        return answer.status, orjson.loads(data) if data[:1] in (b"{", b"[") else data.decode()

    async def made(self, path: str, body: Any, **more: Any) -> Any:
        """POST and return the object; anything but 201 fails the test with the server's message."""
        status, answer = await self.call("POST", path, body, **more)
        assert status == 201, answer
        return answer

    async def named(self, path: str) -> Any:
        """GET and return the object."""
        status, answer = await self.call("GET", path)
        assert status == 200, answer
        return answer


def peer_of(user: str) -> Peer:
    if user in USERS:
        return USERS[user]
    name, *groups = user.split(",")
    return Peer("127.0.0.1", name, tuple(groups))


@asynccontextmanager
async def running_server(
    store: Store | None = None, version: tuple[int, int] = (1, 37), seed: int = 1
) -> AsyncIterator[Server]:
    """A server with the namespace `default` and its service account."""
    store, clock = store or MemoryStore(), ManualClock()
    await store.start()
    config = ApiServerConfig(kubernetes_version=version, service_cidr="10.96.0.0/24")
    assembled = await assemble(config, store, clock, Randomness(seed))
    server = Server(assembled, store, clock)
    try:
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        if (await server.call("GET", f"{accounts}/default"))[0] == 404:  # not a restart
            await server.made(accounts, {"metadata": {"name": "default"}})
        yield server
    finally:
        await assembled.stop()
        await store.stop()
