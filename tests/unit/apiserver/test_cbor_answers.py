"""Answers, bodies and watches in CBOR say what those in JSON say, for built-in and custom kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from assembled_server import Server, running_server

from tiphys.api.cbor import SELF_DESCRIBED, decode_cbor, encode_cbor
from tiphys.wire.message import Response, Stream

CBOR = "application/cbor"
MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/widgets"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        yield running


async def ask(server: Server, method: str, path: str, body: Any = None, accept: str = CBOR) -> Any:
    data = None if body is None else encode_cbor(body)
    answer = await server.answer(method, path, data, headers={"accept": accept}, content_type=CBOR)
    assert isinstance(answer, Response) and answer.content_type == CBOR
    data = answer.body_bytes()
    return decode_cbor(data)


async def test_objects_lists_tables_and_statuses(server: Server) -> None:
    made = await ask(server, "POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "ä"}, "binaryData": {"b": "AAE="}})
    assert made == await server.named(f"{MAPS}/a") == await ask(server, "GET", f"{MAPS}/a")
    await server.made(MAPS, {"metadata": {"name": "b"}})
    assert await ask(server, "GET", MAPS) == await server.named(MAPS)
    assert (await ask(server, "GET", MAPS + "?limit=1"))["metadata"]["remainingItemCount"] == 1
    table = await ask(server, "GET", f"{MAPS}/a", accept=f"{CBOR};as=Table;v=v1;g=meta.k8s.io")
    assert (table["kind"], len(table["rows"])) == ("Table", 1)
    partial = f"{CBOR};as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    assert "data" not in await ask(server, "GET", f"{MAPS}/a", accept=partial)
    assert (await ask(server, "GET", f"{MAPS}/none"))["reason"] == "NotFound"
    assert (await ask(server, "POST", MAPS, {"kind": 1}))["reason"] == "BadRequest"
    status, answer = await server.call("POST", MAPS, b"\xa1", content_type=CBOR)
    assert (status, answer["message"]) == (
        400,
        "the object provided is unrecognized (must be of type ConfigMap): unexpected EOF (a1)",
    )


async def test_an_apply_patch_merges_and_owns_as_one_in_yaml(server: Server) -> None:
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    path = f"{MAPS}/a?fieldManager=m"
    headers = {"accept": CBOR}
    for code in (201, 200):
        answer = await server.answer(
            "PATCH", path, encode_cbor(applied), headers=headers, content_type="application/apply-patch+cbor"
        )
        assert isinstance(answer, Response) and answer.status == code
    made = decode_cbor(answer.body_bytes())
    assert made["data"] == {"k": "v"}
    assert [(entry["manager"], entry["operation"]) for entry in made["metadata"]["managedFields"]] == [("m", "Apply")]
    broken = await server.answer("PATCH", path, b"\xa1", content_type="application/apply-patch+cbor")
    assert isinstance(broken, Response) and broken.status == 400
    assert b"unexpected EOF" in broken.body_bytes()


async def test_custom_resources_and_watches(server: Server) -> None:
    names = {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    await ask(server, "POST", DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    for _ in range(200):
        if server.assembled.kinds.resource("example.com", "v1", "widgets") is not None:
            break
        await asyncio.sleep(0)
    widget = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"n": 1.5, "x": None},
    }
    made = await ask(server, "POST", WIDGETS, widget)
    assert made["spec"] == {"n": 1.5, "x": None} and made == await server.named(f"{WIDGETS}/w")
    stream = await server.answer("GET", f"{WIDGETS}?watch=true", headers={"accept": CBOR})
    assert isinstance(stream, Stream) and stream.content_type == "application/cbor-seq"
    sink = Sink()
    stop = stream.start(sink)
    assert sink.data.startswith(SELF_DESCRIBED) and decode_cbor(sink.data) == {"type": "ADDED", "object": made}
    stop()


class Sink:
    """What a watcher got."""

    data = b""

    def send(self, data: bytes) -> None:
        self.data += data

    def pending_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """End."""
