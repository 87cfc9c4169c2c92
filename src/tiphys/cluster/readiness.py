"""Tells when a cluster can be used: waits by watch for the objects that a first `kubectl` needs.

The processes themselves say when they run; whoever started the cluster wants to know when a pod can be created and is
placed: its namespace's `default` service account is there and every node is Ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from tiphys.base.errors import ApiError
from tiphys.client.interface import Client, Resource
from tiphys.client.resources import NODES, SERVICEACCOUNTS

RETRY_S = 0.02


class _Meta(msgspec.Struct):
    name: str = ""


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    status: _Status = msgspec.field(default_factory=_Status)


_DECODER = msgspec.json.Decoder(_Object)


async def wait_for_default_account(client: Client) -> None:
    """Return when the default namespace has its service account."""
    await _wait_for(client, SERVICEACCOUNTS, "default", {"default"}, lambda obj: True)


async def wait_for_nodes(client: Client, names: set[str]) -> None:
    """Return when all of these nodes are Ready."""
    await _wait_for(client, NODES, "", set(names), _is_ready)


def _is_ready(node: _Object) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)


async def _wait_for(
    client: Client, resource: Resource, namespace: str, missing: set[str], accept: Callable[[_Object], bool]
) -> None:
    def note(data: bytes) -> bool:
        obj = _DECODER.decode(data)
        if accept(obj):
            missing.discard(obj.metadata.name)
        return not missing

    while True:
        try:
            listed = await client.list(resource, namespace)
            if any(note(item) for item in listed.items) or not missing:
                return
            async for event in client.watch(resource, namespace, resource_version=listed.resource_version):
                if event.type in ("ADDED", "MODIFIED") and note(event.object):
                    return
        except (ApiError, ConnectionError, TimeoutError):
            await asyncio.sleep(RETRY_S)
