"""What the request path remembers falls with its ground: a token with its account and its time, a permission with its
binding, a path with the query that changes what it asks for."""

from __future__ import annotations

import orjson
import pytest

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Peer, Request, Response, Stream

ADMIN = Peer("local", trusted_user=("admin", ("system:masters",)))
ANYBODY = Peer("192.0.2.1")
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
READ = "/api/v1/namespaces/default/configmaps"


class Cluster:
    def __init__(self, server: Assembled, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        self.token = ""

    async def admin(self, method: str, path: str, body: object = None) -> dict[str, object]:
        data = orjson.dumps(body) if body is not None else b""
        answer = await self.server.handle(Request(method, path, "", {"content-type": "application/json"}, data, ADMIN))
        assert isinstance(answer, Response)
        assert answer.status < 300, answer.body_bytes()
        return orjson.loads(answer.body_bytes())

    async def read(self, query: str = "") -> Response | Stream:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = await self.server.handle(Request("GET", READ, query, headers, b"", ANYBODY))
        assert isinstance(answer, Response | Stream)
        return answer

    async def statuses(self) -> list[int]:
        return [(await self.read()).status for _ in range(3)]


@pytest.fixture
async def cluster():
    clock = ManualClock()
    store = MemoryStore()
    await store.start()
    server = await assemble(ApiServerConfig(), store, clock, Randomness(1))
    cluster = Cluster(server, clock)
    await cluster.admin("POST", ACCOUNTS, {"metadata": {"name": "reader"}})
    subject = {"kind": "ServiceAccount", "namespace": "default", "name": "reader"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    await cluster.admin("POST", BINDINGS, {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]})
    asked = {"spec": {"expirationSeconds": 3600}}
    status = (await cluster.admin("POST", f"{ACCOUNTS}/reader/token", asked))["status"]
    cluster.token = status["token"]
    yield cluster
    await server.stop()
    await store.stop()


async def test_a_token_falls_with_its_account(cluster):
    assert await cluster.statuses() == [200, 200, 200]
    await cluster.admin("POST", ACCOUNTS, {"metadata": {"name": "other"}})
    assert await cluster.statuses() == [200, 200, 200]
    await cluster.admin("DELETE", f"{ACCOUNTS}/reader")
    assert await cluster.statuses() == [401, 401, 401]
    await cluster.admin("POST", ACCOUNTS, {"metadata": {"name": "reader"}})
    assert await cluster.statuses() == [401, 401, 401]  # another account of the same name


async def test_a_token_falls_with_its_time(cluster):
    assert await cluster.statuses() == [200, 200, 200]
    cluster.clock.current_s += 3599
    assert await cluster.statuses() == [200, 200, 200]
    cluster.clock.current_s += 2
    assert await cluster.statuses() == [401, 401, 401]


async def test_a_permission_falls_with_its_binding(cluster):
    assert await cluster.statuses() == [200, 200, 200]
    await cluster.admin("DELETE", f"{BINDINGS}/b")
    assert await cluster.statuses() == [403, 403, 403]


async def test_a_query_changes_what_a_remembered_path_asks_for(cluster):
    assert isinstance(await cluster.read(), Response)
    assert isinstance(await cluster.read("watch=1"), Stream)
    assert isinstance(await cluster.read(), Response)
