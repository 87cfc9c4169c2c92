"""Fairness in a whole server: objects are there, answers say their schema, seats are held by what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from assembled_server import Server, running_server

from tiphys.apiserver.fairness import upkeep
from tiphys.apiserver.fairness.gate import NoSeats
from tiphys.apiserver.fairness.inflight import InFlight
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.clock import ManualClock
from tiphys.store.interface import Operation, StoreFailed
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Request, Response, Stream

GROUP = "/apis/flowcontrol.apiserver.k8s.io/v1"
SEATS = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
LEVEL = {"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": SEATS}}
RULE = {
    "subjects": [{"kind": "User", "user": {"name": "noxu"}}],
    "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    ],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}
SCHEMA = {
    "metadata": {"name": "noxu"},
    "spec": {
        "matchingPrecedence": 1000,
        "priorityLevelConfiguration": {"name": "tiny"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [RULE],
    },
}


class SlowStore(MemoryStore):
    """Commits wait until they are let through, and some are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.refusals = 0
        """How many commits are still refused."""

    async def commit(self, operations: Sequence[Operation]) -> int:
        await self.open.wait()
        if self.refusals:
            self.refusals -= 1
            raise StoreFailed("no space left on device")
        return await super().commit(operations)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not happen")


async def settled(server: Server) -> None:
    """Wait until every schema has its condition."""

    async def told() -> bool:
        schemas = (await server.named(f"{GROUP}/flowschemas"))["items"]
        return len(schemas) >= 13 and all((s.get("status") or {}).get("conditions") for s in schemas)

    await until(told)


async def headers(server: Server, path: str, user: str) -> tuple[int, dict[str, str]]:
    answer = await server.answer("GET", path, user=user)
    assert isinstance(answer, Response)
    return answer.status, dict(answer.headers)


@pytest.mark.parametrize("version", [(1, 25), (1, 28), (1, 37)])
async def test_what_every_cluster_has_is_there_and_comes_back(version: tuple[int, int]) -> None:
    async with running_server(version=version) as server:
        group = GROUP.replace("v1", {25: "v1beta2", 28: "v1beta3", 37: "v1"}[version[1]])

        async def complete() -> bool:
            return len((await server.named(f"{group}/flowschemas"))["items"]) == 13

        await until(complete)
        levels = (await server.named(f"{group}/prioritylevelconfigurations"))["items"]
        assert len(levels) == 8
        field = "assuredConcurrencyShares" if version == (1, 25) else "nominalConcurrencyShares"
        assert {level["metadata"]["name"]: level["spec"].get("limited", {}).get(field) for level in levels}[
            "system"
        ] == 30
        status, _ = await server.call("DELETE", f"{group}/flowschemas/catch-all")
        assert status == 200
        await until(complete)


async def test_what_the_store_did_not_take_is_written_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "RETRY_S", 0.01)
    store = SlowStore()
    async with running_server(store) as server:
        store.refusals = 15  # of the levels and schemas that are being made
        await settled(server)
        assert store.refusals == 0


async def test_answers_tell_their_schema_and_level() -> None:
    async with running_server() as server:
        await settled(server)
        level = await server.made(f"{GROUP}/prioritylevelconfigurations", LEVEL)
        schema = await server.made(f"{GROUP}/flowschemas", SCHEMA)
        for path, status in (("/version", 200), ("/api/v1/namespaces", 403)):
            got, told = await headers(server, path, "noxu")
            assert got == status
            assert told["X-Kubernetes-PF-FlowSchema-UID"] == schema["metadata"]["uid"]
            assert told["X-Kubernetes-PF-PriorityLevel-UID"] == level["metadata"]["uid"]
        _, other = await headers(server, "/version", "foo")
        assert other["X-Kubernetes-PF-FlowSchema-UID"] not in ("", schema["metadata"]["uid"])
        text = (await server.call("GET", "/metrics"))[1]
        assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="tiny"} 3' in text


async def test_waiting_writes_hold_seats_and_more_are_refused() -> None:
    store = SlowStore()
    async with running_server(store) as server:
        await settled(server)
        await server.made(f"{GROUP}/prioritylevelconfigurations", LEVEL)
        await server.made(f"{GROUP}/flowschemas", SCHEMA)
        await settled(server)
        bind = {
            "metadata": {"name": "noxu"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": "noxu"}],
        }
        await server.made("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bind)
        store.open.clear()
        path = "/api/v1/namespaces/default/configmaps"
        writes = [
            asyncio.create_task(server.call("POST", path, {"metadata": {"name": f"m{n}"}}, user="noxu"))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        answer = await server.answer("GET", path, user="noxu")
        assert isinstance(answer, Response)
        assert (answer.status, answer.body_bytes()) == (429, b"Too many requests, please try again later.\n")
        assert dict(answer.headers)["Retry-After"] == "1"
        assert (await server.call("GET", path))[0] == 200  # the administrator is exempt
        page = (await server.call("GET", "/debug/api_priority_and_fairness/dump_priority_levels"))[1]
        assert [line.split() for line in page.splitlines() if line.startswith("tiny")] == [
            ["tiny,", "0,", "false,", "false,", "0,", "3,", *page_rest(page)]
        ]
        store.open.set()
        assert [(await write)[0] for write in writes] == [201, 201, 201]
        assert (await server.call("GET", path, user="noxu"))[0] == 200


def page_rest(page: str) -> list[str]:
    return next(line.split()[6:] for line in page.splitlines() if line.startswith("tiny"))


async def test_debug_pages() -> None:
    async with running_server() as server:
        pages = {
            name: (await server.call("GET", f"/debug/api_priority_and_fairness/dump_{name}"))[1]
            for name in ("priority_levels", "queues", "requests")
        }
        assert pages["priority_levels"].startswith("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, ")
        assert any(line.startswith("catch-all,") for line in pages["queues"].splitlines())
        assert pages["requests"].startswith("PriorityLevelName, FlowSchemaName, QueueIndex, ")


class Taken:
    """A sink that takes everything, once it is `open`."""

    def __init__(self) -> None:
        self.data = b""
        self.open = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.data += data

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        await self.open.wait()

    def close(self) -> None:
        return None


async def executing(server: Server, level: str) -> int:
    text = (await server.call("GET", "/metrics"))[1]
    head = f'apiserver_flowcontrol_current_executing_seats{{priority_level="{level}"}} '
    return int(next(line for line in text.splitlines() if line.startswith(head)).removeprefix(head))


async def test_a_watch_holds_its_seat_until_its_state_is_sent_and_never_longer() -> None:
    async with running_server() as server:
        await settled(server)
        path = "/api/v1/namespaces/default/configmaps"
        for number in range(450):
            await server.made(path, {"metadata": {"name": f"m{number}"}})
        bind = {
            "metadata": {"name": "eve"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": "eve"}],
        }
        await server.made("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bind)
        dropped = await server.answer("GET", f"{path}?watch=1", user="eve")
        assert await executing(server, "global-default") == 1
        del dropped  # its client was gone before the first byte
        assert await executing(server, "global-default") == 0
        watch = await server.answer("GET", f"{path}?watch=1", user="eve")
        assert isinstance(watch, Stream)
        sink = Taken()
        stop = watch.start(sink)
        assert await executing(server, "global-default") == 1
        sink.open.set()

        async def opened() -> bool:
            return await executing(server, "global-default") == 0

        await until(opened)
        assert sink.data.count(b'"ADDED"') == 450
        stop()
        assert await executing(server, "global-default") == 0


async def test_a_write_that_takes_too_long_is_cut_off_and_gives_its_seat_back() -> None:
    store = SlowStore()
    async with running_server(store) as server:
        await settled(server)
        store.open.clear()
        path = "/api/v1/namespaces/default/configmaps"
        status, answer = await server.call("POST", f"{path}?timeout=20ms", {"metadata": {"name": "m"}})
        assert (status, answer["reason"]) == (504, "Timeout")
        assert answer["message"] == "Timeout: request did not complete within the allotted timeout"
        assert await executing(server, "exempt") == 1  # the scrape itself
        store.open.set()
        assert (await server.call("GET", f"{path}/m"))[0] == 404
        text = (await server.call("GET", "/metrics"))[1]
        assert 'apiserver_request_timeouts_total{verb="POST"} 1' in text


async def test_a_client_that_goes_away_gives_its_seat_back() -> None:
    store = SlowStore()
    async with running_server(store) as server:
        await settled(server)
        store.open.clear()
        body = {"metadata": {"name": "m"}}
        write = asyncio.create_task(server.call("POST", "/api/v1/namespaces/default/configmaps", body))
        await asyncio.sleep(0)
        assert await executing(server, "exempt") == 2
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        assert write.cancelled()
        assert await executing(server, "exempt") == 1
        store.open.set()


async def test_without_fairness_reads_and_writes_are_limited_by_number_but_for_masters() -> None:
    clock = ManualClock()
    limit = InFlight(clock, reads=1, writes=0)
    reading, writing = RequestInfo(True, "list", "/x"), RequestInfo(True, "create", "/x")
    eve, root = User("eve"), User("root", ("system:masters",))
    assert limit.flow_of(eve, reading).level.fits(1)
    limit.flow_of(eve, reading).level.take(1)
    assert not limit.flow_of(eve, reading).level.fits(1)
    assert limit.flow_of(root, reading).level.fits(1)
    assert limit.flow_of(eve, writing).level.fits(1)  # 0 is no limit
    with pytest.raises(NoSeats) as caught:
        await limit.wait(Request("GET", "/x"), limit.flow_of(eve, reading), eve, reading, 1)
    assert caught.value.request_kind == "readOnly"
