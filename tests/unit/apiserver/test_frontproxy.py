"""Front proxies: whose headers are believed, what of a user they carry, and what extension servers are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from assembled_server import Server

from tiphys.apiserver.assembly import ApiServerConfig, assemble
from tiphys.apiserver.frontproxy import FrontProxy, identity_headers, is_identity_header, remote_user
from tiphys.apiserver.user import User
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Peer, Request

PROXY = FrontProxy("proxies", "PROXY CA", "CLIENT CA", Path("none.crt"), Path("none.key"))
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    store, clock = MemoryStore(), ManualClock()
    await store.start()
    assembled = await assemble(ApiServerConfig(front_proxy=PROXY), store, clock, Randomness(1))
    yield Server(assembled, store, clock)
    await assembled.stop()
    await store.stop()


async def who(server: Server, peer: Peer, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
    sent = {"content-type": "application/json", **headers}
    answer = await server.assembled.handle(Request("POST", WHO, "", sent, body, peer))
    document = json.loads(answer.body_bytes())  # type: ignore[union-attr]
    return answer.status, document["status"]["userInfo"] if answer.status == 201 else document  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "user",
    [
        User("jane", ("dev", "system:authenticated"), "42", {"scopes": ("a", "b"), "example.com/k:y": ("v",)}),
        User("system:serviceaccount:a:b", ("system:serviceaccounts", "system:authenticated")),
        User("system:anonymous", ("system:unauthenticated",)),
        User("J\u00f6rg \u4f60", ("\u00fcber", "system:authenticated"), "", {"n\u00f6": ("\u00e4",)}),
    ],
)
def test_headers_carry_all_of_a_user(user: User) -> None:
    received: dict[str, str] = {}
    for name, value in identity_headers(user):
        assert is_identity_header(name.lower())
        key = name.lower()
        received[key] = f"{received[key]}, {value}" if key in received else value
    assert remote_user(received) == user


async def test_a_front_proxy_speaks_for_others(server: Server) -> None:
    proxy = Peer("10.0.0.9", "front-proxy-client", issuer="proxies")
    headers = {"x-remote-user": "jane", "x-remote-group": "dev, ops", "x-remote-extra-scopes": "read"}
    status, user = await who(server, proxy, headers)
    assert status == 201
    assert user == {
        "username": "jane",
        "groups": ["dev", "ops", "system:authenticated"],
        "extra": {"scopes": ["read"]},
    }


async def test_nobody_else_does(server: Server) -> None:
    headers = {"x-remote-user": "admin", "x-remote-group": "system:masters"}
    status, user = await who(server, Peer("10.0.0.9", "joe", issuer="clients"), headers)
    assert (status, user["username"]) == (201, "joe")
    status, answer = await who(server, Peer("10.0.0.9"), headers)
    assert status == 403, "without a certificate the request is anonymous"
    assert 'User "system:anonymous" cannot create' in str(answer["message"])
    for peer in (Peer("10.0.0.9", "other", issuer="proxies"), Peer("10.0.0.9", "front-proxy-client", issuer="proxies")):
        status, answer = await who(server, peer, headers if peer.common_name == "other" else {})
        assert (status, answer["message"]) == (401, "Unauthorized")


async def test_extension_servers_are_told_whom_to_believe(server: Server) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = (await server.named(path))["data"]
    assert data == {
        "client-ca-file": "CLIENT CA",
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-client-ca-file": "PROXY CA",
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    status, _ = await server.call("GET", path, user="system:kube-scheduler")
    assert status == 200
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "extension-apiserver-authentication-reader",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "sample", "namespace": "default"}],
    }
    await server.made("/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings", binding)
    status, _ = await server.call("GET", path, user="system:serviceaccount:default:sample")
    assert status == 200
