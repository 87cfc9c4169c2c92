"""A shared copy of one resource that already shows our own writes.

Every controller reads the cluster through a `Mirror`: the reflector's copy, plus the answers to writes that the watch
has not told yet. This is what keeps a stale cache from doubling pods: an answered create is counted from the moment of
its answer, an answered delete no longer, whatever the watch lags. Nothing is guessed and nothing expires: an own write
at revision R is shown until the reflector stands at R or later. A create whose answer was lost is the caller's business
(see `creation.py`: its name was drawn before, so it is repeated under the same name and found).

Invariant: `get` and `owned` never show an object older than what this process last wrote or read of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from tiphys.api.views.meta import PartialObject, View, decode_view, metadata_of
from tiphys.base.clock import Randomness
from tiphys.client.interface import Client, Resource
from tiphys.client.reflector import Reflector, object_key
from tiphys.controllers.selection import owner_index

V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Pending(Generic[V]):
    """An own write that the reflector has not shown yet."""

    view: V
    revision: int
    owners: tuple[str, ...]


def _revision(text: str) -> int:
    return int(text) if text.isdigit() else 0


class Mirror(Generic[V]):
    """See the module's docstring. For one event loop."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        view: type[V],
        randomness: Randomness,
        indexers: Mapping[str, Callable[[V], Iterable[str]]] | None = None,
    ) -> None:
        self.client = client
        self.resource = resource
        self._view = view
        indexes: dict[str, Callable[[V], Iterable[str]]] = {"owner": cast(Any, owner_index), **(indexers or {})}
        self.reflector: Reflector[V] = Reflector(client, resource, view, indexers=indexes, randomness=randomness)
        self._pending: dict[str, Pending[V]] = {}
        self._pending_owners: dict[str, dict[str, Pending[V]]] = {}
        self._deleted: set[str] = set()
        """Uids that were deleted at once and that the reflector still holds."""
        self.reflector.on_change(self._observe)

    def get(self, key: str) -> V | None:
        """Return the newest known state of an object."""
        pending = self._current(key)
        if pending is not None:
            return pending.view
        view = self.reflector.get(key)
        return None if view is not None and metadata_of(view).uid in self._deleted else view

    def owned(self, owner_uid: str) -> list[V]:
        """Return the objects whose controller has this uid (or `orphans/<namespace>`: those without one)."""
        base = cast("list[V]", self.reflector.by_index("owner", owner_uid))
        if not self._pending and not self._deleted:
            return base
        views = [v for v in base if self._current(k := object_key(metadata_of(v))) is None and self._is_kept(k, v)]
        pending = self._pending_owners.get(owner_uid)
        if pending:
            views += [entry.view for key, entry in [*pending.items()] if self._current(key) is entry]
        return views

    def by_index(self, index: str, value: str) -> list[V]:
        """Return objects by another index, with own newer states in place (an index value itself may lag)."""
        views = cast("list[V]", self.reflector.by_index(index, value))
        if not self._pending and not self._deleted:
            return views
        newest = [self.get(object_key(metadata_of(view))) for view in views]
        return [view for view in newest if view is not None]

    def all(self, namespace: str = "") -> list[V]:
        """Return all objects, or those of a namespace. Own creates appear when the watch tells them."""
        return self.reflector.list(namespace)

    def on_change(self, handler: Callable[[V | None, V | None], None]) -> None:
        self.reflector.on_change(handler)

    async def synced(self) -> None:
        await self.reflector.synced()

    def note(self, data: bytes) -> V:
        """Take the answer to a create, update, patch or get, and return its view."""
        view = decode_view(data, self._view)
        meta = metadata_of(view)
        revision = _revision(meta.resource_version)
        key = object_key(meta)
        if revision <= _revision(self.reflector.resource_version):
            return view
        now = self.reflector.get(key)
        if now is not None and _revision(metadata_of(now).resource_version) >= revision:
            return view
        old = self._pending.get(key)
        if old is None or old.revision < revision:
            self._drop(key)
            entry = Pending(view, revision, tuple(owner_index(cast(Any, view))))
            self._pending[key] = entry
            for owner in entry.owners:
                self._pending_owners.setdefault(owner, {})[key] = entry
        return view

    def note_deleted(self, view: V, data: bytes) -> None:
        """Take the answer to a delete of `view`: the object with its deletionTimestamp, or the Status of one gone."""
        answer = decode_view(data, PartialObject)
        if answer.metadata.uid == metadata_of(view).uid and answer.metadata.deletion_timestamp is not None:
            self.note(data)
            return
        self._drop(object_key(metadata_of(view)))
        now = self.reflector.get(object_key(metadata_of(view)))
        if now is not None and metadata_of(now).uid == metadata_of(view).uid:
            self._deleted.add(metadata_of(view).uid)

    # Writes, each noted

    async def create(self, namespace: str, obj: Mapping[str, Any]) -> V:
        return self.note(await self.client.create(self.resource, namespace, obj))

    async def patch(self, view: V, patch: Any, *, subresource: str = "") -> V:
        """Merge-patch the object of a view; `metadata.uid` is added, so that a namesake is never hit."""
        meta = metadata_of(view)
        body = {**patch, "metadata": {"uid": meta.uid, **patch.get("metadata", {})}}
        return self.note(
            await self.client.patch(self.resource, meta.namespace, meta.name, body, subresource=subresource)
        )

    async def delete(self, view: V, *, propagation: str = "", grace_period_s: int | None = None) -> None:
        meta = metadata_of(view)
        data = await self.client.delete(
            self.resource, meta.namespace, meta.name,
            uid=meta.uid, propagation=propagation, grace_period_s=grace_period_s,
        )  # fmt: skip
        self.note_deleted(view, data)

    # Inside

    def _is_kept(self, key: str, view: V) -> bool:
        return metadata_of(view).uid not in self._deleted

    def _current(self, key: str) -> Pending[V] | None:
        entry = self._pending.get(key)
        if entry is not None and entry.revision <= _revision(self.reflector.resource_version):
            self._drop(key)
            return None
        return entry

    def _drop(self, key: str) -> None:
        entry = self._pending.pop(key, None)
        if entry is None:
            return
        for owner in entry.owners:
            entries = self._pending_owners.get(owner)
            if entries is not None:
                entries.pop(key, None)
                if not entries:
                    del self._pending_owners[owner]

    def _observe(self, old: V | None, new: V | None) -> None:
        view = new if new is not None else old
        if view is None or not (self._pending or self._deleted):
            return
        meta = metadata_of(view)
        if new is None:
            self._deleted.discard(meta.uid)
        entry = self._pending.get(object_key(meta))
        if entry is not None and entry.revision <= _revision(meta.resource_version):
            self._drop(object_key(meta))


async def wait_synced(mirrors: Iterable[Mirror[Any]]) -> None:
    """Wait until all mirrors have their first list."""
    await asyncio.gather(*(mirror.synced() for mirror in mirrors))
