"""Objects as protobuf: every kind of every version there and back, upstream's bytes, and damage that is always told."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from full_objects import Filler, pruned
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.definitions import supported_versions
from tiphys.api.kind import Kind
from tiphys.api.kinds import builtin_kinds
from tiphys.api.protobuf import (
    LIST_END,
    MAGIC,
    ProtobufError,
    decode_protobuf,
    encode_item,
    encode_object,
    list_head,
    watch_frame,
)
from tiphys.api.protobufdecoder import decode_message
from tiphys.api.protobufencoder import encode_message, sized, varint
from tiphys.api.protobuftable import META, message_name, messages

CORE = "k8s.io.api.core.v1"
NEWEST = supported_versions()[-1]
KINDS = list(builtin_kinds(NEWEST))
OLDER = {
    (kind.api_version, kind.kind): (version, kind)
    for version in supported_versions()
    for kind in builtin_kinds(version)
    if (kind.api_version, kind.kind) not in {(known.api_version, known.kind) for known in KINDS}
}


def there_and_back(version: tuple[int, int], kind: Kind) -> None:
    for turn in range(6):
        obj = Filler(version, turn).whole(kind)
        assert decode_protobuf(encode_object(obj)) == obj
        part = encode_object({**pruned(obj, Random(turn)), "apiVersion": kind.api_version, "kind": kind.kind})
        assert encode_object(decode_protobuf(part)) == part


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.api_version}-{kind.kind}")
def test_every_field_of_every_kind_comes_back(kind: Kind) -> None:
    there_and_back(NEWEST, kind)


@pytest.mark.parametrize("name", OLDER, ids="-".join)
def test_kinds_of_older_versions_come_back(name: tuple[str, str]) -> None:
    there_and_back(*OLDER[name])


def test_the_table_has_every_field_of_every_served_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Path(__file__).resolve().parents[3] / "scripts"
    monkeypatch.setattr(sys, "path", [str(scripts), *sys.path])
    script = runpy.run_path(str(scripts / "protobuf_messages.py"))
    assert list(script["missing_fields"]()) == []


def test_lists_have_their_metadata_and_items_where_upstream_has_them() -> None:
    fields = {field.number: field.name for field in messages()[f"{META}.PartialObjectMetadataList"]}
    assert fields == {1: "metadata", 2: "items"}


# Upstream's bytes


def test_fields_that_are_no_pointers_are_written_though_they_are_absent() -> None:
    metadata = (
        b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00"  # name .. uid, resourceVersion, 0, no time
    )
    raw = sized(b"\x0a", metadata) + sized(b"\x12", b"\x0a\x01k\x12\x01v")
    whole = MAGIC + b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap" + sized(b"\x12", raw) + b"\x1a\x00\x22\x00"
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    assert encode_object(obj) == whole
    assert decode_protobuf(whole) == obj


def test_numbers_texts_times_and_quantities_are_written_as_upstream_does() -> None:
    port = {"port": 80, "targetPort": "http", "nodePort": -1}
    assert encode_message(f"{CORE}.ServicePort", port) == (
        b"\x0a\x00\x12\x00\x18\x50\x22\x0a\x08\x01\x10\x00\x1a\x04http\x28" + b"\xff" * 9 + b"\x01"
    )
    assert encode_message(f"{CORE}.ServicePort", {})[-10:] == b"\x22\x06\x08\x00\x10\x00\x1a\x00\x28\x00"
    assert encode_message(f"{CORE}.ResourceFieldSelector", {}) == b"\x0a\x00\x12\x00\x1a\x03\x0a\x010"
    limits = {"memory": "1Gi", "cpu": "100m"}
    assert encode_message(f"{CORE}.ResourceRequirements", {"limits": limits}) == (
        b"\x0a\x0d\x0a\x03cpu\x12\x06\x0a\x04100m\x0a\x0f\x0a\x06memory\x12\x05\x0a\x031Gi"
    )
    lease = {"renewTime": "1970-01-01T00:00:01.500000Z", "leaseTransitions": 0}
    assert (
        encode_message("k8s.io.api.coordination.v1.LeaseSpec", lease)
        == b"\x22\x08\x08\x01\x10\x80\xca\xb5\xee\x01\x28\x00"
    )


def test_gos_zero_time_is_no_time() -> None:
    event = {"firstTimestamp": "0001-01-01T00:00:00Z", "eventTime": "0001-01-01T00:00:00.000000Z"}
    assert encode_message(f"{CORE}.Event", event) == encode_message(f"{CORE}.Event", {})


def test_order_in_json_does_not_matter() -> None:
    obj = Filler(NEWEST).whole(next(kind for kind in KINDS if kind.kind == "Pod"))
    assert encode_object(dict(reversed(obj.items()))) == encode_object(obj)


def test_zero_values_that_are_no_pointers_are_absent_unless_go_shows_them() -> None:
    spec = {
        "hostNetwork": False,
        "automountServiceAccountToken": False,
        "priority": 0,
        "nodeName": "",
        "containers": [{"name": "", "stdin": False, "livenessProbe": {"periodSeconds": 0}}],
    }
    assert decode_message(f"{CORE}.PodSpec", encode_message(f"{CORE}.PodSpec", spec)) == {
        "automountServiceAccountToken": False,
        "priority": 0,
        "containers": [{"name": "", "resources": {}, "livenessProbe": {}}],
    }
    status = decode_message("k8s.io.api.apps.v1.ReplicaSetStatus", b"\x08\x00\x10\x00\x18\x00\x20\x00\x28\x00")
    assert status == {"replicas": 0}


def test_packed_numbers_are_read_too() -> None:
    context = decode_message(f"{CORE}.PodSecurityContext", b"\x22\x03\x01\xac\x02\x20\x05")
    assert context["supplementalGroups"] == [1, 300, 5]


def test_lists_are_spliced_and_tell_their_length() -> None:
    item = encode_message(f"{CORE}.ConfigMap", {"metadata": {"name": "a"}})
    items = encode_item(item) * 2
    whole = list_head("v1", "ConfigMapList", {"resourceVersion": "7"}, len(items)) + items + LIST_END
    metadata = b"\x0a\x00\x12\x017\x1a\x00"
    raw = sized(b"\x0a", metadata) + sized(b"\x12", item) + sized(b"\x12", item)
    assert whole == MAGIC + b"\x0a\x13\x0a\x02v1\x12\x0dConfigMapList" + sized(b"\x12", raw) + b"\x1a\x00\x22\x00"


def test_a_frame_of_a_watch_holds_a_whole_object() -> None:
    frame = watch_frame("ADDED", b"k8s\x00rest")
    assert frame == b"\x00\x00\x00\x13\x0a\x05ADDED\x12\x0a\x0a\x08k8s\x00rest"


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_64_bit_number_comes_back(number: int) -> None:
    data = b"\x38" + varint(number)
    assert decode_message(f"{META}.ObjectMeta", data) == ({"generation": number} if number else {})


# Kinds


def test_kinds_of_all_groups_share_options_and_custom_groups_have_no_messages() -> None:
    assert message_name("policy/v1", "DeleteOptions") == f"{META}.DeleteOptions"
    assert message_name("v1", "Status") == f"{META}.Status"
    assert message_name("apps/v1", "Deployment") == "k8s.io.api.apps.v1.Deployment"
    assert message_name("apps.example.com/v1", "Deployment") is None
    assert message_name("example.com/v1", "DeleteOptions") == f"{META}.DeleteOptions"


# Damage


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty data"),
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (MAGIC, "empty body"),
        (MAGIC + b"\xff" * 20, "proto: integer overflow"),
        (MAGIC + b"\x0a\x7f", "unexpected EOF"),
        (MAGIC + b"\x08\x01", "proto: wrong wireType = 0 for field 1"),
    ],
)
def test_damaged_envelopes_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(ProtobufError) as caught:
        decode_protobuf(data)
    assert (str(caught.value), caught.value.kind) == (text, "")


def enveloped(kind: str, raw: bytes) -> bytes:
    return MAGIC + sized(b"\x0a", sized(b"\x0a", b"v1") + sized(b"\x12", kind.encode())) + sized(b"\x12", raw)


@pytest.mark.parametrize(
    ("kind", "raw", "text"),
    [
        ("Nothing", b"", "does not implement the protobuf marshalling interface"),
        ("ConfigMap", b"\x0a\x7f", "unexpected EOF"),
        ("ConfigMap", b"\x0a", "unexpected EOF"),
        ("ConfigMap", b"\x08\x05", "proto: wrong wireType = 0 for field metadata"),
        ("ConfigMap", b"\x7b", "proto: illegal wireType 3"),
        ("ConfigMap", b"\x0a\x04\x0a\x02\xff\xfe", "codec can't decode"),
        ("Event", b"\x0a\x00\x12\x00\x32\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "unexpected EOF"),
        ("Event", b"\x32\x0a\x08" + b"\xff" * 8 + b"\x7f", "a time behind the year 9999"),
    ],
)
def test_damaged_messages_are_refused(kind: str, raw: bytes, text: str) -> None:
    with pytest.raises(ProtobufError, match=text) as caught:
        decode_protobuf(enveloped(kind, raw))
    assert (caught.value.api_version, caught.value.kind) == ("v1", kind)


def test_messages_without_end_are_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [version]},
    }
    with pytest.raises(ProtobufError, match="nested too deeply"):
        decode_protobuf(encode_object(definition))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_decode_or_are_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    whole = bytearray(encode_object(Filler(NEWEST, data.draw(st.integers(0, 9))).whole(kind)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        decoded = decode_protobuf(bytes(whole))
    except ProtobufError:
        pass
    else:
        orjson.dumps(decoded)
