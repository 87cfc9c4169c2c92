"""The API server of a simulated cluster: it can be killed at any moment and started again on the same store.

A kill cancels every request where it stands (its caller sees a lost connection and cannot know what happened), ends
every watch and forgets the watch cache; a start assembles a new server, as a new process would.
"""

from __future__ import annotations

import asyncio
import functools

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.base.orderedset import OrderedSet
from tiphys.cluster.history import AUTHOR
from tiphys.store.interface import Store
from tiphys.wire.message import Answer, Handler, Request
from tiphys.wire.tls import create_signing_key

RETRY_S = 1.0


@functools.cache
def _signing_key() -> bytes:
    """One key for all simulations of a process: tokens are not part of any history."""
    return create_signing_key()[0]


class SimulatedServer:
    """See the module's docstring."""

    def __init__(self, version: tuple[int, int], store: Store, clock: Clock, randomness: Randomness) -> None:
        self._config = ApiServerConfig(kubernetes_version=version, signing_key_pem=_signing_key(), network=False)
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._assembled: Assembled | None = None
        self._starting = asyncio.Lock()
        """Two restarts at once must not leave two servers."""
        self._running: OrderedSet[asyncio.Task[Answer]] = OrderedSet()

    async def start(self) -> None:
        """Start, if need be again and again while the store fails."""
        async with self._starting:
            while self._assembled is None:
                try:
                    self._assembled = await assemble(self._config, self._store, self._clock, self._randomness)
                except TiphysError:
                    await asyncio.sleep(RETRY_S)

    async def kill(self) -> None:
        """End where it stands. Idempotent."""
        assembled, self._assembled = self._assembled, None
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if assembled is not None:
            await assembled.stop()

    def handler(self, author: str) -> Handler:
        """Return a handler that works over restarts; what it writes is recorded as the author's."""

        async def handle(request: Request) -> Answer:
            assembled = self._assembled
            if assembled is None:
                raise ConnectionRefusedError("simulated: the API server is down")
            task = asyncio.create_task(_answer(assembled, request, author), name=f"request of {author}")
            self._running.add(task)
            try:
                return await task
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if caller is not None and caller.cancelling():
                    raise
                raise ConnectionResetError("simulated: the API server was killed") from None
            finally:
                self._running.discard(task)

        return handle


async def _answer(assembled: Assembled, request: Request, author: str) -> Answer:
    AUTHOR.set(f"{author} {request.method} {request.path}")
    return await assembled.handle(request)
