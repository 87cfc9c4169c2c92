"""A webhook over real HTTPS: test support of this folder.

`serving(answer)` starts a server whose certificate is good for 127.0.0.1 and for the service `hook.hooks.svc`; what it
answers is a function of the decoded review. `broken(...)` starts servers that misbehave below HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from tiphys.wire.message import Request, Response
from tiphys.wire.server import HttpServer, Limits
from tiphys.wire.tls import KeyPair, create_ca, issue

Review = Mapping[str, Any]
Answer = Callable[[str, Review], Any]
"""(path, decoded review) -> the answer's body: bytes, or an object that is sent as JSON; or a Response."""


@cache
def authority() -> KeyPair:
    return create_ca("webhooks")


@cache
def certificate() -> KeyPair:
    return issue(authority(), "hook", dns_names=["hook.hooks.svc"], ip_addresses=["127.0.0.1"], server=True)


def ca_bundle(ca: KeyPair | None = None) -> str:
    return b64encode((ca or authority()).certificate).decode()


def tls_context(pair: KeyPair | None = None) -> ssl.SSLContext:
    pair = pair or certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        files = Path(folder, "tls.crt"), Path(folder, "tls.key")
        pair.write(*files)
        context.load_cert_chain(*files)
    return context


class Webhook:
    """A running server: its port, and what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.port = 0
        self.reviews: list[Review] = []
        self.requests: list[Request] = []

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        """Return the requests of all reviews."""
        return [review["request"] for review in self.reviews]

    def config(self, path: str = "/") -> dict[str, Any]:
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": ca_bundle()}

    async def handle(self, request: Request) -> Response:
        review = orjson.loads(request.body)
        self.requests.append(request)
        self.reviews.append(review)
        answer = self._answer(request.path, review)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Response):
            return answer
        return Response(200, answer if isinstance(answer, bytes) else orjson.dumps(answer))


@asynccontextmanager
async def serving(answer: Answer, pair: KeyPair | None = None) -> AsyncIterator[Webhook]:
    webhook = Webhook(answer)
    server = HttpServer(webhook.handle, ssl_context=tls_context(pair), limits=Limits(body_bytes=16 * 1024 * 1024))
    webhook.port = await server.start("127.0.0.1", 0)
    try:
        yield webhook
    finally:
        await server.stop(0)


@asynccontextmanager
async def broken(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, tls: bool = True
) -> AsyncIterator[int]:
    """A server that does `talk` on each connection; yields its port."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass  # the API server gave up, which is what these tests are about
        finally:
            writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", 0, ssl=tls_context() if tls else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def allowed(review: Review, **more: Any) -> dict[str, Any]:
    """Return the review that allows."""
    response = {"uid": review["request"]["uid"], "allowed": True, **more}
    return {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}


def denied(review: Review, **status: Any) -> dict[str, Any]:
    """Return the review that refuses, with a status if one is given."""
    return allowed(review) | {
        "response": {"uid": review["request"]["uid"], "allowed": False} | ({"status": status} if status else {})
    }


def patched(review: Review, *operations: Mapping[str, Any]) -> dict[str, Any]:
    """Return the review that allows with a JSON patch."""
    return allowed(review, patchType="JSONPatch", patch=b64encode(orjson.dumps(operations)).decode())
