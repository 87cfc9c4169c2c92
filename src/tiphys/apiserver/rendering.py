"""Objects in the form that a client wants, as bytes: plain in any version, or metadata only. Tables are in table.py,
protobuf is in protobufrendering.py.

A rendering knows one (kind, form). `item` is an object within a list, `single` one on its own (and in watch events).
Where only the head of the stored JSON differs, bytes are sliced; nothing is decoded. Built-in kinds have no
apiVersion and kind inside of lists, custom resources have; both as upstream.

Invariant: the same object and revision always gives the same bytes (tables excepted: ages grow).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cached import CachedObject, in_version, splice_revision
from tiphys.apiserver.negotiation import JSON, PARTIAL, Form
from tiphys.apiserver.slices import DECODED_SLICE_BYTES, SLICE_BYTES, take_turns, weighed_slices, work_on
from tiphys.wire.message import Sink, Stream


class Rendering(Protocol):
    """See the module's docstring. `key` tells renderings of one kind apart that give different bytes."""

    key: Hashable
    stable: bool
    """Whether the same object gives the same bytes at any time."""
    whole: bool
    """Whether it shows what conversion webhooks may change, so that objects must be in the kind's version
    (`Converter.prepare`)."""
    media: str
    """Content type of what is not YAML."""
    stream_media: str
    """Content type of a watch."""
    separator: bytes
    """What stands between the items of a list."""
    list_end: bytes
    """What stands behind them."""
    slice_bytes: int
    """Stored bytes of objects that are rendered in one turn of the loop."""

    def item(self, obj: CachedObject) -> bytes: ...

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        """Return the object on its own. `columns` matters to tables only."""
        ...

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        """Return what stands before the items of a list; `items_bytes` is how long they are, separators counted."""
        ...

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        """Return an object that carries nothing but a resourceVersion."""
        ...

    def frame(self, event: str, single: bytes) -> bytes:
        """Return one event of a watch; `single` is the object on its own."""
        ...

    def status(self, status: JsonObject) -> bytes:
        """Return a Status on its own."""
        ...


class JsonRendering:
    """What all renderings in JSON have in common."""

    media = JSON
    stream_media = JSON
    separator = b","
    list_end = b"]}"
    slice_bytes = SLICE_BYTES

    def frame(self, event: str, single: bytes) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (event.encode(), single)

    def status(self, status: JsonObject) -> bytes:
        return orjson.dumps(status)


class PlainRendering(JsonRendering):
    """Whole objects in `kind.version`."""

    stable = True
    whole = True

    def __init__(self, kind: Kind) -> None:
        since = kind.conversion.since if kind.conversion is not None else 0
        self.key: Hashable = ("plain", kind.api_version, since)
        self._kind = kind
        self._head = b'{"apiVersion":%b,"kind":%b,"metadata":{' % (
            orjson.dumps(kind.api_version),
            orjson.dumps(kind.kind),
        )
        self._item_head = self._head if kind.custom else b'{"metadata":{'
        converts = kind.convert is not None and kind.storage_api_version != kind.api_version
        self._direct = kind.convert is None and kind.conversion is None
        """Whether only heads differ, in whatever version an object is stored."""
        self._version_head = b'{"apiVersion":%b,' % orjson.dumps(kind.api_version)
        if converts or kind.conversion is not None:
            self.slice_bytes = DECODED_SLICE_BYTES

    def item(self, obj: CachedObject) -> bytes:
        if self._direct:
            return obj.with_head(self._item_head)
        if self._kind.conversion is not None:
            return self.single(obj)
        if obj.value.startswith(self._version_head):
            return obj.with_head(self._item_head)
        body = self._converted(obj)
        return body if self._kind.custom else b"{" + body[body.index(b'"metadata":{') :]

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        if self._direct:
            return obj.with_head(self._head)
        if self._kind.conversion is None:
            same = obj.value.startswith(self._version_head)
            return obj.with_head(self._head) if same else self._converted(obj)
        value = in_version(self._kind, obj)
        assert value is not None, f"{obj.key} is shown before its webhook was asked"
        return obj.with_head(self._head) if value is obj.value else splice_revision(value, obj.revision)

    def _converted(self, obj: CachedObject) -> bytes:
        """Return the object in a version that differs in more than its head (built-in kinds)."""
        known = obj.renditions.get(self._kind.api_version) if obj.renditions is not None else None
        if known is None:
            value = orjson.dumps(convert_to(self._kind, orjson.loads(obj.value)))
            obj.remember(self._kind, value)
        else:
            value = known[1]
        return splice_revision(value, obj.revision)

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        return _list_head(self._kind.list_kind, self._kind.api_version, metadata)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        head = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
        return orjson.dumps(head)


class _MetadataOnly(msgspec.Struct, frozen=True):
    metadata: msgspec.Raw


_decode_metadata = msgspec.json.Decoder(_MetadataOnly).decode


def partial_metadata(kind: Kind, obj: CachedObject, api_version: str) -> bytes:
    """Return the object as PartialObjectMetadata."""
    value = in_version(kind, obj) if _changes_metadata(kind) else obj.value
    assert value is not None, f"{obj.key} is shown before its webhook was asked"
    raw = bytes(_decode_metadata(value).metadata)
    comma = b"" if raw == b"{}" else b","
    return b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":{"resourceVersion":"%d"%b%b}' % (
        api_version.encode(),
        obj.revision,
        comma,
        raw[1:],
    )


def _changes_metadata(kind: Kind) -> bool:
    """Tell whether labels and annotations may differ between versions: a webhook may change them."""
    return kind.conversion is not None and kind.conversion.webhook is not None


class PartialRendering(JsonRendering):
    """Metadata only, as it is in the version of `kind`."""

    stable = True

    def __init__(self, kind: Kind, form: Form) -> None:
        self.whole = _changes_metadata(kind)
        version = PlainRendering(kind).key if self.whole else None
        self.key: Hashable = (PARTIAL, form.version, version)
        self._kind = kind
        self._api_version = form.api_version

    def item(self, obj: CachedObject) -> bytes:
        return partial_metadata(self._kind, obj, self._api_version)

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        return partial_metadata(self._kind, obj, self._api_version)

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        return _list_head("PartialObjectMetadataList", self._api_version, metadata)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return orjson.dumps({"kind": PARTIAL, "apiVersion": self._api_version, "metadata": metadata})


def _list_head(kind: str, api_version: str, metadata: JsonObject) -> bytes:
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return head[:-1] + b',"items":['


def convert_to(kind: Kind, obj: JsonObject) -> JsonObject:
    """Return an object of the same group and plural in `kind.version`, with apiVersion, kind and metadata first."""
    version = str(obj.get("apiVersion", ""))
    if version != kind.api_version and kind.convert is not None:
        obj = kind.convert(obj, version, kind.api_version)
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": obj.get("metadata", {})}
    return head | {name: value for name, value in obj.items() if name not in head}


async def list_parts(rendering: Rendering, objects: Sequence[CachedObject]) -> list[bytes]:
    """Return the items of a list, without the brackets, in parts to be joined. Others run while a long list is made.

    The items of a slice are joined at once: hundreds of thousands of small pieces of memory would never go back.
    """
    separator = rendering.separator
    parts: list[bytes] = []
    for number, some in enumerate(weighed_slices(objects, rendering.slice_bytes)):
        if number:
            await asyncio.sleep(0)
            parts.append(separator)
        parts.append(await work_on(some, rendering.slice_bytes, partial(_joined, rendering)))
    return parts


def _joined(rendering: Rendering, objects: Sequence[CachedObject]) -> bytes:
    """Return some items of a list."""
    item = rendering.item
    return rendering.separator.join([item(obj) for obj in objects])


async def list_bytes(rendering: Rendering, objects: Sequence[CachedObject]) -> int:
    """Return how long the items of a list are, which nobody keeps; for renderings without a separator."""
    size = 0
    for number, some in enumerate(weighed_slices(objects, rendering.slice_bytes)):
        if number:
            await asyncio.sleep(0)
        size += len(await work_on(some, rendering.slice_bytes, partial(_joined, rendering)))
    return size


def list_stream(rendering: Rendering, head: bytes, objects: Sequence[CachedObject]) -> Stream:
    """Answer with a long list, of which no more is made than the client takes."""

    def start(sink: Sink) -> Callable[[], None]:
        task = asyncio.create_task(_send_list(sink, rendering, head, objects), name="list")

        def stop() -> None:
            task.cancel()

        return stop

    return Stream(start, content_type=rendering.media)


async def _send_list(sink: Sink, rendering: Rendering, head: bytes, objects: Sequence[CachedObject]) -> None:
    """Send a list in slices. Should it fail, the loop logs it, and the client finds that it is cut off."""
    sink.send(head)
    try:
        for number, some in enumerate(weighed_slices(objects, rendering.slice_bytes)):
            if number:
                await take_turns(sink)
                if rendering.separator:
                    sink.send(rendering.separator)
            sink.send(await work_on(some, rendering.slice_bytes, partial(_joined, rendering)))
        sink.send(rendering.list_end)
    except TimeoutError:
        pass  # the client takes nothing any more
    finally:
        sink.close()
