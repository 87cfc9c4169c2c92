"""StorageVersionMigrations over a real API server and a conversion webhook: what is rewritten, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from assembled_server import Server, running_server
from conversionworld import DEFINITION, DEFINITIONS, GROUP, THINGS, Conversions, definition
from webhook_server import serving

from tiphys.api.views.meta import ObjectMeta
from tiphys.base.clock import Randomness
from tiphys.client.interface import Resource
from tiphys.client.local import LocalClient
from tiphys.controllers.discovery import Served
from tiphys.controllers.run import CONTROLLERS, run_controllers
from tiphys.controllers.shared import Deps
from tiphys.controllers.storageversionmigration import (
    Condition,
    Definition,
    DefinitionSpec,
    DefinitionVersion,
    GroupResource,
    plan_conditions,
    plan_target,
)

MIGRATIONS = "/apis/storagemigration.k8s.io/v1/storageversionmigrations"
MAPS = "/api/v1/namespaces/default/configmaps"
OLD = Resource("x.io", "v1", "things", "Thing")


def versions(*told: tuple[str, bool, bool]) -> Definition:
    made = tuple(DefinitionVersion(name=name, served=served, storage=storage) for name, served, storage in told)
    return Definition(metadata=ObjectMeta(), spec=DefinitionSpec(versions=made))


def test_the_version_that_is_stored_is_gone_through_where_it_is_served() -> None:
    wanted, served = GroupResource(group="x.io", resource="things"), [Served(OLD, frozenset())]
    stored = plan_target(wanted, served, versions(("v1", True, False), ("v2", True, True)))
    assert stored is not None and stored.resource == Resource("x.io", "v2", "things", "Thing")
    other = plan_target(wanted, served, versions(("v1", True, False), ("v2", False, True)))
    assert other is not None and other.resource == OLD
    assert plan_target(wanted, [], None) is None


def test_times_of_conditions_change_with_their_status() -> None:
    before = [Condition(type="Running", status="True", last_transition_time="then", reason="r")]
    changes = {"Running": ("False", "done", ""), "Succeeded": ("True", "s", "")}
    assert plan_conditions(before, changes, "now") == [
        {"type": "Running", "status": "False", "lastTransitionTime": "now", "reason": "done", "message": ""},
        {"type": "Succeeded", "status": "True", "lastTransitionTime": "now", "reason": "s", "message": ""},
    ]
    assert plan_conditions(before, {"Running": ("True", "x", "")}, "now")[0]["lastTransitionTime"] == "then"


@asynccontextmanager
async def migrating(server: Server) -> AsyncIterator[None]:
    client = LocalClient(server.assembled.handle, "system:kube-controller-manager")
    deps = Deps(client, server.clock, Randomness(1))
    name = "storage-version-migrator"
    task = asyncio.create_task(run_controllers(deps, {name: CONTROLLERS[name]}))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def over(server: Server, name: str) -> dict[str, Any]:
    """Return the conditions of a migration when it is done or failed."""
    async with asyncio.timeout(10):
        while True:
            status = (await server.named(f"{MIGRATIONS}/{name}")).get("status") or {}
            conditions = {c["type"]: c for c in status.get("conditions") or ()}
            if "Succeeded" in conditions or "Failed" in conditions:
                return {"resourceVersion": status.get("resourceVersion"), **conditions}
            await asyncio.sleep(0.001)


def migration(name: str, group: str, resource: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"resource": {"group": group, "resource": resource}}}


async def stored(server: Server) -> list[dict[str, Any]]:
    page = await server.store.list(f"/registry/{GROUP}/things/")
    return [orjson.loads(entry.value) for entry in page.entries]


async def test_all_objects_are_rewritten_in_the_storage_version_and_the_definition_is_told() -> None:
    conversions = Conversions()
    async with serving(conversions.answer) as webhook, running_server() as server, migrating(server):
        await server.made(DEFINITIONS, definition("v1", webhook.config("/convert")))
        for _ in range(200):
            if (await server.call("GET", THINGS))[0] == 200:
                break
            await asyncio.sleep(0)
        for number in range(3):
            obj = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": f"t{number}"}, "hostPort": "a:1"}
            await server.made(THINGS, obj)
        crd = await server.named(DEFINITION)
        for told in crd["spec"]["versions"]:
            told["storage"] = told["name"] == "v2"
        assert (await server.call("PUT", DEFINITION, crd))[0] == 200
        revision = (await server.named(THINGS))["metadata"]["resourceVersion"]
        await server.made(MIGRATIONS, migration("m", GROUP, "things"))
        told = await over(server, "m")
        assert told["Running"]["status"] == "False" and told["Succeeded"]["status"] == "True"
        assert told["Succeeded"]["reason"] == "StorageVersionMigrationSucceeded"
        assert int(told["resourceVersion"]) >= int(revision)
        assert [obj["apiVersion"] for obj in await stored(server)] == [f"{GROUP}/v2"] * 3
        assert (await server.named(DEFINITION))["status"]["storedVersions"] == ["v2"]


async def test_objects_in_the_storage_version_are_not_written_and_unknown_resources_fail_in_time() -> None:
    async with running_server() as server:
        made = await server.made(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
        await server.made(MIGRATIONS, migration("maps", "", "configmaps"))
        await server.made(MIGRATIONS, migration("none", "", "nothings"))
        server.clock.current_s += 61
        async with migrating(server):
            assert (await over(server, "maps"))["Succeeded"]["status"] == "True"
            failed = (await over(server, "none"))["Failed"]
        assert (await server.named(f"{MAPS}/a"))["metadata"] == made["metadata"]
        assert failed["reason"] == "StorageVersionMigrationFailed"
        assert failed["message"].startswith("migration encountered unhandled error: resource does not exist in GC")
