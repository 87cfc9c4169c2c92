"""Bodies of requests that go on to another server as they come, however long they are.

`BodyStream` is filled by the connection that the request came on and read by who sends it on (`begin_sending`). Bounds: BUFFER_BYTES wait
to be read, then the client is not read either; a client that sends nothing for `timeout_s` while it is waited for has
broken off.

Spec: RFC 9110 section 10.1.1 (a client that expects it is told to continue when its body is first wanted).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tiphys.base.errors import too_large
from tiphys.wire.message import IncomingBody

BUFFER_BYTES = 256 * 1024


class BodyStream:
    """One body. `length` is None when it comes in chunks; `wanted` is called whenever somebody waits for more."""

    def __init__(self, length: int | None, timeout_s: float, wanted: Callable[[], None]) -> None:
        self.length = length
        self.ended = False
        """All of it has come."""
        self._timeout_s = timeout_s
        self._wanted = wanted
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._lost = False
        self._wake: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises ConnectionError when the client breaks off. For one reader."""
        if not self._parts and not self.ended and not self._lost:
            self._wake = asyncio.get_running_loop().create_future()
            self._wanted()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._wake
            except TimeoutError:
                raise ConnectionError(f"the client sent nothing of its body for {self._timeout_s:.0f} s") from None
            finally:
                self._wake = None
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._waiting_bytes = 0
            return data
        if self._lost:
            raise ConnectionError("the client broke off in the middle of its body")
        return b""

    async def read_all(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises ApiError(413), ConnectionError."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit_bytes:
                raise too_large(f"Request entity too large: limit is {limit_bytes}")
            parts.append(data)
        return b"".join(parts)

    # The connection's side

    def feed(self, data: bytes) -> bool:
        """Take what came; return whether enough waits, so that the client is not to be read."""
        self._parts.append(data)
        self._waiting_bytes += len(data)
        self._awaken()
        return self._waiting_bytes >= BUFFER_BYTES

    def end(self) -> None:
        """All of it has come."""
        self.ended = True
        self._awaken()

    def lose(self) -> None:
        """No more will come. Idempotent."""
        self._lost = not self.ended
        self._awaken()

    def _awaken(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def begin_sending(body: IncomingBody, write: Callable[[bytes], Awaitable[None]]) -> asyncio.Task[None]:
    """Send a body as it comes, in chunks if nobody knows its length; the task fails with ConnectionError when either side
    is gone. Who has an answer before it has ended cancels it."""
    sending = asyncio.create_task(_send(body, write), name="request-body")
    sending.add_done_callback(_note)
    return sending


async def _send(body: IncomingBody, write: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await body.read():
        await write(data if body.length is not None else b"%x\r\n%b\r\n" % (len(data), data))
    if body.length is None:
        await write(b"0\r\n\r\n")


def _note(sending: asyncio.Task[None]) -> None:
    """Read how it ended: who was answered before the end does not ask."""
    if not sending.cancelled():
        sending.exception()
