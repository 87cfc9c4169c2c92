"""Definitions of custom resources for tests of this folder, and the calls that serve them."""

from __future__ import annotations

import asyncio
from typing import Any

from assembled_server import Server

GROUP = "shop.example.com"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CARTS = f"/apis/{GROUP}/v1/namespaces/default/carts"


def version(name: str = "v1", schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return one version; its schema takes anything unless it is given."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or free}, **more}


def definition(*versions: dict[str, Any], **names: Any) -> dict[str, Any]:
    """Return the definition of carts, namespaced."""
    told = {"plural": "carts", "singular": "cart", "kind": "Cart", "listKind": "CartList", **names}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{told['plural']}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": told, "versions": list(versions) or [version()]},
    }


def cart(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Cart", "metadata": {"name": name}, **fields}


async def served(server: Server, crd: dict[str, Any]) -> dict[str, Any]:
    """Create a definition and return it established."""
    await server.made(DEFINITIONS, crd)
    return await established(server, crd["metadata"]["name"])


async def established(server: Server, name: str) -> dict[str, Any]:
    return await awaited(server, name, "Established", "True")


async def awaited(server: Server, name: str, condition: str, status: str) -> dict[str, Any]:
    """Return a definition as soon as a condition of it has a status."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = await server.named(f"{DEFINITIONS}/{name}")
            conditions = {each["type"]: each["status"] for each in (found.get("status") or {}).get("conditions") or ()}
            if conditions.get(condition) == status:
                return found
            await asyncio.sleep(0.001)
