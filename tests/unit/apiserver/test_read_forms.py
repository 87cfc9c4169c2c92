"""The forms in which reads are answered: tables, metadata alone, by preference, compressed."""

from __future__ import annotations

import gzip

import orjson
from assembled_server import running_server
from hypothesis import given
from hypothesis import strategies as st
from reads_world import CONFIG_MAP, PARTIAL, POD, TABLE, World, ask, refused

from tiphys.apiserver.listmemo import ListMemos, Memo, gzip_with_head, pack

KUBECTL = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


async def test_tables(world: World) -> None:
    revision = await world.put("a")
    table = await world.list(accept=KUBECTL)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["metadata"] == {"resourceVersion": str(revision)}
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Node", "Age"]
    assert table["rows"] == [
        {
            "cells": ["a", "n1", "5s"],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": str(revision), "name": "a", "namespace": "default"},
            },
        }
    ]
    assert (await world.list(accept=TABLE, includeObject="None"))["rows"][0]["object"] is None
    assert (await world.list(accept=TABLE, includeObject="Object"))["rows"][0]["object"]["kind"] == "Pod"
    assert (await refused(world.list(accept=TABLE, includeObject="x"))).code == 400
    response = await world.reads.get_object(POD, "default", "a", ask(KUBECTL))
    assert orjson.loads(response.body_bytes())["rows"][0]["cells"][0] == "a"


async def test_kinds_without_columns_show_their_creation(world: World) -> None:
    await world.put("a", kind=CONFIG_MAP, creationTimestamp="2026-01-01T00:00:00Z")
    table = await world.list(CONFIG_MAP, accept=TABLE)
    assert [(c["name"], c["type"], c["format"], c["description"]) for c in table["columnDefinitions"]] == [
        ("Name", "string", "name", "about name"),
        ("Created At", "date", "", "about creationTimestamp"),
    ]
    assert table["rows"][0]["cells"] == ["a", "2026-01-01T00:00:00Z"]


async def test_partial_metadata(world: World) -> None:
    await world.put("a")
    listed = await world.list(accept=f"application/vnd.kubernetes.protobuf;as=x,{PARTIAL_LIST}")
    assert (listed["kind"], listed["items"][0]["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
    assert "spec" not in listed["items"][0]
    response = await world.reads.get_object(POD, "default", "a", ask(PARTIAL))
    assert orjson.loads(response.body_bytes())["metadata"]["name"] == "a"
    peer = await world.watch(accept=PARTIAL, resourceVersion="0")
    assert peer.events()[0]["object"]["kind"] == "PartialObjectMetadata"


async def test_accept_headers_are_tried_in_order_of_preference(world: World) -> None:
    await world.put("a")
    for accept in (
        "application/vnd.kubernetes.protobuf;q=0.9,application/json",
        "*/*",
        "application/*;q=0.3, text/html",
        f"{TABLE};q=0.1,application/json;q=0.9",
        "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
        "application/json;charset=utf-8",
    ):
        assert (await world.list(accept=accept))["kind"] == "PodList", accept
    response = await world.response(accept="application/yaml")
    assert response.content_type == "application/yaml" and b"kind: PodList" in response.body_bytes()
    for accept in ("text/html", "application/json;q=0", "application/json;as=Table;v=v9;g=meta.k8s.io"):
        error = await refused(world.list(accept=accept))
        assert (error.code, error.reason) == (406, "NotAcceptable")
        assert error.message.startswith("only the following media types are accepted: application/json")


async def test_answers_of_writes_are_rendered_alike(world: World) -> None:
    revision = await world.put("a")
    await world.cache.refresh()
    cached = world.cache.resource(POD.storage_prefix()).get("default", "a")
    assert cached is not None
    plain = world.reads.render_object(POD, cached.body, ask(), status=201)
    assert (plain.status, plain.body) == (201, cached.body)
    for obj in (cached.body, cached.decode()):
        table = orjson.loads(world.reads.render_object(POD, obj, ask(TABLE)).body_bytes())
        assert table["metadata"]["resourceVersion"] == str(revision)
        assert table["rows"][0]["cells"] == ["a", "n1", "5s"]
        partial = orjson.loads(world.reads.render_object(POD, obj, ask(PARTIAL)).body_bytes())
        assert partial["metadata"]["resourceVersion"] == str(revision)


@given(head=st.binary(max_size=200), parts=st.lists(st.binary(max_size=2000), max_size=4))
def test_gzip_of_a_head_and_packed_items_is_gzip_of_the_whole(head: bytes, parts: list[bytes]) -> None:
    assert gzip.decompress(b"".join(gzip_with_head(head, pack(parts)))) == head + b"".join(parts)


def test_remembered_lists_stay_within_their_bound() -> None:
    memos = ListMemos(1000)
    for number in range(10):
        memos.put(number, Memo(1, b"x" * 300))
        memos.get(0, 1)
    assert [number for number in range(10) if memos.get(number, 1)] == [0, 8, 9]
    assert memos.get(9, 2) is None
    memos.put("big", Memo(1, b"x" * 1001))
    assert memos.get("big", 1) is None


async def test_the_row_of_a_pod_that_has_ended_says_so() -> None:
    async with running_server() as server:
        pods = "/api/v1/namespaces/default/pods"
        spec = {"containers": [{"name": "c", "image": "i"}]}
        for name, phase in (("a", "Running"), ("b", "Succeeded")):
            await server.made(pods, {"metadata": {"name": name}, "spec": spec})
            status = {"metadata": {"name": name}, "status": {"phase": phase}}
            merge = {"content_type": "application/merge-patch+json"}
            assert (await server.call("PATCH", f"{pods}/{name}/status", status, **merge))[0] == 200
        rows = (await server.call("GET", pods, headers={"accept": TABLE}))[1]["rows"]
        assert "conditions" not in rows[0]
        message = "The pod has completed successfully."
        told = {"type": "Completed", "status": "True", "reason": "Succeeded", "message": message}
        assert rows[1]["conditions"] == [told]
