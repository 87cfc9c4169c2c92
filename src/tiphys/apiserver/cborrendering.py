"""Objects in CBOR: any form of any kind, made from the JSON that a client of JSON would get.

Spec: KEP-4222 (application/cbor, application/cbor-seq); RFC 8742 (sequences).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import orjson

from tiphys.api.cbor import ITEMS_BEGIN, ITEMS_END, SELF_DESCRIBED, encode_cbor, encode_item
from tiphys.api.kind import JsonObject
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.negotiation import CBOR
from tiphys.apiserver.rendering import Rendering
from tiphys.apiserver.slices import ENCODED_SLICE_BYTES


class CborRendering:
    """What another rendering says in JSON, item by item in CBOR."""

    media = CBOR
    stream_media = f"{CBOR}-seq"
    separator = b""
    list_end = ITEMS_END
    slice_bytes = ENCODED_SLICE_BYTES

    def __init__(self, json: Rendering) -> None:
        self.key: Hashable = (CBOR, json.key)
        self.stable = json.stable
        self.whole = json.whole
        self._json = json

    def item(self, obj: CachedObject) -> bytes:
        return encode_item(orjson.loads(self._json.item(obj)))

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        return encode_cbor(orjson.loads(self._json.single(obj, columns=columns)))

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        outer = orjson.loads(self._json.list_head(metadata, 0) + self._json.list_end)
        name = "rows" if "rows" in outer else "items"
        del outer[name]
        before = encode_item(outer | {name: None})  # the items take the place of the null at its end
        return SELF_DESCRIBED + before[:-1] + ITEMS_BEGIN

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        return encode_cbor(orjson.loads(self._json.bookmark(revision, annotations, columns=columns)))

    def frame(self, event: str, single: bytes) -> bytes:
        parts = (SELF_DESCRIBED, b"\xa2", encode_item("type"), encode_item(event), encode_item("object"), single)
        return b"".join(parts)

    def status(self, status: JsonObject) -> bytes:
        return encode_cbor(status)
