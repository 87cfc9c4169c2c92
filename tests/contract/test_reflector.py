"""Reflectors over both clients: they hold what the server holds, whatever happens between."""

from __future__ import annotations

import asyncio
import random

import pytest
from mini_api import MiniApi, config_map, until

from tiphys.api.views.config import ConfigMap
from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.client.resources import CONFIGMAPS


async def test_a_reflector_follows_and_tells_exactly_the_changes(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a", team="x"))
    changes: list[tuple[str | None, str | None]] = []

    def note(old: ConfigMap | None, new: ConfigMap | None) -> None:
        changes.append((old.data.get("team") if old else None, new.data.get("team") if new else None))

    reflector = Reflector(
        client, CONFIGMAPS, ConfigMap, indexers={"team": lambda c: [c.data["team"]]}, randomness=Randomness(1)
    )
    reflector.on_change(note)
    task = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        await reflector.synced()
    assert reflector.keys() == ["default/a"]
    await until(lambda: len(api.sinks) == 1)
    await client.create(CONFIGMAPS, "other", config_map("b", team="x"))
    await client.patch(CONFIGMAPS, "default", "a", {"data": {"team": "y"}})
    await until(lambda: len(changes) == 3)
    assert [c.metadata.name for c in reflector.by_index("team", "x")] == ["b"]
    assert [c.metadata.name for c in reflector.by_index("team", "y")] == ["a"]
    assert [c.metadata.name for c in reflector.list("other")] == ["b"]
    assert reflector.get("other/b") is not None
    await client.delete(CONFIGMAPS, "default", "a")
    await until(lambda: len(changes) == 4)
    assert changes == [(None, "x"), (None, "x"), ("x", "y"), ("y", None)]
    assert reflector.by_index("team", "y") == []
    late: list[str] = []
    reflector.on_change(lambda old, new: late.append(new.metadata.name if new else ""))
    assert late == ["b"]
    task.cancel()


async def test_a_reflector_resumes_from_bookmarks_and_lists_again_after_410(client: Client, api: MiniApi) -> None:
    await client.create(CONFIGMAPS, "default", config_map("a"))
    await client.create(CONFIGMAPS, "default", config_map("b"))
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(1))
    gone_keys: list[str] = []
    reflector.on_change(lambda old, new: gone_keys.append(old.metadata.name) if old and not new else None)
    task = asyncio.create_task(reflector.run())
    await until(lambda: len(api.sinks) == 1)
    api.send("configmaps", api.line("BOOKMARK", {"metadata": {"resourceVersion": "77"}}))
    await until(lambda: reflector.resource_version == "77")
    api.end_watches()
    await until(lambda: len(api.sinks) == 1)
    assert api.requests[-1].param("resourceVersion") == "77"
    # A deletion that no watch tells: found by the next list.
    del api.objects["configmaps"]["default/a"]
    api.revision, api.compacted = 100, 90
    api.end_watches()
    await until(lambda: reflector.keys() == ["default/b"])
    assert gone_keys == ["a"]
    task.cancel()


async def test_a_reflector_survives_a_server_that_is_not_up_yet(client: Client, api: MiniApi) -> None:
    api.down = True
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(1))
    task = asyncio.create_task(reflector.run())
    await until(lambda: len(api.requests) > 1)
    assert not reflector.is_synced
    api.down = False
    async with asyncio.timeout(2):
        await reflector.synced()
    task.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_disturbance_a_reflector_holds_what_the_server_holds(
    client: Client, api: MiniApi, seed: int
) -> None:
    chance = random.Random(seed)
    reflector = Reflector(client, CONFIGMAPS, ConfigMap, randomness=Randomness(seed))
    mirror: dict[str, str] = {}

    def note(old: ConfigMap | None, new: ConfigMap | None) -> None:
        if new is None:
            assert old is not None
            del mirror[old.metadata.name]
        else:
            mirror[new.metadata.name] = new.metadata.resource_version

    reflector.on_change(note)
    task = asyncio.create_task(reflector.run())
    for _ in range(100):
        name = f"c{chance.randint(0, 5)}"
        action = chance.choice(["create", "patch", "delete", "break", "compact", "yield"])
        try:
            if action == "create":
                await client.create(CONFIGMAPS, "default", config_map(name))
            elif action == "patch":
                await client.patch(CONFIGMAPS, "default", name, {"data": {"n": str(chance.random())}})
            elif action == "delete":
                await client.delete(CONFIGMAPS, "default", name)
        except ApiError:
            pass
        if action == "break" and chance.random() < 0.2:
            api.end_watches()
        if action == "compact":
            api.compacted = api.revision
            api.history.clear()
    server = {k.split("/")[1]: o["metadata"]["resourceVersion"] for k, o in api.objects.get("configmaps", {}).items()}
    await until(lambda: mirror == server)
    assert {c.metadata.name for c in reflector.list()} == set(server)
    task.cancel()
