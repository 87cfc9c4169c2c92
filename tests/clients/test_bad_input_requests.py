"""Requests that are no HTTP, ambiguous, endless or nonsense, over real TLS: a refusal or a closed connection."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any

import jwt
import orjson
import pytest
from apiserver_process import ApiServerProcess, Reply, Wire
from bad_input_fixtures import CONFIGMAPS, bystander, server, wire

from tiphys.wire.tls import create_ca, issue

__all__ = ["bystander", "server", "wire"]

HOST = b"Host: x\r\n"
POST = b"POST " + CONFIGMAPS.encode() + b" HTTP/1.1\r\n" + HOST
SMUGGLED = b"0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n"

NO_REQUESTS = {
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "two codings": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + SMUGGLED,
    "coded before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + SMUGGLED,
    "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdefGET /version HTTP/1.1\r\n",
    "the same length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n{}",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length of 5,000 digits": POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "a superscript length": POST + b"Content-Length: \xb2\r\n\r\n{}",
    "a chunk of 17 digits": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "a chunk size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a folded header": b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "bare line feeds": b"GET /version HTTP/1.1\nHost: x\n\n",
    "a bare line feed in a header": b"GET /version HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare carriage returns": b"GET /version HTTP/1.1\rHost: x\r\r",
    "NUL in a header": b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "space before the colon": b"GET /version HTTP/1.1\r\nHost : x\r\n\r\n",
    "no host": b"GET /version HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /version HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /version HTTP/9.9\r\n" + HOST + b"\r\n",
    "unknown method": b"BREW /version HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "garbage": bytes(range(256)) * 8,
    "a path that is no escape": b"GET /% HTTP/1.1\r\n" + HOST + b"\r\n",
    "20,000 headers": b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n",
    "a header of 1 MB": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 1_000_000,
    "a path of 200 KB": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a query of 1 MB": b"GET /?" + b"a=b&" * 250_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "100,000 trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 100_000,
    "10 MB announced": POST + b"Content-Length: 10000000\r\n\r\n" + b" " * 10_000_000,
    "10 MB in chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 160,
    "more than any memory": POST + b"Content-Length: 18446744073709551615\r\n\r\n{}",
}


async def test_what_is_no_clear_request_is_refused_and_the_connection_closed(server: ApiServerProcess) -> None:
    async def check(name: str, data: bytes) -> None:
        async with server.wire() as wire:
            sending = asyncio.create_task(wire.send(data))
            reply = await wire.reply()
            assert reply is not None and reply.status in (400, 413, 431, 501), (name, reply)
            assert reply.headers["connection"] == "close", name
            assert b"HTTP/1.1" not in await wire.end(), f"a second request was seen in {name}"
            await sending

    await asyncio.gather(*(check(name, data) for name, data in NO_REQUESTS.items()))  # each lingers for two seconds


async def test_tls_that_is_none_is_closed(server: ApiServerProcess) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\0" * 100,
        bytes(range(256)),
        b"SSH-2.0-x\r\n",
    ):
        async with server.plain() as plain:
            await plain.send(data)
            assert b"HTTP/1.1 2" not in await plain.end()


async def test_half_handshakes_and_half_requests_keep_nobody_waiting(server: ApiServerProcess, wire: Wire) -> None:
    """200 connections stop in the middle of a handshake, 100 in the middle of a head, 50 in the middle of a body."""
    halves: list[asyncio.StreamWriter] = []
    context = server.context()
    try:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            halves.append(writer)
        for text in [b"GET /version HTTP/1.1\r\nHos"] * 30 + [POST + b"Content-Length: 100\r\n\r\n{"] * 20:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            writer.write(text)
            halves.append(writer)
        assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "beside"}})).status == 201
        assert (await wire.request("DELETE", f"{CONFIGMAPS}/beside")).status == 200
    finally:
        for writer in halves:
            writer.transport.abort()


PATHS_OF_NOTHING = [
    "/../etc/passwd",
    "/api/v1/../v1/namespaces",
    "//api//v1//namespaces",
    "/api/v1//namespaces",
    "/%2e%2e/%2e%2e",
    "/api/v1/namespaces/%2e%2e",
    "/api/v1/namespaces/default/configmaps/..%2f..",
    "/api/v1/namespaces/%00",
    "/api/v1/namespaces/%ff",
    "/api/v1/namespaces/default/configmaps/present/b/c/d/e",
    "/api/v1/namespaces/default/configmaps/present/status",
    "/api/v1/namespaces/default/configmaps/present/scale",
    "/api/v1/namespaces/default/pods/a/exec",
    "/apis/x/v1/y",
    "/apis/apps/v9/deployments",
    "/api/v1/nope",
    "/openapi/v3/../x",
    "/api/v1/namespaces/" + "a" * 100_000,
]


@pytest.mark.parametrize("path", PATHS_OF_NOTHING, ids=lambda path: path[:50])
async def test_paths_of_nothing_are_not_found(wire: Wire, path: str) -> None:
    reply = await wire.request("GET", path)
    assert reply.status == 404
    assert reply.is_status or reply.body == b"404 page not found\n"


BAD_QUERIES = [
    "labelSelector=a%3D%3D%3Db",
    "labelSelector=a+in+(b",
    "labelSelector=!",
    "labelSelector=%ff%00",
    "labelSelector=" + "a," * 30_000,
    "labelSelector=" + "(" * 60_000,
    "fieldSelector=x",
    "fieldSelector=a.b%3Dc",
    "fieldSelector=%5C",
    "resourceVersion=x",
    "resourceVersion=-1",
    "resourceVersion=1.5",
    "resourceVersion=%C2%B2",
    "resourceVersion=" + "9" * 5_000,
    "resourceVersion=99999999999999999999999",
    "watch=1&resourceVersion=x",
    "limit=x",
    "limit=1_0",
    "limit=%C2%B2",
    "limit=" + "9" * 5_000,
    "limit=99999999999999999999",
    "watch=1&timeoutSeconds=99999999999999999999",
    "resourceVersionMatch=x&resourceVersion=1",
    "continue=x",
    "continue=%ff",
    "continue=e30",
    "continue=" + "A" * 50_000,
]


@pytest.mark.parametrize("query", BAD_QUERIES, ids=lambda query: query[:40])
async def test_parameters_that_make_no_sense_are_told(wire: Wire, query: str) -> None:
    reply = await wire.request("GET", f"{CONFIGMAPS}?{query}")
    assert reply.status in (400, 422) and reply.is_status, reply.body[:300]
    assert "Exceeds the limit" not in reply.json["message"]


def token_of(value: Any) -> str:
    text = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    "value",
    [
        {"v": "meta.k8s.io/v1", "rv": True, "start": "x\0"},
        {"v": "meta.k8s.io/v1", "rv": 1.5, "start": "x\0"},
        {"v": "meta.k8s.io/v1", "rv": 0, "start": "x\0"},
        {"v": "meta.k8s.io/v1", "rv": 1, "start": "../x\0"},
        {"v": "meta.k8s.io/v1", "rv": 1, "start": "/x"},
        {"v": "meta.k8s.io/v1", "rv": 1, "start": ""},
        {"v": "meta.k8s.io/v1", "rv": 1, "start": 5},
        {"v": "v9", "rv": 1, "start": "x"},
        [],
        b'{"v":"meta.k8s.io/v1","rv":1180591620717411303424,"start":"x"}',
        b"[" * 4_000,
    ],
    ids=str,
)
async def test_forged_continue_tokens_are_not_valid(wire: Wire, value: Any) -> None:
    reply = await wire.request("GET", f"{CONFIGMAPS}?limit=1&continue={token_of(value)}")
    assert reply.status == 400 and "continue" in reply.json["message"], reply.body


async def test_enormous_selectors_are_answered(wire: Wire) -> None:
    for query in ("labelSelector=a+in+(" + "b," * 40_000 + "c)", "a=b&" * 30_000):
        assert (await wire.request("GET", f"{CONFIGMAPS}?{query}")).status == 200


ISSUER = "https://kubernetes.default.svc.cluster.local"
CLAIMS = {
    "iss": ISSUER,
    "aud": [ISSUER],
    "sub": "system:serviceaccount:kube-system:x",
    "exp": 9_999_999_999,
    "kubernetes.io": {"namespace": "kube-system", "serviceaccount": {"name": "x", "uid": "1"}},
}


def _b64(value: Any) -> str:
    return token_of(value)


def _bad_tokens(server: ApiServerProcess) -> dict[str, str]:
    key = (server.root / "pki" / "service-accounts.key").read_text()
    other = server.home / "other.pem"
    create_ca("other").write(server.home / "other.crt", other)
    return {
        "alg none": f"{_b64({'alg': 'none', 'typ': 'JWT'})}.{_b64(CLAIMS)}.",
        "alg HS256 with anything": jwt.encode(CLAIMS, "s" * 32, "HS256"),
        "another key": jwt.encode(CLAIMS, other.read_text(), "ES256"),
        "expired": jwt.encode(CLAIMS | {"exp": 1_000_000_000}, key, "ES256"),
        "not yet valid": jwt.encode(CLAIMS | {"nbf": 9_999_999_000}, key, "ES256"),
        "of another issuer": jwt.encode(CLAIMS | {"iss": "https://x"}, key, "ES256"),
        "for another audience": jwt.encode(CLAIMS | {"aud": ["x"]}, key, "ES256"),
        "of an account that is not there": jwt.encode(CLAIMS, key, "ES256"),
        "without claims": jwt.encode({}, key, "ES256"),
        "claims of wrong types": jwt.encode(CLAIMS | {"kubernetes.io": 5}, key, "ES256"),
        "an expiry of wrong type": jwt.encode(CLAIMS, key, "ES256", headers={"kid": "x"}).replace(".", "..", 1),
        "deep header": f"{_b64(b'[' * 40_000)}.{_b64(b'{}')}.x",
        "alg is a list": f"{_b64({'alg': ['ES256']})}.{_b64({})}.AAAA",
        "critical extension": f"{_b64({'alg': 'ES256', 'crit': ['x']})}.{_b64({})}.AAAA",
        "no token": "x",
        "dots": "..",
        "not ASCII": "\xff\xfe",
    }


async def test_bad_tokens_are_unauthorized(server: ApiServerProcess) -> None:
    async with server.wire(server.context(anonymous=True)) as anonymous:
        for name, token in _bad_tokens(server).items():
            reply = await anonymous.request("GET", CONFIGMAPS, headers={"Authorization": f"Bearer {token}"})
            assert (reply.status, reply.json["reason"]) == (401, "Unauthorized"), name
        protocol = {"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.\xff"}
        assert (await anonymous.request("GET", CONFIGMAPS, headers=protocol)).status == 401
        assert (await anonymous.request("GET", CONFIGMAPS)).status == 403


async def test_a_client_certificate_of_another_authority_gets_nothing(server: ApiServerProcess) -> None:
    pair = issue(create_ca("other"), "kubernetes-admin", ("system:masters",), client=True)
    pair.write(server.home / "forged.crt", server.home / "forged.key")
    context = ssl.create_default_context(cafile=str(server.root / "pki" / "ca.crt"))
    context.load_cert_chain(server.home / "forged.crt", server.home / "forged.key")
    reply: Reply | None = None
    try:
        async with server.wire(context) as forged:
            await forged.send(f"GET {CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            reply = await forged.reply()
    except (ConnectionError, ssl.SSLError):
        pass
    assert reply is None or reply.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Impersonate-Group": "x"},
        {"Impersonate-User": "\xff"},
        {"Impersonate-User": "system:serviceaccount:"},
        {"Accept": "\xff"},
        {"Accept": ",,,;;;"},
        {"Accept": "application/json;q=nan"},
        {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v9"},
        {"Accept-Encoding": "gzip;q=x"},
        {"If-None-Match": "\xff"},
    ],
    ids=str,
)
async def test_odd_headers_make_no_server_error(wire: Wire, headers: dict[str, str]) -> None:
    for path in (CONFIGMAPS, f"{CONFIGMAPS}/present", "/version", "/openapi/v3", "/apis"):
        assert (await wire.request("GET", path, headers=headers)).status < 500


async def test_an_upgrade_that_is_not_taken_up_ends_the_connection_after_its_answer(wire: Wire) -> None:
    headers = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
    reply = await wire.request("GET", "/version", headers=headers)
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await wire.end() == b""
