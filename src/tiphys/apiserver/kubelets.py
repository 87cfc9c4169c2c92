"""How the API server reaches kubelets and other backends behind its proxy paths: addresses, pools, spliced bytes.

Nothing of a session is decoded here: after the answer's head, bytes go both ways as they come. The kubelet speaks
WebSocket and SPDY itself.

Spec: Kubernetes documentation, "Control plane to node communication".
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tiphys.api.kind import JsonObject
from tiphys.base.errors import ApiError, bad_request, internal, service_unavailable
from tiphys.wire.http_client import HttpPool, StreamedAnswer
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade

_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
)
_CREDENTIALS = frozenset({"authorization", "host", "content-length"})
PENDING_LIMIT_BYTES = 4 * 1024 * 1024
"""What a client that does not read may leave waiting before its stream is closed."""
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a proxied request goes. `tls` None means plain HTTP."""

    address: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str = ""


class KubeletDialer:
    """Makes targets and keeps connection pools. `tls` holds the client certificate that kubelets accept."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._pools: dict[Target, HttpPool] = {}

    def kubelet(self, node: JsonObject) -> Target:
        """Return the target of a node's kubelet. Raises ApiError when the node tells no address."""
        status, name = node.get("status") or {}, node["metadata"]["name"]
        addresses = {a.get("type"): a.get("address", "") for a in status.get("addresses") or ()}
        address = addresses.get("InternalIP") or addresses.get("ExternalIP") or addresses.get("Hostname") or ""
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 0
        if not address or not port:
            raise internal(f"node {name} tells no address of its kubelet; wait until it has registered itself")
        return Target(address, port, self._tls, name)

    def pool(self, target: Target) -> HttpPool:
        """Return the pool of connections to a target."""
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = HttpPool(
                target.address, target.port, target.tls, server_name=target.server_name
            )
        return pool

    async def forward(self, request: Request, target: Target, path: str, *, checked: bool = False) -> Answer:
        """Send the request on to `path` of a target and answer with what comes back, upgrades included.

        `checked`: a refused GET is raised as ApiError, because its text is meant for the client of the API server.
        """
        pool = self.pool(target)
        try:
            if "upgrade" in request.headers.get("connection", "").lower():
                return await _forward_upgrade(request, pool, path)
            if request.method == "GET":
                answer = await pool.stream("GET", path, _headers(request), timeout_s=CONNECT_TIMEOUT_S * 3)
                if checked and answer.status >= 300:
                    raise await _refusal(answer)
                return _streamed(answer)
            whole = await pool.request(request.method, path, _headers(request), request.body)
            return Response(whole.status, whole.body, whole.headers.get("content-type", ""), _kept(whole.headers))
        except (OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise service_unavailable(
                f"error trying to reach service: dial {target.address}:{target.port}: {reason}"
            ) from error

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()


async def _forward_upgrade(request: Request, pool: HttpPool, path: str) -> Answer:
    headers = _headers(request)
    headers["Connection"] = "Upgrade"
    headers["Upgrade"] = request.headers.get("upgrade", "")
    status, answer_headers, remote = await pool.open_upgrade(request.method, path, headers)
    if isinstance(remote, bytes):
        if status >= 400 and not answer_headers.get("content-type", "").startswith("application/json"):
            text = remote.decode("utf-8", "replace").strip()
            raise bad_request(text) if status == 400 else ApiError(status, "", text or f"the kubelet answered {status}")
        return Response(status, remote, answer_headers.get("content-type", ""), _kept(answer_headers))
    peer: Connection = remote

    async def run(client: Connection) -> None:
        await splice(client, peer)

    protocol = answer_headers.get("upgrade", request.headers.get("upgrade", ""))
    kept = [(k, v) for k, v in answer_headers.items() if k not in _HOP_HEADERS and k not in ("upgrade", "date")]
    return Upgrade(protocol, run, kept)


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


async def _refusal(answer: StreamedAnswer) -> ApiError:
    try:
        text = (await answer.read_all()).decode("utf-8", "replace").strip()
    finally:
        answer.close()
    if answer.status == 400:
        return bad_request(text)
    return ApiError(answer.status, "NotFound", text) if answer.status == 404 else internal(text)


def _streamed(answer: StreamedAnswer) -> Answer:
    """Answer with a body that comes over time: followed logs, and large ones without holding them."""

    def start(sink: Sink) -> Callable[[], None]:
        async def pump() -> None:
            try:
                while data := await answer.read():
                    sink.send(data)
                    while sink.pending_bytes() > PENDING_LIMIT_BYTES:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)  # the sink does not tell when it drained
            except ConnectionError:
                pass  # the backend broke off: the client sees the end of the body
            finally:
                answer.close()
                sink.close()

        task = asyncio.create_task(pump())

        def stop() -> None:
            task.cancel()

        return stop

    return Stream(start, answer.status, answer.headers.get("content-type", ""), _kept(answer.headers))


def _headers(request: Request) -> dict[str, str]:
    """Return the request's headers for the backend: no hop-by-hop ones, no credentials of the client."""
    return {
        name: value
        for name, value in request.headers.items()
        if name not in _HOP_HEADERS
        and name not in _CREDENTIALS
        and name != "upgrade"
        and not name.startswith("impersonate-")
    }


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    dropped = _HOP_HEADERS | {"content-type", "content-length", "date"}
    return [(name, value) for name, value in headers.items() if name not in dropped]
