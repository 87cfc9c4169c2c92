"""Forgets old history, so that the store does not grow for ever.

Decides how far back lists, watches and continue tokens reach: HISTORY_S, and at most one look more. Upstream keeps one to
two rounds of five minutes, and clients wait ten minutes at most for a token to expire; looking more often than once a
round, no token comes near that.

Spec: Kubernetes API concepts, "410 Gone responses" and "Retrieving large results sets in chunks" (tokens live about five
minutes).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from tiphys.base.clock import Clock
from tiphys.store.interface import Store, StoreFailed

log = logging.getLogger(__name__)

HISTORY_S = 300.0
"""What is younger is kept."""
LOOK_EVERY_S = 60.0


async def run_compaction(store: Store, clock: Clock) -> None:
    """Compact until cancelled. A store that fails is tried again at the next look."""
    marks = deque([(clock.monotonic_s(), store.current_revision())])
    """When the store stood at which revision, one mark a look."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_s = clock.monotonic_s()
        marks.append((now_s, store.current_revision()))
        old = [revision for at_s, revision in marks if now_s - at_s >= HISTORY_S]
        if not old:
            continue
        try:
            await store.compact(old[-1])
        except StoreFailed as error:
            log.error("history was not compacted, the store keeps growing until it can be: %s", error)
            continue
        for _ in old:
            marks.popleft()
