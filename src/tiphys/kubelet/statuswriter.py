"""Brings one pod's status to the API server: at once, coalesced, never twice the same.

Invariant: one write at a time; the newest wanted status wins; what the server is known to have moves only forward.
The pods of a node share a few slots: where the server is slower than the node, a pod waits for its turn and then writes
what is true by then, instead of each state on the way to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError, tells_of_another
from tiphys.client.interface import STRATEGIC_PATCH, Client
from tiphys.client.resources import PODS
from tiphys.client.slots import Slots
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.status import status_patch

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 10.0


class StatusWriter:
    """See the module's docstring."""

    def __init__(self, client: Client, randomness: Randomness, pod: BoundPod, slots: Slots) -> None:
        self._client = client
        self._slots = slots
        self._randomness = randomness
        self._pod = pod
        self.known: Mapping[str, Any] = pod.status
        """The newest status that the server is known to have."""
        self._known_revision = _revision(pod.metadata.resource_version)
        self._make: Callable[[], dict[str, Any]] = dict
        """Makes the status that is wanted."""
        self._stale = False
        """What is being written was made before the last wish, or could not be written."""
        self._task: asyncio.Task[None] | None = None
        self._gone = False

    def observe(self, pod: BoundPod) -> None:
        """Take note of the pod as the watch shows it; older than our own last write, it is ignored."""
        self._pod = pod
        revision = _revision(pod.metadata.resource_version)
        if revision > self._known_revision:
            self.known, self._known_revision = pod.status, revision

    def want(self, make: Callable[[], dict[str, Any]]) -> None:
        """Ask for the status that `make` returns, now or when it is the pod's turn; returns at once."""
        if self._gone:
            return
        self._make = make
        if self._task is not None and not self._task.done():
            self._stale = True
            return
        wanted = make()
        if status_patch(self._pod, self.known, wanted) is not None:
            self._stale = self._slots.full()
            name = f"status of {self._pod.metadata.namespace}/{self._pod.metadata.name}"
            self._task = asyncio.create_task(self._write(wanted), name=name)

    async def flush(self) -> None:
        """Wait until what is wanted is written, or cannot be any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _write(self, wanted: dict[str, Any]) -> None:
        """Write one status, then what was wanted meanwhile."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                give = await self._slots.take()
                try:
                    if self._stale:
                        self._stale = False
                        wanted = self._make()
                    patch = status_patch(self._pod, self.known, wanted)
                    if patch is None:
                        return
                    meta = self._pod.metadata
                    answer = await self._client.patch(
                        PODS, meta.namespace, meta.name, patch, subresource="status", patch_type=STRATEGIC_PATCH
                    )
                finally:
                    give()
            except (ApiError, OSError) as error:
                if isinstance(error, ApiError) and tells_of_another(error):
                    # Gone, or a namesake took its place: the uid in the patch did not fit.
                    self._gone = True
                    return
                self._stale = True
                log.warning("status of pod %s/%s is written again: %s", meta.namespace, meta.name, error)
                await asyncio.sleep(self._randomness.uniform(retry_s, retry_s * 1.5))
                retry_s = min(retry_s * 2, LONGEST_RETRY_S)
                continue
            written = msgspec.json.decode(answer, type=BoundPod)
            if written.metadata.uid and written.metadata.uid != meta.uid:
                self._gone = True
                return
            revision = _revision(written.metadata.resource_version)
            if revision >= self._known_revision:
                self._known_revision = revision
                self.known = _known_after(written.status, wanted)
            if not self._stale:
                return
            retry_s = FIRST_RETRY_S


def _known_after(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server is known to have: its answer, with what was wanted over it as it was wanted.

    A server normalises what it gets, and one of an older version leaves fields out that it does not know: comparing its
    answer with the wish would ask for the same again and again.
    """
    known = {**answer, **wanted}
    for field, key in _MERGED:
        if field in wanted:
            items = {item.get(key): item for item in answer.get(field) or ()}
            items |= {item[key]: item for item in wanted[field]}
            known[field] = list(items.values())
    return known


_MERGED = (("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip"))
"""Lists that a patch merges, and by what."""


def _revision(text: str) -> int:
    return int(text) if text.isdigit() else 0
