"""The watch cache: newest bytes, small index and recent events of every resource, fed by one watch of the store.

The registry, authorization and all reads look here. Everything is applied synchronously, one batch of the store at a
time, so between two awaits a reader sees one revision of everything. A resource's ring holds its events after
`oldest`; a watch from before that must list again. If the store's watch is dropped (compacted, or too slow), the
cache lists again, forgets its rings and closes all watchers, who come back with their last revision.

Invariant: `revision()` is the revision of every object here; `ResourceCache.changed_at` is that of its last change.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import count
from sys import intern

from tiphys.apiserver.cached import CachedEvent, CachedObject, splice_revision
from tiphys.apiserver.ordered import OrderedObjects
from tiphys.base.errors import gateway_timeout
from tiphys.base.orderedset import OrderedSet
from tiphys.store.interface import Compacted, Event, Store, StoreFailed
from tiphys.store.ledger import FIRST_REVISION

__all__ = ["CachedEvent", "CachedObject", "ResourceCache", "WatchCache", "splice_revision"]

REGISTRY = "/registry/"
RING_EVENTS = 4_096
"""Recent events kept of each resource."""
RING_BYTES = 8 * 1024 * 1024
"""Bytes of superseded objects kept of each resource's recent events."""
HELD_FACTOR = 8
"""How many times more than that is kept while a watch is sent its first state."""
HISTORY_REVISIONS = 20_000
"""How far back the rings are filled from the store's history at start."""
LOADED_A_TURN = 2_000
"""Objects that are taken in in one turn of the loop when everything is read anew."""
RETRY_S = 1.0
"""Pause after the store failed to read, before listing again."""
PATIENCE_STEPS = 4
"""Waiting for a revision is timed in as many steps: a process that stood still for long, on a busy machine, has lost one
of them, and what it is waiting for may have come meanwhile."""

log = logging.getLogger(__name__)
Listener = Callable[[Sequence[CachedEvent]], None]


class ResourceCache:
    """All objects of one storage prefix. Objects are found by namespace ("" for cluster scope) and name."""

    def __init__(self, prefix: str, oldest: int, ring_events: int = RING_EVENTS, ring_bytes: int = RING_BYTES) -> None:
        self.prefix = prefix
        self.oldest = oldest
        """Every event after this revision is in the ring."""
        self.changed_at = oldest
        """Revision of the last change."""
        self.listeners: OrderedSet[Listener] = OrderedSet()
        """Called with the events of each batch, after all of it is applied."""
        self.on_reset: OrderedSet[Callable[[], None]] = OrderedSet()
        """Called when events were lost and watchers must start again."""
        self._ring: deque[CachedEvent] = deque()
        self._ring_weight = 0
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._holds: dict[object, int] = {}
        """Revisions after which somebody who is being brought up to date needs the events."""
        self._objects: dict[str, CachedObject] = {}
        self._ordered = OrderedObjects()
        self._namespaces: dict[str, int] = {}
        """How many objects each namespace has."""

    def get(self, namespace: str, name: str) -> CachedObject | None:
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def objects(self, namespace: str = "", after: str = "", limit: int = 0) -> list[CachedObject]:
        """Return all objects, or those of one namespace, in key order: behind a key (relative to what is listed: name,
        or namespace/name for all), and at most `limit` of them if not 0."""
        start, end, behind = _bounds(namespace, after)
        return self._ordered.take(start, end, limit, behind=behind)

    def count(self, namespace: str = "", after: str = "") -> int:
        """Return how many objects there are, in all or in one namespace, behind a key as in `objects`."""
        if after:
            start, end, behind = _bounds(namespace, after)
            return self._ordered.count(start, end, behind=behind)
        return self._namespaces.get(namespace, 0) if namespace else len(self._objects)

    def namespaces(self) -> list[str]:
        """Return the namespaces that hold objects."""
        return list(self._namespaces)

    def __iter__(self) -> Iterator[CachedObject]:
        return iter(list(self._objects.values()))

    def events_after(self, revision: int) -> list[CachedEvent] | None:
        """Return the events after a revision, None if some are gone."""
        if revision < self.oldest:
            return None
        events: list[CachedEvent] = []
        for event in reversed(self._ring):
            if event.revision <= revision:
                break
            events.append(event)
        events.reverse()
        return events

    def hold(self, revision: int) -> Callable[[], None]:
        """Keep the events after a revision, as long as they are not more than HELD_FACTOR times what a ring holds,
        until the function is called that is returned: for watches whose first state takes its time."""
        token = object()
        self._holds[token] = revision
        return lambda: self._release(token)

    def _release(self, token: object) -> None:
        self._holds.pop(token, None)
        self._trim()

    def apply(self, event: Event) -> CachedEvent:
        """Take in one change of the store."""
        short = event.key[len(self.prefix) :]
        previous = self._objects.get(short)
        cached = self.remember(event, previous)
        self.changed_at = event.revision
        if cached.deleted:
            if previous is not None:
                self._discard(short, previous)
        else:
            self._put(short, cached.object, new=previous is None)
        return cached

    def remember(self, event: Event, previous: CachedObject | None = None) -> CachedEvent:
        """Put one change into the ring only (history at start)."""
        if previous is None and event.previous is not None:
            previous = self._object(event.key, event.previous, event.revision)
        if event.value is None:
            assert previous is not None, f"deletion of {event.key} without a previous value"
            cached = CachedEvent(previous.at(event.revision), previous, deleted=True)
        else:
            cached = CachedEvent(self._object(event.key, event.value, event.revision), previous, deleted=False)
        self._ring.append(cached)
        self._ring_weight += cached.weight()
        self._trim()
        return cached

    def _trim(self) -> None:
        """Drop the oldest events beyond the ring's bounds; beyond larger ones while somebody needs them."""
        ring = self._ring
        while len(ring) > self._ring_events or (self._ring_weight > self._ring_bytes and len(ring) > 1):
            if self._holds and ring[0].revision > min(self._holds.values()):
                most = len(ring) <= HELD_FACTOR * self._ring_events
                if most and self._ring_weight <= HELD_FACTOR * self._ring_bytes:
                    return
            dropped = ring.popleft()
            self._ring_weight -= dropped.weight()
            self.oldest = dropped.revision

    def load(self, key: str, value: bytes, revision: int) -> None:
        """Take in one object of a list."""
        short = key[len(self.prefix) :]
        self._put(short, self._object(key, value, revision), new=True)
        self.changed_at = max(self.changed_at, revision)

    def replace(self, fresh: ResourceCache | None, revision: int) -> None:
        """Take the objects of another record in place of what is here (None: none), and forget all events. History is
        followed from `revision`; the caller then calls `on_reset`."""
        fresh = fresh or ResourceCache(self.prefix, revision)
        self._objects, self._ordered, self._namespaces = fresh._objects, fresh._ordered, fresh._namespaces
        self._ring.clear()
        self._ring_weight = 0
        self.oldest, self.changed_at = revision, max(fresh.changed_at, revision)

    def _object(self, key: str, value: bytes, revision: int) -> CachedObject:
        namespace, _, name = key[len(self.prefix) :].rpartition("/")
        return CachedObject(key, intern(namespace), name, value, revision)

    def _put(self, short: str, obj: CachedObject, *, new: bool) -> None:
        self._objects[short] = obj
        self._ordered.put(short, obj)
        if new and obj.namespace:
            self._namespaces[obj.namespace] = self._namespaces.get(obj.namespace, 0) + 1

    def _discard(self, short: str, obj: CachedObject) -> None:
        del self._objects[short]
        self._ordered.discard(short)
        if obj.namespace:
            left = self._namespaces[obj.namespace] - 1
            if left:
                self._namespaces[obj.namespace] = left
            else:
                del self._namespaces[obj.namespace]


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _bounds(namespace: str, after: str) -> tuple[str, str, bool]:
    """Return the first key, the end (not included) and whether to begin behind the first, of what is listed."""
    if not namespace:
        return after, "", True
    return f"{namespace}/{after}", f"{namespace}0", bool(after)  # "0" is the character after "/"


class WatchCache:
    """All resources. `resource(prefix)` returns the same record for as long as the cache lives."""

    def __init__(
        self,
        store: Store,
        *,
        ring_events: int = RING_EVENTS,
        ring_bytes: int = RING_BYTES,
        history_revisions: int = HISTORY_REVISIONS,
    ) -> None:
        self._store = store
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._history_revisions = history_revisions
        self._resources: dict[str, ResourceCache] = {}
        self._revision = 0
        self._history_start = 0
        self._loaded = 0
        """Events up to here are already in the objects; they go into the rings only."""
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = count()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load everything and start following the store, which must be started."""
        after = await self._load(self._history_revisions)
        replayed = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._follow(after, replayed), name="watch-cache")
        await asyncio.wait((self._task, replayed), return_when=asyncio.FIRST_COMPLETED)
        if not replayed.done():
            self._task.result()

    @property
    def follower(self) -> asyncio.Task[None] | None:
        """Return the task that follows the store between `start` and `stop`."""
        return self._task

    async def stop(self) -> None:
        """Stop following and close all watchers. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._close_watchers()

    def revision(self) -> int:
        """Return the newest revision that every read here reflects."""
        return self._revision

    def resource(self, prefix: str) -> ResourceCache:
        """Return the cache of `Kind.storage_prefix()`; an empty one for a prefix without objects."""
        resource = self._resources.get(prefix)
        if resource is None:
            resource = ResourceCache(prefix, self._history_start, self._ring_events, self._ring_bytes)
            self._resources[prefix] = resource
        return resource

    def resources(self) -> list[ResourceCache]:
        """Return all resources that were ever asked for or had an object."""
        return list(self._resources.values())

    async def wait_for(self, revision: int, timeout_s: float = 3.0) -> None:
        """Return when the cache reflects `revision`. Raises ApiError(504), which undoes nothing that was committed."""
        if self._revision >= revision:
            return
        loop = asyncio.get_running_loop()
        for _ in range(PATIENCE_STEPS):
            future = loop.create_future()
            heapq.heappush(self._waiters, (revision, next(self._ticket), future))
            timer = loop.call_later(timeout_s / PATIENCE_STEPS, _let_go, future)
            try:
                await future
            finally:
                timer.cancel()
            if self._revision >= revision:
                return
        raise gateway_timeout(
            f"the watch cache does not keep up with the store: it is at revision {self._revision} and not at {revision} "
            f"after {timeout_s:g} s; what was written is stored, look again in a moment"
        )

    async def refresh(self, timeout_s: float = 3.0) -> None:
        """Return when the cache reflects every commit that was answered before this call."""
        if self._revision < (current := self._store.current_revision()):
            await self.wait_for(current, timeout_s)

    async def _load(self, history_revisions: int) -> int:
        """Take in the newest state; return the revision after which history is to be followed.

        It is made beside the old one, which is read meanwhile, and takes its place in one turn of the loop."""
        page = await self._store.list(REGISTRY)
        start = max(self._store.compacted_revision(), page.revision - history_revisions, FIRST_REVISION)
        fresh: dict[str, ResourceCache] = {}
        for number, entry in enumerate(page.entries, 1):
            prefix = prefix_of(entry.key)
            resource = fresh.get(prefix)
            if resource is None:
                resource = fresh[prefix] = ResourceCache(prefix, start)
            resource.load(entry.key, entry.value, entry.revision)
            if number % LOADED_A_TURN == 0:
                await asyncio.sleep(0)
        self._history_start = start
        for prefix in fresh:
            self.resource(prefix)
        for prefix, resource in self._resources.items():
            resource.replace(fresh.get(prefix), start)
        self._loaded = self._revision = page.revision
        return start

    async def _follow(self, after: int, replayed: asyncio.Future[None]) -> None:
        """Apply the store's batches until it stops; list again when its watch is lost."""
        while True:
            if after >= self._loaded and not replayed.done():
                replayed.set_result(None)
            try:
                # All keys are watched, so that the revision moves on with every commit.
                async with aclosing(self._store.watch("", after)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        self._apply(batch)
                        after = batch[-1].revision
                        if after >= self._loaded and not replayed.done():
                            replayed.set_result(None)
                break
            except Compacted:
                after = await self._load(0)
                self._close_watchers()
                self._wake()
            except StoreFailed:
                await asyncio.sleep(RETRY_S)
        if not replayed.done():
            replayed.set_result(None)

    def _apply(self, batch: Sequence[Event]) -> None:
        changed: dict[ResourceCache, list[CachedEvent]] = {}
        for event in batch:
            if not event.key.startswith(REGISTRY):
                continue
            resource = self.resource(prefix_of(event.key))
            if event.revision <= self._loaded:
                resource.remember(event)
                resource.changed_at = max(resource.changed_at, event.revision)
            else:
                changed.setdefault(resource, []).append(resource.apply(event))
        self._revision = max(self._revision, batch[-1].revision)
        for resource, events in changed.items():
            for listener in list(resource.listeners):
                self._tell(resource, listener, events)
        self._wake()

    def _tell(self, resource: ResourceCache, listener: Listener, events: Sequence[CachedEvent]) -> None:
        """Call a listener. A worker boundary: one that fails ends its resource's watches, not the cache."""
        try:
            listener(events)
        except Exception:
            log.exception("sending changes of %s failed; its watches are closed and start again", resource.prefix)
            for close in list(resource.on_reset):
                close()

    def _wake(self) -> None:
        waiters = self._waiters
        while waiters and waiters[0][0] <= self._revision:
            _let_go(heapq.heappop(waiters)[2])

    def _close_watchers(self) -> None:
        for resource in self._resources.values():
            for close in list(resource.on_reset):
                close()


def prefix_of(key: str) -> str:
    """Return the storage prefix of a key: `/registry/<group>/<plural>/`."""
    return key[: key.index("/", key.index("/", len(REGISTRY)) + 1) + 1]
