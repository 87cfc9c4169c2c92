"""A store, its watch cache and the reads of them, without a server around: test support of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from tiphys.api.kind import Column, DecodeResult, Kind
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.reads import ReadLimits, Reads
from tiphys.base.clock import ManualClock, Randomness
from tiphys.base.errors import ApiError
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Request, Response

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class AnySchema:
    def decode(self, obj: dict[str, Any]) -> DecodeResult:
        return DecodeResult()

    def node(self, path: Any) -> Mapping[str, Any] | None:
        return {"description": f"about {path[-1]}"}


def make_kind(**more: Any) -> Kind:
    values: dict[str, Any] = {"group": "", "version": "v1", "kind": "Pod", "plural": "pods", "schema": AnySchema()}
    return Kind(**(values | more))


POD = make_kind(
    columns=(Column("Name", format="name"), Column("Node"), Column("Age")),
    row=lambda obj, now_s: [obj["metadata"]["name"], obj["spec"].get("nodeName", ""), "5s"],
    selectable_fields={"spec.nodeName": lambda obj: obj["spec"].get("nodeName", "")},
)
CONFIG_MAP = make_kind(kind="ConfigMap", plural="configmaps")


class World:
    """A store, its cache, and reads of them."""

    def __init__(self, **limits: Any) -> None:
        self.store = MemoryStore()
        self.cache = WatchCache(self.store)
        self.reads = Reads(self.cache, self.store, ManualClock(), Randomness(1), ReadLimits(**limits))

    async def put(self, name: str, namespace: str = "default", kind: Kind = POD, node: str = "n1", **meta: Any) -> int:
        metadata = {"name": name, "namespace": namespace, **meta}
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": {"nodeName": node}}
        return await self.store.commit([Operation(kind.storage_key(namespace, name), orjson.dumps(obj))])

    async def delete(self, name: str, namespace: str = "default") -> int:
        return await self.store.commit([Operation(POD.storage_key(namespace, name), None)])

    async def response(self, kind: Kind = POD, namespace: str = "", accept: str = "", **query: Any) -> Response:
        return await self.reads.list_objects(kind, namespace, ask(accept, **query))

    async def list(self, kind: Kind = POD, namespace: str = "", accept: str = "", **query: Any) -> dict[str, Any]:
        return orjson.loads((await self.response(kind, namespace, accept, **query)).body_bytes())

    async def names(self, **query: Any) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.list(**query))["items"]]

    async def watch(self, namespace: str = "", accept: str = "", kind: Kind = POD, **query: Any) -> Peer:
        stream = await self.reads.watch_objects(kind, namespace, ask(accept, watch="true", **query))
        peer = Peer()
        peer.stop = stream.start(peer)
        return peer


class Peer:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.pending = 0
        self.closed = False
        self.ended = asyncio.Event()
        self.stop: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def pending_bytes(self) -> int:
        return self.pending

    async def drain(self) -> None: ...

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in b"".join(self.sent).splitlines()]

    def brief(self) -> list[tuple[str, str, int]]:
        """Return (type, name, revision) of each event."""
        found = [(event["type"], event["object"]["metadata"]) for event in self.events()]
        return [(kind, meta.get("name", ""), int(meta["resourceVersion"])) for kind, meta in found]


def ask(accept: str = "", headers: Mapping[str, str] | None = None, **query: Any) -> Request:
    sent = dict(headers or {})
    if accept:
        sent["accept"] = accept
    return Request("GET", "/", urlencode(query), sent)


async def refused(awaitable: Any) -> ApiError:
    with pytest.raises(ApiError) as failure:
        await awaitable
    return failure.value
