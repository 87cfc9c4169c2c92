"""GET, LIST and WATCH of every kind, and the rendering of one object for answers of writes.

The router calls `Reads` with a `Kind` that it looked up and the request as it came; query parameters and the Accept
header are read here. Which objects and revisions is decided in lists.py and watches.py, their bytes in rendering.py
and table.py. Failures are `ApiError`s for the request boundary.

Spec: Kubernetes docs, "Kubernetes API concepts".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.heavy import HEAVY_BYTES, Heavy
from tiphys.apiserver.listforms import dump_yaml, indent, indented_list, yaml_list
from tiphys.apiserver.listmemo import ListMemos, Memo, gzip_with_head, pack
from tiphys.apiserver.lists import Selected, await_revision, candidates, matching, select_page
from tiphys.apiserver.negotiation import CBOR, JSON, PLAIN, PROTOBUF, TABLE, YAML, Form, accepted_form
from tiphys.apiserver.options import ListOptions, parse_options, parse_revision, parse_selection
from tiphys.apiserver.presenting import BINARY, encode_binary
from tiphys.apiserver.rendering import (
    PartialRendering,
    PlainRendering,
    Rendering,
    convert_to,
    list_bytes,
    list_parts,
    list_stream,
)
from tiphys.apiserver.slices import slices
from tiphys.apiserver.table import TableRendering, include_object
from tiphys.apiserver.watches import BOOKMARK_S, Fanout
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import bad_request, not_found
from tiphys.store.interface import Store
from tiphys.wire.message import Answer, Request, Response, Sink, Stream

if TYPE_CHECKING:
    from tiphys.apiserver.protobufrendering import Encoded

WEIGHED_AT_ONCE = 10_000
"""Objects whose sizes are added up in one turn of the loop."""
RENDERINGS = 2048
"""Renderings of kinds that are kept."""
MEMO_FROM_BYTES = 4 * 1024
GZIP_FROM_BYTES = 128 * 1024
"""Smaller lists are not compressed, as upstream."""
PERSONS_CLIENTS = ("curl", "Wget", "Mozilla/5.0")
"""User agents whose answers are indented, as upstream does."""
WATCH_TIMEOUT_S = (1800.0, 3600.0)
"""How long a watch lasts that does not say: a random time between these."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of reading."""

    list_memo_bytes: int = 32 * 1024 * 1024
    """Bytes of joined list bodies that are remembered; a longer list is sent as its client takes it."""
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
        converter: Converter | None = None,
    ) -> None:
        self._converter = converter or Converter(randomness)
        self._heavy = Heavy()
        self._cache = cache
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._limits = limits or ReadLimits()
        self._memos = ListMemos(self._limits.list_memo_bytes)
        self._fanouts: dict[ResourceCache, Fanout] = {}
        self._plain: dict[tuple[int, str], tuple[Kind, Rendering]] = {}
        self._encoded: Encoded | None = None
        """Messages of objects; there since the first read in protobuf."""
        self._bookmarks: asyncio.Task[None] | None = None

    async def get_object(self, kind: Kind, namespace: str, name: str, request: Request) -> Response:
        """Answer GET of one object. `namespace` is "" for cluster-scoped kinds. Raises not_found."""
        accept = accepted_form(request.headers.get("accept", ""), custom=kind.custom)
        rendering, form = self._rendering(kind, request, accept)
        text = request.param("resourceVersion") if request.raw_query else ""
        if text or self._cache.revision() < self._store.current_revision():
            try:
                revision = parse_revision(text) if text else 0
            except ValueError as error:
                raise bad_request(f'resourceVersion: Invalid value: "{text}": {error}') from error
            await await_revision(self._cache, text, revision, self._limits.fresh_timeout_s)
        obj = self._cache.resource(kind.storage_prefix()).get(namespace, name)
        if obj is None:
            raise not_found(kind.group, kind.plural, name)
        if kind.conversion is not None:
            await self._converter.prepare(kind, (obj,))
        if form.media in BINARY and len(obj.value) > rendering.slice_bytes:
            return Response(200, await self._heavy.run(len(obj.value), rendering.single, obj), form.media)
        if len(obj.value) >= HEAVY_BYTES and (form.media == YAML or wants_indent(request)):
            return await self._heavy.run(len(obj.value), _answer, rendering.single(obj), form, 200, request)
        return _answer(rendering.single(obj), form, 200, request)

    async def list_objects(self, kind: Kind, namespace: str, request: Request) -> Answer:
        """Answer GET of a collection; `namespace` "" means all namespaces (or a cluster-scoped kind)."""
        accept = accepted_form(request.headers.get("accept", ""), collection=True, custom=kind.custom)
        options = parse_options(kind, namespace, request, watch=False)
        rendering, form = self._rendering(kind, request, accept)
        page = await self._page(options, rendering)
        metadata = page.metadata()
        if form.media == YAML or wants_indent(request) or not (page.whole and rendering.stable):
            return await self._list_answer(rendering, form, page.objects, metadata, request)
        return await self._whole_list(kind, page, rendering, (options.selection.key, rendering.key), request)

    async def list_given(self, kind: Kind, objects: Sequence[JsonObject], request: Request) -> Answer:
        """Answer with a list of objects that are not stored."""
        accept = accepted_form(request.headers.get("accept", ""), collection=True, custom=kind.custom)
        rendering, form = self._rendering(kind, request, accept)
        metadata: JsonObject = {"resourceVersion": str(self._cache.revision())}
        return await self._list_answer(rendering, form, [_detached(obj) for obj in objects], metadata, request)

    async def _page(self, options: ListOptions, rendering: Rendering) -> Selected:
        """Return the page that a list asks for, ready to be rendered."""
        kind, converter = options.selection.kind, self._converter
        convert = partial(converter.prepare, kind) if converter.may_call(kind) else None
        page = await select_page(self._cache, self._store, options, self._limits.fresh_timeout_s, convert)
        if convert is not None and rendering.whole:
            await convert(page.objects)
        return page

    async def _whole_list(
        self,
        kind: Kind,
        page: Selected,
        rendering: Rendering,
        key: tuple[object, object],
        request: Request,
    ) -> Answer:
        """Answer with a list that may be remembered."""
        resource = self._cache.resource(kind.storage_prefix())
        memo_key = (resource.prefix, *key)
        memo = self._memos.get(memo_key, page.changed_at)
        end = rendering.list_end
        if memo is None:
            if await self._is_long(page.objects):
                return await self._made_list(rendering, page.objects, page.metadata())
            parts = await list_parts(rendering, page.objects)
            memo = Memo(page.changed_at, b"".join(parts))
            if len(memo.items) >= MEMO_FROM_BYTES:
                self._memos.put(memo_key, memo)
        head = rendering.list_head(page.metadata(), len(memo.items))
        if len(memo.items) < GZIP_FROM_BYTES or "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(200, [head, memo.items, end], rendering.media)
        if memo.packed is None:
            packed = await asyncio.to_thread(pack, (memo.items, end))
            self._memos.add_packed(memo_key, memo, packed)
        else:
            packed = memo.packed
        headers = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
        return Response(200, gzip_with_head(head, packed), rendering.media, headers)

    async def select(self, kind: Kind, namespace: str, request: Request) -> Sequence[CachedObject]:
        """Return the newest objects that the request's selectors select (deletecollection, in key order)."""
        selection = parse_selection(kind, namespace, request)
        await await_revision(self._cache, "", 0, self._limits.fresh_timeout_s)
        objects = candidates(self._cache.resource(kind.storage_prefix()), selection)
        await self._converter.prepare(kind, objects)
        return await matching(selection, objects)

    async def render_list(self, kind: Kind, objects: Sequence[CachedObject], revision: int, request: Request) -> Answer:
        """Answer with objects that `select` returned, as the Accept header wants them."""
        accept = accepted_form(request.headers.get("accept", ""), collection=True, custom=kind.custom)
        rendering, form = self._rendering(kind, request, accept)
        return await self._list_answer(rendering, form, objects, {"resourceVersion": str(revision)}, request)

    async def _list_answer(
        self,
        rendering: Rendering,
        form: Form,
        objects: Sequence[CachedObject],
        metadata: JsonObject,
        request: Request,
    ) -> Answer:
        """Return a list that is not remembered."""
        if form.media == YAML:
            return Response(200, await yaml_list(rendering, rendering.list_head(metadata, 0), objects), YAML)
        if form.media == JSON and wants_indent(request):
            return Response(200, await indented_list(rendering, rendering.list_head(metadata, 0), objects))
        return await self._made_list(rendering, objects, metadata)

    async def _made_list(self, rendering: Rendering, objects: Sequence[CachedObject], metadata: JsonObject) -> Answer:
        """Return a list at once or, if it is long, piece by piece. Protobuf tells the length first: a long list is
        encoded twice then, which costs time where holding it would cost hundreds of MiB."""
        if await self._is_long(objects):
            size = await list_bytes(rendering, objects) if rendering.media == PROTOBUF else 0
            return list_stream(rendering, rendering.list_head(metadata, size), objects)
        parts = await list_parts(rendering, objects)
        head = rendering.list_head(metadata, sum(map(len, parts)))
        return Response(200, [head, *parts, rendering.list_end], rendering.media)

    async def _is_long(self, objects: Sequence[CachedObject]) -> bool:
        """Tell whether a list is too long to be remembered, or to be held whole."""
        size = 0
        for number, some in enumerate(slices(objects, WEIGHED_AT_ONCE)):
            if number:
                await asyncio.sleep(0)
            size += sum([len(obj.value) for obj in some])
        return size > self._limits.list_memo_bytes

    async def watch_objects(self, kind: Kind, namespace: str, request: Request, *, name: str = "") -> Stream:
        """Answer GET of a collection with `watch=true`. `name` narrows it to one object (legacy /watch/ paths).

        A revision that is gone is told by an ERROR event within the stream, as upstream does.
        """
        accept = accepted_form(request.headers.get("accept", ""), stream=True, custom=kind.custom)
        options = parse_options(kind, namespace, request, watch=True, name=name)
        rendering, _ = self._rendering(kind, request, accept)
        if options.initial_events or not options.resource_version:
            await await_revision(self._cache, options.resource_version, options.revision, self._limits.fresh_timeout_s)
        timeout_s = float(options.timeout_s) or self._randomness.uniform(*WATCH_TIMEOUT_S)
        fanout = self._fanout(self._cache.resource(kind.storage_prefix()))

        def start(sink: Sink) -> Callable[[], None]:
            watcher = fanout.open(sink, options, rendering, timeout_s)
            if options.bookmarks:
                self._plan_bookmarks()
            for opened in on_open:
                if watcher.opening is None:
                    opened()
                else:
                    watcher.opening.add_done_callback(lambda _, opened=opened: opened())  # type: ignore[misc]
            return lambda: fanout.forget(watcher)

        on_open: list[Callable[[], None]] = []
        return Stream(start, content_type=rendering.stream_media, on_open=on_open)

    def plain_rendering(self, kind: Kind, form: Form) -> Rendering:
        """Return how whole objects of a kind are written in a media type."""
        known = self._plain.get((id(kind), form.media))
        if known is None or known[0] is not kind:
            made = self._binary(kind, form, PlainRendering(kind))
            if len(self._plain) >= RENDERINGS:  # custom kinds that are no more are let go
                self._plain.clear()
            known = self._plain[id(kind), form.media] = (kind, made)
        return known[1]

    def render_object(self, kind: Kind, obj: bytes | JsonObject, request: Request, *, status: int = 200) -> Response:
        """Answer with one object as the Accept header wants it (plain, Table, PartialObjectMetadata).

        `obj` carries its resourceVersion. Bytes are the canonical JSON as the registry returns it (`Written.body`): in
        the storage version, or for a custom kind in its own; a dict may be in any served version and is converted to `kind.version`.
        """
        accept = accepted_form(request.headers.get("accept", ""), custom=kind.custom, tables=has_table(kind))
        same = kind.conversion is not None or kind.storage_api_version == kind.api_version
        if isinstance(obj, bytes) and accept.target == PLAIN and accept.media not in BINARY and same:
            return _answer(obj, accept, status, request)
        decoded: JsonObject = orjson.loads(obj) if isinstance(obj, bytes) else obj
        decoded = convert_to(kind, decoded)
        if accept.target == PLAIN:
            if accept.media in BINARY:
                return Response(status, encode_binary(decoded, accept.media), accept.media)
            return _answer(orjson.dumps(decoded), accept, status, request)
        rendering, form = self._rendering(kind, request, accept)
        return _answer(rendering.single(_detached(decoded)), form, status, request)

    async def render_written(self, kind: Kind, obj: bytes, request: Request, *, status: int) -> Response:
        """Answer with an object that was written, as `render_object` does; a large one is encoded in a thread."""
        accept = accepted_form(request.headers.get("accept", ""), custom=kind.custom, tables=has_table(kind))
        if accept.target == PLAIN and accept.media == JSON and not wants_indent(request):
            return self.render_object(kind, obj, request, status=status)
        return await self._heavy.run(len(obj), self.render_object, kind, obj, request, status=status)

    def fanouts(self) -> Iterable[Fanout]:
        """Return the watches of every resource that was ever watched: for metrics."""
        return self._fanouts.values()

    def watcher_count(self) -> int:
        """Return how many watches are open."""
        return sum(fanout.count() for fanout in self._fanouts.values())

    def close(self) -> None:
        """End all watches, and let the thread for large objects go. Idempotent."""
        if self._bookmarks is not None:
            self._bookmarks.cancel()
            self._bookmarks = None
        self._heavy.close()
        for fanout in self._fanouts.values():
            fanout.close_all()

    def _rendering(self, kind: Kind, request: Request, form: Form) -> tuple[Rendering, Form]:
        if form.target == PLAIN:
            return self.plain_rendering(kind, form), form
        if form.target == TABLE:
            table = TableRendering(kind, form, include_object(request.param("includeObject")), self._clock)
            return self._binary(kind, form, table), form
        return self._binary(kind, form, PartialRendering(kind, form)), form

    def _binary(self, kind: Kind, form: Form, json: Rendering) -> Rendering:
        """Return the rendering in the form's media type; `json` if that is JSON or YAML."""
        if form.media == PROTOBUF:
            return self._protobuf(kind, form)
        if form.media == CBOR:
            from tiphys.apiserver.cborrendering import CborRendering

            return CborRendering(json)
        return json

    def _protobuf(self, kind: Kind, form: Form) -> Rendering:
        from tiphys.apiserver.protobufrendering import Encoded, partial_rendering, whole_rendering

        encoded = self._encoded = self._encoded or Encoded()
        return whole_rendering(kind, encoded) if form.target == PLAIN else partial_rendering(kind, form, encoded)

    def _fanout(self, resource: ResourceCache) -> Fanout:
        fanout = self._fanouts.get(resource)
        if fanout is None:
            fanout = Fanout(resource, self._cache, self._limits.pending_bytes, self._converter)
            self._fanouts[resource] = fanout
        return fanout

    def _plan_bookmarks(self) -> None:
        if self._bookmarks is None:
            self._bookmarks = asyncio.get_running_loop().create_task(self._send_bookmarks(), name="bookmarks")

    async def _send_bookmarks(self) -> None:
        """Send bookmarks as long as there are watches."""
        while True:
            await asyncio.sleep(BOOKMARK_S)
            if not self.watcher_count():
                self._bookmarks = None
                return
            for fanout in list(self._fanouts.values()):
                await fanout.send_bookmarks()


def has_table(kind: Kind) -> bool:
    """Tell whether objects of a kind can be shown as a table: reviews and the like cannot, a Scale can."""
    return not kind.virtual or bool(kind.columns)


def wants_indent(request: Request) -> bool:
    """Return whether the answer is for a person: `pretty` says so, else the kind of client does."""
    pretty = request.param("pretty") if request.raw_query else ""
    if pretty:
        return pretty.lower() in ("true", "1")
    return request.headers.get("user-agent", "").startswith(PERSONS_CLIENTS)


def _answer(body: bytes, form: Form, status: int, request: Request) -> Response:
    if form.media in BINARY:
        return Response(status, body, form.media)
    if form.media == YAML:
        return Response(status, dump_yaml(orjson.loads(body)), YAML)
    if wants_indent(request):
        return Response(status, indent(orjson.loads(body)))
    return Response(status, body)


def _detached(obj: JsonObject) -> CachedObject:
    """Return an object that is in no cache, as renderings want it."""
    metadata = dict(obj.get("metadata") or {})
    version = str(metadata.pop("resourceVersion", "") or "0")
    value = orjson.dumps({**obj, "metadata": metadata})
    return CachedObject("", str(metadata.get("namespace", "")), str(metadata.get("name", "")), value, int(version))
