"""What both clients share: paths, queries, bodies, lists in pages, watch lines.

Decides how an API call looks; how it travels is `_send` and `_open_watch` of http.py and local.py. Invariant: a list
that is returned is consistent with one revision, however many pages it took.

Spec: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Efficient detection of changes".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec
import orjson

from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError, from_status
from tiphys.client.interface import MERGE_PATCH, EventType, ListResult, Resource, WatchEvent

PAGE_LIMIT = 500
WATCH_TIMEOUT_S = (300, 600)
"""A watch asks the server to end it after a time drawn from here, so that they do not all come back together."""
_EVENT_START = b'{"type":"'
_OBJECT_START = b',"object":'
_TYPES: dict[bytes, str] = {name.encode(): name for name in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")}


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_list_decoder = msgspec.json.Decoder(_List)
_event_decoder = msgspec.json.Decoder(_Event)


class ApiCalls(ABC):
    """Implements `client.interface.Client` over two abstract methods."""

    def __init__(self, randomness: Randomness | None = None) -> None:
        self._randomness = randomness if randomness is not None else Randomness()

    @abstractmethod
    async def _send(
        self, method: str, path: str, query: str, body: bytes | None, content_type: str, timeout_s: float
    ) -> bytes:
        """Return the body of a 2xx answer; raise as `Client` says."""

    @abstractmethod
    def _open_watch(self, path: str, query: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a watch's body as they come; raise as `Client` says."""

    @abstractmethod
    async def close(self) -> None: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
    ) -> bytes:
        text = urlencode(query, quote_via=quote) if query else ""
        return await self._send(method, path, text, body, content_type, timeout_s)

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        return await self.request("GET", resource.path(namespace, name, subresource))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        query = _selectors(label_selector, field_selector)
        path = resource.path(namespace)
        items: list[bytes] = []
        page_query = {**query, "limit": str(PAGE_LIMIT)}
        while True:
            try:
                page = _list_decoder.decode(await self.request("GET", path, query=page_query, timeout_s=60.0))
            except ApiError as error:
                if error.code != 410 or "continue" not in page_query:
                    raise
                # The revision of the pages was compacted meanwhile: once more, all at once.
                items, page_query = [], query
                continue
            items += [bytes(item) for item in page.items or ()]
            if not page.metadata.continue_:
                return ListResult(items, page.metadata.resource_version)
            page_query = {**query, "limit": str(PAGE_LIMIT), "continue": page.metadata.continue_}

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        query = _selectors(label_selector, field_selector)
        query |= {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(self._randomness.integer(*WATCH_TIMEOUT_S)),
        }
        chunks = self._open_watch(resource.path(namespace), urlencode(query, quote_via=quote))
        rest: list[bytes] = []
        try:
            async for chunk in chunks:
                lines = chunk.split(b"\n")
                if len(lines) == 1:
                    rest.append(chunk)
                    continue
                if rest:
                    lines[0] = b"".join([*rest, lines[0]])
                    rest.clear()
                if lines[-1]:
                    rest.append(lines[-1])
                for line in lines[:-1]:
                    if line:
                        yield decode_event(line)
        finally:
            await chunks.aclose()

    async def create(
        self, resource: Resource, namespace: str, obj: Mapping[str, Any], *, name: str = "", subresource: str = ""
    ) -> bytes:
        return await self.request("POST", resource.path(namespace, name, subresource), body=orjson.dumps(obj))

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        return await self.request("PUT", resource.path(namespace, name, subresource), body=orjson.dumps(obj))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        patch_type: str = MERGE_PATCH,
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, query=query, body=orjson.dumps(patch), content_type=patch_type)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> bytes:
        options: dict[str, Any] = {}
        preconditions = {"uid": uid} if uid else {}
        if resource_version:
            preconditions["resourceVersion"] = resource_version
        if preconditions:
            options["preconditions"] = preconditions
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation:
            options["propagationPolicy"] = propagation
        body = orjson.dumps({"kind": "DeleteOptions", "apiVersion": "v1", **options}) if options else None
        return await self.request("DELETE", resource.path(namespace, name), body=body)


def decode_event(line: bytes) -> WatchEvent:
    """Return the event of one line of a watch. Raises the ApiError that an ERROR event tells.

    Servers write type and object in this order without spaces: then nothing is parsed but the type.
    """
    end = line.find(b'"', len(_EVENT_START), 32)
    kind = _TYPES.get(line[len(_EVENT_START) : end]) if line.startswith(_EVENT_START) else None
    start = end + 1 + len(_OBJECT_START)
    if kind is not None and line.startswith(_OBJECT_START, end + 1) and line.endswith(b"}}"):
        data = line[start:-1]
    else:
        try:
            event = _event_decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ConnectionError(f"a watch line is not an event: {error}") from error
        kind, data = event.type, bytes(event.object)
    if kind == "ERROR":
        raise error_of(500, data)
    return WatchEvent(cast(EventType, kind), data)


def error_of(code: int, body: bytes) -> ApiError:
    """Return the error that an answer other than 2xx stands for."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return from_status(status, code)
    text = body[:500].decode("utf-8", "replace").strip()
    return ApiError(code, "", f"the server answered {code}{f': {text}' if text else ''}")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {"labelSelector": label_selector} if label_selector else {}
    if field_selector:
        query["fieldSelector"] = field_selector
    return query
