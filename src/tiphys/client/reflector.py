"""A copy of one collection of the cluster, kept current by list and watch, with indexes.

Decides what this process believes about one resource. Its input is the `Client`; controllers, the scheduler and the
kubelet read it and are told of each change. Invariant: after `synced`, the objects held are those of one revision of
the server, `resource_version`, which only moves forward; handlers saw exactly the changes that lead from nothing to
here, deletions that a relist discovered included. Each object is decoded once, and many readers share one reflector.

Spec: Kubernetes API concepts, "Efficient detection of changes": list, watch from its revision, resume from the last
event or bookmark, list again after 410.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from tiphys.api.views.meta import ObjectMeta, PartialObject, View, decode_view, metadata_of
from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError
from tiphys.client.interface import Client, Resource, WatchEvent

log = logging.getLogger(__name__)

V = TypeVar("V", bound=View)
ChangeHandler = Callable[[V | None, V | None], None]

BACKOFF_FIRST_S = 0.8
BACKOFF_LONGEST_S = 30.0
START_BACKOFF_FIRST_S = 0.02
"""Before the first list succeeded the server is probably about to start, so the first waits are short."""
SHORTEST_WATCH_S = 1.0
"""A watch that ends sooner without an event counts as a failure, or a broken server would be asked in a busy loop."""


def object_key(metadata: ObjectMeta) -> str:
    """Return `namespace/name`, or `name` of an object without a namespace."""
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


class Reflector(Generic[V]):
    """See the module's docstring. `view` must have a `metadata` of type ObjectMeta."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        view: type[V],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Callable[[V], Iterable[str]]] | None = None,
        randomness: Randomness,
    ) -> None:
        self._client = client
        self.resource = resource
        self._view = view
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._indexers = dict(indexers or {})
        self._randomness = randomness
        self.resource_version = ""
        """The revision that the copy stands at; "" before the first list and when a new list is needed."""
        self._objects: dict[str, V] = {}
        self._by_namespace: dict[str, dict[str, V]] = {}
        self._indexes: dict[str, dict[str, dict[str, V]]] = {name: {} for name in self._indexers}
        """Index name -> value -> key -> object, in order of arrival (so that simulations repeat exactly)."""
        self._handlers: list[ChangeHandler[V]] = []
        self._synced = asyncio.Event()
        self._failures = 0
        """Failures since the last success: the exponent of the back-off."""
        self._expired = False
        """The last watch ended with 410; a second one in a row waits, or a broken server would be asked for ever."""

    # Readers

    def get(self, key: str) -> V | None:
        """Return the object at `namespace/name` (or `name`)."""
        return self._objects.get(key)

    def list(self, namespace: str = "") -> list[V]:
        """Return all objects, or those of one namespace."""
        objects = self._by_namespace.get(namespace, {}) if namespace else self._objects
        return [*objects.values()]

    def by_index(self, index: str, value: str) -> list[V]:  # type: ignore[valid-type]  # `list` is the method here
        """Return the objects for which the indexer of that name gave this value."""
        return [*self._indexes[index].get(value, {}).values()]

    def keys(self) -> list[str]:  # type: ignore[valid-type]
        return [*self._objects]

    def __len__(self) -> int:
        return len(self._objects)

    def on_change(self, handler: ChangeHandler[V]) -> None:
        """Call `handler(old, new)` after each change of the copy, at once for what is there already.

        It must neither block nor raise; usually it adds a key to a work queue.
        """
        self._handlers.append(handler)
        for view in self.list():
            handler(None, view)

    async def synced(self) -> None:
        """Wait until the first list is in and its handlers were told."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    # Keeping it current

    async def run(self) -> None:
        """List and watch until cancelled. Failures of the server and the connection are retried for ever."""
        while True:
            try:
                if not self.resource_version:
                    await self._relist()
                started_s = asyncio.get_running_loop().time()
                count = await self._watch()
                if count or asyncio.get_running_loop().time() - started_s >= SHORTEST_WATCH_S:
                    self._failures = 0
                    self._expired = False
                else:
                    await self._wait("the watch ended at once")
            except ApiError as error:
                if error.code == 410:
                    self.resource_version = ""
                    if self._expired:
                        await self._wait(str(error))
                    self._expired = True
                else:
                    await self._wait(str(error))
            except OSError as error:
                await self._wait(str(error) or type(error).__name__)

    async def _relist(self) -> None:
        result = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        gone = dict.fromkeys(self._objects)
        for item in result.items:
            view = self._decode(item)
            if view is None:
                continue
            key = object_key(metadata_of(view))
            gone.pop(key, None)
            old = self._objects.get(key)
            if old is None or metadata_of(old).resource_version != metadata_of(view).resource_version:
                self._put(key, view)
        for key in gone:
            self._drop(key)
        self.resource_version = result.resource_version
        self._synced.set()

    async def _watch(self) -> int:
        """Apply events until the server ends the watch; return how many there were."""
        count = 0
        events = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        async for event in events:
            self._apply(event)
            count += 1
            self._failures = 0
            self._expired = False
        return count

    def _apply(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            self.resource_version = decode_view(event.object, PartialObject).metadata.resource_version
            return
        view = self._decode(event.object)
        metadata = decode_view(event.object, PartialObject).metadata if view is None else metadata_of(view)
        if view is not None:
            key = object_key(metadata)
            if event.type == "DELETED":
                self._drop(key, view)
            else:
                self._put(key, view)
        self.resource_version = metadata.resource_version

    def _decode(self, data: bytes) -> V | None:
        try:
            return decode_view(data, self._view)
        except msgspec.ValidationError as error:
            log.error(
                "an object of %s does not have the shape that this component expects and is ignored (%s): %.200r",
                self.resource.plural, error, data,
            )  # fmt: skip
            return None

    async def _wait(self, why: str) -> None:
        longest_s = BACKOFF_LONGEST_S
        first_s = BACKOFF_FIRST_S if self._synced.is_set() else START_BACKOFF_FIRST_S
        delay_s = min(first_s * 2 ** min(self._failures, 20), longest_s)
        delay_s = self._randomness.uniform(delay_s, delay_s * 1.5)
        self._failures += 1
        level = logging.WARNING if delay_s > BACKOFF_FIRST_S * 2 else logging.DEBUG
        log.log(level, "listing and watching %s goes on in %.1f s: %s", self.resource.plural, delay_s, why)
        await asyncio.sleep(delay_s)

    # The copy

    def _put(self, key: str, view: V) -> None:
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = view
        namespace = metadata_of(view).namespace
        if namespace:
            self._by_namespace.setdefault(namespace, {})[key] = view
        for name, indexer in self._indexers.items():
            for value in indexer(view):
                self._indexes[name].setdefault(value, {})[key] = view
        for handler in self._handlers:
            handler(old, view)

    def _drop(self, key: str, last: V | None = None) -> None:
        """Forget an object; `last` is its final state if the server told it."""
        old = self._objects.pop(key, None)
        if old is None:
            return
        self._unindex(key, old)
        namespace = metadata_of(old).namespace
        if namespace:
            objects = self._by_namespace[namespace]
            del objects[key]
            if not objects:
                del self._by_namespace[namespace]
        for handler in self._handlers:
            handler(last if last is not None else old, None)

    def _unindex(self, key: str, view: V) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(view):
                keys = index.get(value)
                if keys is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]
