"""The single objects (ConfigMaps, Secrets, claims) that pods of this node name.

`read` fetches one now; `watch` keeps a callback told of its changes for as long as somebody is interested. One watch
an object, however many pods mount it, restricted by name: that is all that the node authorizer lets a node see.
Immutable objects are not watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from tiphys.api.views.meta import PartialObject, View, decode_view
from tiphys.base.errors import ApiError
from tiphys.client.interface import Client, Resource

log = logging.getLogger(__name__)

V = TypeVar("V", bound=View)
Key = tuple[Resource, str, str]
RETRY_S = 5.0


class Objects:
    """Reads and watches. `close` ends all watches."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._interested: dict[Key, dict[str, Callable[[], None]]] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    async def read(self, resource: Resource, namespace: str, name: str, view: type[V]) -> V | None:
        """Return the object, or None when there is none. Raises ApiError and OSError for other failures."""
        try:
            return decode_view(await self._client.get(resource, namespace, name), view)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def read_all(self, resource: Resource, view: type[V]) -> tuple[list[V], str]:
        """Return all objects of a resource of the cluster, and the version of the list. Raises ApiError and OSError."""
        listed = await self._client.list(resource)
        return [decode_view(item, view) for item in listed.items], listed.resource_version

    def watch(self, key: Key, who: str, changed: Callable[[], None], seen: str) -> None:
        """Call `changed` after each change of the object until `forget(who)`. Called again, it replaces.

        `seen` is the resource version that the caller has read, or "absent": a change since then is told too. A key
        without a name stands for all objects; `seen` is then that of the list.
        """
        self._interested.setdefault(key, {})[who] = changed
        if key not in self._tasks:
            name = f"watch {key[0].plural} {key[1]}/{key[2]}"
            self._tasks[key] = asyncio.create_task(self._run(key, seen), name=name)

    def forget(self, who: str) -> None:
        """End the interest of one pod (its uid) in all objects."""
        for key, interested in list(self._interested.items()):
            interested.pop(who, None)
            if not interested:
                del self._interested[key]
                self._tasks.pop(key).cancel()

    async def close(self) -> None:
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        self._interested.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key, seen: str) -> None:
        resource, namespace, name = key
        selector = f"metadata.name={name}" if name else ""
        while True:
            try:
                listed = await self._client.list(resource, namespace, field_selector=selector)
                version = "absent" if name else listed.resource_version
                if name and listed.items:
                    version = decode_view(listed.items[0], PartialObject).metadata.resource_version
                if version != seen:
                    self._tell(key)
                seen = version
                events = self._client.watch(
                    resource, namespace, resource_version=listed.resource_version, field_selector=selector
                )
                async for event in events:
                    if event.type != "BOOKMARK":
                        seen = decode_view(event.object, PartialObject).metadata.resource_version
                        if event.type == "DELETED":
                            seen = "absent"
                        self._tell(key)
                await asyncio.sleep(0.1)
            except (ApiError, OSError) as error:
                log.debug("watching %s %s/%s starts again: %s", resource.plural, namespace, name, error)
                await asyncio.sleep(0.1 if isinstance(error, ApiError) and error.code == 410 else RETRY_S)

    def _tell(self, key: Key) -> None:
        for changed in list(self._interested.get(key, {}).values()):
            changed()
