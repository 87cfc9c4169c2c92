"""Requests sent on to other servers: kubelets, pods and services behind proxy paths, aggregated API servers.

Decides which headers pass, which connection is taken and in what form the answer goes back. Bodies are not looked at,
but for the links of HTML pages (linkrewrite.py); those of requests go on as they come when they are large, of any size.
After an upgrade bytes go both ways as they come.

Bounds: a client that does not read leaves PENDING_LIMIT_BYTES waiting; at most POOLS_LIMIT backends keep connections.

Spec: RFC 9110 section 7.6.1 (hop-by-hop headers); Kubernetes documentation, "Access Services Running on Clusters".
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiphys.apiserver.authentication import WEBSOCKET_TOKEN
from tiphys.apiserver.frontproxy import is_identity_header
from tiphys.base.errors import ApiError, service_unavailable
from tiphys.wire.http_client import HttpPool, StreamedAnswer
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade

if TYPE_CHECKING:
    from tiphys.apiserver.linkrewrite import Links

HeaderLines = Sequence[tuple[str, str]]
PENDING_LIMIT_BYTES = 4 * 1024 * 1024
"""What a client that does not read may leave waiting before its backend is not read either."""
WHOLE_LIMIT_BYTES = 256 * 1024
"""Answers of a known size up to this are sent whole, with their length."""
PAGE_LIMIT_BYTES = 8 * 1024 * 1024
"""HTML pages larger than this are refused: their links cannot be rewritten."""
POOLS_LIMIT = 256
UPGRADE_TIMEOUT_S = 30.0

_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
_OURS = frozenset({"authorization", "content-length", "host", "expect", "sec-websocket-protocol"})
"""Of a request: credentials end here, and the rest is said anew."""
_RESAID = frozenset({"content-type", "content-length", "date"})
"""Of an answer: said by the connection to the client."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes on to. `tls` None means plain HTTP."""

    address: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str = ""

    @property
    def host(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


class Backends:
    """Connection pools by target, and what goes over them. `close` when done."""

    def __init__(self) -> None:
        self._pools: dict[Target, HttpPool] = {}

    def pool(self, target: Target) -> HttpPool:
        """Return the pool of connections to a target."""
        pool = self._pools.pop(target, None)
        if pool is None:
            self._make_room()
            pool = HttpPool(target.address, target.port, target.tls, server_name=target.server_name)
        self._pools[target] = pool
        return pool

    def _make_room(self) -> None:
        """Forget the targets that were not used for longest, unless something is under way with them."""
        surplus = len(self._pools) - POOLS_LIMIT + 1
        for target in list(self._pools)[:surplus] if surplus > 0 else ():
            if not self._pools[target].busy:
                self._pools.pop(target).drop_idle()

    async def forward(
        self,
        request: Request,
        target: Target,
        path: str,
        *,
        headers: HeaderLines | None = None,
        links: Links | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send the request on to `path` (encoded, with its query) and answer with what comes back, upgrades included.

        `headers` are those to send, `passed_headers(request)` by default; `timeout_s` is for the head of the answer.
        Raises ApiError(503) when the target cannot be reached.
        """
        sent = passed_headers(request) if headers is None else headers
        try:
            if is_upgrade(request):
                return await self.upgrade(request, target, path, sent)
            pool = self.pool(target)
            body = request.stream or request.body or None
            answer = await pool.exchange(request.method, path, sent, body, timeout_s=timeout_s)
            return await relay(request, answer, links)
        except (OSError, TimeoutError) as error:
            raise unreachable(target, error) from error

    async def upgrade(self, request: Request, target: Target, path: str, headers: HeaderLines) -> Answer:
        """Ask for another protocol; answer with the session, or with what was answered instead. Raises OSError."""
        wanted = request.headers.get("upgrade", "")
        sent = [*headers, ("Connection", "Upgrade"), ("Upgrade", wanted)]
        pool = self.pool(target)
        status, told, remote = await pool.open_upgrade(request.method, path, sent, timeout_s=UPGRADE_TIMEOUT_S)
        if isinstance(remote, bytes):
            return Response(status, remote, told.get("content-type", ""), _kept(list(told.items())))
        peer: Connection = remote

        async def run(client: Connection) -> None:
            await splice(client, peer)

        return Upgrade(told.get("upgrade", wanted), run, _kept(list(told.items())))

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()


def is_upgrade(request: Request) -> bool:
    return "upgrade" in request.headers.get("connection", "").lower() and "upgrade" in request.headers


def passed_headers(request: Request, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the request's headers for a backend: no hop-by-hop ones, no credentials and nobody's identity; the address
    of the client is added to X-Forwarded-For."""
    hop = _HOP_HEADERS | _named_by_connection(request.headers.get("connection", ""))
    passed = [
        (name, value)
        for name, value in request.headers.items()
        if name not in hop
        and name not in _OURS
        and name != "x-forwarded-for"
        and not name.startswith("impersonate-")
        and not is_identity_header(name)
    ]
    protocols = [p.strip() for p in request.headers.get("sec-websocket-protocol", "").split(",")]
    offered = ", ".join(p for p in protocols if p and not p.startswith(WEBSOCKET_TOKEN))
    if offered:
        passed.append(("Sec-WebSocket-Protocol", offered))
    if request.headers.get("te", "").lower() == "trailers":
        passed.append(("te", "trailers"))
    if request.peer.address:
        before = request.headers.get("x-forwarded-for", "")
        passed.append(("X-Forwarded-For", f"{before}, {request.peer.address}" if before else request.peer.address))
    return [*passed, *more]


def _named_by_connection(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


async def relay(request: Request, answer: StreamedAnswer, links: Links | None = None) -> Answer:
    """Return a backend's answer as one of this server; the connection goes back when it was read."""
    headers = _kept(answer.header_lines)
    content_type = answer.headers.get("content-type", "")
    if links is not None and "location" in answer.headers:
        headers = [(n, links.rewrite(v) if n.lower() == "location" else v) for n, v in headers]
    elif links is not None and content_type.partition(";")[0].strip() == "text/html" and request.method != "HEAD":
        return await _page(answer, links, headers, content_type)
    if request.method == "HEAD" or answer.status in (204, 304):
        answer.close()
        length = answer.headers.get("content-length", "")
        if request.method == "HEAD" and length.isdigit():
            headers.append(("Content-Length", length))
        return Response(answer.status, b"", content_type, headers)
    length = answer.headers.get("content-length", "")
    if length.isdigit() and int(length) <= WHOLE_LIMIT_BYTES:
        try:
            return Response(answer.status, await answer.read_all(), content_type, headers)
        finally:
            answer.close()
    return stream_of(answer, headers)


async def _page(answer: StreamedAnswer, links: Links, headers: list[tuple[str, str]], content_type: str) -> Response:
    parts: list[bytes] = []
    try:
        size = 0
        while data := await answer.read():
            parts.append(data)
            size += len(data)
            if size > PAGE_LIMIT_BYTES:
                raise ApiError(502, "InternalError", f"the page is larger than {PAGE_LIMIT_BYTES} bytes")
    finally:
        answer.close()
    from tiphys.apiserver.linkrewrite import rewrite_body  # what it needs is not imported at start

    body = b"".join(parts)
    rewritten = rewrite_body(links, body, answer.headers.get("content-encoding", "").lower())
    return Response(answer.status, body if rewritten is None else rewritten, content_type, headers)


def stream_of(answer: StreamedAnswer, headers: HeaderLines) -> Stream:
    """Return an answer whose body comes over time: followed logs, watches, and large ones without holding them."""

    def start(sink: Sink) -> Callable[[], None]:
        async def pump() -> None:
            try:
                while data := await answer.read():
                    sink.send(data)
                    if sink.pending_bytes() > PENDING_LIMIT_BYTES:
                        await sink.drain()
            except ConnectionError:
                pass  # the backend broke off: the client sees the end of the body
            finally:
                answer.close()
                sink.close()

        task = asyncio.create_task(pump())

        def stop() -> None:
            task.cancel()

        return stop

    return Stream(start, answer.status, answer.headers.get("content-type", ""), headers)


async def splice(one: Connection, other: Connection) -> None:
    """Copy bytes both ways until either side ends; then both are closed."""

    async def copy(source: Connection, sink: Connection) -> None:
        try:
            while data := await source.read():
                await sink.write(data)
        except ConnectionError:
            pass  # one side is gone: the session is over

    tasks = [asyncio.create_task(copy(one, other)), asyncio.create_task(copy(other, one))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        one.close()
        other.close()
        await asyncio.gather(*tasks, return_exceptions=True)


def unreachable(target: Target, error: BaseException) -> ApiError:
    """Return the 503 that tells why a target does not answer."""
    return service_unavailable(f"error trying to reach service: {dial_error(target, error)}")


def dial_error(target: Target, error: BaseException) -> str:
    """Return why a target cannot be talked to, as upstream words it where it has words of its own."""
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {target.host}: connect: connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {target.host}: i/o timeout"
    if isinstance(error, ConnectionResetError):
        return str(error) or f"read tcp {target.host}: connection reset by peer"
    return f"dial tcp {target.host}: {error.strerror if isinstance(error, OSError) and error.strerror else error}"


def _kept(headers: HeaderLines) -> list[tuple[str, str]]:
    named = next((_named_by_connection(value) for name, value in headers if name.lower() == "connection"), frozenset())
    dropped = _HOP_HEADERS | _RESAID | named
    return [(name, value) for name, value in headers if name.lower() not in dropped]
