"""The watch cache: newest bytes, small index and recent events of every resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tiphys.api.kind import JsonObject, Kind
from tiphys.store.interface import Store


def splice_revision(value: bytes, revision: int) -> bytes:
    """Return the stored JSON with `metadata.resourceVersion` put first in its metadata."""
    raise NotImplementedError


class CachedObject:
    """One object at one revision."""

    key: str
    namespace: str
    name: str
    revision: int
    value: bytes

    @property
    def body(self) -> bytes:
        """Return the JSON that clients get, in the storage version."""
        raise NotImplementedError

    @property
    def labels(self) -> Mapping[str, str]:
        raise NotImplementedError

    @property
    def uid(self) -> str:
        raise NotImplementedError

    @property
    def owner_uids(self) -> tuple[str, ...]:
        raise NotImplementedError

    def field(self, kind: Kind, label: str) -> str:
        """Return the text of a selectable field."""
        raise NotImplementedError

    def decode(self) -> JsonObject:
        """Return the object as a fresh dict, with its resourceVersion."""
        raise NotImplementedError


class ResourceCache:
    """All objects of one storage prefix."""

    def get(self, namespace: str, name: str) -> CachedObject | None:
        raise NotImplementedError

    def objects(self, namespace: str = "") -> list[CachedObject]:
        """Return all objects (of a namespace) in key order."""
        raise NotImplementedError

    def count(self, namespace: str = "") -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[CachedObject]:
        raise NotImplementedError


class WatchCache:
    """All resources, fed by one watch of the store."""

    def __init__(self, store: Store) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Load everything and start following the store. The store must be started."""

    async def stop(self) -> None:
        """Stop following and close all watchers. Idempotent."""

    def revision(self) -> int:
        """Return the newest revision that every read here reflects."""
        raise NotImplementedError

    def resource(self, prefix: str) -> ResourceCache:
        """Return the cache of `Kind.storage_prefix()`; an empty one for an unknown prefix."""
        raise NotImplementedError

    async def wait_for(self, revision: int, timeout_s: float = 3.0) -> None:
        """Return when the cache reflects `revision`. Raises TimeoutError."""
        raise NotImplementedError

    async def refresh(self, timeout_s: float = 3.0) -> None:
        """Return when the cache reflects every commit that was answered before this call."""
        raise NotImplementedError
