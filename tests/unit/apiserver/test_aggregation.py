"""A group of another API server behind this one: found, asked on behalf of users, told in discovery, and missed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from extension_server import DEFINITION, GROUP, ROOT, VERSION, ExtensionServer, ready, service_manifests

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.apiserver.endpoints import ServiceResolver
from tiphys.apiserver.frontproxy import FrontProxy
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.bodystream import BodyStream
from tiphys.wire.message import Answer, Connection, Peer, Request, Response, Stream, Upgrade
from tiphys.wire.tls import create_ca, issue

APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
FLUNDERS = f"{ROOT}/namespaces/default/flunders"


class World:
    """A main server and an extension server that it can reach."""

    def __init__(self, assembled: Assembled, extension: ExtensionServer) -> None:
        self.assembled = assembled
        self.extension = extension

    async def answer(
        self, method: str, path: str, body: Any = None, *, user: str = "admin,system:masters", **headers: str
    ) -> Answer:
        path, _, query = path.partition("?")
        sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        name, *groups = user.split(",")
        data = b"" if body is None else orjson.dumps(body)
        peer = Peer("10.9.9.9", name, tuple(groups), issuer="clients")
        return await self.assembled.handle(Request(method, path, query, sent, data, peer))

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        answer = await self.answer(method, path, body, **more)
        assert isinstance(answer, Response), answer
        data = answer.body_bytes()
        return answer.status, orjson.loads(data) if data[:1] in (b"{", b"[") else data.decode()

    async def condition(self, status: str, reason: str = "") -> str:
        """Wait for the Available condition; return its message."""

        async def there() -> Any:
            code, obj = await self.ask("GET", f"{APISERVICES}/{NAME}")
            assert code == 200, obj
            told = next((c for c in obj["status"].get("conditions") or () if c["type"] == "Available"), {})
            matches = told.get("status") == status and reason in ("", told.get("reason"))
            return told if matches else None

        return str((await ready(there))["message"])

    async def discovered(self) -> dict[str, Any]:
        """Return the extension's version as aggregated discovery tells it."""
        _, document = await self.ask("GET", "/apis", accept=AGGREGATED)
        item = next(item for item in document["items"] if item["metadata"]["name"] == GROUP)
        return dict(item["versions"][0])

    async def register(self) -> None:
        for obj in service_manifests(self.extension):
            path = APISERVICES if obj["kind"] == "APIService" else "/api/v1/namespaces/default/services"
            status, answer = await self.ask("POST", path, obj)
            assert status == 201, answer
        await self.condition("True", "Passed")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    authority = create_ca("front")
    pair = issue(authority, "front-proxy-client", client=True)
    pair.write(tmp_path / "proxy.crt", tmp_path / "proxy.key")
    proxy = FrontProxy(
        "front", authority.certificate.decode(), "CLIENT CA", tmp_path / "proxy.crt", tmp_path / "proxy.key"
    )
    store, extension = MemoryStore(), ExtensionServer(tmp_path, proxy.ca_pem, proxy.issuer)
    async with AsyncExitStack() as cleanup:
        await store.start()
        cleanup.push_async_callback(store.stop)
        await extension.start()
        cleanup.push_async_callback(extension.stop)
        assembled = await assemble(ApiServerConfig(front_proxy=proxy), store, ManualClock(), Randomness(1))
        cleanup.push_async_callback(assembled.stop)
        yield World(assembled, extension)


async def test_requests_reach_it_with_the_user_and_nothing_else_of_the_client(world: World) -> None:
    await world.register()
    body = {"metadata": {"name": "one"}, "spec": {"size": "S"}}
    user = "jane,dev,system:masters"
    status, made = await world.ask(
        "POST", f"{FLUNDERS}?fieldManager=x", body, user=user, x_remote_user="root", x_remote_group="evil", x_own="kept"
    )
    assert status == 201, made
    assert made["status"] == {"madeBy": "jane", "groups": ["dev", "system:masters", "system:authenticated"]}
    request = next(request for request in world.extension.seen if request.method == "POST")
    assert request.raw_query == "fieldManager=x"
    assert request.headers["x-own"] == "kept"
    assert request.headers["x-remote-user"] == "jane"
    assert request.headers["x-remote-group"] == "dev, system:masters, system:authenticated", "three headers"
    assert request.headers["x-forwarded-for"] == "10.9.9.9"
    assert request.peer.common_name == "front-proxy-client"
    status, patched = await world.ask("PATCH", f"{FLUNDERS}/one", {"spec": {"size": "L"}})
    assert (status, patched["spec"]) == (200, {"size": "L"})
    status, listed = await world.ask("GET", f"{ROOT}/flunders")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["one"]
    status, _ = await world.ask("GET", f"{FLUNDERS}/two")
    assert status == 404
    assert (await world.ask("DELETE", f"{FLUNDERS}/one"))[0] == 200


async def test_a_server_that_is_gone_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.register()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = closed.getsockname()[1]

    def addresses(*where: object) -> list[tuple[str, int]]:
        return [("127.0.0.1", gone), ("127.0.0.1", world.extension.port)]

    monkeypatch.setattr(ServiceResolver, "addresses", addresses)
    for number in range(6):
        status, _ = await world.ask("POST", FLUNDERS, {"metadata": {"name": f"f{number}"}, "spec": {}})
        assert status == 201


@pytest.mark.parametrize(("size", "expected"), [(1000, 201), (4 * 1024 * 1024, 413)])
async def test_a_streamed_body_that_is_for_this_server_after_all_is_read_whole(
    world: World, size: int, expected: int
) -> None:
    """Its APIService went away between the head of the request and now."""
    stream = BodyStream(None, 5.0, lambda: None)
    stream.feed(orjson.dumps({"metadata": {"name": "one"}, "data": {"x": "x" * size}}))
    stream.end()
    peer = Peer("10.9.9.9", "admin", ("system:masters",), issuer="clients")
    path, headers = "/api/v1/namespaces/default/configmaps", {"content-type": "application/json"}
    answer = await world.assembled.handle(Request("POST", path, "", headers, peer=peer, stream=stream))
    assert isinstance(answer, Response)
    assert answer.status == expected


async def test_this_server_authorizes_first(world: World) -> None:
    await world.register()
    status, answer = await world.ask("GET", f"{FLUNDERS}/one", user="joe")
    assert status == 403
    assert answer["message"] == (
        f'flunders.{GROUP} "one" is forbidden: User "joe" cannot get resource "flunders" in API group "{GROUP}" '
        'in the namespace "default"'
    )
    assert not [path for _, path, _ in world.extension.asked if path.startswith(FLUNDERS)]


async def test_impersonated_users_are_told_as_such(world: World) -> None:
    await world.register()
    headers = {"impersonate_user": "jane", "impersonate_group": "system:masters"}
    status, made = await world.ask("POST", FLUNDERS, {"metadata": {"name": "x"}}, **headers)
    assert (status, made["status"]["madeBy"]) == (201, "jane")
    request = next(request for request in world.extension.seen if request.method == "POST")
    assert not [name for name in request.headers if name.startswith("impersonate-")]


class Reader:
    """A sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.data: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, data: bytes) -> None:
        self.data.put_nowait(data)

    def pending_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.data.put_nowait(b"")


async def test_watches_go_through(world: World) -> None:
    await world.register()
    answer = await world.answer("GET", f"{FLUNDERS}?watch=1")
    assert isinstance(answer, Stream) and answer.status == 200
    reader = Reader()
    stop = answer.start(reader)
    await world.ask("POST", FLUNDERS, {"metadata": {"name": "seen"}})
    async with asyncio.timeout(5):
        event = orjson.loads(await reader.data.get())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "seen")
    stop()


async def test_sessions_go_through(world: World) -> None:
    await world.register()
    answer = await world.answer("GET", f"{FLUNDERS}/one/shout", connection="Upgrade", upgrade="words")
    assert isinstance(answer, Upgrade) and answer.protocol == "words"
    incoming: asyncio.Queue[bytes] = asyncio.Queue()
    outgoing: asyncio.Queue[bytes] = asyncio.Queue()

    class Client(Connection):
        async def read(self) -> bytes:
            return await incoming.get()

        async def write(self, data: bytes) -> None:
            outgoing.put_nowait(data)

        def close(self) -> None:
            return None

    session = asyncio.ensure_future(answer.run(Client()))
    incoming.put_nowait(b"hello")
    async with asyncio.timeout(5):
        assert await outgoing.get() == b"HELLO"
        incoming.put_nowait(b"")
        await session


@pytest.mark.parametrize("aggregated", [True, False])
async def test_its_resources_are_discovered_here(world: World, aggregated: bool) -> None:
    world.extension.aggregated = aggregated
    await world.register()
    version = await world.discovered()
    assert version["freshness"] == "Current"
    resource = version["resources"][0]
    assert (resource["resource"], resource["scope"], resource["shortNames"]) == ("flunders", "Namespaced", ["fl"])
    assert resource["responseKind"] == {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    assert resource["subresources"][0]["subresource"] == "shout"
    status, group = await world.ask("GET", f"/apis/{GROUP}")
    assert (status, group["preferredVersion"]["version"]) == (200, VERSION)
    _, groups = await world.ask("GET", "/apis")
    names = [group["name"] for group in groups["groups"]]
    assert names.index(GROUP) == len(names) - 1, "behind the built-in groups, whose priorities are higher"
    status, listed = await world.ask("GET", ROOT, user="joe")
    assert (status, listed["resources"][0]["name"]) == (200, "flunders")


async def test_its_schemas_are_published_here(world: World) -> None:
    await world.register()

    async def told() -> Any:
        _, index = await world.ask("GET", "/openapi/v3")
        return index["paths"].get(ROOT.lstrip("/"))

    assert await ready(told) == {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=ABC"}
    status, document = await world.ask("GET", f"/openapi/v3{ROOT}?hash=ABC", user="joe")
    assert (status, DEFINITION in document["components"]["schemas"]) == (200, True)

    async def merged() -> Any:
        _, document = await world.ask("GET", "/openapi/v2")
        return document if DEFINITION in document["definitions"] else None

    document = await ready(merged)
    assert f"{FLUNDERS.replace('/default/', '/{namespace}/')}" in document["paths"]
    meta = document["definitions"][DEFINITION]["properties"]["metadata"]["$ref"]
    assert meta == "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta_v2", "another one of the same name"


async def test_an_old_server_is_told_as_openapi_v3_too(world: World) -> None:
    world.extension.aggregated = False
    await world.register()

    async def told() -> Any:
        _, index = await world.ask("GET", "/openapi/v3")
        return index["paths"].get(ROOT.lstrip("/"))

    url = (await ready(told))["serverRelativeURL"]
    status, document = await world.ask("GET", url)
    assert (status, document["openapi"]) == (200, "3.0.0")
    schema = document["components"]["schemas"][DEFINITION]
    meta = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    assert schema["properties"]["metadata"] == {"$ref": meta}
    operation = document["paths"][FLUNDERS.replace("/default/", "/{namespace}/")]["get"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": f"#/components/schemas/{DEFINITION}"
    }


async def test_a_server_that_ails_and_recovers(world: World) -> None:
    await world.register()
    world.extension.healthy = False
    await world.ask("PATCH", f"{APISERVICES}/{NAME}", {"metadata": {"labels": {"look": "again"}}}, **MERGE)
    message = await world.condition("False", "FailedDiscoveryCheck")
    url = f"https://localhost:{world.extension.port}{ROOT}"
    assert message == f"failing or missing response from {url}: bad status from {url}: 500"
    assert await world.ask("GET", FLUNDERS) == (503, "service unavailable\n")
    _, metrics = await world.ask("GET", "/metrics")
    assert f'aggregator_unavailable_apiservice{{name="{NAME}"}} 1' in metrics
    assert f'aggregator_unavailable_apiservice_total{{name="{NAME}",reason="FailedDiscoveryCheck"}} 1' in metrics
    version = await world.discovered()
    assert (version["freshness"], len(version["resources"])) == ("Stale", 1), "what was known is told on"
    world.extension.healthy = True
    await world.condition("True", "Passed")
    assert (await world.discovered())["freshness"] == "Current"
    assert (await world.ask("GET", FLUNDERS))[0] == 200


MERGE = {"content_type": "application/merge-patch+json"}


async def test_a_server_that_goes_away(world: World) -> None:
    await world.register()
    await world.extension.stop()
    status, text = await world.ask("GET", FLUNDERS)
    assert status == 503
    assert text.startswith("error trying to reach service: dial tcp localhost:")
    await world.ask("PATCH", f"{APISERVICES}/{NAME}", {"metadata": {"labels": {"look": "again"}}}, **MERGE)
    assert (await world.condition("False", "FailedDiscoveryCheck")).endswith("connect: connection refused")
    status, _ = await world.ask("DELETE", f"{APISERVICES}/{NAME}")
    assert status == 200
    status, text = await world.ask("GET", FLUNDERS)
    assert (status, text) == (404, "404 page not found\n")
    _, groups = await world.ask("GET", "/apis")
    assert GROUP not in [group["name"] for group in groups["groups"]]


async def test_a_certificate_of_somebody_else_is_not_trusted(world: World) -> None:
    await world.register()
    other = create_ca("other")
    world.extension.authority = other
    manifest = service_manifests(world.extension)[1]
    await world.ask("PATCH", f"{APISERVICES}/{NAME}", {"spec": {"caBundle": manifest["spec"]["caBundle"]}}, **MERGE)
    status, text = await world.ask("GET", FLUNDERS)
    assert status == 503
    assert text.startswith("error trying to reach service: tls: failed to verify certificate: x509: ")
    await world.ask(
        "PATCH", f"{APISERVICES}/{NAME}", {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}, **MERGE
    )
    assert (await world.ask("GET", FLUNDERS))[0] == 200


async def test_other_conditions_of_its_status_are_kept(world: World) -> None:
    await world.register()
    _, obj = await world.ask("GET", f"{APISERVICES}/{NAME}/status")
    obj["status"]["conditions"].append({"type": "Own", "status": "True", "reason": "R", "message": "m"})
    obj["metadata"]["labels"] = {"not": "here"}
    status, updated = await world.ask("PUT", f"{APISERVICES}/{NAME}/status", obj)
    assert status == 200 and "labels" not in updated["metadata"]
    world.extension.healthy = False
    await world.ask("PATCH", f"{APISERVICES}/{NAME}", {"metadata": {"labels": {"look": "again"}}}, **MERGE)
    await world.condition("False")
    _, obj = await world.ask("GET", f"{APISERVICES}/{NAME}")
    assert [c["type"] for c in obj["status"]["conditions"]] == ["Available", "Own"]
