"""How many writes of one sort may be on their way to the API server.

Where the server is slower than a component, what waits for a slot is not a write but the wish for one, made when its turn
comes: so states that passed meanwhile are never written. Invariant: every slot comes back. A write that hangs (a webhook
that does not answer) gives its slot back after `PATIENCE_S` and goes on, so that it holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 2.0


class Slots:
    """See the module's docstring. For one event loop."""

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)

    def full(self) -> bool:
        """Return whether the next one has to wait."""
        return self._free.locked()

    async def take(self) -> Callable[[], None]:
        """Wait for a slot, in turn; return what gives it back, which must be called. Cancellation takes none."""
        await self._free.acquire()
        given = False

        def give() -> None:
            nonlocal given
            if not given:
                given = True
                timer.cancel()
                self._free.release()

        timer = asyncio.get_running_loop().call_later(PATIENCE_S, give)
        return give
