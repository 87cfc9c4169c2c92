"""A watcher that writes down what it was told, to be held against what really happened.

It lists, watches, comes back with its last revision when a watch ends (the API server was killed), and lists again when
its revision is gone. Between two lists it must be told every change of its resource, once, in the order of revisions.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tiphys.api.views.meta import PartialObject, decode_view
from tiphys.base.errors import ApiError
from tiphys.client.interface import Client, Resource
from tiphys.client.reflector import object_key
from tiphys.cluster.history import History, Violation

RETRY_S = 0.2


@dataclass(slots=True)
class Segment:
    """What was told after one list."""

    after: int
    """Revision of the list."""
    until: int
    """Revision of the last event or bookmark."""
    told: list[tuple[int, str]] = field(default_factory=list)
    """(revision, key) of each event."""


class Witness:
    """See the module's docstring."""

    def __init__(self, client: Client, resource: Resource) -> None:
        self._client = client
        self._resource = resource
        self.segments: list[Segment] = []

    async def run(self) -> None:
        """Watch until cancelled."""
        segment: Segment | None = None
        while True:
            try:
                if segment is None:
                    revision = int((await self._client.list(self._resource)).resource_version)
                    segment = Segment(revision, revision)
                    self.segments.append(segment)
                await self._watch(segment)
            except ApiError as error:
                if error.code == 410:
                    segment = None
                await asyncio.sleep(RETRY_S)
            except OSError:
                await asyncio.sleep(RETRY_S)

    async def _watch(self, segment: Segment) -> None:
        async for event in self._client.watch(self._resource, resource_version=str(segment.until)):
            meta = decode_view(event.object, PartialObject).metadata
            if event.type != "BOOKMARK":
                segment.told.append((int(meta.resource_version), object_key(meta)))
            segment.until = int(meta.resource_version)

    def check(self, history: History) -> None:
        """Raise Violation where something was told twice, late, out of order or not at all."""
        happened = [
            (change.revision, change.key.split("/", 4)[4])
            for change in history.of(self._resource.plural)
            if change.key.split("/")[2] == (self._resource.group or "core")
        ]
        for segment in self.segments:
            wanted = [item for item in happened if segment.after < item[0] <= segment.until]
            if segment.told != wanted:
                wrong = next((a, b) for a, b in zip([*segment.told, None], [*wanted, None], strict=False) if a != b)
                raise Violation(
                    f"a watch of {self._resource.plural} from revision {segment.after} to {segment.until} told "
                    f"{wrong[0]} where {wrong[1]} happened ({len(segment.told)} of {len(wanted)} events)"
                )
