"""Objects that the server itself keeps in order, by name: which ones are to be looked at, and when again after a failure.

In: names, marked by listeners of the watch cache. Out: one call of `look` at a time. Invariants: a name that is marked
is looked at afterwards, however often it was marked only once; one whose look fails comes back, later each time, and
does not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tiphys.base.errors import ApiError

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.2
RETRY_LONGEST_S = 60.0


class DirtyNames:
    """See the module's docstring. `what` names the kind in the log."""

    def __init__(self, what: str, look: Callable[[str], Awaitable[None]]) -> None:
        self._what = what
        self._look = look
        self._names: dict[str, None] = {}
        """To be looked at, in order."""
        self._failures: dict[str, int] = {}
        """How often in a row a look failed."""
        self._wake = asyncio.Event()

    def mark(self, name: str) -> None:
        """Have an object looked at soon."""
        self._names[name] = None
        self._wake.set()

    def mark_later(self, name: str, delay_s: float) -> None:
        """Have an object looked at after a while, or earlier if it is marked."""
        asyncio.get_running_loop().call_later(delay_s, self.mark, name)

    async def run(self) -> None:
        """Look at what is marked, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._names:
                name = next(iter(self._names))
                del self._names[name]
                try:
                    await self._look(name)
                except ApiError as error:
                    log.warning("%s %s is not settled and is tried again: %s", self._what, name, error)
                    self._retry(name)
                except Exception:  # the worker boundary: one object must not stop the others
                    log.exception("%s %s is not settled and is tried again", self._what, name)
                    self._retry(name)
                else:
                    self._failures.pop(name, None)

    def _retry(self, name: str) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        self.mark_later(name, min(RETRY_FIRST_S * 2.0 ** (failures - 1), RETRY_LONGEST_S))
