"""A client that behaves as a bad network does: requests that never arrive, answers that are lost, both late, watches
that break off or are read slowly, a line that is cut. For simulation; all drawn from one seeded source.

A lost answer is the interesting fault: the write happened and the caller does not know. The sharpest one is the crash
after a given number of writes: it ends a component between any two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from tiphys.base.clock import Randomness
from tiphys.client.calls import ApiCalls
from tiphys.client.interface import MERGE_PATCH, ListResult, Resource, WatchEvent


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad the network is. Shares are of calls (or of watch events), delays in seconds."""

    lost_requests: float = 0.0
    lost_answers: float = 0.0
    longest_delay_s: float = 0.0
    broken_watches: float = 0.0


@dataclass(slots=True, eq=False)
class Link:
    """The line between one component and the API server. Changed by whoever plays faults, read by its client."""

    name: str
    faults: Faults
    is_cut: bool = False
    """Nothing arrives in either direction."""
    stalled_until_s: float = 0.0
    """Loop time until which watches are not read: a slow reader."""
    writes_left: int | None = None
    """How many more writes this component lives to make; None: any number."""
    on_last_write: Callable[[], None] | None = None
    """Called when the last of them is made; its answer never comes."""
    writes: int = 0
    """Writes made so far."""


class FaultyClient:
    """Implements `client.interface.Client` over another client."""

    def __init__(self, client: ApiCalls, link: Link, randomness: Randomness) -> None:
        self._client = client
        self.link = link
        self._random = randomness

    async def cut(self) -> None:
        """Break all streams; with `link.is_cut` nothing gets through any more."""
        await self._client.close()

    async def _call(self, call: Coroutine[Any, Any, Any], *, writes: bool = True) -> Any:
        link, faults = self.link, self.link.faults
        try:
            await self._delay()
            if link.is_cut or self._happens(faults.lost_requests):
                raise ConnectionError("simulated: the request was lost")
            result = await call
        finally:
            call.close()  # a caller that is cancelled in the delay leaves a call that never began
        if writes:
            await self._count_write()
        if link.is_cut or self._happens(faults.lost_answers):
            raise ConnectionError("simulated: the answer was lost")
        await self._delay()
        return result

    async def _count_write(self) -> None:
        link = self.link
        link.writes += 1
        if link.writes_left is None:
            return
        link.writes_left -= 1
        if link.writes_left > 0:
            return
        if link.on_last_write is not None:
            link.on_last_write()
            link.on_last_write = None
        await asyncio.Event().wait()  # the component is being killed

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.uniform(0.0, 1.0) < share

    async def _delay(self) -> None:
        longest_s = self.link.faults.longest_delay_s
        if longest_s:
            await asyncio.sleep(self._random.uniform(0.0, longest_s))

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
        call = self._client.request(
            method, path, query=query, body=body, content_type=content_type, timeout_s=timeout_s
        )
        return cast(bytes, await self._call(call, writes=method not in ("GET", "HEAD")))

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        call = self._client.get(resource, namespace, name, subresource=subresource)
        return cast(bytes, await self._call(call, writes=False))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        call = self._client.list(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return cast(ListResult, await self._call(call, writes=False))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        events = self._client.watch(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        link = self.link
        if link.is_cut:
            await asyncio.sleep(self._random.uniform(0.0, 0.1))
            raise ConnectionError("simulated: no connection")
        async with aclosing(cast(Any, events)) as stream:
            async for event in stream:
                await self._delay()
                stall_s = link.stalled_until_s - asyncio.get_running_loop().time()
                if stall_s > 0:
                    await asyncio.sleep(stall_s)
                if link.is_cut:
                    raise ConnectionError("simulated: no connection")
                yield event
                if self._happens(link.faults.broken_watches):
                    raise ConnectionError("simulated: the watch broke off")

    async def create(
        self, resource: Resource, namespace: str, obj: Mapping[str, Any], *, name: str = "", subresource: str = ""
    ) -> bytes:
        call = self._client.create(resource, namespace, obj, name=name, subresource=subresource)
        return cast(bytes, await self._call(call))

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        call = self._client.update(resource, namespace, name, obj, subresource=subresource)
        return cast(bytes, await self._call(call))

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
        call = self._client.patch(
            resource, namespace, name, patch, subresource=subresource, patch_type=patch_type, query=query
        )
        return cast(bytes, await self._call(call))

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
        call = self._client.delete(
            resource,
            namespace,
            name,
            uid=uid,
            resource_version=resource_version,
            grace_period_s=grace_period_s,
            propagation=propagation,
        )
        return cast(bytes, await self._call(call))

    async def close(self) -> None:
        await self._client.close()
