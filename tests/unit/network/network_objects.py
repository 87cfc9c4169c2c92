"""Views of Services and EndpointSlices for tests, and a client that serves them from lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.meta import decode_view
from tiphys.api.views.service import Service
from tiphys.client.interface import ListResult, Resource, WatchEvent

Object = dict[str, Any]


def service_object(name: str, spec: Object, *, namespace: str = "default", **more: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": "1", "labels": more.pop("labels", {})}
    return {"metadata": metadata, "spec": spec, **more}


def slice_object(service: str, endpoints: list[Object], ports: list[Object], **more: Any) -> Object:
    metadata = {
        "name": more.pop("name", f"{service}-x"),
        "namespace": more.pop("namespace", "default"),
        "resourceVersion": "1",
        "labels": {"kubernetes.io/service-name": service},
    }
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports, **more}


def service_view(obj: Object) -> Service:
    return decode_view(orjson.dumps(obj), Service)


def slice_view(obj: Object) -> EndpointSlice:
    return decode_view(orjson.dumps(obj), EndpointSlice)


class ListClient:
    """The part of a Client that reflectors use: lists that stand, and a queue of events for each resource."""

    def __init__(self, services: list[Object], slices: list[Object]) -> None:
        self._objects = {"services": services, "endpointslices": slices}
        self.events: dict[str, asyncio.Queue[WatchEvent]] = {name: asyncio.Queue() for name in self._objects}

    def tell(self, resource: str, kind: str, obj: Object) -> None:
        self.events[resource].put_nowait(WatchEvent(kind, orjson.dumps(obj)))  # type: ignore[arg-type]

    async def list(self, resource: Resource, namespace: str = "", **selectors: str) -> ListResult:
        return ListResult([orjson.dumps(o) for o in self._objects[resource.plural]], "1")

    async def watch(self, resource: Resource, namespace: str = "", **options: str) -> AsyncIterator[WatchEvent]:
        while True:
            yield await self.events[resource.plural].get()
