"""What resources the cluster serves, custom ones included: for the namespace controller and the garbage collector.

In: the API server's discovery documents. Out: `Served` records, one for each group and resource in the group's
preferred version. A group whose discovery fails (an extension server that is down) is named in `failed`, so that a
reader knows that its picture has a hole.

Spec: Kubernetes docs, "Discovery API" (unaggregated documents, which every server has).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tiphys.base.errors import ApiError
from tiphys.client.interface import Client, Resource

TRIES = 5
RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Served:
    """One resource that the server serves, with its verbs."""

    resource: Resource
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Discovery:
    """All that was found; `failed` are the group versions that could not be read, with the error's text."""

    served: tuple[Served, ...]
    failed: Mapping[str, str]


async def discover(client: Client) -> Discovery:
    """Read the server's discovery documents. Raises when even the list of groups cannot be had."""
    core, groups = await asyncio.gather(_read(client, "/api/v1"), _read(client, "/apis"))
    served = _parse("", "v1", orjson.loads(core))
    failed: dict[str, str] = {}

    async def read(group: str, version: str) -> list[Served]:
        try:
            data = await _read(client, f"/apis/{group}/{version}")
        except (ApiError, OSError) as error:
            if isinstance(error, ApiError) and error.code == 404:
                return []
            failed[f"{group}/{version}"] = str(error)
            return []
        return _parse(group, version, orjson.loads(data))

    names = [
        (g["name"], (g.get("preferredVersion") or g["versions"][0])["version"], [v["version"] for v in g["versions"]])
        for g in orjson.loads(groups).get("groups", ())
    ]
    answers = await asyncio.gather(*(read(name, v) for name, _, versions in names for v in versions))
    chosen: dict[tuple[str, str], Served] = {}
    preferred = {name: version for name, version, _ in names}
    for item in (item for answer in answers for item in answer):
        slot = (item.resource.group, item.resource.plural)
        if slot not in chosen or item.resource.version == preferred[item.resource.group]:
            chosen[slot] = item
    return Discovery((*served, *chosen.values()), failed)


async def _read(client: Client, path: str) -> bytes:
    """Read one document, again if its answer is lost: of dozens, one lost answer must not spoil the whole picture."""
    for _ in range(TRIES - 1):
        try:
            return await client.request("GET", path)
        except OSError:
            await asyncio.sleep(RETRY_S)
    return await client.request("GET", path)


def _parse(group: str, version: str, document: Mapping[str, Any]) -> list[Served]:
    return [
        Served(
            Resource(group, version, r["name"], r["kind"], namespaced=bool(r.get("namespaced"))),
            frozenset(r.get("verbs") or ()),
        )
        for r in document.get("resources", ())
        if "/" not in r["name"]
    ]
