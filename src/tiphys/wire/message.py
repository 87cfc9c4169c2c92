"""The records that pass between sockets and handlers: the seam of every HTTP server and client here.

A handler gets a `Request` and returns a `Response`, a `Stream` or an `Upgrade`; it never sees a socket. The HTTP core
(server.py) makes requests from bytes and bytes from answers; the API server's local client calls the same handler with
a request that it made itself, so no byte of HTTP is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as far as the transport knows."""

    address: str = ""
    """Text of the peer's IP address, or "local"."""
    common_name: str | None = None
    """Common name of the verified client certificate; None without one."""
    organizations: tuple[str, ...] = ()
    """Organizations of that certificate, in order: Kubernetes' groups."""
    certificate_sha256: str = ""
    """Hexadecimal digest of that certificate: the id of the credential."""
    trusted_user: tuple[str, tuple[str, ...]] | None = None
    """(user name, groups) asserted by the process itself: local clients only, never set from the network."""
    issuer: str = ""
    """Common name of the authority that signed that certificate: it tells front proxies from ordinary clients."""


class Headers(dict[str, str]):
    """Headers of a request as the HTTP core parsed them. A client that repeats its headers word for word on a connection
    gets the same object for each request, so a handler may keep here what it has found out about them."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = None
        """The handler's; None until it sets it."""


class IncomingBody(Protocol):
    """A body that comes while it is read (bodystream.py)."""

    @property
    def length(self) -> int | None:
        """Its bytes; None when it comes in chunks."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises ConnectionError when the client breaks off."""
        ...

    async def read_all(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises ApiError(413) when it is longer, ConnectionError."""
        ...


class Request(msgspec.Struct, eq=False):
    """One request with its whole body, or with a stream of it. Header names are lower case; the path is percent-decoded,
    without the query.

    Values of a header that is there several times are joined with ", ", those of Impersonate-* headers with a newline.
    """

    method: str
    path: str
    raw_query: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    peer: Peer = Peer()
    raw_path: str = ""
    """The path as it came (percent-encoded), for proxying; equal to `path` when empty."""
    deadline_s: float = 0.0
    """Monotonic time at which the answer must be ready; 0 for none. Set by the API server."""
    notes: dict[str, str] | None = None
    """Audit annotations; None when nobody records them. Set by the API server, filled by its handlers."""
    stream: IncomingBody | None = None
    """The body, when it is large and goes on to another server as it comes; `body` is empty then."""
    _query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """Return the parsed query; a key without a value maps to [""]."""
        if self._query is None:
            self._query = parse_qs(self.raw_query, keep_blank_values=True) if self.raw_query else {}
        return self._query

    def param(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default


class Response(msgspec.Struct):
    """A whole answer. `body` is one buffer or several that the core writes one after another without joining them."""

    status: int = 200
    body: bytes | Sequence[bytes] = b""
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()

    def body_bytes(self) -> bytes:
        """Return the body as one buffer."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


class Sink(Protocol):
    """Where a stream's body goes. Calls never block and never raise; after the peer is gone they do nothing."""

    def send(self, data: bytes) -> None:
        """Queue one piece of the body; each call becomes one chunk and, if the socket takes it, one TLS record."""
        ...

    def pending_bytes(self) -> int:
        """Return how many bytes the peer has not taken yet. A sender that sees too many closes the stream."""
        ...

    async def drain(self) -> None:
        """Return when the peer has taken nearly all that was sent, and at once when it is gone. Who sends much that it
        could send later sends a piece, waits here, and goes on; cancellation leaves what was sent queued."""
        ...

    def close(self) -> None:
        """End the body after what was sent. Idempotent."""
        ...


@dataclass(slots=True)
class Stream:
    """An answer whose body comes over time (watch, followed logs).

    `start` is called once, after the head of the answer is queued; it must not block. It returns a function that the
    core calls once when the stream ends for any reason: peer gone, `close`, server stop.
    """

    start: Callable[[Sink], Callable[[], None]]
    status: int = 200
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()
    on_open: list[Callable[[], None]] | None = None
    """What its maker calls once its initial state is sent (of a watch); None: it has none that takes time."""


class Connection(Protocol):
    """A raw byte connection after an upgrade."""

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the peer is slow. Raises ConnectionError when it is gone."""
        ...

    def close(self) -> None:
        """Close the connection. Idempotent."""
        ...


@dataclass(slots=True)
class Upgrade:
    """A switch to another protocol. The core writes `101` with these headers (it adds `Connection: Upgrade`), then
    `run` owns the connection until it returns; cancelling `run` closes the connection."""

    protocol: str
    run: Callable[[Connection], Awaitable[None]]
    headers: Sequence[tuple[str, str]] = ()


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], Awaitable[Answer]]
Streams = Callable[[Request], bool]
"""Tells of a request without its body whether that is to be streamed: whether it only passes through."""
QuickHandler = Callable[[Request], Response | None]
"""Answers a GET at once, without waiting, or returns None: then the Handler is asked. Never raises but for faults."""
