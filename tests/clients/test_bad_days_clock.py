"""A wall clock that jumps back and forth: revisions, locks and watches do not care, tokens follow the clock."""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Peer, Request, Response

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
ADMIN = Peer("127.0.0.1", "admin", ("system:masters",))
YEAR_S = 365 * 86_400.0


async def ask(server: Assembled, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = orjson.dumps(body) if body is not None else b""
    path, _, query = path.partition("?")
    answer = await server.handle(Request(method, path, query, headers, data, Peer("::1") if token else ADMIN))
    assert isinstance(answer, Response)
    return answer.status, orjson.loads(answer.body_bytes())


async def test_a_clock_that_jumps_changes_no_order_and_expires_no_token_for_good() -> None:
    store, clock = MemoryStore(), ManualClock()
    await store.start()
    server = await assemble(ApiServerConfig(), store, clock, Randomness(1))
    start_s = clock.now_s()
    try:
        account = {"metadata": {"name": "default"}}
        assert (await ask(server, "POST", "/api/v1/namespaces/default/serviceaccounts", account))[0] == 201
        path = "/api/v1/namespaces/default/serviceaccounts/default/token"
        status, answer = await ask(server, "POST", path, {"spec": {"expirationSeconds": 3600}})
        assert status == 201
        token = answer["status"]["token"]
        status, last = await ask(server, "POST", CONFIGMAPS, {"metadata": {"name": "a"}, "data": {"n": "0"}})
        assert status == 201
        for step, jump_s in enumerate((YEAR_S, -10 * YEAR_S, 86_400.0, -1.0, 0.0), 1):
            clock.current_s = start_s + jump_s
            changed = {**last, "data": {"n": str(step)}}
            status, written = await ask(server, "PUT", f"{CONFIGMAPS}/a", changed)
            assert status == 200, written
            assert int(written["metadata"]["resourceVersion"]) > int(last["metadata"]["resourceVersion"])
            assert written["metadata"]["creationTimestamp"] == last["metadata"]["creationTimestamp"]
            assert (await ask(server, "PUT", f"{CONFIGMAPS}/a", changed))[0] == 409, "the lock is the revision"
            last = written
            allowed = 403 if -60 <= jump_s <= 3600 else 401  # known but not allowed, or not valid now
            assert (await ask(server, "GET", CONFIGMAPS, token=token))[0] == allowed, jump_s
        assert (await ask(server, "DELETE", f"{CONFIGMAPS}/a"))[0] == 200
    finally:
        await server.stop()
        await store.stop()
