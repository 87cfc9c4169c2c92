"""Objects in Kubernetes' protocol buffers encoding: envelopes, lists and watch events around the messages.

A whole object is MAGIC and an envelope that tells apiVersion and kind; within lists an object is its bare message; a
watch is frames of a length and a WatchEvent that holds a whole object. The messages themselves are in
protobufencoder.py and protobufdecoder.py, their field numbers in data/messages.txt. Typed Go clients (those of kubectl,
Helm, controller-runtime) speak it by default for built-in kinds; custom resources have no protobuf.

Spec: Kubernetes API concepts, "Kubernetes Protobuf encoding" (the envelope); upstream's runtime.Unknown and
metav1.WatchEvent.
"""

from __future__ import annotations

from tiphys.api.kind import JsonObject
from tiphys.api.protobufdecoder import decode_message, read_size, read_varint
from tiphys.api.protobufencoder import encode_message, sized, varint
from tiphys.api.protobuftable import META, message_name

MAGIC = b"k8s\x00"

_NO_MESSAGE = (
    "object *unstructured.Unstructured does not implement the protobuf marshalling interface and cannot be encoded to a "
    "protobuf message"
)
_UNKNOWN_END = b"\x1a\x00\x22\x00"
"""The envelope's empty content encoding and content type."""


class ProtobufError(ValueError):
    """A body that cannot be read. `api_version` and `kind` are what its envelope tells, "" as far as it does not."""

    def __init__(self, message: str, api_version: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.api_version = api_version
        self.kind = kind


def decode_protobuf(data: bytes) -> JsonObject:
    """Return the object in an envelope. Raises ProtobufError."""
    if not data:
        raise ProtobufError("empty data")
    if not data.startswith(MAGIC):
        prefix = " ".join(str(byte) for byte in MAGIC)
        raise ProtobufError(f"provided data does not appear to be a protobuf message, expected prefix [{prefix}]")
    if len(data) == len(MAGIC):
        raise ProtobufError("empty body")
    api_version = kind = ""
    try:
        api_version, kind, raw = _open(data)
        name = message_name(api_version, kind)
        if name is None:
            raise ProtobufError(_NO_MESSAGE, api_version, kind)
        return {"apiVersion": api_version, "kind": kind, **decode_message(name, raw)}
    except ProtobufError:
        raise
    except (ValueError, IndexError) as error:
        text = "unexpected EOF" if isinstance(error, IndexError) else str(error)
        raise ProtobufError(text, api_version, kind) from None


def _open(data: bytes) -> tuple[str, str, bytes]:
    """Return (apiVersion, kind, message) of an envelope. Raises ValueError and IndexError."""
    parts = _blobs(data, len(MAGIC), len(data))
    begin, end = parts.get(1, (0, 0))
    meta = _blobs(data, begin, end)
    api_version, kind = (data[slice(*meta.get(number, (0, 0)))].decode() for number in (1, 2))
    return api_version, kind, data[slice(*parts.get(2, (0, 0)))]


def _blobs(data: bytes, at: int, end: int) -> dict[int, tuple[int, int]]:
    """Return (begin, end) of the fields of a message that has nothing but strings and messages."""
    found: dict[int, tuple[int, int]] = {}
    while at < end:
        key, at = read_varint(data, at)
        if key & 7 != 2:
            raise ValueError(f"proto: wrong wireType = {key & 7} for field {key >> 3}")
        begin, at = read_size(data, at, end)
        found[key >> 3] = (begin, at)
    return found


def envelope(api_version: str, kind: str, message: bytes) -> bytes:
    """Return a whole object."""
    meta = sized(b"\x0a", api_version.encode()) + sized(b"\x12", kind.encode())
    return b"".join((MAGIC, sized(b"\x0a", meta), b"\x12", varint(len(message)), message, _UNKNOWN_END))


def encode_object(obj: JsonObject) -> bytes:
    """Return a whole object that tells its apiVersion and kind. Raises KeyError for a kind without a message."""
    api_version, kind = obj["apiVersion"], obj["kind"]
    name = message_name(api_version, kind)
    if name is None:
        raise KeyError(f"{api_version} {kind} has no protobuf message")
    return envelope(api_version, kind, encode_message(name, obj))


def encode_item(message: bytes) -> bytes:
    """Return an object as it stands in a list."""
    return sized(b"\x12", message)


def list_head(api_version: str, kind: str, metadata: JsonObject, items_bytes: int) -> bytes:
    """Return what stands before the items of a list: the lengths of all of it are told there."""
    meta = sized(b"\x0a", encode_message(f"{META}.ListMeta", metadata))
    names = sized(b"\x0a", api_version.encode()) + sized(b"\x12", kind.encode())
    return b"".join((MAGIC, sized(b"\x0a", names), b"\x12", varint(len(meta) + items_bytes), meta))


LIST_END = _UNKNOWN_END
"""What stands behind the items of a list."""


def watch_frame(event: str, whole: bytes) -> bytes:
    """Return one frame of a watch: the event's type, and a whole object."""
    message = sized(b"\x0a", event.encode()) + sized(b"\x12", sized(b"\x0a", whole))
    return len(message).to_bytes(4, "big") + message
