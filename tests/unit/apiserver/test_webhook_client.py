"""Calls of webhooks over real HTTPS, good ones and every way in which they fail."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from webhook_server import allowed, authority, broken, ca_bundle, certificate, serving

from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.endpoints import ServiceResolver
from tiphys.apiserver.webhooks.client import CallFailed, WebhookClient
from tiphys.wire.message import Answer, Handler, Request, Response, Sink, Stream
from tiphys.wire.tls import create_ca, issue

BODY = b'{"request":{"uid":"1"},"apiVersion":"admission.k8s.io/v1"}'


@pytest.fixture
async def client() -> Any:
    client = WebhookClient(resolver())
    yield client
    await client.close()


def resolver(*objects: dict[str, Any]) -> ServiceResolver:
    caches = {kind: ResourceCache(f"/registry/{kind}/", 1) for kind in ("Service", "EndpointSlice", "Node")}
    for number, obj in enumerate(objects):
        cache, metadata = caches[obj["kind"]], obj["metadata"]
        namespace = f"{metadata['namespace']}/" if "namespace" in metadata else ""
        cache.load(f"{cache.prefix}{namespace}{metadata['name']}", orjson.dumps(obj), number + 2)
    return ServiceResolver(*caches.values())


def service(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "hook", "namespace": "hooks"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoints(port: int, *addresses: str, ready: bool = True) -> dict[str, Any]:
    metadata = {"name": f"hook-{port}", "namespace": "hooks", "labels": {"kubernetes.io/service-name": "hook"}}
    listed = [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses]
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
    return {**kind, "metadata": metadata, "ports": [{"name": "web", "port": port}], "endpoints": listed}


SERVICE_CONFIG = {"service": {"namespace": "hooks", "name": "hook", "path": "/validate", "port": 443}}


async def failure(client: WebhookClient, config: dict[str, Any], timeout_s: float = 5) -> str:
    with pytest.raises(CallFailed) as caught:
        await client.post(config, BODY, timeout_s)
    return str(caught.value)


async def test_a_url_is_called_with_its_path_and_timeout_over_one_connection(client: WebhookClient) -> None:
    async with serving(lambda path, review: allowed(review)) as hook:
        for _ in range(3):
            assert (await client.post(hook.config("/a/b"), BODY, 7))["response"]["uid"] == "1"
    assert [(r.method, r.path, r.raw_query) for r in hook.requests] == [("POST", "/a/b", "timeout=7s")] * 3
    assert hook.requests[0].headers["content-type"] == "application/json"
    assert hook.requests[0].headers["host"] == f"127.0.0.1:{hook.port}"


async def test_a_service_is_dialled_at_its_ready_endpoints_by_its_own_name() -> None:
    async with serving(lambda path, review: allowed(review)) as hook:
        spec = service(ports=[{"name": "web", "port": 443, "targetPort": 8443}])
        gone = endpoints(free_port(), "127.0.0.1")
        client = WebhookClient(resolver(spec, gone, endpoints(hook.port, "127.0.0.1")))
        for _ in range(4):  # an endpoint that refuses is passed over, whichever comes first
            await client.post({**SERVICE_CONFIG, "caBundle": ca_bundle()}, BODY, 5)
        await client.close()
    assert hook.requests[0].headers["host"] == "hook.hooks.svc:443"
    assert hook.requests[0].path == "/validate"


async def test_pods_of_simulated_nodes_are_not_dialled() -> None:
    info = {"nodeInfo": {"containerRuntimeVersion": "tiphys-simulated://0.1.0"}}
    node = {"kind": "Node", "metadata": {"name": "n"}, "status": info}
    simulated = endpoints(1, "10.0.0.1")
    simulated["endpoints"][0]["nodeName"] = "n"
    spec = service(ports=[{"name": "web", "port": 443}])
    told = await failure(WebhookClient(resolver(spec, node, simulated)), SERVICE_CONFIG)
    assert "are pods of simulated nodes, where no container answers" in told


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ([], 'service "hook" not found'),
        ([service(ports=[{"port": 80}])], 'no service port 443 found for service "hook"'),
        ([service(ports=[{"port": 443, "name": "web"}])], 'no endpoints available for service "hook"'),
        (
            [service(ports=[{"port": 443, "name": "web"}]), endpoints(1, "127.0.0.1", ready=False)],
            'no endpoints available for service "hook"',
        ),
    ],
)
async def test_a_service_that_leads_nowhere_is_told(objects: list[dict[str, Any]], told: str) -> None:
    client = WebhookClient(resolver(*objects))
    url = "https://hook.hooks.svc:443/validate?timeout=5s"
    assert await failure(client, SERVICE_CONFIG) == f'Post "{url}": {told}'


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_without_a_network_every_call_says_so() -> None:
    assert "without a network" in await failure(WebhookClient(None), SERVICE_CONFIG)


async def test_a_refused_connection_is_told_as_go_tells_it(client: WebhookClient) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}/x"
    told = await failure(client, {"url": url, "caBundle": ca_bundle()})
    assert told == f'Post "{url}?timeout=5s": dial tcp 127.0.0.1:{port}: connect: connection refused'


async def test_a_webhook_that_hangs_costs_no_more_than_its_timeout(client: WebhookClient) -> None:
    forever = asyncio.Event()

    async def hang(path: str, review: Any) -> Any:
        await forever.wait()

    async with serving(hang) as hook:
        told = await failure(client, hook.config("/slow"), 0.05)
        assert told == f'Post "https://127.0.0.1:{hook.port}/slow?timeout=1s": context deadline exceeded'
        forever.set()


async def test_certificates_that_do_not_fit_are_not_believed(client: WebhookClient) -> None:
    async with serving(lambda path, review: allowed(review)) as hook:
        other = {**hook.config(), "caBundle": ca_bundle(create_ca("other"))}
        assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in await failure(
            client, other
        )
        named = {**hook.config(), "url": f"https://localhost:{hook.port}/"}
        assert "x509: certificate is valid for hook.hooks.svc, not localhost" in await failure(client, named)
        assert not hook.requests
        leaf = {**hook.config(), "caBundle": ca_bundle(certificate())}
        assert await client.post(leaf, BODY, 5)  # a bundle may hold the server's own certificate


async def test_an_expired_certificate_is_not_believed(client: WebhookClient) -> None:
    expired = issue(authority(), "hook", ip_addresses=["127.0.0.1"], server=True, days=0)
    async with serving(lambda path, review: allowed(review), expired) as hook:
        told = await failure(client, hook.config())
    assert re.search(r"x509: certificate has expired or is not yet valid: current time \S+Z is after \S+Z$", told)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"dns_names": ["a.b"]}, "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"),
        ({"ip_addresses": ["10.0.0.1"]}, "certificate is valid for 10.0.0.1, not 127.0.0.1"),
    ],
)
async def test_the_names_of_a_certificate_are_told(client: WebhookClient, names: dict[str, Any], told: str) -> None:
    async with serving(lambda path, review: allowed(review), issue(authority(), "hook", server=True, **names)) as hook:
        assert (await failure(client, hook.config())).endswith(f"x509: {told}")


async def test_a_common_name_is_no_server_name(client: WebhookClient) -> None:
    async with serving(lambda path, review: allowed(review), issue(authority(), "localhost", server=True)) as hook:
        named = {**hook.config(), "url": f"https://localhost:{hook.port}/"}
        assert "x509: certificate relies on legacy Common Name field, use SANs instead" in await failure(client, named)


async def test_plain_http_is_told_apart(client: WebhookClient) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with broken(plain, tls=False) as port:
        told = await failure(client, {"url": f"https://127.0.0.1:{port}/", "caBundle": ca_bundle()})
    assert told.endswith("http: server gave HTTP response to HTTPS client")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", "EOF"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "net/http: HTTP/1.x transport connection broken: malformed HTTP response"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"apiVersion":', "unexpected EOF"),
    ],
)
async def test_half_an_answer_is_none(client: WebhookClient, sent: bytes, told: str) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(sent)
        await writer.drain()

    async with broken(cut) as port:
        url = f"https://127.0.0.1:{port}/"
        assert await failure(client, {"url": url, "caBundle": ca_bundle()}) == f'Post "{url}?timeout=5s": {told}'


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Response(404, b"404 page not found"), "the server could not find the requested resource"),
        (
            Response(500, b"panic: oh no"),
            'an error on the server ("panic: oh no") has prevented the request from succeeding',
        ),
        (Response(503, b""), "the server is currently unable to handle the request"),
        (Response(400, b'{"kind":"Status","message":"bad review"}'), "bad review"),
        (Response(200, b"", "text/plain"), "0-length response with status code: 200 and content type: text/plain"),
        (Response(200, b"hello"), "couldn't get version/kind; json parse error: invalid character 'h' looking for "
         "beginning of value"),
        (Response(200, b'{"apiVersion":"v1"'), "couldn't get version/kind; json parse error: unexpected end of JSON "
         "input"),
        (Response(200, b'{"response":{}}'), "Object 'Kind' is missing in '{\"response\":{}}'"),
    ],
)  # fmt: skip
async def test_answers_that_are_none_are_told(client: WebhookClient, answer: Response, told: str) -> None:
    async with serving(lambda path, review: answer) as hook:
        assert await failure(client, hook.config()) == told


async def test_a_long_answer_is_read_and_an_endless_one_is_not(client: WebhookClient) -> None:
    async with serving(lambda path, review: allowed(review, warnings=["x" * 10_000_000])) as hook:
        answer = await client.post(hook.config(), BODY, 10)
        assert len(answer["response"]["warnings"][0]) == 10_000_000

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
            await writer.drain()

    async with broken(endless) as port:
        told = await failure(client, {"url": f"https://127.0.0.1:{port}/", "caBundle": ca_bundle()}, 20)
    assert "response body too large" in told


async def test_a_connection_that_the_webhook_closed_meanwhile_is_opened_anew(client: WebhookClient) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        body = orjson.dumps({"apiVersion": "v1", "kind": "X"})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.readuntil(BODY)  # the second request is not answered any more

    async with broken(once) as port:
        config = {"url": f"https://127.0.0.1:{port}/", "caBundle": ca_bundle()}
        for _ in range(3):
            assert (await client.post(config, BODY, 5))["kind"] == "X"


async def test_a_bundle_that_holds_no_certificate_is_told(client: WebhookClient) -> None:
    config = {"url": "https://127.0.0.1:1/", "caBundle": "bm90IGEgY2VydGlmaWNhdGU="}
    assert "unable to load root certificates" in await failure(client, config)


OWN_CONFIG = {"service": {"namespace": "default", "name": "kubernetes", "path": "/apis/a.b/v1/reviews"}}


def streaming(*pieces: bytes) -> Handler:
    """Return a handler that answers in pieces, as the aggregator does for an extension server."""

    async def handle(request: Request) -> Answer:
        assert (request.method, request.path, request.body) == ("POST", "/apis/a.b/v1/reviews", BODY)
        assert request.peer.trusted_user == ("system:apiserver", ("system:masters",))

        def start(sink: Sink) -> Callable[[], None]:
            for piece in pieces:
                sink.send(piece)
            sink.close()
            return lambda: None

        return Stream(start)

    return handle


async def test_the_api_server_is_its_own_webhook_for_extension_servers(client: WebhookClient) -> None:
    client.loopback = streaming(b'{"apiVersion":"v1",', b'"kind":"X"}')
    assert await client.post(OWN_CONFIG, BODY, 5) == {"apiVersion": "v1", "kind": "X"}
    client.loopback = streaming(*[b"x" * 1_000_000] * 20)
    assert "too long" in await failure(client, OWN_CONFIG)
