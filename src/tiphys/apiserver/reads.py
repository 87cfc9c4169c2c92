"""GET, LIST and WATCH of every kind, and the rendering of one object for answers of writes.

The router calls the four methods of `Reads` with a `Kind` that it looked up and the request as it came; query
parameters and the Accept header are read here. Failures are `ApiError`s for the request boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cache import WatchCache
from tiphys.base.clock import Clock, Randomness
from tiphys.store.interface import Store
from tiphys.wire.message import Request, Response, Stream


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of reading."""

    list_memo_bytes: int = 32 * 1024 * 1024
    """Bytes of joined list bodies that are remembered."""
    pending_bytes: int = 4 * 1024 * 1024
    """A watcher that has not taken more than this is closed."""
    fresh_timeout_s: float = 3.0
    """How long a read waits for the cache to reach a revision."""


class Reads:
    """Answers reads from the watch cache, and old revisions from the store."""

    def __init__(
        self,
        cache: WatchCache,
        store: Store,
        clock: Clock,
        randomness: Randomness,
        limits: ReadLimits | None = None,
    ) -> None:
        self._cache = cache
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._limits = limits or ReadLimits()

    async def get_object(self, kind: Kind, namespace: str, name: str, request: Request) -> Response:
        """Answer GET of one object. `namespace` is "" for cluster-scoped kinds. Raises not_found."""
        raise NotImplementedError

    async def list_objects(self, kind: Kind, namespace: str, request: Request) -> Response:
        """Answer GET of a collection; `namespace` "" means all namespaces (or a cluster-scoped kind)."""
        raise NotImplementedError

    async def watch_objects(self, kind: Kind, namespace: str, request: Request, *, name: str = "") -> Stream:
        """Answer GET of a collection with `watch=true`. `name` narrows it to one object (legacy /watch/ paths)."""
        raise NotImplementedError

    def render_object(
        self, kind: Kind, obj: bytes | JsonObject, request: Request, *, status: int = 200
    ) -> Response:
        """Answer with one object as the Accept header wants it (plain, Table, PartialObjectMetadata).

        `obj` carries its resourceVersion. Bytes are the canonical JSON in the storage version (`CachedObject.body`, or
        `splice_revision(value, revision)`); a dict may be in any served version and is converted to `kind.version`.
        """
        raise NotImplementedError
