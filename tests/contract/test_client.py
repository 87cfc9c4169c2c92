"""One suite over both clients, and over what is built on them: reflector, event recorder, leader election.

The server is a small API of ConfigMaps, Events and Leases in memory (`MiniApi`), behind a real socket for the HTTP
client and called directly by the local one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tiphys.api.views.config import ConfigMap
from tiphys.api.views.meta import ObjectReference
from tiphys.base.clock import ManualClock, Randomness, SystemClock
from tiphys.base.errors import ApiError, already_exists, conflict, gone, not_found, path_not_found
from tiphys.client.calls import decode_event
from tiphys.client.events import EventRecorder
from tiphys.client.http import HttpClient, KubeconfigError
from tiphys.client.interface import Client
from tiphys.client.leader import LeaderElection
from tiphys.client.local import LocalClient
from tiphys.client.reflector import Reflector
from tiphys.client.resources import CONFIGMAPS, EVENTS, LEASES
from tiphys.wire import tls
from tiphys.wire.message import Answer, Request, Response, Sink, Stream
from tiphys.wire.server import HttpServer

Object = dict[str, Any]


class MiniApi:
    """Namespaced objects of any plural, with revisions, pages, watches and bookmarks."""

    def __init__(self) -> None:
        self.revision = 1
        self.objects: dict[str, dict[str, Object]] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.sinks: dict[Sink, str] = {}
        self.compacted = 0
        self.requests: list[Request] = []
        self.expire_continue = False
        self.down = False

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.down:
            raise ApiError(503, "ServiceUnavailable", "down")
        parts = request.path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = parts[1] if parts[0] == "namespaces" else ""
        plural, *rest = parts[2:] if namespace else parts
        if plural not in ("configmaps", "events", "leases"):
            raise path_not_found()
        await asyncio.sleep(0)
        if request.method == "GET" and not rest:
            if request.param("watch"):
                return self.watch(plural, namespace, int(request.param("resourceVersion")))
            return self.list(plural, namespace, request)
        if request.method == "POST":
            return self.create(plural, namespace, json.loads(request.body))
        return self.one(request, plural, f"{namespace}/{rest[0]}")

    def list(self, plural: str, namespace: str, request: Request) -> Response:
        if self.expire_continue and request.param("continue"):
            raise gone("The provided continue parameter is too old")
        keys = sorted(k for k in self.objects.get(plural, {}) if not namespace or k.startswith(namespace + "/"))
        keys = [key for key in keys if key > request.param("continue")]
        limit = min(int(request.param("limit", "0")) or len(keys), 3) if not self.expire_continue else 0
        shown = keys[:limit] if limit else keys
        if self.expire_continue and request.param("limit"):
            shown = keys[:2]
        meta = {"resourceVersion": str(self.revision)}
        if len(shown) < len(keys):
            meta["continue"] = shown[-1]
        return Response(
            200, json.dumps({"metadata": meta, "items": [self.objects[plural][key] for key in shown]}).encode()
        )

    def watch(self, plural: str, namespace: str, after: int) -> Answer:
        if after < self.compacted:
            raise gone(f"too old resource version: {after} ({self.compacted})")

        def start(sink: Sink) -> Callable[[], None]:
            self.sinks[sink] = plural
            for revision, kind, of, obj in self.history:
                if revision > after and of == plural:
                    sink.send(self.line(kind, obj))
            return lambda: self.sinks.pop(sink, None) and None

        return Stream(start)

    def create(self, plural: str, namespace: str, obj: Object) -> Response:
        key = f"{namespace}/{obj['metadata']['name']}"
        if key in self.objects.get(plural, {}):
            raise already_exists("", plural, obj["metadata"]["name"])
        obj["metadata"]["namespace"] = namespace
        return self.put("ADDED", plural, key, obj, 201)

    def one(self, request: Request, plural: str, key: str) -> Response:
        name = key.rpartition("/")[2]
        old = self.objects.get(plural, {}).get(key)
        if old is None:
            raise not_found("", plural, name)
        if request.method == "GET":
            return Response(200, json.dumps(old).encode())
        if request.method == "DELETE":
            del self.objects[plural][key]
            return self.told("DELETED", plural, key, old, 200)
        new = json.loads(request.body)
        version = new.get("metadata", {}).pop("resourceVersion", None)
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict("", plural, name)
        if request.method == "PATCH":
            new = {**old, **new, "metadata": {**old["metadata"], **new.get("metadata", {})}}
        return self.put("MODIFIED", plural, key, new, 200)

    def put(self, kind: str, plural: str, key: str, obj: Object, status: int) -> Response:
        self.objects.setdefault(plural, {})[key] = obj
        return self.told(kind, plural, key, obj, status)

    def told(self, kind: str, plural: str, key: str, obj: Object, status: int) -> Response:
        self.revision += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        if kind != "DELETED":
            self.objects[plural][key] = obj
        self.history.append((self.revision, kind, plural, obj))
        self.send(plural, self.line(kind, obj))
        return Response(status, json.dumps(obj).encode())

    def line(self, kind: str, obj: Object) -> bytes:
        return json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n"

    def send(self, plural: str, line: bytes) -> None:
        for sink, of in list(self.sinks.items()):
            if of == plural:
                sink.send(line)

    def end_watches(self) -> None:
        for sink in list(self.sinks):
            sink.close()
        self.sinks.clear()


@pytest.fixture
def api() -> MiniApi:
    return MiniApi()


@pytest.fixture(params=["http", "local"])
async def client(request: pytest.FixtureRequest, api: MiniApi) -> AsyncIterator[Client]:
    if request.param == "local":
        local = LocalClient(api.handle, "tester", ["system:masters"])
        yield local
        await local.close()
        return
    server = HttpServer(api.handle)
    port = await server.start("127.0.0.1", 0)
    http = HttpClient(f"http://127.0.0.1:{port}", token="secret")
    yield http
    await http.close()
    await server.stop(0)


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the loop has brought a condition about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event of its own
            await asyncio.sleep(0.001)


async def test_an_object_lives_through_the_verbs(client: Client, api: MiniApi) -> None:
    made = json.loads(await client.create(CONFIGMAPS, "default", config_map("a", k="1")))
    assert made["metadata"]["resourceVersion"] == "2"
    assert json.loads(await client.get(CONFIGMAPS, "default", "a"))["data"] == {"k": "1"}
    patched = json.loads(await client.patch(CONFIGMAPS, "default", "a", {"data": {"k": "2"}}))
    assert patched["data"] == {"k": "2"}
    assert api.requests[-1].headers["content-type"] == "application/merge-patch+json"
    with pytest.raises(ApiError) as stale:
        await client.update(CONFIGMAPS, "default", "a", made)
    assert (stale.value.code, stale.value.reason) == (409, "Conflict")
    await client.delete(CONFIGMAPS, "default", "a", uid="u", grace_period_s=0, propagation="Background")
    assert json.loads(api.requests[-1].body) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
    }
    with pytest.raises(ApiError) as missing:
        await client.get(CONFIGMAPS, "default", "a")
    assert (missing.value.code, str(missing.value)) == (404, 'configmaps "a" not found')


async def test_a_list_is_whole_over_pages_and_starts_again_when_its_revision_is_gone(
    client: Client, api: MiniApi
) -> None:
    for number in range(8):
        await client.create(CONFIGMAPS, "default", config_map(f"c{number}"))
    result = await client.list(CONFIGMAPS, "default")
    assert [json.loads(item)["metadata"]["name"] for item in result.items] == [f"c{n}" for n in range(8)]
    assert result.resource_version == "9"
    api.expire_continue = True
    assert len((await client.list(CONFIGMAPS, "")).items) == 8


async def test_a_watch_resumes_and_tells_what_is_gone(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a", k="ä\n"))
    seen = []
    watch = client.watch(CONFIGMAPS, "", resource_version="1")
    async for event in watch:
        seen.append((event.type, json.loads(event.object)["metadata"]["name"]))
        if len(seen) == 1:
            await client.create(CONFIGMAPS, "default", config_map("big", k="x" * 500_000))
            await client.delete(CONFIGMAPS, "default", "a")
        if len(seen) == 3:
            api.end_watches()
    assert seen == [("ADDED", "a"), ("ADDED", "big"), ("DELETED", "a")]
    api.compacted = 3
    with pytest.raises(ApiError) as old:
        await anext(aiter(client.watch(CONFIGMAPS, "", resource_version="1")))
    assert old.value.code == 410


async def test_leaving_a_watch_ends_it_at_the_server(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a"))
    watch = client.watch(CONFIGMAPS, "", resource_version="1")
    await anext(aiter(watch))
    assert len(api.sinks) == 1
    await watch.aclose()  # type: ignore[attr-defined]
    await until(lambda: not api.sinks)


def test_events_are_split_without_being_parsed_and_parsed_when_they_look_otherwise() -> None:
    quick = decode_event(b'{"type":"ADDED","object":{"a":{"b":1}}}')
    slow = decode_event(b'{ "object": {"a":{"b":1}}, "type": "ADDED" }')
    assert quick == slow
    assert quick.object == b'{"a":{"b":1}}'
    with pytest.raises(ApiError) as error:
        decode_event(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}')
    assert error.value.code == 410
    with pytest.raises(ConnectionError):
        decode_event(b'{"type":"ADDED"')


# Reflector


async def test_a_reflector_follows_and_tells_exactly_the_changes(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a", team="x"))
    changes: list[tuple[str | None, str | None]] = []

    def note(old: ConfigMap | None, new: ConfigMap | None) -> None:
        changes.append((old.data.get("team") if old else None, new.data.get("team") if new else None))

    reflector = Reflector(
        client, CONFIGMAPS, ConfigMap, indexers={"team": lambda c: [c.data["team"]]}, randomness=Randomness(1)
    )
    reflector.on_change(note)
    task = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        await reflector.synced()
    assert reflector.keys() == ["default/a"]
    await until(lambda: len(api.sinks) == 1)
    await client.create(CONFIGMAPS, "other", config_map("b", team="x"))
    await client.patch(CONFIGMAPS, "default", "a", {"data": {"team": "y"}})
    await until(lambda: len(changes) == 3)
    assert [c.metadata.name for c in reflector.by_index("team", "x")] == ["b"]
    assert [c.metadata.name for c in reflector.by_index("team", "y")] == ["a"]
    assert [c.metadata.name for c in reflector.list("other")] == ["b"]
    assert reflector.get("other/b") is not None
    await client.delete(CONFIGMAPS, "default", "a")
    await until(lambda: len(changes) == 4)
    assert changes == [(None, "x"), (None, "x"), ("x", "y"), ("y", None)]
    assert reflector.by_index("team", "y") == []
    late: list[str] = []
    reflector.on_change(lambda old, new: late.append(new.metadata.name if new else ""))
    assert late == ["b"]
    task.cancel()


async def test_a_reflector_resumes_from_bookmarks_and_lists_again_after_410(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a"))
    await client.create(CONFIGMAPS, "default", config_map("b"))
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(1))
    gone_keys: list[str] = []
    reflector.on_change(lambda old, new: gone_keys.append(old.metadata.name) if old and not new else None)
    task = asyncio.create_task(reflector.run())
    await until(lambda: len(api.sinks) == 1)
    api.send("configmaps", api.line("BOOKMARK", {"metadata": {"resourceVersion": "77"}}))
    await until(lambda: reflector.resource_version == "77")
    api.end_watches()
    await until(lambda: len(api.sinks) == 1)
    assert api.requests[-1].param("resourceVersion") == "77"
    # A deletion that no watch tells: found by the next list.
    del api.objects["configmaps"]["default/a"]
    api.revision, api.compacted = 100, 90
    api.end_watches()
    await until(lambda: reflector.keys() == ["default/b"])
    assert gone_keys == ["a"]
    task.cancel()


async def test_a_reflector_survives_a_server_that_is_not_up_yet(client: Client, api: MiniApi) -> None:
    api.down = True
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(1))
    task = asyncio.create_task(reflector.run())
    await until(lambda: len(api.requests) > 1)
    assert not reflector.is_synced
    api.down = False
    async with asyncio.timeout(2):
        await reflector.synced()
    task.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_disturbance_a_reflector_holds_what_the_server_holds(
    client: Client, api: MiniApi, seed: int
) -> None:
    chance = random.Random(seed)
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(seed))
    mirror: dict[str, str] = {}

    def note(old: ConfigMap | None, new: ConfigMap | None) -> None:
        if new is None:
            assert old is not None
            del mirror[old.metadata.name]
        else:
            mirror[new.metadata.name] = new.metadata.resource_version

    reflector.on_change(note)
    task = asyncio.create_task(reflector.run())
    for _ in range(100):
        name = f"c{chance.randint(0, 5)}"
        action = chance.choice(["create", "patch", "delete", "break", "compact", "yield"])
        try:
            if action == "create":
                await client.create(CONFIGMAPS, "default", config_map(name))
            elif action == "patch":
                await client.patch(CONFIGMAPS, "default", name, {"data": {"n": str(chance.random())}})
            elif action == "delete":
                await client.delete(CONFIGMAPS, "default", name)
        except ApiError:
            pass
        if action == "break" and chance.random() < 0.2:
            api.end_watches()
        if action == "compact":
            api.compacted = api.revision
            api.history.clear()
    server = {k.split("/")[1]: o["metadata"]["resourceVersion"] for k, o in api.objects.get("configmaps", {}).items()}
    await until(lambda: mirror == server)
    assert {c.metadata.name for c in reflector.list()} == set(server)
    task.cancel()


# Events


async def test_repeated_events_count_and_an_object_has_only_its_share(client: Client, api: MiniApi) -> None:
    clock = ManualClock()
    recorder = EventRecorder(client, "tester", "node-1", clock, Randomness(1))
    task = asyncio.create_task(recorder.run())
    pod = ObjectReference(api_version="v1", kind="Pod", namespace="default", name="web", uid="u1")
    for _ in range(3):
        recorder.record(pod, "Warning", "BackOff", "Back-off restarting failed container")
        clock.current_s += 5
    await recorder.flush()
    [event] = [json.loads(item) for item in (await client.list(EVENTS, "default")).items]
    assert (event["count"], event["reason"], event["type"]) == (3, "BackOff", "Warning")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "uid": "u1"
    }  # fmt: skip
    assert event["firstTimestamp"] < event["lastTimestamp"]
    assert event["source"] == {"component": "tester", "host": "node-1"}
    for _ in range(40):
        recorder.record(pod, "Normal", "Pulled", "again")
    await recorder.flush()
    assert recorder.dropped == 18
    # One that expired at the server begins anew.
    api.objects["events"].clear()
    clock.current_s += 3000
    recorder.record(pod, "Warning", "BackOff", "Back-off restarting failed container")
    await recorder.flush()
    assert len(api.objects["events"]) == 1
    task.cancel()


async def test_many_alike_events_are_combined(client: Client, api: MiniApi) -> None:
    recorder = EventRecorder(client, "tester", "", ManualClock(), Randomness(1))
    task = asyncio.create_task(recorder.run())
    node = ObjectReference(kind="Node", name="n1", uid="n1")
    for number in range(15):
        recorder.record(node, "Normal", "Seen", f"message {number}")
    await recorder.flush()
    events = [json.loads(item) for item in (await client.list(EVENTS, "default")).items]
    assert len(events) == 10
    [combined] = [event for event in events if event["message"].startswith("(combined from similar events): ")]
    assert combined["count"] == 6
    task.cancel()


# Leader election


async def test_one_of_two_leads_and_the_other_follows_when_it_stops(client: Client, api: MiniApi) -> None:
    leading: list[str] = []

    async def lead(name: str) -> None:
        leading.append(name)
        await asyncio.get_running_loop().create_future()

    def election(name: str) -> LeaderElection:
        return LeaderElection(
            client, "kube-system", "test", name, SystemClock(), Randomness(1),
            duration_s=1.0, renew_deadline_s=0.6, retry_s=0.02,
        )  # fmt: skip

    first = asyncio.create_task(election("a").run(lambda: lead("a")))
    await until(lambda: leading == ["a"])
    second = asyncio.create_task(election("b").run(lambda: lead("b")))
    await asyncio.sleep(0.1)
    assert leading == ["a"]
    first.cancel()
    await asyncio.wait([first])
    await until(lambda: leading == ["a", "b"])
    lease = json.loads(await client.get(LEASES, "kube-system", "test"))
    assert lease["spec"]["holderIdentity"] == "b"
    assert lease["spec"]["leaseTransitions"] == 1
    second.cancel()
    await asyncio.wait([second])


async def test_a_leader_that_cannot_renew_stops_leading(client: Client, api: MiniApi) -> None:
    stopped = asyncio.Event()
    started = asyncio.Event()

    async def lead() -> None:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    election = LeaderElection(
        client, "kube-system", "test", "a", SystemClock(), Randomness(1),
        duration_s=0.5, renew_deadline_s=0.2, retry_s=0.02,
    )  # fmt: skip
    task = asyncio.create_task(election.run(lead))
    await asyncio.wait_for(started.wait(), 5)
    api.down = True
    await asyncio.wait_for(stopped.wait(), 5)
    await asyncio.wait([task])
    assert task.exception() is not None


# What only HTTP has


async def test_a_kubeconfig_with_a_certificate_or_a_token_file_works(tmp_path: Any, api: MiniApi) -> None:
    ca = tls.create_ca("ca")
    tls.issue(ca, "server", ip_addresses=["127.0.0.1"], server=True).write(tmp_path / "s.crt", tmp_path / "s.key")
    jane = tls.issue(ca, "jane", ["dev"], client=True)
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "token").write_text("t1\n")
    context = tls.server_context(tmp_path / "s.crt", tmp_path / "s.key", tmp_path / "ca.crt")
    server = HttpServer(api.handle, ssl_context=context)
    port = await server.start("127.0.0.1", 0)
    users: dict[str, Any] = {
        "cert": {
            "client-certificate-data": base64.b64encode(jane.certificate).decode(),
            "client-key-data": base64.b64encode(jane.key).decode(),
        },
        "token": {"tokenFile": "token"},
        "plugin": {"exec": {}},
    }
    config = {
        "current-context": "cert",
        "contexts": [{"name": n, "context": {"cluster": "c", "user": n}} for n in users],
        "clusters": [
            {"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}", "certificate-authority": "ca.crt"}}
        ],
        "users": [{"name": n, "user": user} for n, user in users.items()],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    for name in ("cert", "token"):
        http = HttpClient.from_kubeconfig(path, context=name)
        assert (await http.list(CONFIGMAPS)).items == []
        peer = api.requests[-1].peer
        assert peer.common_name == ("jane" if name == "cert" else None)
        assert api.requests[-1].headers.get("authorization") == ("Bearer t1" if name == "token" else None)
        await http.close()
    with pytest.raises(KubeconfigError, match="credential plugins"):
        HttpClient.from_kubeconfig(path, context="plugin")
    with pytest.raises(KubeconfigError, match="no context named 'x'"):
        HttpClient.from_kubeconfig(path, context="x")
    await server.stop(0)


async def test_a_server_that_is_away_or_silent_or_talks_nonsense_is_told_as_such() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readuntil(b"\r\n")
        if b"/nonsense" in line:
            writer.write(b"SSH-2.0\r\n")
        if b"/cut" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        if b"/silent" in line:
            await reader.read(100_000)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = HttpClient(f"http://127.0.0.1:{port}")
    for path in ("/nonsense", "/cut", "/close"):
        with pytest.raises(ConnectionError):
            await http.request("GET", path)
    with pytest.raises(TimeoutError):
        await http.request("GET", "/silent", timeout_s=0.05)
    with pytest.raises(ValueError, match="line break"):
        await http.pool.request("GET", "/", {"X": "a\r\nB: c"})
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionError):
        await http.request("GET", "/")
    await http.close()
