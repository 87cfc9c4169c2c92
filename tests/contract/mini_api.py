"""A small API of ConfigMaps, Events and Leases in memory, for the contract of clients: test support of this folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tiphys.base.errors import ApiError, already_exists, conflict, gone, not_found, path_not_found
from tiphys.wire.message import Answer, Request, Response, Sink, Stream

Object = dict[str, Any]


class MiniApi:
    """Namespaced objects of any plural, with revisions, pages, watches and bookmarks."""

    def __init__(self) -> None:
        self.revision = 1
        self.objects: dict[str, dict[str, Object]] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.sinks: dict[Sink, str] = {}
        self.compacted = 0
        self.requests: list[Request] = []
        self.expire_continue = False
        self.down = False

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.down:
            raise ApiError(503, "ServiceUnavailable", "down")
        parts = request.path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = parts[1] if parts[0] == "namespaces" else ""
        plural, *rest = parts[2:] if namespace else parts
        if plural not in ("configmaps", "events", "leases"):
            raise path_not_found()
        await asyncio.sleep(0)
        if request.method == "GET" and not rest:
            if request.param("watch"):
                return self.watch(plural, namespace, int(request.param("resourceVersion")))
            return self.list(plural, namespace, request)
        if request.method == "POST":
            return self.create(plural, namespace, json.loads(request.body))
        return self.one(request, plural, f"{namespace}/{rest[0]}")

    def list(self, plural: str, namespace: str, request: Request) -> Response:
        if self.expire_continue and request.param("continue"):
            raise gone("The provided continue parameter is too old")
        keys = sorted(k for k in self.objects.get(plural, {}) if not namespace or k.startswith(namespace + "/"))
        keys = [key for key in keys if key > request.param("continue")]
        limit = min(int(request.param("limit", "0")) or len(keys), 3) if not self.expire_continue else 0
        shown = keys[:limit] if limit else keys
        if self.expire_continue and request.param("limit"):
            shown = keys[:2]
        meta = {"resourceVersion": str(self.revision)}
        if len(shown) < len(keys):
            meta["continue"] = shown[-1]
        return Response(
            200, json.dumps({"metadata": meta, "items": [self.objects[plural][key] for key in shown]}).encode()
        )

    def watch(self, plural: str, namespace: str, after: int) -> Answer:
        if after < self.compacted:
            raise gone(f"too old resource version: {after} ({self.compacted})")

        def start(sink: Sink) -> Callable[[], None]:
            self.sinks[sink] = plural
            for revision, kind, of, obj in self.history:
                if revision > after and of == plural:
                    sink.send(self.line(kind, obj))
            return lambda: self.sinks.pop(sink, None) and None

        return Stream(start)

    def create(self, plural: str, namespace: str, obj: Object) -> Response:
        key = f"{namespace}/{obj['metadata']['name']}"
        if key in self.objects.get(plural, {}):
            raise already_exists("", plural, obj["metadata"]["name"])
        obj["metadata"]["namespace"] = namespace
        return self.put("ADDED", plural, key, obj, 201)

    def one(self, request: Request, plural: str, key: str) -> Response:
        name = key.rpartition("/")[2]
        old = self.objects.get(plural, {}).get(key)
        if old is None:
            raise not_found("", plural, name)
        if request.method == "GET":
            return Response(200, json.dumps(old).encode())
        if request.method == "DELETE":
            del self.objects[plural][key]
            return self.told("DELETED", plural, key, old, 200)
        new = json.loads(request.body)
        version = new.get("metadata", {}).pop("resourceVersion", None)
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict("", plural, name)
        if request.method == "PATCH":
            new = {**old, **new, "metadata": {**old["metadata"], **new.get("metadata", {})}}
        return self.put("MODIFIED", plural, key, new, 200)

    def put(self, kind: str, plural: str, key: str, obj: Object, status: int) -> Response:
        self.objects.setdefault(plural, {})[key] = obj
        return self.told(kind, plural, key, obj, status)

    def told(self, kind: str, plural: str, key: str, obj: Object, status: int) -> Response:
        self.revision += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        if kind != "DELETED":
            self.objects[plural][key] = obj
        self.history.append((self.revision, kind, plural, obj))
        self.send(plural, self.line(kind, obj))
        return Response(status, json.dumps(obj).encode())

    def line(self, kind: str, obj: Object) -> bytes:
        return json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n"

    def send(self, plural: str, line: bytes) -> None:
        for sink, of in list(self.sinks.items()):
            if of == plural:
                sink.send(line)

    def end_watches(self) -> None:
        for sink in list(self.sinks):
            sink.close()
        self.sinks.clear()


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the loop has brought a condition about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event of its own
            await asyncio.sleep(0.001)
