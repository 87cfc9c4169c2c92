"""Objects in Kubernetes' protocol buffers encoding: bytes in, JSON object out.

Typed Go clients (kubectl's `create` verbs, drain, controller-runtime) send their objects so. Field numbers are the
table in data/messages.txt; nothing is generated and no library is needed for reading. Answers are JSON, which every
such client accepts beside protobuf.

Go writes fields that are no pointers even when they are zero, and JSON leaves those out: a zero value is dropped here
unless it is one that a client can mean (a pointer in Go): the two sets below say which.

Spec: Kubernetes API concepts, "Protobuf encoding" (the envelope); Protocol Buffers encoding documentation.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import orjson

from tiphys.api.kind import JsonObject
from tiphys.base.clock import format_micro_time, format_time
from tiphys.base.errors import ApiError, bad_request, unsupported_media_type

PROTOBUF = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
DEPTH_LIMIT = 64

_META = "k8s.io.apimachinery.pkg.apis.meta.v1"
_SHORT = {
    "meta": _META,
    "core": "k8s.io.api.core.v1",
    "resource": "k8s.io.apimachinery.pkg.api.resource",
    "intstr": "k8s.io.apimachinery.pkg.util.intstr",
    "runtime": "k8s.io.apimachinery.pkg.runtime",
}
_PACKAGES = {"": "k8s.io.api.core.v1", "meta.k8s.io": _META}

_KEPT_EMPTY = frozenset({"storageClassName"})
"""Strings for which "" says something else than absence."""

_DROPPED_FALSE = frozenset(
    [
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "stdin",
        "stdinOnce",
        "tty",
        "readOnly",
        "paused",
        "unschedulable",
        "publishNotReadyAddresses",
        "globalDefault",
        "denied",
        "requiresRepublish",
        "authenticated",
        "incomplete",
    ]
)
"""Booleans that are no pointers: false means absent."""

_DROPPED_ZERO = frozenset(
    [
        "hostPort",
        "nodePort",
        "containerPort",
        "port",
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "minReadySeconds",
        "generation",
        "observedGeneration",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "currentReplicas",
        "healthCheckNodePort",
        "count",
        "active",
        "succeeded",
        "failed",
        "weight",
        "maxSkew",
        "signal",
        "matchingPrecedence",
    ]
)
"""Integers that are no pointers: 0 means absent."""

_STATUS_ONLY = frozenset({"replicas"})
"""Integers that are no pointers in a status, but are in a spec."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: str
    """One letter of the table, or the full name of a message."""
    repeated: bool
    mapped: bool
    inline: bool


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    """Return the table, by full name of the message."""
    text = resources.files("tiphys.api").joinpath("data/messages.txt").read_text()
    messages: dict[str, dict[int, _Field]] = {}
    package = ""
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        if line.startswith("["):
            package = line[1:-1]
            continue
        name, *fields = line.split()
        messages[f"{package}.{name}"] = dict(_parse_field(field, package) for field in fields)
    return messages


def _parse_field(text: str, package: str) -> tuple[int, _Field]:
    number, _, rest = text.partition("=")
    name, _, kind = rest.partition(":")
    inline = kind.endswith("!")
    kind = kind.rstrip("!")
    repeated, mapped = kind.startswith("["), kind.startswith("{")
    kind = kind.lstrip("[{")
    if len(kind) > 1:
        prefix, dot, last = kind.rpartition(".")
        kind = f"{_SHORT.get(prefix, prefix)}.{last}" if dot else f"{package}.{kind}"
    return int(number), _Field(name, kind, repeated, mapped, inline)


def decode_protobuf(data: bytes) -> JsonObject:
    """Return the object in an envelope. Raises ApiError(400) for damaged bytes, (415) for a kind without a table."""
    if not data.startswith(MAGIC):
        raise bad_request("the provided data does not appear to be a protobuf message: it lacks the k8s prefix")
    try:
        envelope = _decode(data[len(MAGIC) :], f"{_SHORT['runtime']}.Unknown", 0)
        meta = envelope.get("typeMeta") or {}
        raw = base64.b64decode(envelope.get("raw", ""))
        api_version, kind = meta.get("apiVersion", ""), meta.get("kind", "")
        name = message_name(api_version, kind)
        if name is None:
            raise unsupported_media_type(f"{api_version}, Kind={kind} is not read as protobuf here; send it as JSON")
        return {"apiVersion": api_version, "kind": kind, **_decode(raw, name, 0)}
    except ApiError:
        raise
    except (ValueError, IndexError, struct.error, OverflowError, OSError) as error:
        raise bad_request(f"the provided data is not a valid protobuf message: {error}") from None


def message_name(api_version: str, kind: str) -> str | None:
    """Return the full name of a kind's message, None when the table has none."""
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group)
    if package is None or (not group and version != "v1"):
        package = f"k8s.io.api.{group.split('.')[0]}.{version}"
    for candidate in (f"{package}.{kind}", f"{_META}.{kind}"):
        if candidate in _messages():
            return candidate
    return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a number was expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes | int) -> Any:
    """Yield (number, wire type, value): an int for varints, bytes for the rest. Raises ValueError for what is none."""
    if not isinstance(data, bytes):
        raise ValueError("a message was expected")
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield key >> 3, wire, value
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > end:
                raise ValueError("a field is longer than its message")
            yield key >> 3, wire, data[position : position + length]
            position += length
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if position + size > end:
                raise ValueError("a number is cut off")
            yield key >> 3, wire, data[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire} is not used by Kubernetes")


def _decode(data: bytes, message: str, depth: int) -> JsonObject:
    if depth > DEPTH_LIMIT:
        raise ValueError("messages are nested too deeply")
    table = _messages().get(message)
    if table is None:
        raise ValueError(f"{message} is not in the table of messages")
    result: JsonObject = {}
    for number, wire, value in _fields(data):
        field = table.get(number)
        if field is None:
            continue  # a field of a newer client
        if field.mapped:
            key, item = _entry(value, field.kind, depth)
            result.setdefault(field.name, {})[key] = item
        elif field.repeated:
            result.setdefault(field.name, []).append(_value(value, wire, field.kind, depth))
        elif field.inline:
            result.update(_decode(value, field.kind, depth + 1))
        else:
            item = _value(value, wire, field.kind, depth)
            if not _means_absent(item, field, message):
                result[field.name] = item
    return result


def _means_absent(item: Any, field: _Field, message: str) -> bool:
    if item is None:
        return True
    if item == "":
        return field.name not in _KEPT_EMPTY
    if item is False:
        return field.name in _DROPPED_FALSE
    if item == 0 and field.kind == "i":
        if field.name in _STATUS_ONLY:
            return message.endswith("Status")
        return field.name in _DROPPED_ZERO and not message.endswith(("EndpointPort", "PersistentVolumeStatus"))
    return False


def _entry(data: bytes, kind: str, depth: int) -> tuple[str, Any]:
    key, item = "", _zero(kind)
    for number, wire, value in _fields(data):
        if number == 1:
            key = _text(value)
        elif number == 2:
            item = _value(value, wire, kind, depth)
    return key, item


def _zero(kind: str) -> Any:
    return {"s": "", "b": "", "i": 0, "o": False, "d": 0.0}.get(kind, {})


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a string was expected")
    return value.decode("utf-8")


def _value(value: Any, wire: int, kind: str, depth: int) -> Any:
    if kind == "s":
        return _text(value)
    if kind in ("i", "o"):
        if not isinstance(value, int):
            raise ValueError("a number was expected")
        return bool(value) if kind == "o" else _signed(value)
    if kind == "d" and isinstance(value, bytes):
        return struct.unpack("<d", value)[0]
    if not isinstance(value, bytes):
        raise ValueError("a message was expected")
    if kind == "b":
        return base64.b64encode(value).decode()
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(value, depth)
    return _decode(value, kind, depth + 1)


# Messages whose JSON is not an object of their fields


def _numbers(data: bytes) -> dict[int, Any]:
    return {number: value for number, _, value in _fields(data)}


def _time(data: bytes, depth: int) -> str | None:
    seconds = _signed(_numbers(data).get(1, 0))
    return format_time(seconds) if data and seconds > -62_135_596_800 else None


def _micro_time(data: bytes, depth: int) -> str | None:
    fields = _numbers(data)
    seconds = _signed(fields.get(1, 0))
    if not data or seconds <= -62_135_596_800:
        return None
    return format_micro_time(seconds + _signed(fields.get(2, 0)) / 1e9)


def _int_or_string(data: bytes, depth: int) -> int | str:
    fields = _numbers(data)
    return _text(fields.get(3, b"")) if fields.get(1) else _signed(fields.get(2, 0))


def _quantity(data: bytes, depth: int) -> str:
    return _text(_numbers(data).get(1, b"0")) or "0"


def _raw_json(data: bytes, depth: int) -> Any:
    raw = _numbers(data).get(1, b"")
    return orjson.loads(raw) if raw else None


def _items(data: bytes, depth: int) -> list[str]:
    return [_text(value) for number, _, value in _fields(data) if number == 1]


_SPECIAL: dict[str, Callable[[bytes, int], Any]] = {
    f"{_META}.Time": _time,
    f"{_META}.MicroTime": _micro_time,
    f"{_META}.FieldsV1": _raw_json,
    f"{_META}.Verbs": _items,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _quantity,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": _raw_json,
    "k8s.io.api.authentication.v1.ExtraValue": _items,
    "k8s.io.api.authorization.v1.ExtraValue": _items,
    "k8s.io.api.certificates.v1.ExtraValue": _items,
}
