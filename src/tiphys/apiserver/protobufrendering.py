"""Objects in protobuf: whole ones of built-in kinds, or metadata only of any kind.

Made from the JSON that a client of JSON would get, by a rendering of that. Each object's message is encoded once for all
lists, reads and watches and kept while there is room: `Encoded` holds the messages used last. A list is spliced of them.

Invariant: the kept bytes never exceed ENCODED_BYTES.
Spec: Kubernetes API concepts, "Kubernetes Protobuf encoding"; upstream's watch frames (4 bytes of length, WatchEvent).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.protobuf import LIST_END, encode_item, encode_object, envelope, list_head, watch_frame
from tiphys.api.protobufencoder import encode_message
from tiphys.api.protobuftable import META, message_name
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.negotiation import PARTIAL, PROTOBUF, Form
from tiphys.apiserver.rendering import PartialRendering, PlainRendering
from tiphys.apiserver.slices import ENCODED_SLICE_BYTES

ENCODED_BYTES = 32 * 1024 * 1024
"""What is kept of messages."""
_ENTRY_BYTES = 300
"""About what a kept message takes beyond its bytes."""


class Encoded:
    """Messages of objects, by what tells them apart; the least recently used go first."""

    def __init__(self, limit_bytes: int = ENCODED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._messages: OrderedDict[Hashable, bytes] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        message = self._messages.get(key)
        if message is not None:
            self._messages.move_to_end(key)
        return message

    def put(self, key: Hashable, message: bytes) -> None:
        """Keep a message that is not there yet."""
        self._messages[key] = message
        self.size_bytes += len(message) + _ENTRY_BYTES
        while self.size_bytes > self._limit_bytes and self._messages:
            self.size_bytes -= len(self._messages.popitem(last=False)[1]) + _ENTRY_BYTES


class ProtobufRendering:
    """Objects as one message each. `json` renders what is encoded."""

    stable = True
    media = PROTOBUF
    stream_media = f"{PROTOBUF};stream=watch"
    separator = b""
    slice_bytes = ENCODED_SLICE_BYTES
    list_end = LIST_END

    def __init__(self, json: PlainRendering | PartialRendering, names: tuple[str, str, str], encoded: Encoded) -> None:
        self.key: Hashable = (PROTOBUF, json.key)
        self.whole = json.whole
        self._json = json
        self._api_version, self._kind, self._message = names
        self._encoded = encoded

    def _encode(self, obj: CachedObject) -> bytes:
        key = (obj.key, obj.revision, obj.written, self.key)
        message = self._encoded.get(key) if obj.key else None
        if message is None:
            message = encode_message(self._message, orjson.loads(self._json.single(obj)))
            if obj.key:
                self._encoded.put(key, message)
        return message

    def item(self, obj: CachedObject) -> bytes:
        return encode_item(self._encode(obj))

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        return envelope(self._api_version, self._kind, self._encode(obj))

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        return list_head(self._api_version, f"{self._kind}List", metadata, items_bytes)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        return encode_object(orjson.loads(self._json.bookmark(revision, annotations, columns=columns)))

    def frame(self, event: str, single: bytes) -> bytes:
        return watch_frame(event, single)

    def status(self, status: JsonObject) -> bytes:
        return encode_object(status)


def whole_rendering(kind: Kind, encoded: Encoded) -> ProtobufRendering:
    """Return the rendering of whole objects of a built-in kind."""
    message = message_name(kind.api_version, kind.kind)
    assert message is not None, f"{kind.api_version} {kind.kind} is in the table of messages"
    return ProtobufRendering(PlainRendering(kind), (kind.api_version, kind.kind, message), encoded)


def partial_rendering(kind: Kind, form: Form, encoded: Encoded) -> ProtobufRendering:
    """Return the rendering of metadata only."""
    names = (form.api_version, PARTIAL, f"{META}.{PARTIAL}")
    return ProtobufRendering(PartialRendering(kind, form), names, encoded)
