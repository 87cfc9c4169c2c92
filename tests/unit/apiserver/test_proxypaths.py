"""Proxy paths of pods and services, shaped like the conversations that clients have through them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy_backend import Front, echo, front

from tiphys.apiserver.linkrewrite import Links, rewrite_body
from tiphys.wire.server import HttpServer
from tiphys.wire.tls import create_ca, issue, server_context

PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture
async def server() -> AsyncIterator[Front]:
    async with front() as made:
        yield made


async def serve(server: Front, name: str, *ports: dict[str, object]) -> None:
    """Make a service with one endpoint, the pod of the same name."""
    await server.make(SERVICES, {"metadata": {"name": name}, "spec": {"ports": list(ports)}})
    slice_ = {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [server.address], "targetRef": {"kind": "Pod", "name": name}}],
        "ports": [{"name": port.get("name", ""), "port": server.backend_port} for port in ports],
    }
    await server.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_reaches_the_backend(server: Front, method: str) -> None:
    await server.pod("web", ports=(server.backend_port,))
    await serve(server, "web", {"port": 80})
    body = None if method in ("GET", "OPTIONS") else b"some body"
    for path in (f"{PODS}/web/proxy", f"{SERVICES}/web:80/proxy", f"{SERVICES}/web/proxy"):
        status, _, told = await server.ask(method, f"{path}/some/p%20th%2F?x=1&x=2", body, X_Own="kept")
        assert status == 200
        assert (told["method"], told["path"], told["query"]) == (method, "/some/p%20th/", "x=1&x=2")
        assert told["headers"]["x-own"] == "kept"
        assert told["body"] == ("" if body is None else "some body")


async def test_a_large_body_goes_on_as_it_comes(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,))
    await serve(server, "web", {"port": 80})
    body = b"x" * (4 * 1024 * 1024)
    for path in (f"{PODS}/web/proxy", f"{SERVICES}/web:80/proxy"):
        status, _, told = await server.ask("POST", f"{path}/upload", body)
        assert (status, len(told["body"])) == (200, len(body))
    status, _, told = await server.ask("POST", PODS, body)
    assert (status, told["reason"]) == (413, "RequestEntityTooLarge"), "what is for this server keeps its limit"


async def test_headers_that_pass_and_that_do_not(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,))
    _, _, told = await server.ask(
        "GET",
        f"{PODS}/web/proxy/",
        Authorization="Bearer secret",
        X_Remote_User="root",
        X_Remote_Extra_a="b",
        Connection="keep-alive, X-Hop",
        X_Hop="gone",
        X_Forwarded_For="10.1.1.1",
        Sec_WebSocket_Protocol="base64url.bearer.authorization.k8s.io.c2VjcmV0, chat, other",
    )
    sent = told["headers"]
    assert not {"authorization", "x-remote-user", "x-remote-extra-a", "x-hop", "connection"} & set(sent)
    assert sent["sec-websocket-protocol"] == "chat, other", "a browser's token is a credential as well"
    assert sent["x-forwarded-for"] == "10.1.1.1, 127.0.0.1"
    assert sent["x-forwarded-uri"] == f"{PODS}/web/proxy/"
    assert sent["host"].startswith("127.0.0.1:"), "the host that the client asked for"


async def test_a_path_without_slash_is_sent_on_its_way(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,))
    status, headers, _ = await server.ask("GET", f"{PODS}/web/proxy?method=GET")
    assert (status, headers["location"]) == (301, f"{PODS}/web/proxy/?method=GET")
    status, headers, _ = await server.ask("HEAD", f"{PODS}/web/proxy")
    assert (status, headers["location"]) == (301, f"{PODS}/web/proxy/")
    status, _, told = await server.ask("POST", f"{PODS}/web/proxy?method=POST", b"x")
    assert (status, told["path"], told["query"]) == (200, "/", "method=POST")


async def test_answers_come_back_as_they_are(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,))
    base = f"{PODS}/web/proxy"
    status, headers, _ = await server.ask("GET", f"{base}/special/redirect")
    assert (status, headers["location"]) == (302, f"{base}/elsewhere/?a=b")
    assert headers["set-cookie"] == "a=1, b=2", "two headers, joined by this client"
    status, _, page = await server.ask("GET", f"{base}/special/page")
    assert page == f'<a href="{base}/rewriteme">test</a>\n<img src="{base}/x.png" alt="/no">'.encode()
    assert (await server.ask("GET", f"{base}/special/teapot"))[0] == 418
    assert (await server.ask("GET", f"{base}/special/empty"))[0] == 204
    status, headers, _ = await server.ask("HEAD", f"{base}/special/large")
    assert (status, headers["content-length"]) == (200, "1000000")
    assert (await server.ask("GET", f"{base}/special/large"))[2] == b"x" * 1_000_000


async def test_a_session_goes_through(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,))
    headers = {"Connection": "Upgrade", "Upgrade": "shout"}
    status, told, session = await server.pool.open_upgrade("GET", f"{PODS}/web/proxy/ws", headers)
    assert status == 101 and told["upgrade"] == "shout" and not isinstance(session, bytes)
    await session.write(b"hello")
    async with asyncio.timeout(5):
        assert await session.read() == b"HELLO"
    session.close()


async def test_a_backend_with_a_certificate_of_its_own(server: Front, tmp_path: Path) -> None:
    issue(create_ca("nobody"), "nowhere", dns_names=["nowhere"], server=True).write(tmp_path / "crt", tmp_path / "key")
    backend = HttpServer(echo, ssl_context=server_context(tmp_path / "crt", tmp_path / "key"))
    port = await backend.start(server.address, 0)
    await server.pod("web", ports=(port,))
    try:
        status, _, told = await server.ask("GET", f"{PODS}/https:web:{port}/proxy/x")
        assert (status, told["path"]) == (200, "/x")
        assert (await server.ask("GET", f"{PODS}/https:web:/proxy/x"))[0] == 200, "the first port of a container"
        assert (await server.ask("GET", f"{PODS}/http:web:{port}/proxy/x"))[0] == 503
    finally:
        await backend.stop(0)


async def test_a_backend_that_closes_connections_loses_no_request(server: Front) -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")  # nothing says that it will be closed
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(answer_once, server.address, 0)
    port = backend.sockets[0].getsockname()[1]
    await server.pod("web", ports=(port,))
    for method in ("GET", "POST") * 20:
        status, _, body = await server.ask(method, f"{PODS}/web/proxy/x")
        assert (status, body) == (200, b"hi")
    backend.close()


async def test_names_and_ports(server: Front) -> None:
    await server.pod("web", ports=(1, server.backend_port))
    port = server.backend_port
    for name in (f"web:{port}", f"http:web:{port}", "web:p1", f":web:{port}"):
        assert (await server.ask("GET", f"{PODS}/{name}/proxy/"))[0] == 200, name
    await serve(server, "web", {"name": "a", "port": 80}, {"name": "b", "port": 81})
    for name in ("web:a", "web:81", "http:web:b"):
        assert (await server.ask("GET", f"{SERVICES}/{name}/proxy/"))[0] == 200, name
    refusals = {
        f"{SERVICES}/web:82/proxy/": (503, 'no service port 82 found for service "web"'),
        f"{SERVICES}/web:c/proxy/": (503, 'no endpoints available for service "web:c"'),
        f"{SERVICES}/no/proxy/": (404, 'services "no" not found'),
        f"{SERVICES}/ftp:web:a/proxy/": (400, 'invalid service request "ftp:web:a"'),
        f"{PODS}/a:b:c:d/proxy/": (400, 'invalid pod request "a:b:c:d"'),
        f"{PODS}/no/proxy/": (404, 'pods "no" not found'),
        f"{PODS}/web:1/proxy/": (
            503,
            f"error trying to reach service: dial tcp {server.address}:1: connect: connection refused",
        ),
    }
    for path, (code, message) in refusals.items():
        status, _, answer = await server.ask("GET", path)
        assert (status, answer["message"]) == (code, message)


async def test_no_address_but_that_of_a_pod_is_proxied_to(server: Front) -> None:
    await server.pod("web", ports=(server.backend_port,), address="127.0.0.1")
    status, _, answer = await server.ask("GET", f"{PODS}/web/proxy/")
    assert (status, answer["message"]) == (400, "address not allowed")
    await serve(server, "web", {"port": 80})
    status, _, answer = await server.ask("GET", f"{SERVICES}/web/proxy/")
    assert (status, answer["message"]) == (503, 'no endpoints available for service "web"')


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("stream=Both", 'stream: Unsupported value: "Both": supported values: "All", "Stderr", "Stdout"'),
        ("stream=Stdout&tailLines=1", "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"),
    ],
)
async def test_log_options_are_checked(server: Front, query: str, message: str) -> None:
    await server.pod("web")
    status, _, answer = await server.ask("GET", f"{PODS}/web/log?{query}")
    assert status == 422
    assert answer["message"].removeprefix('PodLogOptions "web" is invalid: ').removeprefix(": ") == message


async def test_containers_must_be_named_where_there_are_several(server: Front) -> None:
    containers = [{"name": name, "image": "none"} for name in ("a", "b")]
    metadata = {"name": "two", "annotations": {"kubectl.kubernetes.io/default-container": "b"}}
    await server.make(PODS, {"metadata": metadata, "spec": {"containers": containers}})
    expected = {
        "log": (400, "a container name must be specified for pod two, choose one of: [a b]"),
        "log?container=x": (400, "container x is not valid for pod two"),
        "exec?container=x&command=ls": (400, "container x is not valid for pod two"),
        "exec?container=a&command=ls": (400, "pod two does not have a host assigned"),
        "log?tailLines=many": (400, 'strconv.ParseInt: parsing "many": invalid syntax'),
    }
    for path, answer in expected.items():
        status, _, told = await server.ask("GET", f"{PODS}/two/{path}")
        assert (status, told["message"]) == answer
    assert (await server.ask("GET", f"{PODS}/two/log?container=a"))[0::2] == (200, b""), "not scheduled: no log yet"


async def test_a_session_by_get_takes_the_permission_to_create_one(server: Front) -> None:
    await server.pod("web")
    roles = "/apis/rbac.authorization.k8s.io/v1"
    for name, verbs in (("looker", ["get"]), ("maker", ["get", "create"])):
        rule = {"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": verbs}
        await server.make(f"{roles}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        await server.make(f"{roles}/clusterrolebindings", binding)
    for what in ("exec?command=ls", "attach", "portforward?ports=80"):
        status, _, answer = await server.ask("GET", f"{PODS}/web/{what}", X_Test_User="looker")
        resource = f"pods/{what.partition('?')[0]}"
        assert (status, answer["message"]) == (
            403,
            f'pods "web" is forbidden: User "looker" cannot create resource "{resource}" in API group "" '
            'in the namespace "default"',
        )
        status, _, answer = await server.ask("GET", f"{PODS}/web/{what}", X_Test_User="maker")
        assert (status, answer["message"]) == (400, "pod web does not have a host assigned")


LINKS = Links("/proxy", "api:443", "10.0.0.1:80")


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ("/x", "/proxy/x"),
        ("/x/", "/proxy/x/"),
        ("/", "/proxy/"),
        ("x", "x"),
        ("http://10.0.0.1:80/x?y#z", "/proxy/x?y#z"),
        ("https://api:443/x", "https://api:443/proxy/x"),
        ("https://example.com/x", "https://example.com/x"),
        ("/proxy/x", "/proxy/x"),
        ("mailto:a@b", "mailto:a@b"),
        ("#part", "#part"),
    ],
)
def test_links(link: str, wanted: str) -> None:
    assert LINKS.rewrite(link) == wanted


def test_only_links_of_a_page_change() -> None:
    page = (
        '<!DOCTYPE html><!-- <a href="/c"> --><BODY background="/b&amp;c"><script src="/s">if (a<"/b") {}</script>'
        "<a data-href='/no' HREF='/yes'>/text</a><style>a { background: url(/no) }</style><p title=\"/no\">\u00fc</p>"
    )
    wanted = (
        page.replace('"/b&amp;c"', '"/proxy/b&amp;c"').replace('"/s"', '"/proxy/s"').replace("'/yes'", '"/proxy/yes"')
    )
    assert rewrite_body(LINKS, page.encode(), "") == wanted.encode()
    assert rewrite_body(LINKS, b"anything", "br") is None


async def test_a_node_that_is_gone_or_tells_no_address(server: Front) -> None:
    pods = "/api/v1/namespaces/default/pods"
    spec = {"nodeName": "lost", "containers": [{"name": "c", "image": "none"}]}
    await server.make(pods, {"metadata": {"name": "web"}, "spec": spec})
    status, _, answer = await server.ask("GET", f"{pods}/web/log")
    assert (status, answer["message"]) == (404, 'nodes "lost" not found')
    await server.make("/api/v1/nodes", {"metadata": {"name": "lost"}})
    status, _, answer = await server.ask("GET", f"{pods}/web/log")
    message = "Internal error occurred: no preferred addresses found; known addresses: []"
    assert (status, answer["message"]) == (500, message)
