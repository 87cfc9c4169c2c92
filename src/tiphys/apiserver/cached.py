"""One object and one change as the watch cache holds them: stored bytes, and an index that is decoded when needed.

An object keeps the very bytes that the store holds (shared, not copied) and knows where its metadata begins, so that
any head and its resourceVersion are put before them by slicing. Labels, the uid and selectable fields are decoded at
most once, and so is the object in another version that differs in more than its head (`in_version`).

Invariant: a `CachedObject` never changes; caches of derived values are the only fields written later. Nothing here is
part of a cycle, so the garbage collector is not told of it: it would look at every object of the cluster again and again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import msgspec
import orjson

from tiphys.api.kind import CustomConversion, JsonObject, Kind
from tiphys.base.memory import trimmed

_METADATA = b'"metadata":{'
_CLOSE = ord("}")
_API_VERSION_AT = len(b'{"apiVersion":"')


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    uid: str = ""
    labels: dict[str, str] | None = None


class _Object(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()


_decode_metadata = msgspec.json.Decoder(_Object).decode


def splice_revision(value: bytes, revision: int) -> bytes:
    """Return the stored JSON with `metadata.resourceVersion` put first in its metadata."""
    at = value.index(_METADATA) + len(_METADATA)
    comma = b"" if value[at : at + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:at], revision, comma, value[at:])


class CachedObject(msgspec.Struct, eq=False, gc=False):
    """One object at one revision. `namespace` is "" for cluster-scoped kinds."""

    key: str
    namespace: str
    name: str
    value: bytes
    revision: int
    renditions: dict[str, tuple[Kind, bytes]] | None = None
    """Values (without resourceVersion) by apiVersion, where a conversion or a newer schema makes another one; and the
    record of the kind that they were made for."""
    written: int = 0
    """Revision at which the value was written (for a deletion's last object an earlier one than `revision`), or a later
    one as of which it was seen to fit its definition."""
    _at: int = 0
    """Where the metadata's first field begins."""
    _metadata: _Metadata | None = None
    _fields: dict[str, str] | None = None

    def __post_init__(self) -> None:
        self._at = self.value.index(_METADATA) + len(_METADATA)
        self.written = self.written or self.revision

    @property
    def api_version(self) -> str:
        """Return the apiVersion in which the object is stored."""
        return self.value[_API_VERSION_AT : self.value.index(b'"', _API_VERSION_AT)].decode()

    def remember(self, kind: Kind, value: bytes) -> None:
        """Keep the object's value in the version of a kind."""
        if self.renditions is None:
            self.renditions = {}
        self.renditions[kind.api_version] = (kind, trimmed(value))

    @property
    def body(self) -> bytes:
        """Return the JSON that clients get, in the storage version."""
        return self.with_head(self.value[: self._at])

    def with_head(self, head: bytes) -> bytes:
        """Return the JSON with another beginning; `head` ends with `"metadata":{`."""
        value, at = self.value, self._at
        end = b'"' if value[at] == _CLOSE else b'",'
        return b"".join((head, b'"resourceVersion":"', str(self.revision).encode(), end, value[at:]))

    @property
    def _index(self) -> _Metadata:
        if self._metadata is None:
            self._metadata = _decode_metadata(self.value).metadata
        return self._metadata

    @property
    def labels(self) -> Mapping[str, str]:
        return self._index.labels or {}

    @property
    def uid(self) -> str:
        return self._index.uid

    def field(self, kind: Kind, label: str) -> str:
        """Return the text of a selectable field. Raises KeyError for one that the kind does not have."""
        if label == "metadata.name":
            return self.name
        if label == "metadata.namespace":
            return self.namespace
        fields = self._fields
        key = label if kind.conversion is None else f"{kind.version} {label}"
        if fields is None or key not in fields:
            value = self.value if kind.conversion is None else in_version(kind, self)
            obj: JsonObject = orjson.loads(self.value if value is None else value)
            fields = dict(fields or {})
            prefix = key[: len(key) - len(label)]
            fields.update((prefix + name, text(obj)) for name, text in kind.selectable_fields.items())
            self._fields = fields
        return fields[key]

    def decode(self) -> JsonObject:
        """Return the object as a fresh dict, with its resourceVersion."""
        obj: dict[str, Any] = orjson.loads(self.body)
        return obj

    def at(self, revision: int) -> CachedObject:
        """Return the same object with another revision: what a DELETED event carries."""
        moved = CachedObject(self.key, self.namespace, self.name, self.value, revision, self.renditions, self.written)
        moved._metadata, moved._fields = self._metadata, self._fields
        return moved


def in_version(kind: Kind, obj: CachedObject) -> bytes | None:
    """Return an object's value in the version and schema of a custom kind; the stored value itself if it fits.

    None: it takes a webhook that has not been asked for this object (`Converter.prepare` asks it).
    """
    conversion = kind.conversion
    if conversion is None:
        return obj.value
    same = obj.api_version == kind.api_version
    if same and obj.written > conversion.since:
        return obj.value
    known = obj.renditions.get(kind.api_version) if obj.renditions is not None else None
    if known is not None and known[0] is kind:
        return known[1]
    if not same and conversion.webhook is not None:
        return None
    decoded: JsonObject = orjson.loads(obj.value)
    decoded["apiVersion"] = kind.api_version
    value = orjson.dumps(fitted(conversion, decoded))
    if value == obj.value:
        obj.written = conversion.since + 1
        return obj.value
    obj.remember(kind, value)
    return value


def fitted(conversion: CustomConversion, obj: JsonObject) -> JsonObject:
    """Return an object, changed in place, as the schema of its own version wants it: pruned, with defaults."""
    schema = conversion.schemas.get(obj["apiVersion"])
    if schema is not None:
        schema.decode(obj)
        schema.default_from_schema(obj)
    return obj


class CachedEvent(msgspec.Struct, eq=False, gc=False):
    """One change. `object` is the new object or, for a deletion, the last one at the deletion's revision."""

    object: CachedObject
    previous: CachedObject | None
    deleted: bool
    encoded: dict[Hashable, bytes] = {}
    """Frames by representation and type, while this event is being sent: each is encoded once for all watchers."""
    _departed: CachedObject | None = None

    @property
    def revision(self) -> int:
        return self.object.revision

    @property
    def departed(self) -> CachedObject:
        """Return what a watch sees of an object that left its selection: the old one at this revision."""
        assert self.previous is not None
        if self.deleted:
            return self.object
        if self._departed is None:
            self._departed = self.previous.at(self.revision)
        return self._departed

    def weight(self) -> int:
        """Return about how many bytes this event keeps alive beyond the newest objects."""
        return 300 + (len(self.previous.value) if self.previous is not None else 0)
