"""The event recorder: tells users what a component did to an object, without ever slowing the component down.

Decides which of the recorded happenings become core/v1 Events, and whether one is a new object or a higher count of an
earlier one. Components call `record`; `run` writes one after the other, so that a burst of events takes no more of the
API server than one connection can. Bounds: 4,096 that wait (then new ones are dropped, with a log line when it begins),
4,096 remembered events, 25 events at once and then one in five minutes for each object.

Spec: the core/v1 Event fields; the counting, combining and limiting that users know from upstream's components
(count and lastTimestamp of a repeated event grow; more than ten alike within ten minutes are combined).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from tiphys.api.views.meta import ObjectReference, View, metadata_of
from tiphys.base.clock import Clock, Randomness, format_time
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import STRATEGIC_PATCH, Client, Resource
from tiphys.client.slots import Slots

log = logging.getLogger(__name__)

QUEUE_LIMIT = 4096
REMEMBERED = 4096
BURST = 25
REFILL_S = 300.0
COMBINE_AFTER = 10
COMBINE_WINDOW_S = 600.0
TRIES = 12
LONGEST_MESSAGE = 1024

EventKind = Literal["Normal", "Warning"]
_RESOURCES: dict[str, Resource] = {r.kind: r for r in vars(resources).values() if isinstance(r, Resource)}


def reference_to(view: View) -> ObjectReference:
    """Return a reference to the object of a view. The view's class must be named as its kind."""
    metadata = metadata_of(view)
    kind = type(view).__name__
    resource = _RESOURCES.get(kind)
    return ObjectReference(
        api_version=getattr(view, "api_version", "") or (resource.api_version if resource else ""),
        kind=getattr(view, "kind", "") or kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


@dataclass(frozen=True, slots=True)
class Happening:
    """One call of `record`."""

    regarding: ObjectReference
    type: EventKind
    reason: str
    message: str
    at_s: float

    def object_key(self) -> tuple[str, ...]:
        reference = self.regarding
        return (reference.kind, reference.namespace, reference.name, reference.uid, reference.field_path)


@dataclass(slots=True)
class Written:
    """An Event that exists on the server as far as we know. Changed by `Correlator` only."""

    name: str
    count: int
    first_s: float


@dataclass(slots=True)
class Similar:
    """Messages seen of one object, type and reason since `since_s`."""

    messages: set[str]
    since_s: float


@dataclass(slots=True)
class Bucket:
    """Tokens of one object: `tokens` as of `at_s`."""

    tokens: float
    at_s: float


class Correlator:
    """Decides, without I/O, what to write for a happening. Holds the memory that counting needs."""

    def __init__(self) -> None:
        self._last_ns = 0
        self._buckets: OrderedDict[tuple[str, ...], Bucket] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], Similar] = OrderedDict()
        self._written: OrderedDict[tuple[str, ...], Written] = OrderedDict()

    def plan(self, happening: Happening) -> tuple[Written, str, tuple[str, ...]] | None:
        """Return (event, its message, its key), with the count already raised; None when the object had its share."""
        similar_key = (*happening.object_key(), happening.type, happening.reason)
        message, key = happening.message, (*similar_key, happening.message)
        if self._combine(similar_key, happening):
            message, key = f"(combined from similar events): {message}", similar_key
        if not self._take_token(happening):
            return None
        written = _remembered(self._written, key)
        if written is None:
            written = Written(self.new_name(happening), 0, happening.at_s)
            _remember(self._written, key, written)
        written.count += 1
        return written, message, key

    def new_name(self, happening: Happening) -> str:
        """Return a name for a new Event: the object's and a time in nanoseconds that is never given out twice."""
        self._last_ns = max(self._last_ns + 1, int(happening.at_s * 1e9))
        return f"{happening.regarding.name}.{self._last_ns:x}"

    def forget(self, key: tuple[str, ...]) -> None:
        """The event of this key is not on the server (any more)."""
        self._written.pop(key, None)

    def _combine(self, key: tuple[str, ...], happening: Happening) -> bool:
        similar = _remembered(self._similar, key)
        if similar is None or happening.at_s - similar.since_s > COMBINE_WINDOW_S:
            similar = Similar(set(), happening.at_s)
            _remember(self._similar, key, similar)
        if len(similar.messages) < COMBINE_AFTER:
            similar.messages.add(happening.message)
        return len(similar.messages) >= COMBINE_AFTER

    def _take_token(self, happening: Happening) -> bool:
        key = happening.object_key()
        bucket = _remembered(self._buckets, key)
        if bucket is None:
            bucket = Bucket(float(BURST), happening.at_s)
            _remember(self._buckets, key, bucket)
        passed_s = max(0.0, happening.at_s - bucket.at_s)
        bucket.tokens = min(float(BURST), bucket.tokens + passed_s / REFILL_S)
        bucket.at_s = happening.at_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class EventRecorder:
    """See the module's docstring. `component` and `host` become the Event's source."""

    def __init__(
        self,
        client: Client,
        component: str,
        host: str,
        clock: Clock,
        randomness: Randomness,
        *,
        slots: Slots | None = None,
    ) -> None:
        """`slots` bound the writes at once of several recorders that share them."""
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._randomness = randomness
        self._correlator = Correlator()
        self._queue = asyncio.Queue[Happening]()
        self._slots = slots or Slots(1)
        self._full = False
        """The queue was full and has not been half empty since: that is told once."""
        self.dropped = 0
        """How many happenings were dropped because the queue was full or an object had its share."""

    def record(
        self,
        regarding: ObjectReference | View,
        type: EventKind,
        reason: str,
        message: str,
        at_s: float | None = None,
    ) -> None:
        """Queue one happening, of now if `at_s` does not tell when it was. Never blocks, never raises."""
        reference = regarding if isinstance(regarding, ObjectReference) else reference_to(regarding)
        when_s = self._clock.now_s() if at_s is None else at_s
        happening = Happening(reference, type, reason, message[:LONGEST_MESSAGE], when_s)
        waiting = self._queue.qsize()
        if waiting < QUEUE_LIMIT:
            self._full = self._full and waiting > QUEUE_LIMIT // 2
            self._queue.put_nowait(happening)
        elif self._full:
            self.dropped += 1
        else:
            self._full = True
            self._drop(happening, "the queue of events is full, as more are until it is half empty; is the API server "
                       "reachable?")  # fmt: skip

    async def run(self) -> None:
        """Write what was recorded, until cancelled; then what is queued is lost."""
        while True:
            happening = await self._queue.get()
            try:
                await self._write(happening)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until all that was recorded so far is written or dropped. `run` must be running."""
        await self._queue.join()

    def _drop(self, happening: Happening, why: str) -> None:
        self.dropped += 1
        reference = happening.regarding
        log.info(
            "event %s of %s %s/%s dropped: %s",
            happening.reason, reference.kind, reference.namespace, reference.name, why,
        )  # fmt: skip

    async def _write(self, happening: Happening) -> None:
        planned = self._correlator.plan(happening)
        if planned is None:
            self._drop(happening, f"its object had {BURST} events; one more is let through every {REFILL_S:.0f} s")
            return
        written, message, key = planned
        for attempt in range(TRIES):
            try:
                give = await self._slots.take()
                try:
                    await self._send(happening, written, message)
                finally:
                    give()
                return
            except ApiError as error:
                self._correlator.forget(key)
                self._drop(happening, str(error))
                return
            except OSError as error:
                log.debug("event %s waits for the API server: %s", happening.reason, error)
                await asyncio.sleep(self._randomness.uniform(0.1, 0.2) * 2 ** min(attempt, 6))
        self._correlator.forget(key)
        self._drop(happening, f"the API server could not be reached in {TRIES} tries")

    async def _send(self, happening: Happening, written: Written, message: str) -> None:
        namespace = happening.regarding.namespace or "default"
        if written.count > 1:
            patch = {"count": written.count, "lastTimestamp": format_time(happening.at_s), "message": message}
            try:
                await self._client.patch(resources.EVENTS, namespace, written.name, patch, patch_type=STRATEGIC_PATCH)
                return
            except ApiError as error:
                if error.code != 404:
                    raise
                # It expired: it begins anew under another name.
                written.name = self._correlator.new_name(happening)
                written.count, written.first_s = 1, happening.at_s
        try:
            await self._client.create(resources.EVENTS, namespace, self._event(happening, written, message, namespace))
        except ApiError as error:
            # A create whose answer was lost is there already.
            if error.reason != "AlreadyExists":
                raise

    def _event(self, happening: Happening, written: Written, message: str, namespace: str) -> dict[str, Any]:
        reference = happening.regarding
        fields = {
            "kind": reference.kind,
            "namespace": reference.namespace,
            "name": reference.name,
            "uid": reference.uid,
            "apiVersion": reference.api_version,
            "resourceVersion": reference.resource_version,
            "fieldPath": reference.field_path,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": written.name, "namespace": namespace},
            "involvedObject": {name: value for name, value in fields.items() if value},
            "reason": happening.reason,
            "message": message,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": format_time(written.first_s),
            "lastTimestamp": format_time(happening.at_s),
            "count": written.count,
            "type": happening.type,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }


def _remembered(memory: OrderedDict[tuple[str, ...], Any], key: tuple[str, ...]) -> Any:
    value = memory.get(key)
    if value is not None:
        memory.move_to_end(key)
    return value


def _remember(memory: OrderedDict[tuple[str, ...], Any], key: tuple[str, ...], value: Any) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
