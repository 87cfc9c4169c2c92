"""Remote commands (exec, attach) over an upgraded connection: which protocol, which stream is which.

Decides the protocol from the request's headers and maps its streams or channels to one `RemoteSession`, so that the
kubelet's code knows nothing of SPDY and WebSocket. Invariant: the peer gets exactly one status, after all output; when
the peer goes away, `run` is cancelled. Bounds: `STDIN_LIMIT_BYTES` of input is read ahead, then the connection is not
read; streams must be there within `STREAMS_TIMEOUT_S`.

Spec: Kubernetes remote command subprotocols (channel.k8s.io to v5.channel.k8s.io); KEP-4006 (WebSockets).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tiphys.base.errors import ApiError, bad_request, internal
from tiphys.wire.message import Connection, Request, Upgrade
from tiphys.wire.portforward import upgrade_port_forward
from tiphys.wire.spdysession import SpdySession, SpdyStream
from tiphys.wire.websocket import FAILED, NORMAL, Channels, WebSocket, accept_headers, is_websocket, offered_protocols

__all__ = ["RemoteCommandOptions", "RemoteSession", "upgrade_port_forward", "upgrade_remote_command"]

log = logging.getLogger(__name__)

STDIN_LIMIT_BYTES = 256 * 1024
STREAMS_TIMEOUT_S = 30.0
LINGER_S = 2.0
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


@dataclass(frozen=True, slots=True)
class RemoteCommandOptions:
    """Which streams the client asked for (the query of exec and attach). With `tty`, stderr is part of stdout."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = False
    tty: bool = False


class RemoteSession(ABC):
    """A remote command's streams as `run` sees them."""

    def __init__(self, options: RemoteCommandOptions) -> None:
        self.options = options
        self._stdin: list[bytes] = []
        self._stdin_size = 0
        self._stdin_ended = not options.stdin
        self._stdin_changed = asyncio.Event()
        self._stdin_room = asyncio.Event()
        self._size: tuple[int, int] | None = None
        """The newest terminal size that was not taken yet: only the newest matters."""
        self._size_changed = asyncio.Event()
        self._sizes_ended = False
        self._size_text = b""

    async def read_stdin(self) -> bytes:
        """Return the next input, b"" at its end."""
        while not self._stdin:
            if self._stdin_ended:
                return b""
            self._stdin_changed.clear()
            await self._stdin_changed.wait()
        data = b"".join(self._stdin)
        self._stdin.clear()
        self._stdin_size = 0
        self._stdin_room.set()
        return data

    async def resizes(self) -> AsyncIterator[tuple[int, int]]:
        """Yield (width, height) whenever the terminal's size changes."""
        while True:
            while self._size is None:
                if self._sizes_ended:
                    return
                self._size_changed.clear()
                await self._size_changed.wait()
            size, self._size = self._size, None
            yield size

    @abstractmethod
    async def write(self, stream: int, data: bytes) -> None:
        """Send output: stream 1 is stdout, 2 stderr. Raises ConnectionError when the peer is gone."""

    @abstractmethod
    async def pump(self) -> None:
        """Read from the connection until it ends."""

    @abstractmethod
    async def finish(self, status: dict[str, Any]) -> None:
        """End the output, send the status and close the session."""

    async def feed_stdin(self, data: bytes) -> None:
        if not data or self._stdin_ended:
            return
        self._stdin.append(data)
        self._stdin_size += len(data)
        self._stdin_changed.set()
        if self._stdin_size > STDIN_LIMIT_BYTES:
            self._stdin_room.clear()
            await self._stdin_room.wait()

    def end_stdin(self) -> None:
        self._stdin_ended = True
        self._stdin_changed.set()

    def feed_size(self, data: bytes) -> None:
        """Take JSON objects such as {"Width":80,"Height":24}; what is none is ignored."""
        *objects, self._size_text = (self._size_text + data).split(b"}")
        self._size_text = self._size_text[-200:]
        for text in objects:
            try:
                size = orjson.loads(text.strip() + b"}")
                self._size = int(size["Width"]), int(size["Height"])
            except (ValueError, KeyError, TypeError):
                log.debug("a terminal size that is none was ignored: %.100r", text)
            else:
                self._size_changed.set()

    def end(self) -> None:
        """The connection is gone."""
        self.end_stdin()
        self._stdin_room.set()
        self._sizes_ended = True
        self._size_changed.set()


Run = Callable[[RemoteSession], Awaitable[dict[str, Any] | None]]


def upgrade_remote_command(request: Request, options: RemoteCommandOptions, run: Run) -> Upgrade:
    """Return the answer to an exec or attach request.

    `run` gets the session when all streams are there, and returns the Status for the error channel; None is success.
    A failure that it raises is told as a Status too. Raises ApiError when no protocol fits.
    """
    if is_websocket(request):
        protocol = _choose_websocket(offered_protocols(request))

        async def run_websocket(connection: Connection) -> None:
            await _run_session(_WebSocketSession(WebSocket(connection), protocol, options), run)

        return Upgrade("websocket", run_websocket, accept_headers(request, protocol))
    if request.headers.get("upgrade", "").lower() != "spdy/3.1":
        raise bad_request("Upgrade request required")
    version = choose_spdy_protocol(request, SPDY_PROTOCOLS)

    async def run_spdy(connection: Connection) -> None:
        session = _SpdyRemoteSession(SpdySession(connection, client=False), version, options)
        await _run_session(session, run)

    headers = [("X-Stream-Protocol-Version", version)] if request.headers.get("x-stream-protocol-version") else []
    return Upgrade("SPDY/3.1", run_spdy, headers)


def choose_spdy_protocol(request: Request, accepted: tuple[str, ...]) -> str:
    """Return the first protocol of the client's that is accepted; the oldest when it names none."""
    offered = [name.strip() for name in request.headers.get("x-stream-protocol-version", "").split(",") if name.strip()]
    if not offered:
        return accepted[-1]
    for name in offered:
        if name in accepted:
            return name
    raise ApiError(
        403,
        "Forbidden",
        f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(accepted)}",
        headers=[("X-Accepted-Stream-Protocol-Versions", name) for name in accepted],
    )


def _choose_websocket(offered: list[str]) -> str:
    for name in offered:
        if name in WEBSOCKET_PROTOCOLS:
            return name
    if offered:
        raise bad_request(f"none of the WebSocket protocols {offered} is spoken; offer {list(WEBSOCKET_PROTOCOLS)}")
    return ""


async def _run_session(session: RemoteSession, run: Run) -> None:
    pump = asyncio.create_task(session.pump(), name="remote-command-input")
    command = asyncio.create_task(_status_of(session, run), name="remote-command")
    try:
        await asyncio.wait([pump, command], return_when=asyncio.FIRST_COMPLETED)
        if command.done():
            session.end()
            await session.finish(command.result())
            # Let the peer take the status and close first: closing over unread input would cut it off.
            await asyncio.wait([pump], timeout=LINGER_S)
    finally:
        session.end()
        for task in (pump, command):
            task.cancel()
        await asyncio.wait([pump, command])
        if not pump.cancelled() and isinstance(error := pump.exception(), Exception):
            log.debug("a remote command's connection ended: %s", error)


async def _status_of(session: RemoteSession, run: Run) -> dict[str, Any]:
    try:
        if isinstance(session, _SpdyRemoteSession):
            async with asyncio.timeout(STREAMS_TIMEOUT_S):
                await session.wait_for_streams()
        return await run(session) or SUCCESS
    except ApiError as error:
        return error.status()
    except ConnectionError as error:
        return internal(str(error)).status()
    except Exception as error:
        # The request boundary: the request lives on in its session.
        log.exception("a remote command failed")
        return internal(f"{type(error).__name__}: {error}").status()


def _error_text(status: dict[str, Any]) -> bytes:
    """Return what protocols before v4 get: nothing for success, else the message."""
    return b"" if status.get("status") == "Success" else str(status.get("message") or "failed").encode()


class _WebSocketSession(RemoteSession):
    """Channels in messages: a byte of channel number, then the data."""

    def __init__(self, websocket: WebSocket, protocol: str, options: RemoteCommandOptions) -> None:
        super().__init__(options)
        self._websocket = websocket
        self._protocol = protocol
        self._channels = Channels(websocket, is_base64="base64" in protocol)
        self._structured = protocol.startswith(("v4", "v5"))

    async def write(self, stream: int, data: bytes) -> None:
        if data and (self.options.stdout if stream == STDOUT else self.options.stderr and not self.options.tty):
            await self._channels.send(stream, data)

    async def pump(self) -> None:
        # An empty message on the first channel tells the client that the session stands.
        first = STDOUT if self.options.stdout else STDERR if self.options.stderr else ERROR
        await self._channels.send(first, b"")
        try:
            while (message := await self._channels.receive()) is not None:
                await self._handle(*message)
        finally:
            self.end()

    async def _handle(self, channel: int, data: bytes) -> None:
        if channel == STDIN:
            await self.feed_stdin(data)
        elif channel == RESIZE:
            self.feed_size(data)
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and self._protocol.startswith("v5"):
            self.end_stdin()

    async def finish(self, status: dict[str, Any]) -> None:
        text = orjson.dumps(status) if self._structured else _error_text(status)
        if text:
            await self._channels.send(ERROR, text)
        failed = status.get("code") == 500
        await self._websocket.close(FAILED if failed and not self._structured else NORMAL)


class _SpdyRemoteSession(RemoteSession):
    """A SPDY stream for each, told apart by its `streamtype` header."""

    def __init__(self, session: SpdySession, version: str, options: RemoteCommandOptions) -> None:
        super().__init__(options)
        self._session = session
        self._version = version
        self._streams: dict[str, SpdyStream] = {}
        self._complete = asyncio.Event()
        wanted = {"error": True, "stdin": options.stdin, "stdout": options.stdout}
        wanted["stderr"] = options.stderr and not options.tty
        wanted["resize"] = options.tty and version in ("v4.channel.k8s.io", "v3.channel.k8s.io")
        self._wanted = {name for name, is_wanted in wanted.items() if is_wanted}

    async def wait_for_streams(self) -> None:
        await self._complete.wait()

    async def write(self, stream: int, data: bytes) -> None:
        target = self._streams.get("stdout" if stream == STDOUT else "stderr")
        if target is not None and data:
            await target.write(data)

    async def pump(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._accept(group), name="remote-command-streams")
            try:
                await self._session.run()
            finally:
                self.end()

    async def _accept(self, group: asyncio.TaskGroup) -> None:
        while (stream := await self._session.accept()) is not None:
            kind = stream.headers.get("streamtype", "")
            if kind not in self._wanted or kind in self._streams:
                log.debug("a remote command's stream of type %r was refused", kind)
                await stream.reset()
                continue
            self._streams[kind] = stream
            if kind == "stdin":
                group.create_task(self._copy_stdin(stream), name="remote-command-stdin")
            if kind == "resize":
                group.create_task(self._copy_sizes(stream), name="remote-command-resize")
            if self._wanted == self._streams.keys():
                self._complete.set()

    async def _copy_stdin(self, stream: SpdyStream) -> None:
        while data := await stream.read():
            await self.feed_stdin(data)
        self.end_stdin()

    async def _copy_sizes(self, stream: SpdyStream) -> None:
        while data := await stream.read():
            self.feed_size(data)

    async def finish(self, status: dict[str, Any]) -> None:
        for kind in ("stdout", "stderr"):
            if kind in self._streams:
                await self._streams[kind].finish()
        text = orjson.dumps(status) if self._version.startswith("v4") else _error_text(status)
        if "error" in self._streams:
            await self._streams["error"].write(text, fin=True)
        await self._session.send(self._session.framing.go_away())
