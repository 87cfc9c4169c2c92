"""One suite over both clients.

The server is a small API (`MiniApi`), behind a real socket for the HTTP client and called directly by the local one.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from mini_api import MiniApi, config_map, until

from tiphys.base.errors import ApiError
from tiphys.client.calls import decode_event
from tiphys.client.http import HttpClient, KubeconfigError
from tiphys.client.interface import Client
from tiphys.client.resources import CONFIGMAPS
from tiphys.wire import tls
from tiphys.wire.server import HttpServer


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
