"""A client that behaves as a bad network does: requests that never arrive, answers that are lost, both late, watches
that break off. For simulation; all drawn from one seeded source.

A lost answer is the interesting fault: the write happened and the caller does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
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


class FaultyClient:
    """Implements `client.interface.Client` over another client."""

    def __init__(self, client: ApiCalls, faults: Faults, randomness: Randomness) -> None:
        self._client = client
        self._faults = faults
        self._random = randomness

    async def _call(self, call: Coroutine[Any, Any, Any]) -> Any:
        faults = self._faults
        try:
            await self._delay()
            if faults.lost_requests and self._random.uniform(0.0, 1.0) < faults.lost_requests:
                raise ConnectionError("simulated: the request was lost")
            result = await call
        finally:
            call.close()  # a caller that is cancelled in the delay leaves a call that never began
        if faults.lost_answers and self._random.uniform(0.0, 1.0) < faults.lost_answers:
            raise ConnectionError("simulated: the answer was lost")
        await self._delay()
        return result

    async def _delay(self) -> None:
        if self._faults.longest_delay_s:
            await asyncio.sleep(self._random.uniform(0.0, self._faults.longest_delay_s))

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
        return cast(bytes, await self._call(call))

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        return cast(bytes, await self._call(self._client.get(resource, namespace, name, subresource=subresource)))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        call = self._client.list(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return cast(ListResult, await self._call(call))

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
        async with aclosing(cast(Any, events)) as stream:
            async for event in stream:
                await self._delay()
                yield event
                if self._faults.broken_watches and self._random.uniform(0.0, 1.0) < self._faults.broken_watches:
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
