"""Port forwarding over an upgraded connection: which protocol, which stream belongs to which port.

Decides the protocol from the request's headers; `connect` opens the pod's port. Invariant: each forwarded connection
has its own pair of tasks, and its failure is told on its error stream without touching the others.

Spec: Kubernetes port-forward protocol (portforward.k8s.io over SPDY/3.1), KEP-4006 (the same tunnelled in a WebSocket),
and the older WebSocket form with a pair of channels for each port.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tiphys.base.errors import ApiError, bad_request
from tiphys.wire.message import Connection, Request, Upgrade
from tiphys.wire.spdysession import SpdySession, SpdyStream
from tiphys.wire.websocket import (
    NORMAL,
    Channels,
    TunnelConnection,
    WebSocket,
    accept_headers,
    is_websocket,
    offered_protocols,
)

log = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
PORTS_LIMIT = 100
READ_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 30.0


class PortReader(Protocol):
    """The reading half of asyncio.StreamReader."""

    async def read(self, n: int = -1) -> bytes: ...


class PortWriter(Protocol):
    """The writing half of asyncio.StreamWriter."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...


Connect = Callable[[int], Awaitable[tuple[PortReader, PortWriter]]]


def upgrade_port_forward(request: Request, connect: Connect, ports: Sequence[int] = ()) -> Upgrade:
    """Return the answer to a portForward request.

    `connect` opens a port and raises OSError or TiphysError, whose text the client sees. `ports` (the query's) are
    needed by the WebSocket channel form alone. Raises ApiError when no protocol fits.
    """
    if is_websocket(request):
        return _upgrade_websocket(request, connect, ports)
    if request.headers.get("upgrade", "").lower() != "spdy/3.1":
        raise bad_request("Upgrade request required")
    offered = [name.strip() for name in request.headers.get("x-stream-protocol-version", "").split(",") if name.strip()]
    if offered and PROTOCOL not in offered:
        message = f"unable to negotiate protocol: client supports {offered}, server accepts [{PROTOCOL}]"
        raise ApiError(403, "Forbidden", message, headers=[("X-Accepted-Stream-Protocol-Versions", PROTOCOL)])

    async def run(connection: Connection) -> None:
        await _SpdyForward(SpdySession(connection, client=False), connect).run()

    return Upgrade("SPDY/3.1", run, [("X-Stream-Protocol-Version", PROTOCOL)])


def _upgrade_websocket(request: Request, connect: Connect, ports: Sequence[int]) -> Upgrade:
    offered = offered_protocols(request)
    if TUNNEL_PROTOCOL in offered:

        async def run_tunnel(connection: Connection) -> None:
            websocket = WebSocket(connection)
            await _SpdyForward(SpdySession(TunnelConnection(websocket), client=False), connect).run()
            await websocket.close(NORMAL)

        return Upgrade("websocket", run_tunnel, accept_headers(request, TUNNEL_PROTOCOL))
    protocol = next((name for name in offered if name in CHANNEL_PROTOCOLS), "")
    if offered and not protocol:
        raise bad_request(f"none of the WebSocket protocols {offered} is spoken; offer {TUNNEL_PROTOCOL}")
    if not 0 < len(ports) <= PORTS_LIMIT:
        raise bad_request(f"a port forward over WebSocket channels needs 1 to {PORTS_LIMIT} `ports` in its query")

    async def run_channels(connection: Connection) -> None:
        await _ChannelForward(WebSocket(connection), "base64" in protocol, connect, ports).run()

    return Upgrade("websocket", run_channels, accept_headers(request, protocol))


async def _open(connect: Connect, port: int) -> tuple[PortReader, PortWriter] | str:
    """Connect to a port of the pod, or return the words for the client."""
    from tiphys.base.errors import TiphysError

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await connect(port)
    except (OSError, TiphysError) as error:
        return f"error forwarding port {port}: {error or type(error).__name__}"


class _SpdyForward:
    """Pairs of data and error streams, matched by their `requestid`."""

    def __init__(self, session: SpdySession, connect: Connect) -> None:
        self._session = session
        self._connect = connect
        self._half: dict[str, SpdyStream] = {}
        """Streams whose partner has not come yet, by request id."""

    async def run(self) -> None:
        accepting = asyncio.create_task(self._accept(), name="port-forward-streams")
        try:
            await self._session.run()
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as group:
            while (stream := await self._session.accept()) is not None:
                port, request_id = stream.headers.get("port", ""), stream.headers.get("requestid", "")
                kind = stream.headers.get("streamtype")
                if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
                    log.debug("a port-forward stream of type %r for port %r was refused", kind, port)
                    await stream.reset()
                    continue
                partner = self._half.pop(request_id, None)
                if partner is None:
                    self._half[request_id] = stream
                    continue
                data, error = (stream, partner) if kind == "data" else (partner, stream)
                group.create_task(self._forward(data, error, int(port)), name=f"port-forward-{port}")

    async def _forward(self, data: SpdyStream, error: SpdyStream, port: int) -> None:
        try:
            opened = await _open(self._connect, port)
            if isinstance(opened, str):
                await error.write(opened.encode(), fin=True)
                await data.reset()
                return
            reader, writer = opened
            inward = asyncio.create_task(_copy_in(data.read, writer, data), name=f"port-forward-in-{port}")
            try:
                while piece := await reader.read(READ_BYTES):
                    await data.write(piece)
                await data.finish()
                await error.finish()
            finally:
                inward.cancel()
                await asyncio.wait([inward])
                writer.close()
        except OSError as failure:
            log.debug("a forwarded connection to port %d ended: %s", port, failure)
        finally:
            self._session.forget(data)
            self._session.forget(error)


async def _copy_in(read: Callable[[], Awaitable[bytes]], writer: PortWriter, stream: SpdyStream | None = None) -> None:
    try:
        while piece := await read():
            writer.write(piece)
            await writer.drain()
        if stream is not None and stream.was_reset:
            writer.close()
        else:
            writer.write_eof()
    except (OSError, NotImplementedError) as error:
        log.debug("the forwarded port takes no more: %s", error)


class _ChannelForward:
    """Channels 2n and 2n+1 are data and errors of the n-th port. One connection for each port."""

    def __init__(self, websocket: WebSocket, is_base64: bool, connect: Connect, ports: Sequence[int]) -> None:
        self._websocket = websocket
        self._channels = Channels(websocket, is_base64=is_base64)
        self._connect = connect
        self._ports = ports
        self._inward: list[asyncio.Queue[bytes]] = [asyncio.Queue(16) for _ in ports]

    async def run(self) -> None:
        forwards = asyncio.create_task(self._forward_all(), name="port-forward-channels")
        pump = asyncio.create_task(self._pump(), name="port-forward-input")
        try:
            await asyncio.wait([forwards, pump], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (forwards, pump):
                task.cancel()
            await asyncio.wait([forwards, pump])
            await self._websocket.close(NORMAL)

    async def _pump(self) -> None:
        while (message := await self._channels.receive()) is not None:
            channel, data = message
            if channel % 2 == 0 and 0 <= channel // 2 < len(self._inward) and data:
                await self._inward[channel // 2].put(data)

    async def _forward_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for index, port in enumerate(self._ports):
                group.create_task(self._forward(index, port), name=f"port-forward-{port}")

    async def _forward(self, index: int, port: int) -> None:
        data, error = 2 * index, 2 * index + 1
        try:
            for channel in (data, error):
                await self._channels.send(channel, struct.pack("<H", port))
            opened = await _open(self._connect, port)
            if isinstance(opened, str):
                await self._channels.send(error, opened.encode())
                return
            reader, writer = opened
            inward = asyncio.create_task(_copy_in(self._inward[index].get, writer), name=f"port-forward-in-{port}")
            try:
                while piece := await reader.read(READ_BYTES):
                    await self._channels.send(data, piece)
            finally:
                inward.cancel()
                await asyncio.wait([inward])
                writer.close()
        except OSError as failure:
            log.debug("a forwarded connection to port %d ended: %s", port, failure)
