"""LIST, WATCH and GET over a real store and cache."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.kind import Column, DecodeResult, Kind
from tiphys.api.kinds import builtin_kinds
from tiphys.api.kinds.fields import unsupported_field
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.listmemo import ListMemos, Memo, gzip_with_head, pack
from tiphys.apiserver.options import Selection
from tiphys.apiserver.reads import ReadLimits, Reads
from tiphys.base.clock import ManualClock, Randomness
from tiphys.base.errors import ApiError
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Request, Response

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
KUBECTL = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class AnySchema:
    def decode(self, obj: dict[str, Any]) -> DecodeResult:
        return DecodeResult()

    def node(self, path: Any) -> Mapping[str, Any] | None:
        return {"description": f"about {path[-1]}"}


def make_kind(**more: Any) -> Kind:
    values: dict[str, Any] = {"group": "", "version": "v1", "kind": "Pod", "plural": "pods", "schema": AnySchema()}
    return Kind(**(values | more))


POD = make_kind(
    columns=(Column("Name", format="name"), Column("Node"), Column("Age")),
    row=lambda obj, now_s: [obj["metadata"]["name"], obj["spec"].get("nodeName", ""), "5s"],
    selectable_fields={"spec.nodeName": lambda obj: obj["spec"].get("nodeName", "")},
)
CONFIG_MAP = make_kind(kind="ConfigMap", plural="configmaps")


class World:
    """A store, its cache, and reads of them."""

    def __init__(self, **limits: Any) -> None:
        self.store = MemoryStore()
        self.cache = WatchCache(self.store)
        self.reads = Reads(self.cache, self.store, ManualClock(), Randomness(1), ReadLimits(**limits))

    async def put(self, name: str, namespace: str = "default", kind: Kind = POD, node: str = "n1", **meta: Any) -> int:
        metadata = {"name": name, "namespace": namespace, **meta}
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": {"nodeName": node}}
        return await self.store.commit([Operation(kind.storage_key(namespace, name), orjson.dumps(obj))])

    async def delete(self, name: str, namespace: str = "default") -> int:
        return await self.store.commit([Operation(POD.storage_key(namespace, name), None)])

    async def response(self, kind: Kind = POD, namespace: str = "", accept: str = "", **query: Any) -> Response:
        return await self.reads.list_objects(kind, namespace, ask(accept, **query))

    async def list(self, kind: Kind = POD, namespace: str = "", accept: str = "", **query: Any) -> dict[str, Any]:
        return orjson.loads((await self.response(kind, namespace, accept, **query)).body_bytes())

    async def names(self, **query: Any) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.list(**query))["items"]]

    async def watch(self, namespace: str = "", accept: str = "", kind: Kind = POD, **query: Any) -> Peer:
        stream = await self.reads.watch_objects(kind, namespace, ask(accept, watch="true", **query))
        peer = Peer()
        peer.stop = stream.start(peer)
        return peer


class Peer:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.pending = 0
        self.closed = False
        self.ended = asyncio.Event()
        self.stop: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def pending_bytes(self) -> int:
        return self.pending

    async def drain(self) -> None: ...

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in b"".join(self.sent).splitlines()]

    def brief(self) -> list[tuple[str, str, int]]:
        """Return (type, name, revision) of each event."""
        found = [(event["type"], event["object"]["metadata"]) for event in self.events()]
        return [(kind, meta.get("name", ""), int(meta["resourceVersion"])) for kind, meta in found]


def ask(accept: str = "", headers: Mapping[str, str] | None = None, **query: Any) -> Request:
    sent = dict(headers or {})
    if accept:
        sent["accept"] = accept
    return Request("GET", "/", urlencode(query), sent)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.store.start()
    await world.cache.start()
    yield world
    world.reads.close()
    await world.cache.stop()
    await world.store.stop()


async def refused(awaitable: Any) -> ApiError:
    with pytest.raises(ApiError) as failure:
        await awaitable
    return failure.value


# GET


async def test_get_answers_the_stored_bytes_with_the_revision(world: World) -> None:
    revision = await world.put("a")
    response = await world.reads.get_object(POD, "default", "a", ask())
    obj = orjson.loads(response.body_bytes())
    assert obj["metadata"] == {"resourceVersion": str(revision), "name": "a", "namespace": "default"}
    error = await refused(world.reads.get_object(POD, "default", "b", ask()))
    assert (error.code, error.message) == (404, 'pods "b" not found')


async def test_another_version_differs_in_its_api_version(world: World) -> None:
    stored = make_kind(group="apps", kind="Deployment", plural="deployments")
    other = make_kind(group="apps", kind="Deployment", plural="deployments", version="v1beta1", storage_version="v1")
    await world.put("a", kind=stored)
    obj = orjson.loads((await world.reads.get_object(other, "default", "a", ask())).body_bytes())
    assert (obj["apiVersion"], obj["metadata"]["name"]) == ("apps/v1beta1", "a")
    assert (await world.list(other))["apiVersion"] == "apps/v1beta1"


async def test_a_conversion_is_made_once_for_each_object_and_revision(world: World) -> None:
    calls = []

    def convert(obj: dict[str, Any], old: str, new: str) -> dict[str, Any]:
        calls.append((old, new))
        return {"spec": {"converted": True}, **{k: v for k, v in obj.items() if k != "spec"}}

    stored = make_kind(group="x.io", kind="Thing", plural="things", custom=True)
    other = make_kind(
        group="x.io", kind="Thing", plural="things", version="v2", storage_version="v1", convert=convert, custom=True
    )
    revision = await world.put("a", kind=stored)
    for _ in range(2):
        body = (await world.reads.get_object(other, "default", "a", ask())).body_bytes()
        assert body.startswith(b'{"apiVersion":"x.io/v2","kind":"Thing","metadata":{')
        obj = orjson.loads(body)
        assert (obj["spec"], obj["metadata"]["resourceVersion"]) == ({"converted": True}, str(revision))
    assert (await world.list(other))["items"] == [obj], "custom resources keep apiVersion and kind in lists"
    assert calls == [("x.io/v1", "x.io/v2")]


async def test_answers_for_people_are_indented(world: World) -> None:
    await world.put("a")
    for request in (ask(pretty="true"), ask(headers={"user-agent": "curl/8.5"})):
        response = await world.reads.get_object(POD, "default", "a", request)
        assert response.body_bytes().startswith(b'{\n  "apiVersion": "v1"')
        listed = await world.reads.list_objects(POD, "", request)
        assert b"\n  " in listed.body_bytes()
    response = await world.reads.get_object(
        POD, "default", "a", ask(headers={"user-agent": "curl/8.5"}, pretty="false")
    )
    assert b"\n" not in response.body_bytes()


# LIST


async def test_items_of_built_in_kinds_have_no_kind(world: World) -> None:
    revision = await world.put("a")
    assert await world.list() == {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(revision)},
        "items": [
            {
                "metadata": {"resourceVersion": str(revision), "name": "a", "namespace": "default"},
                "spec": {"nodeName": "n1"},
            }
        ],
    }
    assert (await world.list(CONFIG_MAP))["items"] == []


async def test_selectors_choose_objects(world: World) -> None:
    await world.put("a", labels={"app": "x"})
    await world.put("b", labels={"app": "y"}, node="n2")
    await world.put("c", "other", labels={"app": "x"}, node="n2")
    assert await world.names(labelSelector="app=x") == ["a", "c"]
    assert await world.names(labelSelector="app in (x),app!=y", namespace="other") == ["c"]
    assert await world.names(fieldSelector="spec.nodeName=n2") == ["b", "c"]
    assert await world.names(fieldSelector="spec.nodeName!=n2,metadata.namespace=default") == ["a"]
    assert await world.names(fieldSelector="metadata.name=b", namespace="default") == ["b"]
    assert await world.names(fieldSelector="metadata.name=b", namespace="other") == []
    error = await refused(world.list(fieldSelector="spec.x=1"))
    assert (error.code, error.message) == (400, "field label not supported: spec.x")
    selected = await world.reads.select(POD, "", ask(labelSelector="app=x"))
    assert [obj.name for obj in selected] == ["a", "c"]


async def test_pages_are_consistent_while_objects_change(world: World) -> None:
    for name in "abcde":
        await world.put(name)
    before = world.store.current_revision()
    page = await world.list(limit=2)
    assert page["metadata"]["remainingItemCount"] == 3
    names = [item["metadata"]["name"] for item in page["items"]]
    await world.delete("d")
    await world.put("cc")
    while token := page["metadata"].get("continue"):
        page = await world.list(**{"limit": 2, "continue": token})
        assert page["metadata"]["resourceVersion"] == str(before)
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == list("abcde")
    assert "remainingItemCount" not in page["metadata"]


async def test_pages_with_selectors_do_not_count_the_rest(world: World) -> None:
    for name in "abcd":
        await world.put(name, labels={"odd": str(name in "ac")})
    page = await world.list(limit=1, labelSelector="odd=True")
    assert "remainingItemCount" not in page["metadata"] and page["metadata"]["continue"]
    page = await world.list(**{"limit": 1, "labelSelector": "odd=True", "continue": page["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in page["items"]] == ["c"]
    assert "continue" not in page["metadata"]


async def test_an_expired_token_offers_an_inconsistent_one(world: World) -> None:
    for name in "abcd":
        await world.put(name)
    token = (await world.list(limit=2))["metadata"]["continue"]
    await world.delete("c")
    newest = await world.put("e")
    await world.store.compact(newest)
    error = await refused(world.list(**{"limit": 2, "continue": token}))
    status = error.status()
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith("The provided continue parameter is too old to display a consistent list")
    page = await world.list(**{"continue": status["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in page["items"]] == ["d", "e"]
    assert page["metadata"]["resourceVersion"] == str(newest)


async def test_an_expired_token_is_told_even_if_the_resource_did_not_change(world: World) -> None:
    for name in "abc":
        await world.put(name)
    token = (await world.list(limit=2))["metadata"]["continue"]
    await world.store.compact(await world.put("x", kind=CONFIG_MAP))
    assert (await refused(world.list(**{"limit": 2, "continue": token}))).code == 410


@pytest.mark.parametrize("token", ["!!", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0", "aGVsbG8"])
async def test_broken_tokens_are_refused(world: World, token: str) -> None:
    error = await refused(world.list(**{"continue": token}))
    assert error.code == 400 and "continue key is not valid" in error.message


async def test_resource_versions_of_lists(world: World) -> None:
    first = await world.put("a")
    second = await world.put("b")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    assert await world.names(resourceVersion="0", limit=1) == ["a", "b"], "any revision: no pages"
    assert await world.names(resourceVersion=first) == ["a", "b"]
    assert await world.names(resourceVersion=first, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    exact = await world.list(resourceVersion=first, resourceVersionMatch="Exact")
    assert [i["metadata"]["name"] for i in exact["items"]] == ["a"]
    assert exact["metadata"]["resourceVersion"] == str(first)
    assert await world.names(resourceVersion=first, limit=5) == ["a"], "limit without match means exact"
    await world.store.compact(second)
    error = await refused(world.list(resourceVersion=first, resourceVersionMatch="Exact"))
    assert (error.code, error.message) == (410, "The resourceVersion for the provided list is too old.")


async def test_a_future_revision_is_a_timeout_that_says_so() -> None:
    world = World(fresh_timeout_s=0.01)
    await world.store.start()
    await world.cache.start()
    for query in ({}, {"resourceVersionMatch": "Exact"}):
        error = await refused(world.list(resourceVersion="99", **query))
        status = error.status()
        assert (status["code"], status["reason"]) == (504, "Timeout")
        assert status["message"] == "Timeout: Too large resource version: 99, current: 1"
        assert status["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
    await world.cache.stop()
    await world.store.stop()


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        (
            {"resourceVersionMatch": "Exact"},
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, 'is forbidden for resourceVersion "0"'),
        ({"resourceVersionMatch": "X", "resourceVersion": "1"}, 422, 'supported values: "Exact", "NotOlderThan", ""'),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
        ({"resourceVersion": "abc"}, 400, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ({"limit": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
async def test_invalid_list_options_are_refused(world: World, query: dict[str, str], code: int, message: str) -> None:
    error = await refused(world.list(**query))
    assert error.code == code and message in error.message


async def test_repeated_large_lists_are_remembered_and_compressed_once(world: World) -> None:
    for number in range(300):
        await world.put(f"p{number:03}", annotations={"pad": "x" * 600})
    plain = await world.response()
    again = await world.response()
    assert plain.body[1] is again.body[1]
    request = ask(headers={"accept-encoding": "gzip, deflate"})
    for _ in range(2):
        revision = await world.put("other", kind=CONFIG_MAP)
        response = await world.reads.list_objects(POD, "", request)
        assert ("Content-Encoding", "gzip") in response.headers
        unpacked = orjson.loads(gzip.decompress(response.body_bytes()))
        assert unpacked["metadata"]["resourceVersion"] == str(revision), "the list is as of now"
        assert unpacked["items"] == orjson.loads(plain.body_bytes())["items"]
    await world.delete("p000")
    assert len((await world.list())["items"]) == 299


# Accept


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


# WATCH


async def test_a_watch_from_a_revision_gets_later_events_in_one_piece_a_batch(world: World) -> None:
    first = await world.put("a")
    await world.put("b")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    peer = await world.watch(resourceVersion=first)
    assert peer.brief() == [("ADDED", "b", first + 1)]
    operations = [Operation(POD.storage_key("default", name), None) for name in "ab"]
    revision = await world.store.commit(operations)
    await world.cache.refresh()
    assert peer.brief()[1:] == [("DELETED", "a", revision), ("DELETED", "b", revision)]
    assert len(peer.sent) == 2
    assert peer.events()[1]["object"]["kind"] == "Pod"
    peer.stop()
    await world.put("c")
    await world.cache.refresh()
    assert len(peer.sent) == 2 and world.reads.watcher_count() == 0


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_without_a_revision_begins_with_the_state(world: World, version: str) -> None:
    await world.put("a")
    await world.put("b", "other")
    await world.cache.refresh()
    peer = await world.watch(namespace="default", resourceVersion=version)
    assert peer.brief() == [("ADDED", "a", 2)]
    await world.put("a")
    await world.put("b", "other")
    await world.cache.refresh()
    assert peer.brief()[1:] == [("MODIFIED", "a", 4)]


async def test_the_state_can_be_streamed_with_a_mark_at_its_end(world: World) -> None:
    await world.put("a")
    await world.put("b")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    peer = await world.watch(**query)
    assert peer.brief() == [("ADDED", "a", 2), ("ADDED", "b", 3), ("BOOKMARK", "", 3)]
    mark = peer.events()[-1]["object"]
    assert mark["kind"] == "Pod" and mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    peer = await world.watch(sendInitialEvents="false", resourceVersionMatch="NotOlderThan")
    assert peer.brief() == []
    await world.put("c")
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "c", 4)]


async def test_a_revision_that_is_gone_is_an_error_event(world: World) -> None:
    await world.put("a")
    newest = await world.put("a")
    await world.store.compact(newest)
    await world.cache.stop()
    world.cache = WatchCache(world.store)
    await world.cache.start()
    world.reads = Reads(world.cache, world.store, ManualClock(), Randomness(1))
    peer = await world.watch(resourceVersion="1")
    [event] = peer.events()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    assert event["object"]["message"] == f"too old resource version: 1 ({newest})"
    assert peer.closed


async def test_selectors_turn_changes_into_entering_and_leaving(world: World) -> None:
    await world.put("a", labels={"app": "x"})
    await world.cache.refresh()
    peer = await world.watch(labelSelector="app=x", resourceVersion=world.cache.revision())
    nodes = await world.watch(fieldSelector="spec.nodeName=n2", resourceVersion=world.cache.revision())
    await world.put("a", labels={"app": "x", "more": "1"})
    await world.put("a", labels={"app": "y"})
    await world.put("a", labels={"app": "y"}, node="n2")
    await world.put("a", labels={"app": "x"}, node="n2")
    await world.delete("a")
    await world.cache.refresh()
    assert peer.brief() == [("MODIFIED", "a", 3), ("DELETED", "a", 4), ("ADDED", "a", 6), ("DELETED", "a", 7)]
    left = peer.events()[1]["object"]["metadata"]
    assert left["labels"] == {"app": "x", "more": "1"}, "the object as it last belonged to the selection"
    assert nodes.brief() == [("ADDED", "a", 5), ("MODIFIED", "a", 6), ("DELETED", "a", 7)]


async def test_each_node_sees_its_own_pods(world: World) -> None:
    peers = {node: await world.watch(fieldSelector=f"spec.nodeName={node}", resourceVersion=1) for node in ("n1", "n2")}
    unbound = await world.watch(fieldSelector="spec.nodeName=,metadata.namespace!=x", resourceVersion=1)
    await world.put("a", node="")
    await world.put("a", node="n2")
    await world.put("b", node="n1")
    await world.delete("a")
    await world.cache.refresh()
    assert unbound.brief() == [("ADDED", "a", 2), ("DELETED", "a", 3)]
    assert peers["n1"].brief() == [("ADDED", "b", 4)]
    assert peers["n2"].brief() == [("ADDED", "a", 3), ("DELETED", "a", 5)]
    peers["n2"].stop()
    unbound.stop()
    await world.put("c", node="n2")
    await world.put("c", node="n1")
    await world.cache.refresh()
    assert peers["n1"].brief()[1:] == [("ADDED", "c", 7)]
    peers["n1"].stop()
    assert world.reads.watcher_count() == 0


async def test_every_watcher_gets_the_same_buffer(world: World) -> None:
    peers = [await world.watch(resourceVersion=1) for _ in range(5)]
    await world.put("a")
    await world.cache.refresh()
    assert all(peer.sent[0] is peers[0].sent[0] for peer in peers)


@pytest.mark.parametrize("accept", ["", TABLE, PARTIAL])
@pytest.mark.parametrize("query", [{}, {"labelSelector": "app"}, {"fieldSelector": "spec.nodeName=n1"}])
async def test_an_event_is_matched_and_encoded_once_for_all_who_want_the_same(
    world: World, accept: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [await world.watch(accept=accept, resourceVersion=1, **query) for _ in range(20)]
    asked: list[str] = []
    matches = Selection.matches
    monkeypatch.setattr(Selection, "matches", lambda self, obj: asked.append(obj.name) or matches(self, obj))
    for _ in range(3):
        await world.put("a", labels={"app": "x"})
        await world.cache.refresh()
    assert all(sent is first for peer in peers for sent, first in zip(peer.sent, peers[0].sent, strict=True))
    assert len(peers[0].sent) == 3
    assert len(asked) == 5, "the new object each time, and the old one when there was one"


async def test_only_the_first_table_of_a_watch_has_columns(world: World) -> None:
    await world.put("a")
    await world.cache.refresh()
    early = await world.watch(accept=TABLE, resourceVersion="0")
    late = await world.watch(accept=TABLE, resourceVersion=world.cache.revision())
    for _ in range(2):
        await world.put("a")
        await world.cache.refresh()
    for peer, count in ((early, 3), (late, 2)):
        tables = [event["object"] for event in peer.events()]
        assert len(tables) == count
        assert [bool(table["columnDefinitions"]) for table in tables] == [True] + [False] * (count - 1)
        assert all(table["kind"] == "Table" and len(table["rows"]) == 1 for table in tables)


async def test_a_slow_watcher_is_closed_and_others_go_on() -> None:
    world = World(pending_bytes=1000)
    await world.store.start()
    await world.cache.start()
    slow, quick = [await world.watch(resourceVersion=1) for _ in range(2)]
    slow.pending = 1_000_000
    for number in range(6):
        await world.put(f"p{number}", annotations={"pad": "x" * 60_000})
    await world.cache.refresh()
    assert slow.closed and not quick.closed
    assert len(quick.events()) == 6 and world.reads.watcher_count() == 1
    world.reads.close()
    await world.cache.stop()
    await world.store.stop()


async def test_a_watch_ends_with_a_bookmark_at_its_timeout(world: World) -> None:
    peer = await world.watch(resourceVersion="0", allowWatchBookmarks="true", timeoutSeconds="1")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    fanout = next(iter(world.reads._fanouts.values()))
    await fanout.send_bookmarks()
    assert peer.brief() == [("BOOKMARK", "", 2)]
    await peer.ended.wait()
    assert peer.brief()[1:] == [("BOOKMARK", "", 2)]
    assert world.reads.watcher_count() == 0


async def test_a_watch_from_a_future_revision_waits_for_it(world: World) -> None:
    peer = await world.watch(resourceVersion="3")
    for name in "abc":
        await world.put(name)
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "c", 4)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ({"resourceVersionMatch": "NotOlderThan"}, "forbidden for watch unless sendInitialEvents is provided"),
        ({"resourceVersion": "x"}, 'pods "" is invalid: resourceVersion: Invalid value: "x"'),
    ],
)
async def test_invalid_watch_options_are_refused(world: World, query: dict[str, str], message: str) -> None:
    error = await refused(world.watch(**query))
    assert error.code == 422 and message in error.message


async def test_a_row_that_fails_ends_its_watches_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tables = await world.watch(accept=TABLE, resourceVersion=1)
    plain = await world.watch(resourceVersion=1)
    operation = Operation(
        POD.storage_key("default", "bad"), b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"}}'
    )
    await world.store.commit([operation])  # no spec: the kind's row function fails
    await world.put("good")
    await world.cache.refresh()
    assert tables.closed and not plain.closed
    assert [name for _, name, _ in plain.brief()] == ["bad", "good"]
    assert "the watches that wanted them end" in caplog.text


async def test_a_watch_of_one_name(world: World) -> None:
    stream = await world.reads.watch_objects(POD, "default", ask(resourceVersion="1"), name="a")
    peer = Peer()
    stream.start(peer)
    await world.put("a")
    await world.put("b")
    await world.cache.refresh()
    assert peer.brief() == [("ADDED", "a", 2)]


async def test_pages_of_the_past_are_read_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.lists.OLD_PIECE", 2)
    for number in range(7):
        await world.put(f"p{number}", node=f"n{number % 2}", labels={"odd": str(number % 2)})
    first = await world.list(limit=2)
    revision = first["metadata"]["resourceVersion"]
    await world.delete("p3")
    await world.put("zz")
    names, page = [item["metadata"]["name"] for item in first["items"]], first
    while token := page["metadata"].get("continue"):
        page = await world.list(limit=2, **{"continue": token})
        assert page["metadata"]["resourceVersion"] == revision
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == [f"p{number}" for number in range(7)]
    exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
    assert await world.names(**exact) == names
    assert await world.names(labelSelector="odd=1", **exact) == ["p1", "p3", "p5"]
    page = await world.list(fieldSelector="spec.nodeName=n1", limit=2, **exact)
    assert [item["metadata"]["name"] for item in page["items"]] == ["p1", "p3"]
    assert "remainingItemCount" not in page["metadata"]
    token = page["metadata"]["continue"]
    rest = await world.list(**{"fieldSelector": "spec.nodeName=n1", "limit": 2, "continue": token})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["p5"] and "continue" not in rest["metadata"]


@pytest.mark.parametrize(
    ("resource", "field", "message"),
    [
        (("", "pods"), "status.phase", ""),
        (("", "pods"), "spec.x", "field label not supported: spec.x"),
        (("", "nodes"), "metadata.namespace", "field label not supported: metadata.namespace"),
        (
            ("", "configmaps"),
            "data",
            '"data" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (("storage.k8s.io", "storageclasses"), "metadata.namespace", ""),
        (("batch", "jobs"), "status.x", 'field label "status.x" not supported for batchv1.Job'),
        (("apps", "statefulsets"), "x", "field label not supported for appsv1.StatefulSet: x"),
        (
            ("resource.k8s.io", "resourceslices"),
            "spec.x",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x",
        ),
        (("", "services"), "spec.type", ""),
        (("certificates.k8s.io", "certificatesigningrequests"), "spec.signerName", ""),
    ],
)
def test_unknown_fields_are_refused_in_the_words_of_each_kind(
    resource: tuple[str, str], field: str, message: str
) -> None:
    (kind,) = (k for k in builtin_kinds((1, 37)) if (k.group, k.plural, k.version) == (*resource, "v1"))
    assert unsupported_field(kind, field) == message


async def test_an_object_in_an_older_storage_version_is_converted(world: World) -> None:
    def convert(obj: dict[str, Any], source: str, target: str) -> dict[str, Any]:
        return {**obj, "apiVersion": target, "spec": {"from": source}}

    kind = make_kind(group="x.io", version="v2", kind="Thing", plural="things", convert=convert)
    older = make_kind(group="x.io", version="v1", kind="Thing", plural="things")
    await world.put("a", kind=older)
    await world.put("b", kind=kind)
    await world.cache.refresh()
    items = (await world.list(kind))["items"]
    assert [item["spec"] for item in items] == [{"from": "x.io/v1"}, {"nodeName": "n1"}]
    response = await world.reads.get_object(kind, "default", "a", ask())
    shown = orjson.loads(response.body_bytes())
    assert (shown["apiVersion"], shown["spec"]) == ("x.io/v2", {"from": "x.io/v1"})
