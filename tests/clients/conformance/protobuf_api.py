"""The REST API as Go's typed clients speak it: bodies, answers and watches of built-in kinds in protobuf.

Patches stay what they are, and so does what has no message: custom kinds, discovery, statuses of proxies. Tests see the
same JSON objects as with `Api`.
"""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from direct_api import Answer, Api, Json, Watch

from tiphys.api.protobuf import MAGIC, ProtobufError, decode_protobuf, encode_object
from tiphys.api.protobufdecoder import decode_message, read_varint
from tiphys.api.protobuftable import META, message_name

PROTOBUF = "application/vnd.kubernetes.protobuf"
ACCEPT = f"{PROTOBUF},application/json"


class ProtobufApi(Api):
    """The server, as one user's typed client sees it."""

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        more = {"Accept": ACCEPT, **(headers or {})}
        if method in ("POST", "PUT") and isinstance(body, dict) and (data := _encoded(body)):
            body = data
            more = {**more, "Content-Type": PROTOBUF}
        answer = super().ask(method, path, body, query, more)
        if answer.headers.get("content-type") != PROTOBUF:
            return answer
        plain = json.dumps(_decoded(answer.body)).encode()
        return Answer(answer.status, answer.headers, plain)

    def _begin_watch(self, connection: http.client.HTTPSConnection, target: str) -> Watch:
        connection.request("GET", target, headers={"Accept": ACCEPT, **self.headers})
        response = connection.getresponse()
        assert response.status == 200, f"watch {target}: {response.status} {response.read().decode()}"
        if response.getheader("Content-Type") == f"{PROTOBUF};stream=watch":
            return ProtobufWatch(connection, response)
        return Watch(connection, response)


def _encoded(body: Json) -> bytes:
    """Return an object in protobuf, nothing if its kind has no message."""
    try:
        return encode_object(body)
    except (ProtobufError, KeyError):
        return b""


def _decoded(data: bytes) -> Json:
    """Return the object or the list in an envelope."""
    envelope = _fields(data[len(MAGIC) :])
    meta = {number: values[0].decode() for number, values in _fields(envelope[1][0]).items()}
    if not meta[2].endswith("List"):
        return decode_protobuf(data)
    item = message_name(meta[1], meta[2].removesuffix("List"))
    assert item is not None
    parts = _fields(envelope[2][0])
    return {
        "apiVersion": meta[1],
        "kind": meta[2],
        "metadata": decode_message(f"{META}.ListMeta", parts[1][0]),
        "items": [decode_message(item, part) for part in parts.get(2, ())],
    }


class ProtobufWatch(Watch):
    """A watch of frames: four bytes of length, then a WatchEvent."""

    def next(self) -> tuple[str, Json]:
        event = self._read()
        assert event, "the watch ended"
        return event

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        while event := self._read():
            yield event

    def _read(self) -> tuple[str, Json] | None:
        head = self._response.read(4)
        if not head:
            return None
        fields = _fields(self._response.read(struct.unpack(">I", head)[0]))
        return fields[1][0].decode(), decode_protobuf(_fields(fields[2][0])[1][0])


def _fields(data: bytes) -> dict[int, list[bytes]]:
    """Return the fields of a message, which are all strings or messages, by number."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        size, at = read_varint(data, at)
        assert key & 7 == 2
        found.setdefault(key >> 3, []).append(data[at : at + size])
        at += size
    return found
