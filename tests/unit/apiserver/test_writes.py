"""Writes under trouble: writers that race, a store that fails, requests that are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from assembled_server import Server, running_server

from tiphys.store.interface import Operation, StoreFailed
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Stream

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


class TroubledStore(MemoryStore):
    """A memory store whose commits can be made to fail or to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def commit(self, operations: Sequence[Operation]) -> int:
        if self.failing:
            raise StoreFailed("no space left on device")
        if not self.gate.is_set():
            self.waiting.set()
            await self.gate.wait()
        return await super().commit(operations)

    async def compact(self, revision: int) -> None:
        if self.failing:
            raise StoreFailed("no space left on device")
        await super().compact(revision)


async def test_racing_patches_are_all_kept() -> None:
    async with running_server() as server:
        await server.made(MAPS, {"metadata": {"name": "a"}})
        patches = [{"data": {f"k{i}": "v"}} for i in range(12)]
        answers = await asyncio.gather(*(server.call("PATCH", f"{MAPS}/a", p, content_type=MERGE) for p in patches))
        assert [status for status, _ in answers] == [200] * 12
        assert len((await server.named(f"{MAPS}/a"))["data"]) == 12


async def test_of_racing_updates_from_one_revision_one_wins() -> None:
    async with running_server() as server:
        made = await server.made(MAPS, {"metadata": {"name": "a"}})
        revision = made["metadata"]["resourceVersion"]
        body = {"metadata": {"name": "a", "resourceVersion": revision}}
        answers = await asyncio.gather(
            *(server.call("PUT", f"{MAPS}/a", {**body, "data": {"k": str(i)}}) for i in range(5))
        )
        assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409]


async def test_of_racing_creates_one_wins() -> None:
    async with running_server() as server:
        answers = await asyncio.gather(*(server.call("POST", MAPS, {"metadata": {"name": "a"}}) for _ in range(5)))
        assert sorted(status for status, _ in answers) == [201, 409, 409, 409, 409]


async def test_a_racing_delete_and_patch_leave_no_ghost() -> None:
    async with running_server() as server:
        await server.made(MAPS, {"metadata": {"name": "a"}})
        (deleted, _), (patched, _) = await asyncio.gather(
            server.call("DELETE", f"{MAPS}/a"),
            server.call("PATCH", f"{MAPS}/a", {"data": {"k": "v"}}, content_type=MERGE),
        )
        assert deleted == 200
        assert patched in (200, 404)
        assert (await server.call("GET", f"{MAPS}/a"))[0] == 404


async def test_a_store_that_fails_is_told_and_changes_nothing() -> None:
    store = TroubledStore()
    async with running_server(store) as server:
        await server.made(MAPS, {"metadata": {"name": "a"}, "data": {"k": "1"}})
        store.failing = True
        for method, path, body in (
            ("POST", MAPS, {"metadata": {"name": "b"}}),
            ("PUT", f"{MAPS}/a", {"metadata": {"name": "a"}, "data": {"k": "2"}}),
            ("DELETE", f"{MAPS}/a", None),
        ):
            status, answer = await server.call(method, path, body)
            assert status == 503, method
            assert answer["reason"] == "ServiceUnavailable"
            assert "no space left on device" in answer["message"]
        assert (await server.named(f"{MAPS}/a"))["data"] == {"k": "1"}
        store.failing = False
        assert (await server.call("DELETE", f"{MAPS}/a"))[0] == 200


async def test_reservations_of_a_failed_write_are_given_back() -> None:
    store = TroubledStore()
    async with running_server(store) as server:
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "1"}}}
        await server.made("/api/v1/namespaces/default/resourcequotas", quota)
        store.failing = True
        assert (await server.call("POST", MAPS, {"metadata": {"name": "a"}}))[0] == 503
        store.failing = False
        await server.made(MAPS, {"metadata": {"name": "a"}})


async def test_racing_creates_never_pass_a_quota_together() -> None:
    async with running_server() as server:
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "3"}}}
        await server.made("/api/v1/namespaces/default/resourcequotas", quota)
        answers = await asyncio.gather(*(server.call("POST", MAPS, {"metadata": {"name": f"a{i}"}}) for i in range(10)))
        assert sorted(status for status, _ in answers) == [201] * 3 + [403] * 7
        assert len((await server.named(MAPS))["items"]) == 3


async def test_a_cancelled_write_holds_its_address_until_it_is_decided() -> None:
    store = TroubledStore()
    async with running_server(store) as server:
        store.gate.clear()
        first = asyncio.create_task(server.call("POST", *service("first", "10.96.0.50")))
        await store.waiting.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        status, answer = await server.call("POST", *service("second", "10.96.0.50"))
        assert status == 422, answer
        assert "provided IP is already allocated" in answer["message"]
        store.gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await holders(server, "10.96.0.50") == ["first"]


async def holders(server: Server, address: str) -> list[str]:
    services = (await server.named("/api/v1/services"))["items"]
    return [s["metadata"]["name"] for s in services if s["spec"]["clusterIP"] == address]


def service(name: str, address: str = "") -> tuple[str, dict[str, Any]]:
    spec: dict[str, Any] = {"ports": [{"port": 80}]} | ({"clusterIP": address} if address else {})
    return "/api/v1/namespaces/default/services", {"metadata": {"name": name}, "spec": spec}


async def test_services_made_at_once_get_addresses_of_their_own() -> None:
    async with running_server() as server:
        answers = await asyncio.gather(*(server.call("POST", *service(f"s{i}")) for i in range(30)))
        assert {status for status, _ in answers} == {201}
        assert len({answer["spec"]["clusterIP"] for _, answer in answers}) == 30


async def test_a_full_network_is_told_with_the_way_out() -> None:
    async with running_server() as server:
        answers = await asyncio.gather(*(server.call("POST", *service(f"s{i}")) for i in range(254)))
        assert {status for status, _ in answers} == {201}
        status, answer = await server.call("POST", *service("more"))
        assert status == 500
        assert "range is full (10.96.0.0/24); delete Services or add a ServiceCIDR" in answer["message"]
        assert (await server.call("DELETE", "/api/v1/namespaces/default/services/s0"))[0] == 200
        assert (await server.call("POST", *service("more")))[0] == 201


async def test_stopping_ends_watches() -> None:
    ended: list[bool] = []

    class Sink:
        def send(self, data: bytes) -> None: ...
        def pending_bytes(self) -> int:
            return 0

        async def drain(self) -> None: ...

        def close(self) -> None:
            ended.append(True)

    async with running_server() as server:
        answer = await server.answer("GET", f"{MAPS}?watch=1")
        assert isinstance(answer, Stream)
        answer.start(Sink())
        assert not ended
    assert ended


async def test_a_definition_is_served_at_once_and_takes_its_objects_along() -> None:
    names = {"plural": "carts", "singular": "cart", "kind": "Cart", "listKind": "CartList"}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = {
        "metadata": {"name": "carts.shop.example.com"},
        "spec": {"group": "shop.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    definitions, carts = (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/shop.example.com/v1/namespaces/default/carts",
    )
    async with running_server() as server:
        await server.made(definitions, definition)
        await settled(server, carts, 200)
        cart = {"apiVersion": "shop.example.com/v1", "kind": "Cart", "metadata": {"name": "c"}, "spec": {"size": 1}}
        await server.made(carts, cart)
        groups = {group["name"] for group in (await server.named("/apis"))["groups"]}
        assert "shop.example.com" in groups
        assert "/apis/shop.example.com/v1" in str(await server.named("/openapi/v3"))
        status, answer = await server.call("PATCH", f"{carts}/c", {"spec": {"size": "big"}}, content_type=MERGE)
        assert status == 422, answer
        status, answer = await server.call("PUT", carts, cart)
        assert (status, answer["reason"]) == (405, "MethodNotAllowed")
        assert (await server.call("DELETE", f"{definitions}/carts.shop.example.com"))[0] == 200
        await settled(server, carts, 404)
        status, text = await server.call("GET", carts)
        assert (status, text) == (404, "404 page not found\n")
        stored = await server.store.list("/registry/shop.example.com/")
        assert not stored.entries


async def settled(server: Server, path: str, status: int) -> None:
    """Let the server's own tasks run until a path answers so."""
    for _ in range(200):
        if (await server.call("GET", path))[0] == status:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{path} never answered {status}")


@pytest.mark.parametrize("minor", range(25, 38))
async def test_every_version_assembles_and_takes_a_pod(minor: int) -> None:
    async with running_server(version=(1, minor)) as server:
        body = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        made = await server.made("/api/v1/namespaces/default/pods", body)
        assert made["spec"]["serviceAccountName"] == "default"
        assert (await server.call("DELETE", "/api/v1/namespaces/default/pods/a"))[0] == 200


async def test_delete_options_are_read_as_protobuf() -> None:
    def envelope(raw: bytes) -> bytes:
        meta = b"\x0a\x02v1\x12\x0dDeleteOptions"
        return b"k8s\x00" + b"\x0a" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(raw)]) + raw

    protobuf = "application/vnd.kubernetes.protobuf"
    async with running_server() as server:
        await server.made(MAPS, {"metadata": {"name": "a"}})
        other_uid = envelope(b"\x12\x07\x0a\x05other")
        status, answer = await server.call("DELETE", f"{MAPS}/a", other_uid, content_type=protobuf)
        assert (status, answer["reason"]) == (409, "Conflict")
        foreground = envelope(b"\x22\x0aForeground")
        status, answer = await server.call("DELETE", f"{MAPS}/a", foreground, content_type=protobuf)
        assert (status, answer["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])


async def test_a_pod_is_prepared_as_admission_left_it() -> None:
    """Limits that a LimitRange adds count for the quality of service; the status belongs to nobody yet."""
    limit = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}
    path = "/api/v1/namespaces/default"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    async with running_server() as server:
        await server.made(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
        made = await server.made(f"{path}/pods", {**pod, "status": {"phase": "Failed"}})
    assert made["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    assert "f:status" not in made["metadata"]["managedFields"][0]["fieldsV1"]
