"""Conversion webhooks over HTTPS: what reads, writes and watches of another version get, and what bad answers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_asyncio
from assembled_server import Server, running_server
from conversionworld import DEFINITION, DEFINITIONS, GROUP, THINGS, THINGS_V2, Conversions, definition
from webhook_server import serving

from tiphys.apiserver.conversion import Converter, read_review
from tiphys.apiserver.customresources import custom_kinds
from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError
from tiphys.store.interface import Operation
from tiphys.wire.message import Stream

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


class World:
    """A server, a conversion webhook, and the definition between them (objects are stored as v1)."""

    def __init__(self, server: Server, conversions: Conversions) -> None:
        self.server, self.conversions = server, conversions
        self.call, self.made, self.named = server.call, server.made, server.named

    async def store_as(self, version: str) -> None:
        """Make a version the one that is stored."""
        crd = await self.named(DEFINITION)
        for told in crd["spec"]["versions"]:
            told["storage"] = told["name"] == version
        status, answer = await self.call("PUT", DEFINITION, crd)
        assert status == 200, answer

    async def stored(self) -> list[dict[str, Any]]:
        page = await self.server.store.list(f"/registry/{GROUP}/things/")
        return [orjson.loads(entry.value) for entry in page.entries]

    async def watch(self, path: str, **headers: str) -> Sink:
        stream = await self.server.answer("GET", path, headers=headers)
        assert isinstance(stream, Stream), stream
        sink = Sink()
        sink.stop = stream.start(sink)
        return sink


class Sink:
    """A client of a watch that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self.changed = asyncio.Event()
        self.stop: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True
        self.changed.set()

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Return the events, once there are so many."""
        async with asyncio.timeout(5):
            while self.data.count(b"\n") < count:
                self.changed.clear()
                await self.changed.wait()
        return [orjson.loads(line) for line in self.data.splitlines()]


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    conversions = Conversions()
    async with serving(conversions.answer) as webhook, running_server() as server:
        await server.made(DEFINITIONS, definition("v1", webhook.config("/convert")))
        await served(server)
        yield World(server, conversions)


async def served(server: Server) -> None:
    """Let the server's own tasks run until it serves the definition."""
    for _ in range(200):
        if (await server.call("GET", THINGS))[0] == 200:
            return
        await asyncio.sleep(0)
    raise AssertionError("the definition is not served")


def thing(name: str, version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{version}", "kind": "Thing", "metadata": {"name": name}, **fields}


async def test_an_object_is_read_in_another_version_converted_and_defaulted(world: World) -> None:
    made = await world.made(THINGS, thing("a", hostPort="x:1"))
    assert world.conversions.sent() == []
    shown = await world.named(f"{THINGS_V2}/a")
    assert shown == {
        "apiVersion": f"{GROUP}/v2",
        "kind": "Thing",
        "metadata": made["metadata"],
        "host": "x",
        "port": "1",
        "zone": "here",
    }
    assert world.conversions.sent() == [1]
    assert await world.named(f"{THINGS_V2}/a") == shown
    assert world.conversions.sent() == [], "the result is remembered for the next reader"
    await world.call("PATCH", f"{THINGS}/a", {"hostPort": "x:2"}, content_type=MERGE)
    assert (await world.named(f"{THINGS_V2}/a"))["port"] == "2"


async def test_a_write_in_another_version_is_stored_in_the_storage_version(world: World) -> None:
    made = await world.made(THINGS_V2, thing("b", "v2", host="y", port="7", unknown=1))
    assert made["apiVersion"] == f"{GROUP}/v2" and made["zone"] == "here" and "unknown" not in made
    (stored,) = await world.stored()
    assert (stored["apiVersion"], stored["hostPort"]) == (f"{GROUP}/v1", "y:7")
    assert not stored.keys() & {"host", "port", "zone", "unknown"}
    assert made["metadata"]["managedFields"][0]["apiVersion"] == f"{GROUP}/v2"
    status, answer = await world.call("POST", THINGS_V2, thing("c", "v2", host=3))
    assert status == 422 and answer["details"]["causes"][0]["field"] == "host", answer


async def test_a_list_of_objects_in_several_versions_is_converted_in_one_call(world: World) -> None:
    for name in "abc":
        await world.made(THINGS, thing(name, hostPort=f"{name}:1"))
    await world.store_as("v2")
    await world.made(THINGS_V2, thing("d", "v2", host="d", port="4"))
    assert [obj["apiVersion"][-2:] for obj in await world.stored()] == ["v1", "v1", "v1", "v2"]
    world.conversions.sent()
    listed = await world.named(THINGS_V2)
    assert [(item["host"], item["zone"]) for item in listed["items"]] == [(name, "here") for name in "abcd"]
    assert {item["apiVersion"] for item in listed["items"]} == {f"{GROUP}/v2"}
    assert world.conversions.sent() == [3], "what is in the version already is not sent"
    assert [item["hostPort"] for item in (await world.named(THINGS))["items"]] == ["a:1", "b:1", "c:1", "d:4"]
    assert world.conversions.sent() == [1]
    assert (await world.named(DEFINITION))["status"]["storedVersions"] == ["v1", "v2"]


async def test_an_update_without_change_rewrites_an_object_in_an_older_version(world: World) -> None:
    made = await world.made(THINGS, thing("a", hostPort="x:1"))
    await world.store_as("v2")
    current = await world.named(f"{THINGS_V2}/a")
    status, answer = await world.call("PUT", f"{THINGS_V2}/a", current)
    assert status == 200 and answer["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert "generation" not in answer["metadata"] or answer["metadata"]["generation"] == 1
    (stored,) = await world.stored()
    assert (stored["apiVersion"], stored["host"]) == (f"{GROUP}/v2", "x")
    again = await world.call("PUT", f"{THINGS_V2}/a", answer)
    assert again[1]["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]


async def test_patches_status_and_scale_work_in_the_version_that_is_asked(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="x:1"))
    status, answer = await world.call("PATCH", f"{THINGS_V2}/a", {"port": "9"}, content_type=MERGE)
    assert status == 200 and answer["port"] == "9"
    applied = thing("a", "v2", host="z")
    status, answer = await world.call("PATCH", f"{THINGS_V2}/a?fieldManager=m&force=true", applied, content_type=APPLY)
    assert status == 200 and (answer["host"], answer["port"]) == ("z", "9")
    owners = {entry["manager"]: entry["apiVersion"] for entry in answer["metadata"]["managedFields"]}
    assert owners == {"test": f"{GROUP}/v2", "m": f"{GROUP}/v2"} or owners["m"] == f"{GROUP}/v2"
    status, answer = await world.call("PATCH", f"{THINGS_V2}/a/status", {"status": {"replicas": 2}}, content_type=MERGE)
    assert status == 200 and answer["status"] == {"replicas": 2} and answer["host"] == "z"
    scale = await world.named(f"{THINGS_V2}/a/scale")
    assert scale["status"] == {"replicas": 2}
    assert (await world.stored())[0]["hostPort"] == "z:9"
    status, answer = await world.call("DELETE", f"{THINGS_V2}/a")
    assert status == 200 and answer["status"] == "Success"


async def test_tables_and_field_selectors_look_at_the_converted_object(world: World) -> None:
    for name in "ab":
        await world.made(THINGS, thing(name, hostPort=f"{name}:1"))
    _, table = await world.call("GET", THINGS_V2, headers=TABLE)
    assert [row["cells"] for row in table["rows"]] == [["a", "a"], ["b", "b"]]
    chosen = await world.named(f"{THINGS_V2}?fieldSelector=host%3Db")
    assert [item["metadata"]["name"] for item in chosen["items"]] == ["b"]


async def test_a_collection_is_deleted_by_fields_of_another_version(world: World) -> None:
    for name in "ab":
        await world.made(THINGS, thing(name, hostPort=f"{name}:1"))
    status, answer = await world.call("DELETE", f"{THINGS_V2}?fieldSelector=host%3Db")
    assert status == 200, answer
    assert [item["metadata"]["name"] for item in (await world.named(THINGS))["items"]] == ["a"]


async def test_a_watch_shows_every_event_in_its_version_and_in_order(world: World) -> None:
    first = await world.made(THINGS, thing("a", hostPort="a:1"))
    watch = await world.watch(f"{THINGS_V2}?watch=1")
    since = await world.watch(f"{THINGS_V2}?watch=1&resourceVersion={first['metadata']['resourceVersion']}")
    selected = await world.watch(f"{THINGS_V2}?watch=1&fieldSelector=host%3Da")
    await world.made(THINGS_V2, thing("b", "v2", host="b", port="2"))
    await world.call("PATCH", f"{THINGS}/a", {"hostPort": "c:1"}, content_type=MERGE)
    await world.call("DELETE", f"{THINGS}/b")

    def brief(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
        assert {event["object"]["apiVersion"] for event in events} == {f"{GROUP}/v2"}
        return [(event["type"], event["object"]["host"]) for event in events]

    later = [("ADDED", "b"), ("MODIFIED", "c"), ("DELETED", "b")]
    assert brief(await watch.events(4)) == [("ADDED", "a"), *later]
    assert brief(await since.events(3)) == later
    assert brief(await selected.events(2)) == [("ADDED", "a"), ("DELETED", "a")]
    for sink in (watch, since, selected):
        sink.stop()


async def test_a_failing_webhook_fails_the_request_and_ends_the_watch(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))
    watch = await world.watch(f"{THINGS_V2}?watch=1")
    await watch.events(1)

    def refuse(answer: dict[str, Any]) -> None:
        answer["response"]["result"] = {"status": "Failed", "message": "no such host"}

    world.conversions.spoil = refuse
    message = f"conversion webhook for {GROUP}/v2, Kind=Thing failed: no such host"
    status, answer = await world.call("POST", THINGS_V2, thing("b", "v2", host="b"))
    assert (status, answer["code"], answer["message"]) == (500, 500, message) and "reason" not in answer
    await world.made(THINGS, thing("c", hostPort="c:1"))
    message = message.replace("/v2", "/v1")
    for path in (THINGS_V2, f"{THINGS_V2}/c"):
        status, answer = await world.call("GET", path)
        assert (status, answer["message"]) == (500, message)
    *_, last = await watch.events(2)
    assert (last["type"], last["object"]["code"], last["object"]["message"]) == ("ERROR", 500, message)
    assert watch.closed
    opened = await world.watch(f"{THINGS_V2}?watch=1")
    *_, last = await opened.events(1)
    assert last["type"] == "ERROR" and opened.closed
    assert (await world.call("DELETE", f"{THINGS_V2}/c"))[0] == 500
    world.conversions.spoil = None
    assert (await world.named(f"{THINGS_V2}/c"))["host"] == "c"


def drop_uid(answer: dict[str, Any]) -> None:
    answer["response"]["uid"] = "other"


def forget(answer: dict[str, Any]) -> None:
    answer["response"]["convertedObjects"] = []


def rename(answer: dict[str, Any]) -> None:
    answer["response"]["convertedObjects"][0]["metadata"] = {"name": "other"}


def keep_version(answer: dict[str, Any]) -> None:
    answer["response"]["convertedObjects"][0]["apiVersion"] = f"{GROUP}/v1"


def drop_metadata(answer: dict[str, Any]) -> None:
    answer["response"]["convertedObjects"][0]["metadata"] = {
        key: value
        for key, value in answer["response"]["convertedObjects"][0]["metadata"].items()
        if key in ("name", "namespace", "uid")
    } | {"labels": {"a": 1}}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_uid, 'failed: expected response.uid="'),
        (forget, "returned 0 objects, expected 1"),
        (rename, "returned invalid object: must have the same name: a != other"),
        (
            keep_version,
            f"returned invalid object at index 0: invalid groupVersion (expected {GROUP}/v2, received {GROUP}/v1)",
        ),
        (drop_metadata, "returned invalid metadata: metadata.labels[a] must be a string, but is int64"),
        (
            lambda answer: answer.update(kind="Other"),
            "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, "
            "got apiextensions.k8s.io/v1, Kind=Other",
        ),
        (lambda answer: answer.pop("response"), "failed: no response provided"),
    ],
)
async def test_answers_that_a_webhook_may_not_give_are_told(world: World, spoil: Any, message: str) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))
    world.conversions.spoil = spoil
    status, answer = await world.call("GET", f"{THINGS_V2}/a")
    assert status == 500
    assert answer["message"].startswith(f"conversion webhook for {GROUP}/v1, Kind=Thing {message}"), answer["message"]


async def test_labels_and_annotations_may_be_changed_and_nothing_else_of_the_metadata(world: World) -> None:
    made = await world.made(THINGS, thing("a", hostPort="a:1"))

    def meddle(answer: dict[str, Any]) -> None:
        metadata = answer["response"]["convertedObjects"][0]["metadata"]
        metadata |= {"labels": {"l": "1"}, "finalizers": ["x.io/y"], "creationTimestamp": None}

    world.conversions.spoil = meddle
    shown = await world.named(f"{THINGS_V2}/a")
    assert shown["metadata"] == made["metadata"] | {"labels": {"l": "1"}}


async def test_metadata_alone_is_that_of_the_version_that_is_asked(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))

    def label(answer: dict[str, Any]) -> None:
        for obj in answer["response"]["convertedObjects"]:
            obj["metadata"]["labels"] = {"l": "1"}

    world.conversions.spoil = label
    partial = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
    _, shown = await world.call("GET", f"{THINGS_V2}/a", headers={"accept": partial.format("")})
    assert (shown["kind"], shown["metadata"]["labels"]) == ("PartialObjectMetadata", {"l": "1"})
    _, listed = await world.call("GET", THINGS_V2, headers={"accept": partial.format("List")})
    assert [item["metadata"]["labels"] for item in listed["items"]] == [{"l": "1"}]
    _, stored = await world.call("GET", f"{THINGS}/a", headers={"accept": partial.format("")})
    assert "labels" not in stored["metadata"]
    _, table = await world.call("GET", THINGS_V2, headers=TABLE)
    assert table["rows"][0]["object"]["metadata"]["labels"] == {"l": "1"}
    watch = await world.watch(f"{THINGS_V2}?watch=1", accept=partial.format(""))
    await world.made(THINGS, thing("b", hostPort="b:1"))
    assert [event["object"]["metadata"]["labels"] for event in await watch.events(2)] == [{"l": "1"}] * 2
    watch.stop()


async def test_readers_at_once_share_one_conversion(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))
    answers = await asyncio.gather(*(world.named(f"{THINGS_V2}/a") for _ in range(5)))
    assert {answer["host"] for answer in answers} == {"a"}
    assert world.conversions.sent() == [1]


async def test_readers_at_once_share_one_failure(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))
    world.conversions.spoil = lambda answer: answer.pop("response")
    answers = await asyncio.gather(*(world.call("GET", f"{THINGS_V2}/a") for _ in range(5)))
    assert {status for status, _ in answers} == {500}
    assert world.conversions.sent() == [1]
    text = world.server.assembled.metrics.format().decode()
    labels = 'failure_type="conversion_webhook_malformed_response_failure",result="failure"'
    assert f"apiserver_conversion_webhook_request_total{{{labels}}} 1" in text
    labels = f'crd_name="things.{GROUP}",from_version="{GROUP}/v1",succeeded="false",to_version="{GROUP}/v2"'
    assert f"apiserver_crd_conversion_webhook_duration_seconds_count{{{labels}}} 1" in text


async def test_a_changed_definition_converts_and_defaults_anew(world: World) -> None:
    await world.made(THINGS, thing("a", hostPort="a:1"))
    assert (await world.named(f"{THINGS_V2}/a"))["zone"] == "here"
    watch = await world.watch(f"{THINGS_V2}?watch=1")
    await watch.events(1)
    crd = await world.named(DEFINITION)
    properties = crd["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]
    properties["zone"]["default"] = "there"
    status, answer = await world.call("PUT", DEFINITION, crd)
    assert status == 200, answer
    assert (await world.named(f"{THINGS_V2}/a"))["zone"] == "there"
    assert (await world.named(THINGS_V2))["items"][0]["zone"] == "there"
    assert watch.closed, "watches begin anew with the new definition"


async def test_defaults_of_a_new_schema_show_on_objects_stored_before() -> None:
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    properties: dict[str, Any] = {"a": {"type": "string"}}
    schema = {"type": "object", "properties": properties}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    async with running_server() as server:
        await server.made(DEFINITIONS, {"metadata": {"name": f"things.{GROUP}"}, "spec": spec})
        await served(server)
        await server.made(THINGS, thing("a", a="x"))
        crd = await server.named(DEFINITION)
        changed = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        del changed["a"]
        changed["b"] = {"type": "string", "default": "y"}
        assert (await server.call("PUT", DEFINITION, crd))[0] == 200
        shown = await server.named(f"{THINGS}/a")
        assert shown["b"] == "y" and "a" not in shown
        assert (await server.named(THINGS))["items"][0]["b"] == "y"
        _, answer = await server.call("PATCH", f"{THINGS}/a", {"metadata": {"labels": {"l": "1"}}}, content_type=MERGE)
        assert answer["b"] == "y"
        (entry,) = (await server.store.list(f"/registry/{GROUP}/things/")).entries
        assert orjson.loads(entry.value)["b"] == "y"


async def test_definitions_that_changed_while_events_were_lost_are_looked_at_anew() -> None:
    async with running_server() as server:
        await server.made(DEFINITIONS, definition("v1"))
        await served(server)
        cache = server.assembled.cache
        definitions = cache.resource("/registry/apiextensions.k8s.io/customresourcedefinitions/")
        definitions.listeners.clear()  # as if the events of the next write were lost
        (entry,) = (await server.store.list(definitions.prefix)).entries
        await server.store.commit([Operation(entry.key, None)])
        await cache.refresh()
        assert (await server.call("GET", THINGS))[0] == 200
        for restart in list(definitions.on_reset):
            restart()
        assert (await server.call("GET", THINGS))[0] == 404


async def test_an_object_that_fits_a_newer_definition_costs_no_copy() -> None:
    async with running_server() as server:
        crd = definition("v1")
        crd["spec"]["conversion"] = {"strategy": "None"}
        await server.made(DEFINITIONS, crd)
        await served(server)
        made = await server.made(THINGS, thing("a", hostPort="x:1"))
        crd = await server.named(DEFINITION)
        crd["spec"]["versions"][0]["additionalPrinterColumns"] = [
            {"name": "P", "type": "string", "jsonPath": ".hostPort"}
        ]
        assert (await server.call("PUT", DEFINITION, crd))[0] == 200
        assert await server.named(f"{THINGS}/a") == made
        cached = server.assembled.cache.resource(f"/registry/{GROUP}/things/").get("default", "a")
        assert cached is not None and cached.renditions is None


def test_reviews_of_the_older_version_are_taken_without_kind_and_uid() -> None:
    converted = [{"kind": "Thing"}]
    answer: dict[str, Any] = {"response": {"result": {"status": "Success"}, "convertedObjects": converted}}
    assert read_review(answer, "v1beta1", "u") == ("", converted)
    assert read_review(answer, "v1", "u")[0].startswith("expected webhook response of apiextensions.k8s.io/v1, ")
    answer["response"]["result"] = {"status": "Failure"}
    assert read_review(answer, "v1beta1", "u")[0] == "response.result.status was 'Failure', not 'Success'"
    answer["response"]["result"]["message"] = "because"
    assert read_review(answer, "v1beta1", "u")[0] == "because"


async def test_a_definition_whose_review_versions_are_unknown_now_converts_nothing() -> None:
    kind = custom_kinds(definition("v1") | {"metadata": {"name": "x", "resourceVersion": "1"}})[1]
    assert kind.conversion is not None and kind.conversion.webhook is not None
    webhook = {**kind.conversion.webhook, "conversionReviewVersions": ["v7"]}
    kind = replace(kind, conversion=replace(kind.conversion, webhook=webhook))
    with pytest.raises(ApiError) as raised:
        await Converter(Randomness(1)).convert(kind, thing("a"), f"{GROUP}/v2")
    assert (raised.value.code, raised.value.message) == (500, "no supported conversion review versions")
    webhook["conversionReviewVersions"] = ["v1"]
    with pytest.raises(ApiError) as raised:
        await Converter(Randomness(1)).convert(kind, thing("a"), f"{GROUP}/v2")
    assert raised.value.message.startswith(f"conversion webhook for {GROUP}/v1, Kind=Thing failed: ")


async def test_many_objects_are_converted_in_calls_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.conversion.BATCH_OBJECTS", 3)
    monkeypatch.setattr("tiphys.apiserver.conversion.BATCH_BYTES", 1000)
    conversions = Conversions()

    async def post(config: Any, body: bytes, timeout_s: float) -> Any:
        return conversions.answer("/", orjson.loads(body))

    kind = custom_kinds(definition("v1") | {"metadata": {"name": "x", "resourceVersion": "1"}})[1]
    objs = [thing(f"t{n}", hostPort=("h" * 900 if n == 4 else "h") + ":1") for n in range(8)]
    converted = await Converter(Randomness(1), post).convert_all(kind, objs, f"{GROUP}/v2")
    assert [obj["metadata"]["name"] for obj in converted] == [f"t{n}" for n in range(8)]
    assert {obj["port"] for obj in converted} == {"1"}
    assert conversions.sent() == [3, 1, 1, 3]
