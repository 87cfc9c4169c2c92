"""Objects as protobuf: what the table's inverse encodes is decoded to the same JSON, and damage is always a 4xx."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kind
from tiphys.api.kinds import builtin_kinds
from tiphys.api.protobuf import MAGIC, PROTOBUF, _messages, decode_protobuf, message_name
from tiphys.base.clock import format_micro_time, format_time, parse_time
from tiphys.base.errors import ApiError

META = "k8s.io.apimachinery.pkg.apis.meta.v1"
TIME, MICRO_TIME = f"{META}.Time", f"{META}.MicroTime"
INT_OR_STRING = "k8s.io.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "k8s.io.apimachinery.pkg.api.resource.Quantity"
RAW = (f"{META}.FieldsV1", "k8s.io.apimachinery.pkg.runtime.RawExtension")
LISTS = (
    f"{META}.Verbs",
    *(f"k8s.io.api.{p}.v1.ExtraValue" for p in ("authentication", "authorization", "certificates")),
)
KINDS = [k for k in builtin_kinds((1, 37)) if message_name(k.api_version, k.kind) is not None]
DEPTH = 7


def random_object(message: str, rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """Return JSON of a message with values that no client could mean as absent."""
    result: dict[str, Any] = {}
    for field in _messages()[message].values():
        if rng.random() > (0.5 if depth < 3 else 0.25):
            continue
        if field.inline:
            result |= random_object(field.kind, rng, depth + 1)
        elif field.mapped:
            result[field.name] = {f"k{i}": random_value(field.kind, rng, depth) for i in range(rng.randint(1, 2))}
        elif field.repeated:
            result[field.name] = [random_value(field.kind, rng, depth) for _ in range(rng.randint(1, 2))]
        elif depth < DEPTH or len(field.kind) == 1:
            result[field.name] = random_value(field.kind, rng, depth)
    return result


def random_value(kind: str, rng: random.Random, depth: int) -> Any:
    simple: dict[str, Any] = {
        "s": lambda: rng.choice(["a", "ä-ö", "x" * 200]),
        "b": lambda: base64.b64encode(rng.randbytes(rng.randint(1, 40))).decode(),
        "i": lambda: rng.choice([1, 7, 300, 2**31 - 1, -1, -(2**31)]),
        "o": lambda: True,
        "d": lambda: rng.choice([0.5, -2.25]),
        TIME: lambda: format_time(rng.randint(1, 2**31)),
        MICRO_TIME: lambda: format_micro_time(rng.randint(1, 2**31) + 0.25),
        INT_OR_STRING: lambda: rng.choice([8080, "http", "25%"]),
        QUANTITY: lambda: rng.choice(["100m", "1Gi", "3"]),
    }
    if kind in simple:
        return simple[kind]()
    if kind in RAW:
        return {"f:a": {}, "n": rng.randint(0, 9)}
    if kind in LISTS:
        return ["get", "list"]
    return random_object(kind, rng, depth + 1) if depth < DEPTH else {}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def part(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def encode(obj: dict[str, Any], message: str) -> bytes:
    """The inverse of decoding, from the same table."""
    out = b""
    for number, field in _messages()[message].items():
        if field.inline:
            inner = encode(obj, field.kind)
            out += part(number, inner) if inner else b""
        elif field.name not in obj:
            continue
        elif field.mapped:
            for key, value in obj[field.name].items():
                out += part(number, part(1, key.encode()) + part(2, encode_value(value, field.kind)))
        else:
            values = obj[field.name] if field.repeated else [obj[field.name]]
            out += b"".join(part(number, encode_value(value, field.kind)) for value in values)
    return out


def encode_value(value: Any, kind: str) -> int | bytes | float:
    if kind == "s":
        return str(value).encode()
    if kind == "b":
        return base64.b64decode(value)
    if kind in ("i", "o"):
        return int(value)
    if kind == "d":
        return float(value)
    if kind in (TIME, MICRO_TIME):
        seconds, rest = divmod(parse_time(value), 1)
        return part(1, int(seconds)) + part(2, round(rest * 1e9))
    if kind == INT_OR_STRING:
        return part(1, 0) + part(2, value) if isinstance(value, int) else part(1, 1) + part(3, value.encode())
    if kind == QUANTITY:
        return part(1, str(value).encode())
    if kind in RAW:
        return part(1, orjson.dumps(value))
    if kind in LISTS:
        return b"".join(part(1, item.encode()) for item in value)
    return encode(value, kind)


def enveloped(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + part(1, part(1, api_version.encode()) + part(2, kind.encode())) + part(2, raw)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.api_version}-{kind.kind}")
def test_every_kind_decodes_to_what_was_encoded(kind: Kind) -> None:
    message = message_name(kind.api_version, kind.kind)
    assert message is not None
    rng = random.Random(f"{kind.api_version}/{kind.kind}")
    for _ in range(5):
        obj = random_object(message, rng)
        data = enveloped(kind.api_version, kind.kind, encode(obj, message))
        assert decode_protobuf(data) == {"apiVersion": kind.api_version, "kind": kind.kind, **obj}


def test_the_table_names_only_fields_of_the_schemas() -> None:
    definitions = load_definitions((1, 37))
    wrong = [problem for kind in KINDS for problem in disagreements(kind, definitions)]
    assert wrong == []


def disagreements(kind: Kind, definitions: Any) -> Iterator[str]:
    message = message_name(kind.api_version, kind.kind)
    assert message is not None
    special = {TIME, MICRO_TIME, INT_OR_STRING, QUANTITY, *RAW, *LISTS}
    seen, ahead = set(), [(message, kind.definition, kind.kind)]
    while ahead:
        message, definition, path = ahead.pop()
        if message in special or (message, definition) in seen:
            continue
        seen.add((message, definition))
        properties = definitions[definition].get("properties") or {}
        for field in flat_fields(message):
            found = properties.get(field.name)
            if found is None:
                yield f"{path}.{field.name} is in no schema"
                continue
            if field.kind not in special and (found.get("type") == "array") != field.repeated:
                yield f"{path}.{field.name} is a list in one and not in the other"
            inner = found.get("items") or found.get("additionalProperties") or found
            reference = inner.get("$ref") if isinstance(inner, dict) else None
            if reference and len(field.kind) > 1:
                ahead.append((field.kind, reference.rsplit("/", 1)[1], f"{path}.{field.name}"))


def flat_fields(message: str) -> Iterator[Any]:
    for field in _messages()[message].values():
        if field.inline:
            yield from flat_fields(field.kind)
        else:
            yield field


def test_zero_values_that_are_no_pointers_are_absent_and_others_stay() -> None:
    pod = "k8s.io.api.core.v1"
    spec = encode(
        {
            "hostNetwork": False,
            "automountServiceAccountToken": False,
            "priority": 0,
            "nodeName": "",
            "containers": [{"name": "c", "stdin": False, "livenessProbe": {"periodSeconds": 0}}],
        },
        f"{pod}.PodSpec",
    )
    decoded = decode_protobuf(enveloped("v1", "Pod", part(2, spec)))
    assert decoded["spec"] == {
        "automountServiceAccountToken": False,
        "priority": 0,
        "containers": [{"name": "c", "livenessProbe": {}}],
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{}", 400),
        (MAGIC, 415),
        (MAGIC + b"\xff" * 20, 400),
        (enveloped("v1", "Nothing", b""), 415),
        (enveloped("v1", "ConfigMap", b"\x0a\x7f"), 400),
        (enveloped("v1", "ConfigMap", part(1, 5)), 400),
        (enveloped("v1", "ConfigMap", part(1, part(1, b"\xff\xfe"))), 400),
        (enveloped("v1", "ConfigMap", varint(1 << 3 | 3)), 400),
    ],
)
def test_damaged_bodies_are_refused(data: bytes, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        decode_protobuf(data)
    assert caught.value.code == code


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_decode_or_are_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    message = message_name(kind.api_version, kind.kind)
    assert message is not None
    whole = bytearray(encode(random_object(message, random.Random(data.draw(st.integers(0, 50)))), message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(whole) - 1, 0)))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        decoded = decode_protobuf(enveloped(kind.api_version, kind.kind, bytes(whole)))
    except ApiError as error:
        assert error.code in (400, 415)
    else:
        orjson.dumps(decoded)


def test_the_media_type_is_upstreams() -> None:
    assert PROTOBUF == "application/vnd.kubernetes.protobuf"
