"""Our protobuf beside that of Google's library, which learns the messages from descriptors inside a stock kubectl.

kubectl up to 1.34 holds a compressed file descriptor of every API package. Each kind that it knows is encoded here with
every field that it knows; the library must find no unknown field and write the very same bytes again.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields
from google.protobuf.message import Message

from tiphys.api.kinds import builtin_kinds
from tiphys.api.protobufencoder import encode_message
from tiphys.api.protobuftable import message_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit/api"))
from full_objects import Filler, pruned

pytestmark = pytest.mark.clients

VERSION = (1, 34)
KUBECTL = Path(__file__).resolve().parents[2] / f".cache/clients/kubectl-{VERSION[0]}.{VERSION[1]}"
NEWER = {"k8s.io.api.storage.v1.CSINode 3"}
"""Fields of versions behind this kubectl's that are written though they are zero."""
KINDS = {
    message: kind
    for kind in builtin_kinds(VERSION)
    if (message := message_name(kind.api_version, kind.kind)) and ".k8s.io.api." in f".{message}"
}


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Return all descriptors of the client. Imports of what it does not hold (options of a code generator) go."""
    files = {file.name: file for file in descriptors(KUBECTL.read_bytes())}
    found = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        needed = [dependency for dependency in files[name].dependency if dependency in files]
        for dependency in needed:
            add(dependency)
        del files[name].dependency[:]
        files[name].dependency.extend(needed)
        found.Add(files[name])

    for name in files:
        add(name)
    return found


def descriptors(data: bytes) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    at = data.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            text = zlib.decompressobj(31).decompress(data[at : at + 400_000])
        except zlib.error:
            text = b""
        if b"k8s.io" in text[:200] and b".proto" in text[:120]:
            yield descriptor_pb2.FileDescriptorProto.FromString(text)
        at = data.find(b"\x1f\x8b\x08", at + 3)


def strangers(message: Message) -> Iterator[str]:
    """Yield the fields that a message has and its descriptor does not."""
    for field in unknown_fields.UnknownFieldSet(message):
        yield f"{message.DESCRIPTOR.full_name} {field.field_number}"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        values: Any = value if descriptor.is_repeated else [value]
        if descriptor.message_type.GetOptions().map_entry:
            values = value.values() if descriptor.message_type.fields_by_name["value"].message_type else ()
        for inner in values:
            yield from strangers(inner)


@pytest.mark.parametrize("message", KINDS)
def test_the_library_reads_all_of_it_and_writes_the_same(message: str) -> None:
    if not KUBECTL.exists():
        pytest.skip(f"{KUBECTL} is missing: run scripts/fetch_clients.py")
    parser = message_factory.GetMessageClass(pool().FindMessageTypeByName(message))
    whole = [Filler(VERSION, turn).whole(KINDS[message]) for turn in range(4)]
    parts = [pruned(obj, random.Random(turn)) for obj in whole for turn in range(3)]
    for obj in whole + parts:
        data = encode_message(message, obj)
        parsed = parser.FromString(data)
        assert set(strangers(parsed)) <= NEWER
        assert parsed.SerializeToString(deterministic=True) == data
