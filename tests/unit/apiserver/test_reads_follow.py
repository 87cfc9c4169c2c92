"""A client that lists and then watches ends up with what a list would show: for any history and any selector."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.kind import DecodeResult, Kind
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.reads import Reads
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Request


class AnySchema:
    def decode(self, obj: dict[str, Any]) -> DecodeResult:
        return DecodeResult()

    def node(self, path: Any) -> None:
        return None


POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    schema=AnySchema(),
    selectable_fields={"spec.nodeName": lambda obj: obj["spec"]["nodeName"]},
)
QUERIES: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("x", {}),
    ("", {"labelSelector": "app=a"}),
    ("x", {"labelSelector": "app!=a"}),
    ("", {"fieldSelector": "spec.nodeName=n1"}),
    ("", {"fieldSelector": "spec.nodeName!=n1", "labelSelector": "app in (a,b)"}),
    ("x", {"fieldSelector": "metadata.name=p"}),
]


class Client:
    """Lists, then applies watch events; complains about what a client must never see."""

    def __init__(self, namespace: str, query: dict[str, str]) -> None:
        self.namespace = namespace
        self.query = query
        self.objects: dict[str, dict[str, Any]] = {}
        self.revision = 0
        self.closed = False

    def request(self, **more: str) -> Request:
        return Request("GET", "/", urlencode(self.query | more))

    async def begin(self, reads: Reads) -> None:
        listed = orjson.loads((await reads.list_objects(POD, self.namespace, self.request())).body_bytes())
        self.objects = {key_of(item): item for item in listed["items"]}
        self.revision = int(listed["metadata"]["resourceVersion"])

    async def follow(self, reads: Reads) -> None:
        request = self.request(watch="1", resourceVersion=str(self.revision))
        (await reads.watch_objects(POD, self.namespace, request)).start(self)

    def send(self, data: bytes) -> None:
        for line in data.splitlines():
            event = orjson.loads(line)
            obj = event["object"]
            revision = int(obj["metadata"]["resourceVersion"])
            assert revision >= self.revision, "events go back in time"
            self.revision = revision
            del obj["kind"], obj["apiVersion"]
            known = key_of(obj) in self.objects
            assert known == (event["type"] != "ADDED"), event
            if event["type"] == "DELETED":
                del self.objects[key_of(obj)]
            else:
                self.objects[key_of(obj)] = obj

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def key_of(obj: dict[str, Any]) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


Change = tuple[str, str, str | None, str]
CHANGES = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from("xy"),
            st.sampled_from("pq"),
            st.sampled_from([None, "a", "b"]),
            st.sampled_from(["n1", "n2"]),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda change: change[:2],
    ),
    max_size=12,
)


def operation(change: Change) -> Operation:
    namespace, name, label, node = change
    if label is None:
        return Operation(POD.storage_key(namespace, name), None)
    metadata = {"name": name, "namespace": namespace, "labels": {"app": label}}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}
    return Operation(POD.storage_key(namespace, name), orjson.dumps(obj))


async def live(before: list[list[Change]], between: list[list[Change]], after: list[list[Change]]) -> None:
    store = MemoryStore()
    await store.start()
    cache = WatchCache(store)
    await cache.start()
    reads = Reads(cache, store, ManualClock(), Randomness(1))
    clients = [Client(namespace, query) for namespace, query in QUERIES]

    async def write(commits: list[list[Change]]) -> None:
        for number, changes in enumerate(commits):
            await store.commit([operation(change) for change in changes])
            if number % 2:  # sometimes several commits come to the cache as one batch
                await cache.refresh()
        await cache.refresh()

    await write(before)
    for client in clients:
        await client.begin(reads)
    await write(between)
    for client in clients:
        await client.follow(reads)
    await write(after)
    for client in clients:
        wanted = Client(client.namespace, client.query)
        await wanted.begin(reads)
        assert client.objects == wanted.objects and not client.closed
    reads.close()
    await cache.stop()
    await store.stop()


@settings(deadline=None, max_examples=60)
@given(before=CHANGES, between=CHANGES, after=CHANGES)
def test_list_and_watch_agree(before: Any, between: Any, after: Any) -> None:
    asyncio.run(live(before, between, after))
