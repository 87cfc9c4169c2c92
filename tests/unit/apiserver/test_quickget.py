"""Quick GETs say what the pipeline says, or nothing: every object, asker and kind of header is asked both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from assembled_server import Server, peer_of, running_server
from definitions_fixture import CARTS, DEFINITIONS, GROUP, cart, definition, served

from tiphys.wire.message import Headers, Request, Response

MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = (
    f"{MAPS}/one",
    f"{MAPS}/none",
    MAPS,
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/default/status",
    "/api/v1/namespaces",
    f"{RBAC}/clusterroles/view",
    "/apis/apps/v1/namespaces/default/deployments/web",
    "/apis/apps/v1/namespaces/default/deployments/web/scale",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt",
    "/api/v1/componentstatuses/etcd-0",
    "/apis/nothing.example/v1/things/one",
    f"{CARTS}/a",
    "/healthz",
    "/version",
)
ACCEPTS = (
    "",
    "*/*",
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf,application/json",
    "application/yaml",
    "application/cbor",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "text/html",
)
QUICK = {f"{MAPS}/one", "/api/v1/namespaces/default", f"{CARTS}/a"}


def _get(path: str, user: str, headers: Mapping[str, str]) -> Request:
    known = Headers()
    known.update({"user-agent": "test/1.0", **headers})
    path, _, query = path.partition("?")
    return Request("GET", path, query, known, b"", peer_of(user))


def _quick(server: Server, path: str, user: str = "admin", **headers: str) -> Response | None:
    assert server.assembled.quick is not None
    return server.assembled.quick(_get(path, user, headers))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        await running.made(MAPS, {"metadata": {"name": "one"}, "data": {"key": "value"}})
        await served(running, definition())
        await running.made(CARTS, cart())
        yield running


async def test_what_is_quick_is_what_the_pipeline_says(server: Server) -> None:
    answered = set()
    for path in (*PATHS, f"{MAPS}/one?pretty=true", f"{MAPS}/one?resourceVersion=0"):
        for user in ("admin", "anonymous", "eve:nobody", "system:node:n:system:nodes"):
            for accept in ACCEPTS:
                for more in ({}, {"impersonate-user": "bob"}, {"user-agent": "curl/8"}):
                    headers = {"accept": accept, **more} if accept else dict(more)
                    quick = _quick(server, path, user, **headers)
                    if quick is None:
                        continue
                    answered.add(path)
                    answer = await server.assembled.handle(_get(path, user, headers))
                    assert isinstance(answer, Response)
                    assert quick == answer, (path, user, headers)
    assert answered >= QUICK
    assert f"{MAPS}/none" not in answered


async def test_a_changed_object_is_seen_at_once(server: Server) -> None:
    assert _quick(server, f"{MAPS}/one") is not None
    await server.call("PUT", f"{MAPS}/one", {"metadata": {"name": "one"}, "data": {"key": "other"}})
    answer = _quick(server, f"{MAPS}/one")
    assert answer is None or b"other" in answer.body_bytes()
    assert (await server.call("DELETE", f"{MAPS}/one"))[0] == 200
    assert _quick(server, f"{MAPS}/one") is None


EVE: dict[str, Any] = {
    "metadata": {"name": "eve"},
    "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"},
    "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
}


async def test_rights_given_and_taken_count_for_the_next_request(server: Server) -> None:
    assert _quick(server, f"{MAPS}/one", "eve") is None
    await server.made(f"{RBAC}/clusterrolebindings", EVE)
    assert _quick(server, f"{MAPS}/one", "eve") is not None
    assert (await server.call("DELETE", f"{RBAC}/clusterrolebindings/eve"))[0] == 200
    assert _quick(server, f"{MAPS}/one", "eve") is None


async def test_a_kind_that_is_no_more_is_not_answered_for(server: Server) -> None:
    assert _quick(server, f"{CARTS}/a") is not None
    assert (await server.call("DELETE", f"{DEFINITIONS}/carts.{GROUP}"))[0] == 200
    async with asyncio.timeout(10):
        while (await server.call("GET", f"{CARTS}/a"))[1] != "404 page not found\n":  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.001)
    assert _quick(server, f"{CARTS}/a") is None


async def test_a_quick_get_is_counted_as_any_other(server: Server) -> None:
    before = await _counts(server)
    assert _quick(server, f"{MAPS}/one") is not None
    assert await _counts(server) == [count + 1 for count in before]


async def _counts(server: Server) -> list[int]:
    _, text = await server.call("GET", "/metrics")
    wanted = (
        'apiserver_request_total{verb="GET",dry_run="",group="",version="v1",resource="configmaps"',
        'apiserver_response_sizes_count{verb="GET",group="",version="v1",resource="configmaps"',
        'apiserver_request_duration_seconds_count{verb="GET",dry_run="",group="",version="v1",resource="configmaps"',
    )
    lines = text.splitlines()
    return [sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(name)) for name in wanted]


async def test_a_full_level_is_not_passed_by(server: Server) -> None:
    await server.made(f"{RBAC}/clusterrolebindings", EVE)
    assert _quick(server, f"{MAPS}/one", "eve") is not None
    gate = server.assembled.gate
    for level in gate.levels.values():
        level.in_use, level.limit = 5, 5
    assert _quick(server, f"{MAPS}/one", "eve") is None
    assert _quick(server, f"{MAPS}/one", "admin") is not None, "exempt"
    gate.levels["global-default"].in_use = 4
    assert _quick(server, f"{MAPS}/one", "eve") is not None
