"""Answers and watches in protobuf, beside those in JSON: they say the same, in every kind of answer."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from assembled_server import Server, running_server

from tiphys.api.protobuf import MAGIC, decode_protobuf, encode_object
from tiphys.api.protobufdecoder import decode_message
from tiphys.api.protobuftable import META
from tiphys.apiserver.negotiation import PROTOBUF
from tiphys.apiserver.protobufrendering import Encoded
from tiphys.apiserver.reads import ReadLimits
from tiphys.wire.message import Response, Stream

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
ACCEPT = f"{PROTOBUF},application/json"
PARTIAL = "as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        yield running


def pod(name: str, **labels: str) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container]}}


async def ask(
    server: Server, path: str, method: str = "GET", body: Any = None, accept: str = ACCEPT, **more: Any
) -> Response:
    answer = await server.answer(method, path, body, headers={"accept": accept, **more.pop("headers", {})}, **more)
    assert isinstance(answer, Response)
    return answer


def read(answer: Response) -> dict[str, Any]:
    assert answer.content_type == PROTOBUF, answer.body_bytes()
    return decode_protobuf(answer.body_bytes())


def read_list(answer: Response, item: str) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Return (kind, metadata, items) of a list, whose messages are in no table."""
    assert answer.content_type == PROTOBUF, answer.body_bytes()
    data = answer.body_bytes()
    whole = decode_message(f"{META}.PartialObjectMetadataList", raw_of(data))
    kind = dict(fields(fields(data[len(MAGIC) :])[0][1]))[2].decode()
    return kind, whole.get("metadata", {}), items_of(raw_of(data), item)


def raw_of(data: bytes) -> bytes:
    """Return the message of an envelope."""
    assert data.startswith(MAGIC) and data.endswith(b"\x1a\x00\x22\x00")
    parts = fields(data[len(MAGIC) :])
    assert [number for number, _ in parts] == [1, 2, 3, 4]
    return parts[1][1]


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a message that holds strings and messages only."""
    found, at = [], 0
    while at < len(data):
        number, at = data[at] >> 3, at + 1
        size = shift = 0
        while True:
            size |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                break
        found.append((number, data[at : at + size]))
        at += size
    assert at == len(data)
    return found


def items_of(raw: bytes, message: str) -> list[dict[str, Any]]:
    return [decode_message(message, value) for number, value in fields(raw) if number == 2]


class Sink:
    """What a watcher of protobuf got, as (type, object)."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self.ended = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.data += data

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        found, at = [], 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at : at + 4], "big")
            parts = dict(fields(self.data[at + 4 : at + 4 + size]))
            found.append((parts[1].decode(), decode_protobuf(dict(fields(parts[2]))[1])))
            at += 4 + size
        assert at == len(self.data)
        return found


async def watch(server: Server, path: str, accept: str = PROTOBUF) -> tuple[Sink, Callable[[], None]]:
    stream = await server.answer("GET", path, headers={"accept": f"{accept};stream=watch"})
    assert isinstance(stream, Stream) and stream.content_type == f"{PROTOBUF};stream=watch"
    sink = Sink()
    return sink, stream.start(sink)


async def settle(server: Server) -> None:
    """Return when every watcher has what was written."""
    await server.assembled.cache.refresh()
    for _ in range(3):
        await asyncio.sleep(0)


# Reads


async def test_get_says_what_json_says(server: Server) -> None:
    await server.made(PODS, pod("a", app="web"))
    whole = await server.named(f"{PODS}/a")
    assert read(await ask(server, f"{PODS}/a")) == whole


async def test_large_objects_are_encoded_beside_the_loop(server: Server) -> None:
    properties = {f"p{number}": {"type": "string", "description": "d" * 500} for number in range(700)}
    schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "larges", "kind": "Large", "listKind": "LargeList", "singular": "large"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    await server.made(DEFINITIONS, {"metadata": {"name": "larges.example.com"}, "spec": spec})
    told = read(await ask(server, f"{DEFINITIONS}/larges.example.com"))
    assert told["spec"]["versions"] == [version]
    assert server.assembled.reads._heavy._executor is not None


async def test_every_list_says_what_json_says(server: Server) -> None:
    await server.made(PODS, pod("a", app="web"))
    for kind in server.assembled.kinds.all():
        if "list" not in kind.verbs or kind.virtual:
            continue
        prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        wanted = await server.named(f"{prefix}/{kind.plural}")
        message = kind.definition.replace("io.k8s.", "k8s.io.", 1)
        listed = read_list(await ask(server, f"{prefix}/{kind.plural}"), message)
        assert listed == (f"{kind.kind}List", wanted["metadata"], wanted["items"]), kind.kind


async def test_pages_and_selections_of_lists(server: Server) -> None:
    for name in "abc":
        await server.made(PODS, pod(name, app=name))
    message = "k8s.io.api.core.v1.Pod"
    _, metadata, items = read_list(await ask(server, f"{PODS}?limit=2"), message)
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert metadata["remainingItemCount"] == 1
    _, metadata, items = read_list(await ask(server, f"{PODS}?limit=2&continue={metadata['continue']}"), message)
    assert [item["metadata"]["name"] for item in items] == ["c"] and "continue" not in metadata
    _, _, items = read_list(await ask(server, f"{PODS}?labelSelector=app%3Db"), message)
    assert [item["metadata"]["name"] for item in items] == ["b"]


async def test_long_lists_are_compressed_and_remembered(server: Server) -> None:
    for number in range(3):
        await server.made(MAPS, {"metadata": {"name": f"m{number}"}, "data": {"text": f"{number}" * 60_000}})
    plain = (await ask(server, MAPS)).body_bytes()
    for _ in range(2):
        packed = await ask(server, MAPS, headers={"accept-encoding": "gzip"})
        assert ("Content-Encoding", "gzip") in packed.headers and packed.content_type == PROTOBUF
        assert gzip.decompress(packed.body_bytes()) == plain


async def test_lists_too_long_to_be_held_are_streamed_with_their_length_first(server: Server) -> None:
    for number in range(5):
        await server.made(MAPS, {"metadata": {"name": f"m{number}"}, "data": {"text": f"{number}" * 300}})
    whole = (await ask(server, MAPS)).body_bytes()
    server.assembled.reads._limits = ReadLimits(list_memo_bytes=1000)
    stream = await server.answer("GET", f"{MAPS}?limit=5", headers={"accept": ACCEPT})
    assert isinstance(stream, Stream) and stream.content_type == PROTOBUF
    sink = Sink()
    stream.start(sink)
    await sink.ended.wait()
    assert sink.data == whole


async def test_metadata_only(server: Server) -> None:
    await server.made(PODS, pod("a", app="web"))
    metadata = (await server.named(f"{PODS}/a"))["metadata"]
    told = read(await ask(server, f"{PODS}/a", accept=f"{PROTOBUF};{PARTIAL}"))
    assert told == {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}
    kind, _, items = read_list(
        await ask(server, PODS, accept=f"{PROTOBUF};{PARTIAL_LIST}"), f"{META}.PartialObjectMetadata"
    )
    assert (kind, items) == ("PartialObjectMetadataList", [{"metadata": metadata}])
    sink, stop = await watch(server, f"{PODS}?watch=true", f"{PROTOBUF};{PARTIAL}")
    assert sink.events() == [("ADDED", told)]
    stop()


async def test_tables_stay_json(server: Server) -> None:
    table = "as=Table;v=v1;g=meta.k8s.io"
    answer = await ask(server, PODS, accept=f"{PROTOBUF};{table},application/json;{table}")
    assert answer.content_type == "application/json" and orjson.loads(answer.body_bytes())["kind"] == "Table"
    status = orjson.loads((await ask(server, PODS, accept=f"{PROTOBUF};{table}")).body_bytes())
    assert status["message"] == (
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )


async def test_kinds_without_columns_skip_tables(server: Server) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path, review = "/apis/authentication.k8s.io/v1/selfsubjectreviews", {"metadata": {}}
    assert (await ask(server, path, "POST", review, accept=table)).status == 406
    answer = await ask(server, path, "POST", review, accept=f"{table},application/json")
    assert orjson.loads(answer.body_bytes())["kind"] == "SelfSubjectReview"
    spec = {"selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}}
    controllers = "/api/v1/namespaces/default/replicationcontrollers"
    await server.made(controllers, {"metadata": {"name": "r"}, "spec": spec})
    scale = orjson.loads((await ask(server, f"{controllers}/r/scale", accept=table)).body_bytes())
    assert [column["name"] for column in scale["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]


async def test_kinds_that_are_stored_in_another_version(server: Server) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    scaler = {
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
    }
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    await server.made(path, scaler)
    for version in ("v1", "v2"):
        one = f"{path}/h".replace("v1", version, 1)
        told = read(await ask(server, one))
        whole = await server.named(one)
        whole["status"].pop("currentMetrics", None)  # null in JSON
        assert told == whole and told["apiVersion"] == f"autoscaling/{version}"


# Watches


async def test_a_watch_tells_all_that_happens(server: Server) -> None:
    await server.made(MAPS, {"metadata": {"name": "a"}, "data": {"k": "1"}})
    sink, stop = await watch(server, f"{MAPS}?watch=true&fieldSelector=metadata.name%3Da")
    await server.call("PATCH", f"{MAPS}/a", {"data": {"k": "2"}}, content_type="application/merge-patch+json")
    changed = await server.named(f"{MAPS}/a")
    await server.call("DELETE", f"{MAPS}/a")
    await settle(server)
    events = sink.events()
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[0][1]["data"] == {"k": "1"} and events[1][1] == changed
    assert events[2][1]["data"] == {"k": "2"}
    assert events[2][1]["metadata"]["resourceVersion"] > changed["metadata"]["resourceVersion"]
    stop()


async def test_an_object_that_leaves_a_selection_is_shown_as_it_was(server: Server) -> None:
    await server.made(MAPS, {"metadata": {"name": "a", "labels": {"in": "yes"}}})
    leaving, stop_leaving = await watch(server, f"{MAPS}?watch=true&labelSelector=in%3Dyes")
    staying, stop_staying = await watch(server, f"{MAPS}?watch=true&labelSelector=in")
    change = {"metadata": {"labels": {"in": "no"}}}
    await server.call("PATCH", f"{MAPS}/a", change, content_type="application/merge-patch+json")
    await settle(server)
    deleted, modified = leaving.events()[-1], staying.events()[-1]
    assert (deleted[0], deleted[1]["metadata"]["labels"]) == ("DELETED", {"in": "yes"})
    assert (modified[0], modified[1]["metadata"]["labels"]) == ("MODIFIED", {"in": "no"})
    assert deleted[1]["metadata"]["resourceVersion"] == modified[1]["metadata"]["resourceVersion"]
    stop_leaving()
    stop_staying()


async def test_bookmarks_and_errors_are_frames_too(server: Server) -> None:
    query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    sink, stop = await watch(server, f"{MAPS}?{query}")
    kind, bookmark = sink.events()[-1]
    assert (kind, bookmark["kind"]) == ("BOOKMARK", "ConfigMap")
    assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    stop()
    server.assembled.cache.resource("/registry/core/configmaps/").oldest = 2
    sink, _ = await watch(server, f"{MAPS}?watch=true&resourceVersion=1")
    [(kind, status)] = sink.events()
    assert sink.closed and (kind, status["kind"], status["code"]) == ("ERROR", "Status", 410)


async def test_a_watch_is_never_yaml(server: Server) -> None:
    answer = await ask(server, f"{MAPS}?watch=true", accept="application/yaml,application/json")
    assert (answer.status, answer.content_type) == (406, "application/yaml")
    answer = await ask(server, f"{MAPS}?watch=true", accept="text/html")
    assert orjson.loads(answer.body_bytes())["message"] == (
        "only the following media types are accepted: application/json;stream=watch, "
        "application/vnd.kubernetes.protobuf;stream=watch"
    )


# Writes and other answers


async def test_objects_are_written_and_answered_in_protobuf(server: Server) -> None:
    body = encode_object({"apiVersion": "v1", "kind": "Pod", **pod("a", app="web")})
    answer = await ask(server, PODS, "POST", body, content_type=PROTOBUF)
    made = read(answer)
    assert answer.status == 201 and made == await server.named(f"{PODS}/a")
    made["metadata"]["labels"]["app"] = "db"
    answer = await ask(server, f"{PODS}/a", "PUT", encode_object(made), content_type=PROTOBUF)
    assert read(answer) == await server.named(f"{PODS}/a")
    made["status"] = {"phase": "Running"}
    del made["metadata"]["resourceVersion"]
    answer = await ask(server, f"{PODS}/a/status", "PUT", encode_object(made), content_type=PROTOBUF)
    assert read(answer)["status"]["phase"] == "Running"
    patch = {"metadata": {"labels": {"x": "y"}}}
    answer = await ask(server, f"{PODS}/a", "PATCH", patch, content_type="application/strategic-merge-patch+json")
    assert read(answer)["metadata"]["labels"] == {"app": "db", "x": "y"}
    more = {"accept": f"{PROTOBUF};{PARTIAL}", "content_type": "application/merge-patch+json"}
    told = read(await ask(server, f"{PODS}/a", "PATCH", {"metadata": {"labels": {"x": "z"}}}, **more))
    assert (told["kind"], told["metadata"]["labels"]) == ("PartialObjectMetadata", {"app": "db", "x": "z"})


async def test_statuses_are_protobuf(server: Server) -> None:
    answer = await ask(server, f"{MAPS}/none")
    assert (answer.status, read(answer)["message"]) == (404, 'configmaps "none" not found')
    await server.made(MAPS, {"metadata": {"name": "a"}})
    told = read(await ask(server, f"{MAPS}/a", "DELETE"))
    assert (told["kind"], told["status"], told["details"]["name"]) == ("Status", "Success", "a")
    refused = await ask(server, "/api/v1/nodes", user="nobody")
    assert (refused.status, read(refused)["reason"]) == (403, "Forbidden")
    invalid = read(await ask(server, MAPS, "POST", {"metadata": {"name": "_"}}))
    assert [cause["field"] for cause in invalid["details"]["causes"]] == ["metadata.name"]


async def test_what_a_deletion_of_many_removed_is_a_list(server: Server) -> None:
    await server.made(MAPS, {"metadata": {"name": "a"}})
    _, _, items = read_list(await ask(server, MAPS, "DELETE"), "k8s.io.api.core.v1.ConfigMap")
    assert [item["metadata"]["name"] for item in items] == ["a"]


async def test_bodies_of_subresources_and_reviews(server: Server) -> None:
    await server.made(PODS, pod("a"))
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]},
    }
    sets = "/apis/apps/v1/namespaces/default/replicasets"
    await server.made(sets, {"metadata": {"name": "web"}, "spec": spec})
    scale = read(await ask(server, f"{sets}/web/scale"))
    assert (scale["apiVersion"], scale["kind"], scale["spec"]) == ("autoscaling/v1", "Scale", {"replicas": 2})
    scale["spec"]["replicas"] = 0
    answer = read(await ask(server, f"{sets}/web/scale", "PUT", encode_object(scale), content_type=PROTOBUF))
    assert answer["spec"] == {} and (await server.named(f"{sets}/web"))["spec"]["replicas"] == 0
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    account = "/api/v1/namespaces/default/serviceaccounts/default/token"
    issued = read(await ask(server, account, "POST", encode_object(token), content_type=PROTOBUF))
    assert issued["status"]["token"].count(".") == 2
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n"},
    }
    bound = read(await ask(server, f"{PODS}/a/binding", "POST", encode_object(binding), content_type=PROTOBUF))
    assert (bound["kind"], bound["status"]) == ("Status", "Success")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert read(await ask(server, path, "POST", encode_object(review), content_type=PROTOBUF))["status"]["allowed"]


# Refusals


async def test_bodies_that_cannot_be_read(server: Server) -> None:
    async def message(body: bytes, content_type: str = PROTOBUF, path: str = MAPS) -> tuple[int, str]:
        status, answer = await server.call("POST", path, body, content_type=content_type)
        return status, answer["message"]

    assert await message(b"x", "application/xml") == (
        415,
        "the body of the request was in an unknown format - accepted media types include: application/json, "
        "application/yaml, application/vnd.kubernetes.protobuf",
    )
    assert await message(b"{}") == (
        400,
        "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a "
        "protobuf message, expected prefix [107 56 115 0] ({})",
    )
    cut = encode_object({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    assert await message(cut.replace(b"\x0a\x01a", b"\x0a\x7fa")) == (
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: unexpected EOF',
    )
    secret = encode_object({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
    assert await message(secret) == (
        400,
        'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
        "unknown conversion",
    )


@pytest.mark.parametrize("wrapped", ["not", "items", "properties"])
async def test_bodies_are_refused_at_the_depth_at_which_json_is(server: Server, wrapped: str) -> None:
    def definition(levels: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object"}
        for _ in range(levels // (2 if wrapped == "properties" else 1)):
            schema = {wrapped: {"p": schema}} if wrapped == "properties" else {wrapped: schema}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": "deeps", "kind": "Deep", "listKind": "DeepList", "singular": "deep"}
        spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
        head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        return {**head, "metadata": {"name": "deeps.example.com"}, "spec": spec}

    for levels in (118, 126, 200):
        told = []
        for data, content_type in (
            (orjson.dumps(definition(levels)), "application/json"),
            (encode_object(definition(levels)), PROTOBUF),
        ):
            status, answer = await server.call("POST", f"{DEFINITIONS}?dryRun=All", data, content_type=content_type)
            told.append((status, levels > 120 or answer["message"]))
        assert told[0] == told[1]
        assert (told[0][0] == 400) == (levels > 120)


async def test_custom_resources_have_no_protobuf_but_their_metadata_has(server: Server) -> None:
    names = {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    definition = encode_object({**head, "metadata": {"name": "widgets.example.com"}, "spec": spec})
    made = await ask(server, DEFINITIONS, "POST", definition, content_type=PROTOBUF)
    assert made.status == 201 and read(made)["spec"]["versions"][0]["schema"] == schema
    for _ in range(200):
        if server.assembled.kinds.resource("example.com", "v1", "widgets") is not None:
            break
        await asyncio.sleep(0)
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    refused = await ask(server, WIDGETS, "POST", widget, accept=PROTOBUF)
    assert refused.status == 406
    assert read(refused)["message"] == (
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )
    answer = await ask(server, WIDGETS, "POST", widget)  # nothing was written by the refused one
    assert (answer.status, answer.content_type) == (201, "application/json")
    told = read(await ask(server, f"{WIDGETS}/w", accept=f"{PROTOBUF};{PARTIAL}"))
    assert told["metadata"]["name"] == "w"
    body = encode_object({"apiVersion": "v1", "kind": "ConfigMap"}).replace(b"ConfigMap", b"Widgetish")
    answer = await ask(server, WIDGETS, "POST", body, content_type=PROTOBUF)
    assert answer.status == 400
    assert read(answer)["message"] == (
        'Widgetish in version "v1" cannot be handled as a Widget: object *unstructured.Unstructured does not implement '
        "the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )
    options = encode_object({"apiVersion": "example.com/v1", "kind": "DeleteOptions"})
    assert (await ask(server, f"{WIDGETS}/w", "DELETE", options, content_type=PROTOBUF)).status == 200


async def test_yaml_is_for_all_answers(server: Server) -> None:
    answer = await ask(server, f"{MAPS}/none", accept="application/yaml")
    assert answer.content_type == "application/yaml" and b"code: 404" in answer.body_bytes()


# What is kept


def test_messages_are_kept_within_the_bound_and_the_oldest_go() -> None:
    encoded = Encoded(limit_bytes=3 * (300 + 100))
    for name in "abc":
        encoded.put(name, bytes(100))
    assert encoded.get("a") is not None
    encoded.put("d", bytes(100))
    assert encoded.get("b") is None and encoded.get("a") is not None
    assert encoded.size_bytes == 3 * 400
    encoded.put("large", bytes(5000))
    assert encoded.size_bytes == 0
