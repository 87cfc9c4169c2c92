"""The kubelet against the real API server, in one process: what it writes is accepted and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from kubelet_support import NODE, Node

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.base.clock import Randomness, SystemClock
from tiphys.base.errors import ApiError
from tiphys.client.local import LocalClient
from tiphys.client.resources import EVENTS, NODES, PODS
from tiphys.client.slots import Slots
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.statuswriter import StatusWriter
from tiphys.store.memory import MemoryStore


@pytest.fixture
async def server() -> AsyncIterator[Assembled]:
    store = MemoryStore()
    await store.start()
    assembled = await assemble(ApiServerConfig(), store, SystemClock(), Randomness(3))
    yield assembled
    await assembled.stop()
    await store.stop()


async def get(client: LocalClient, name: str) -> dict[str, Any]:
    return dict(msgspec.json.decode(await client.get(PODS, "default", name)))


async def until(client: LocalClient, name: str, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not what(pod := await get(client, name)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return pod


async def test_a_pod_lives_and_dies_with_the_rights_of_its_node(server: Assembled) -> None:
    admin = LocalClient(server.handle, "admin", ("system:masters",))
    own = LocalClient(server.handle, f"system:node:{NODE}", ("system:nodes", "system:authenticated"))
    async with Node(own):  # type: ignore[arg-type]
        spec = {
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [{"name": "web", "image": "nginx"}],
        }
        account = {"metadata": {"name": "default"}}
        await admin.request("POST", "/api/v1/namespaces/default/serviceaccounts", body=msgspec.json.encode(account))
        pod = {"metadata": {"name": "web"}, "spec": {**spec, "terminationGracePeriodSeconds": 1}}
        await admin.create(PODS, "default", pod)
        shown = await until(admin, "web", lambda p: p["status"]["phase"] == "Running")
        ready = [c for c in shown["status"]["conditions"] if c["type"] == "Ready"]
        assert ready[0]["status"] == "True"
        assert shown["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        node = msgspec.json.decode(await admin.get(NODES, "", NODE))
        assert {c["type"] for c in node["status"]["conditions"]} == {
            "Ready", "MemoryPressure", "DiskPressure", "PIDPressure",
        }  # fmt: skip
        events = await admin.list(EVENTS, "default")
        assert {"Pulled", "Created", "Started"} <= {msgspec.json.decode(e)["reason"] for e in events.items}
        await admin.delete(PODS, "default", "web")
        with pytest.raises(ApiError) as gone:
            await until(admin, "web", lambda p: False)
        assert gone.value.code == 404


class CountingClient(LocalClient):
    """Counts what is written to statuses of pods."""

    statuses = 0

    async def patch(self, resource: Any, *arguments: Any, **more: Any) -> bytes:
        self.statuses += resource == PODS and more.get("subresource") == "status"
        return await super().patch(resource, *arguments, **more)


async def test_fields_that_an_older_server_leaves_out_are_not_written_again_and_again() -> None:
    store = MemoryStore()
    await store.start()
    old = await assemble(ApiServerConfig(kubernetes_version=(1, 25)), store, SystemClock(), Randomness(3))
    try:
        admin = LocalClient(old.handle, "admin", ("system:masters",))
        own = CountingClient(old.handle, f"system:node:{NODE}", ("system:nodes", "system:authenticated"))
        async with Node(own):  # type: ignore[arg-type]
            account = {"metadata": {"name": "default"}}
            await admin.request("POST", "/api/v1/namespaces/default/serviceaccounts", body=msgspec.json.encode(account))
            spec = {"nodeName": NODE, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
            held = {"name": "web", "finalizers": ["example.com/held"]}
            containers = [{"name": "web", "image": "nginx"}]
            await admin.create(PODS, "default", {"metadata": held, "spec": {**spec, "containers": containers}})
            await until(admin, "web", lambda p: p["status"]["phase"] == "Running")
            await admin.delete(PODS, "default", "web")
            await until(admin, "web", lambda p: p["metadata"].get("deletionGracePeriodSeconds") == 0)
            assert own.statuses < 12
            await admin.patch(PODS, "default", "web", {"metadata": {"finalizers": None}})
            with pytest.raises(ApiError):
                await until(admin, "web", lambda p: False)
    finally:
        await old.stop()
        await store.stop()


async def test_a_status_that_meets_a_namesake_is_dropped(server: Assembled) -> None:
    admin = LocalClient(server.handle, "admin", ("system:masters",))
    account = {"metadata": {"name": "default"}}
    await admin.request("POST", "/api/v1/namespaces/default/serviceaccounts", body=msgspec.json.encode(account))
    pod = {"metadata": {"name": "web"}, "spec": {"nodeName": NODE, "containers": [{"name": "web", "image": "nginx"}]}}
    made = msgspec.json.decode(await admin.create(PODS, "default", pod), type=BoundPod)
    meta = msgspec.structs.replace(made.metadata, uid="of-the-one-before")
    writer = StatusWriter(admin, Randomness(1), msgspec.structs.replace(made, metadata=meta), Slots(1))
    writer.want(lambda: {"phase": "Failed"})
    async with asyncio.timeout(10):
        await writer.flush()
    assert (await get(admin, "web"))["status"]["phase"] == "Pending"
