"""The client's end of exec, attach and port-forward sessions.

Decides nothing: it opens what streams.py and portforward.py serve. Used by tests and by commands that do without
kubectl. The owner of what is returned closes it.

Spec: as in streams.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from tiphys.wire.http_client import HttpPool
from tiphys.wire.message import Connection
from tiphys.wire.spdysession import SpdySession
from tiphys.wire.streams import CLOSE, ERROR, RESIZE, STDIN
from tiphys.wire.websocket import TunnelConnection, WebSocket, connect_websocket


async def connect_spdy(
    pool: HttpPool, target: str, headers: Mapping[str, str], versions: Sequence[str], *, method: str = "POST"
) -> tuple[SpdySession, str, Connection]:
    """Open a SPDY session: return it (its `run` is the caller's), the chosen version, and the connection to close.

    Raises ConnectionError with the server's words when it refuses.
    """
    handshake = {**headers, "Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    if versions:
        handshake["X-Stream-Protocol-Version"] = ", ".join(versions)
    status, answered, connection = await pool.open_upgrade(method, target, handshake)
    if isinstance(connection, bytes):
        raise ConnectionError(f"the server refused the SPDY session with {status}: {connection[:500]!r}")
    return SpdySession(connection, client=True), answered.get("x-stream-protocol-version", ""), connection


async def connect_tunnel(
    pool: HttpPool, target: str, headers: Mapping[str, str]
) -> tuple[SpdySession, WebSocket, Connection]:
    """Open a port-forward session as new clients do: SPDY within a WebSocket."""
    websocket, _, connection = await connect_websocket(pool, target, headers, ["SPDY/3.1+portforward.k8s.io"])
    return SpdySession(TunnelConnection(websocket), client=True), websocket, connection


class RemoteCommand:
    """A command in a container, over a WebSocket (v5). Read `output` to its end, then ask for `status`."""

    def __init__(self, websocket: WebSocket, connection: Connection) -> None:
        self._websocket = websocket
        self._connection = connection
        self._status: dict[str, Any] = {}

    @classmethod
    async def open(cls, pool: HttpPool, target: str, headers: Mapping[str, str]) -> RemoteCommand:
        """`target` is the exec or attach path with its query. Raises ConnectionError when the server refuses."""
        websocket, _, connection = await connect_websocket(
            pool, target, headers, ["v5.channel.k8s.io", "v4.channel.k8s.io"]
        )
        return cls(websocket, connection)

    async def write_stdin(self, data: bytes) -> None:
        await self._websocket.send(bytes([STDIN]) + data)

    async def close_stdin(self) -> None:
        await self._websocket.send(bytes([CLOSE, STDIN]))

    async def resize(self, width: int, height: int) -> None:
        await self._websocket.send(bytes([RESIZE]) + orjson.dumps({"Width": width, "Height": height}))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (1, stdout bytes) and (2, stderr bytes) until the session ends."""
        while (message := await self._websocket.receive()) is not None:
            if message[:1] == bytes([ERROR]):
                if len(message) > 1:
                    self._status = orjson.loads(message[1:])
            elif len(message) > 1:
                yield message[0], message[1:]

    def status(self) -> dict[str, Any]:
        """Return the Status that ended the command; empty when the connection broke before."""
        return self._status

    async def close(self) -> None:
        await self._websocket.close()
        self._connection.close()
        await asyncio.sleep(0)
