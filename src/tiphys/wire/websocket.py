"""WebSocket connections over an upgraded HTTP connection, on wsproto's framing; both ends.

Decides which requests are WebSocket handshakes and how messages are put together. streams.py speaks Kubernetes'
channel protocols on top. Invariant: a message of more than `MESSAGE_LIMIT_BYTES` closes the connection (1009), never
fills the memory; pings are answered while someone reads.

Spec: RFC 6455.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiphys.base.errors import bad_request
from tiphys.wire.http_client import HttpPool
from tiphys.wire.message import Connection, Request

if TYPE_CHECKING:
    from wsproto.events import Event, Message

MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NORMAL, GOING_AWAY, TOO_BIG, FAILED = 1000, 1001, 1009, 1011


def is_websocket(request: Request) -> bool:
    """Tell whether a request asks for a WebSocket."""
    return (
        request.headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("connection", "").lower()
    )


def offered_protocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order."""
    return [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]


def accept_headers(request: Request, subprotocol: str = "") -> list[tuple[str, str]]:
    """Return the headers of the 101 answer. Raises bad_request when the handshake lacks something."""
    key = request.headers.get("sec-websocket-key", "")
    if not key or request.headers.get("sec-websocket-version") != "13":
        raise bad_request("a WebSocket handshake needs Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key")
    headers = [("Sec-WebSocket-Accept", _accept(key))]
    if subprotocol:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    return headers


def _accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode("latin-1", "replace") + _GUID).digest()).decode()


class WebSocket:
    """Messages in both directions. One reader; any number of writers."""

    def __init__(self, connection: Connection, *, client: bool = False) -> None:
        from wsproto.connection import Connection as Framing
        from wsproto.connection import ConnectionType

        self._connection = connection
        self._framing = Framing(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._events: list[Event] = []
        self._message: list[bytes] = []
        self._size = 0
        self._closing = False
        self._ended = False

    async def receive(self) -> bytes | None:
        """Return the next message (text as UTF-8), None after the end, however it came."""
        from wsproto import events
        from wsproto.utilities import RemoteProtocolError

        while not self._ended:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, events.Message):
                    message = await self._gather(event)
                    if message is not None:
                        return message
                elif isinstance(event, events.Ping):
                    await self._send(event.response())
                elif isinstance(event, events.CloseConnection):
                    self._ended = True
                    if not self._closing:
                        self._closing = True
                        await self._send(event.response())
                    return None
            data = await self._connection.read()
            if not data:
                break
            try:
                self._framing.receive_data(data)
                self._events += self._framing.events()
            except RemoteProtocolError:
                await self.close(1002)
                break
        self._ended = True
        return None

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Send one message. Raises ConnectionError when the peer is gone or the connection is closed."""
        from wsproto.events import BytesMessage, TextMessage

        if self._closing:
            raise ConnectionResetError("the WebSocket is closed")
        await self._send(TextMessage(data=data.decode()) if text else BytesMessage(data=data))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send a close frame. Idempotent; never raises for a peer that is gone."""
        from wsproto.events import CloseConnection

        if self._closing:
            return
        self._closing = True
        try:
            await self._send(CloseConnection(code=code, reason=reason))
        except ConnectionError:
            self._ended = True

    async def _gather(self, event: Message[Any]) -> bytes | None:
        data = event.data
        self._message.append(data.encode() if isinstance(data, str) else bytes(data))
        self._size += len(self._message[-1])
        if self._size > MESSAGE_LIMIT_BYTES:
            await self.close(TOO_BIG, f"a message may have {MESSAGE_LIMIT_BYTES} bytes")
            self._ended = True
            return None
        if not event.message_finished:
            return None
        message = b"".join(self._message)
        self._message.clear()
        self._size = 0
        return message

    async def _send(self, event: Event) -> None:
        from wsproto.utilities import LocalProtocolError

        try:
            data = self._framing.send(event)
        except LocalProtocolError as error:
            raise ConnectionResetError("the WebSocket is closed") from error
        await self._connection.write(data)


class Channels:
    """Messages that begin with a byte of channel number; in the base64 form the number is a digit, the rest text."""

    def __init__(self, websocket: WebSocket, *, is_base64: bool) -> None:
        self._websocket = websocket
        self._is_base64 = is_base64

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next message's channel and data, None at the end. Empty ones and such that are no base64 are
        passed over."""
        while (message := await self._websocket.receive()) is not None:
            if not message:
                continue
            if not self._is_base64:
                return message[0], message[1:]
            try:
                return message[0] - ord("0"), base64.b64decode(message[1:])
            except binascii.Error:
                continue
        return None

    async def send(self, channel: int, data: bytes) -> None:
        """Send data on a channel. Raises ConnectionError when the peer is gone."""
        if self._is_base64:
            await self._websocket.send(bytes([ord("0") + channel]) + base64.b64encode(data), text=True)
        else:
            await self._websocket.send(bytes([channel]) + data)


class TunnelConnection:
    """Implements `message.Connection` over a WebSocket: its binary messages are one stream of bytes."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        while (message := await self._websocket.receive()) is not None:
            if message:
                return message
        return b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)

    def close(self) -> None:
        """Nothing: the WebSocket's owner closes it."""


async def connect_websocket(
    pool: HttpPool, target: str, headers: Mapping[str, str], protocols: Sequence[str]
) -> tuple[WebSocket, str, Connection]:
    """Open a WebSocket as a client: return it, the chosen subprotocol, and the connection to close in the end.

    Raises ConnectionError with the server's words when it refuses.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = {
        **headers,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": ", ".join(protocols),
    }
    status, answered, connection = await pool.open_upgrade("GET", target, handshake)
    if isinstance(connection, bytes):
        raise ConnectionError(f"the server refused the WebSocket with {status}: {connection[:500]!r}")
    if answered.get("sec-websocket-accept") != _accept(key):
        connection.close()
        raise ConnectionError("the server's WebSocket handshake is wrong")
    return WebSocket(connection, client=True), answered.get("sec-websocket-protocol", ""), connection
