"""How a component reaches the cluster.

`Client` has two implementations: http.py (any conforming API server) and local.py (a handler in the same process).
Everything above it (reflector, cache, event recorder, leader election) is generic and is written against this file.
Bytes come back undecoded: the caller decodes just the view that it needs.

Resources are named by `Resource` records, so that no path is ever put together by hand elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import quote

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind live. `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of a collection or an object."""
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch. `object` is the JSON bytes of the object as the server sent them."""

    type: EventType
    object: bytes


@dataclass(frozen=True, slots=True)
class ListResult:
    """A whole list: the JSON bytes of each item, and the revision to watch from."""

    items: list[bytes]
    resource_version: str


class Client(Protocol):
    """All failures of the server are raised as `tiphys.base.errors.ApiError`; a server that cannot be reached raises
    `ConnectionError`, one that does not answer in time `TimeoutError`. Cancellation leaves a write either done or
    not done, and the connection reusable or closed."""

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
        """Send any request and return the body of its 2xx answer."""
        ...

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes: ...

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        """Return all objects, in pages as the server likes, consistent with one revision."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Yield events after `resource_version` until the server ends the watch. Raises ApiError(410) when that
        revision is gone, at the start or in the middle. Bookmarks are asked for and yielded."""
        ...

    async def create(
        self, resource: Resource, namespace: str, obj: Mapping[str, Any], *, name: str = "", subresource: str = ""
    ) -> bytes:
        """Create an object, or with name and subresource POST to one (binding, eviction, token)."""
        ...

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes: ...

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
        """Patch an object. A patch that carries `metadata.resourceVersion` fails with 409 if the object moved on."""
        ...

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
        """Delete an object, with the given preconditions."""
        ...

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        ...
