"""StorageVersionMigrations: every object of a resource is written anew, in the version that is stored now.

In: the name of a migration that is neither done nor failed. Decides which resource and version to go through
(`plan_target`), and what the conditions say (`plan_conditions`). Each object gets an empty merge patch with its uid and
resourceVersion: the server rewrites one that is stored in an older version or schema, and leaves the others alone. One
that was changed meanwhile is thereby migrated already, one that is gone needs no migration.

A crash after any object changes nothing: the next run begins again, and finds what is done without writing it. The
revision in the status is that of the first run; objects written after it are passed over. At the end a definition whose
storage version stayed the same is told in its `storedVersions` that no other version is left.

Spec: Kubernetes documentation, "Migrate Kubernetes Objects Using Storage Version Migration"; KEP-4192.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from tiphys.api.views.meta import Condition, ObjectMeta, PartialObject, View, decode_view
from tiphys.base.clock import format_time, parse_time
from tiphys.base.errors import ApiError, TiphysError
from tiphys.client import resources
from tiphys.client.interface import MERGE_PATCH, Resource
from tiphys.controllers.discovery import Served, discover
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared

RUNNING, SUCCEEDED, FAILED = "Running", "Succeeded", "Failed"
IN_PROGRESS = "StorageVersionMigrationInProgress"
DONE = "StorageVersionMigrationSucceeded"
BROKEN = "StorageVersionMigrationFailed"
COMPLETED = "MigrationCompleted"
UNKNOWN_RESOURCE_S = 60.0
"""A resource that is not served yet may still come: its definition may have been made together with the migration."""
RETRY_UNKNOWN_S = 2.0
PAGE = 500
_PASSED_OVER = (404, 409)
_RETRIED = (429, 500, 503, 504)


class GroupResource(View, frozen=True):
    group: str = ""
    resource: str = ""


class MigrationSpec(View, frozen=True):
    resource: GroupResource = msgspec.field(default_factory=GroupResource)


class MigrationStatus(View, frozen=True):
    conditions: tuple[Condition, ...] = ()
    resource_version: str = ""


class StorageVersionMigration(View, frozen=True):
    metadata: ObjectMeta
    spec: MigrationSpec = msgspec.field(default_factory=MigrationSpec)
    status: MigrationStatus = msgspec.field(default_factory=MigrationStatus)

    def is_over(self) -> bool:
        return any(c.type in (SUCCEEDED, FAILED) and c.status == "True" for c in self.status.conditions)


class DefinitionVersion(View, frozen=True):
    name: str = ""
    served: bool = False
    storage: bool = False


class DefinitionSpec(View, frozen=True):
    versions: tuple[DefinitionVersion, ...] = ()


class DefinitionStatus(View, frozen=True):
    stored_versions: tuple[str, ...] = ()


class Definition(View, frozen=True):
    metadata: ObjectMeta
    spec: DefinitionSpec = msgspec.field(default_factory=DefinitionSpec)
    status: DefinitionStatus = msgspec.field(default_factory=DefinitionStatus)

    def storage(self) -> DefinitionVersion:
        return next((v for v in self.spec.versions if v.storage), DefinitionVersion())


class _List(View, frozen=True):
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    items: tuple[msgspec.Raw, ...] = ()


class MigrationFailed(TiphysError):
    """The migration cannot be finished; the text goes into its Failed condition."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to go through; `definition` is there for custom resources."""

    resource: Resource
    definition: Definition | None = None


def plan_target(wanted: GroupResource, served: Sequence[Served], definition: Definition | None) -> Target | None:
    """Return the resource in the version to ask for: the one that is stored, where it is served. None: not served."""
    found = next(
        (s.resource for s in served if (s.resource.group, s.resource.plural) == (wanted.group, wanted.resource)), None
    )
    if found is None:
        return None
    if definition is not None and definition.storage().served:
        stored = definition.storage().name
        return Target(Resource(found.group, stored, found.plural, found.kind, found.namespaced), definition)
    return Target(found, definition)


def plan_conditions(
    current: Sequence[Condition], changes: Mapping[str, tuple[str, str, str]], now: str
) -> list[dict[str, str]]:
    """Return the whole list of conditions; `changes` are (status, reason, message) by type. A time changes with its
    status only."""
    result: list[dict[str, str]] = []
    before = {condition.type: condition for condition in current}
    for kind in dict.fromkeys((*before, *changes)):
        old = before.get(kind)
        if kind in changes:
            status, reason, message = changes[kind]
            time = old.last_transition_time if old is not None and old.status == status else now
        else:
            assert old is not None
            status, reason, message, time = old.status, old.reason, old.message, old.last_transition_time
        result.append(
            {"type": kind, "status": status, "lastTransitionTime": time or now, "reason": reason, "message": message}
        )
    return result


class MigrationLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.client = shared.deps.client
        self.migrations: Mirror[StorageVersionMigration] = shared.mirror(
            resources.STORAGEVERSIONMIGRATIONS, StorageVersionMigration
        )
        self.queue = shared.queue()
        self.migrations.on_change(self._changed)

    def _changed(self, old: StorageVersionMigration | None, new: StorageVersionMigration | None) -> None:
        if new is not None and not new.is_over():
            self.queue.add(new.metadata.name)

    async def reconcile(self, key: str) -> None:
        migration = self.migrations.get(key)
        if migration is None or migration.is_over():
            return
        try:
            target = await self._target(migration)
            if target is None:
                self.queue.add_after(key, RETRY_UNKNOWN_S)
                return
            migration = await self._begin(migration, target)
            await self._migrate(target, int(migration.status.resource_version))
            if target.definition is not None:
                await self._tell_definition(target.definition)
        except MigrationFailed as error:
            text = f"migration encountered unhandled error: {error}"
            changes = {RUNNING: ("False", BROKEN, ""), FAILED: ("True", BROKEN, text)}
            await self._set(migration, changes)
            return
        await self._set(migration, {RUNNING: ("False", COMPLETED, ""), SUCCEEDED: ("True", DONE, "")})

    async def _target(self, migration: StorageVersionMigration) -> Target | None:
        """Return what to go through, None while it may still come. Raises MigrationFailed when it had its time."""
        wanted = migration.spec.resource
        definition = None
        if "." in wanted.group:
            try:
                name = f"{wanted.resource}.{wanted.group}"
                definition = decode_view(
                    await self.client.get(resources.CUSTOMRESOURCEDEFINITIONS, "", name), Definition
                )
            except ApiError as error:
                if error.code != 404:
                    raise
        target = plan_target(wanted, (await discover(self.client)).served, definition)
        if target is not None:
            return target
        waited_s = self.shared.deps.clock.now_s() - parse_time(migration.metadata.creation_timestamp or "")
        if waited_s < UNKNOWN_RESOURCE_S:
            return None
        raise MigrationFailed(f"resource does not exist in GC: no server serves {wanted.resource}.{wanted.group}")

    async def _begin(self, migration: StorageVersionMigration, target: Target) -> StorageVersionMigration:
        """Tell that the migration runs, and up to which revision objects are looked at."""
        version = migration.status.resource_version
        if not version:
            page = await self._page(target.resource, "1", "")
            version = str(page.metadata.get("resourceVersion", ""))
        return await self._set(migration, {RUNNING: ("True", IN_PROGRESS, "")}, version)

    async def _set(
        self, migration: StorageVersionMigration, changes: Mapping[str, tuple[str, str, str]], version: str = ""
    ) -> StorageVersionMigration:
        now = format_time(self.shared.deps.clock.now_s())
        status: dict[str, Any] = {"conditions": plan_conditions(migration.status.conditions, changes, now)}
        if version:
            status["resourceVersion"] = version
        return await self.migrations.patch(migration, {"status": status}, subresource="status")

    async def _migrate(self, target: Target, revision: int) -> None:
        """Write all objects anew that were not written after a revision."""
        token = ""
        while True:
            page = await self._page(target.resource, str(PAGE), token)
            for item in page.items:
                metadata = decode_view(bytes(item), PartialObject).metadata
                if int(metadata.resource_version) <= revision:
                    await self._rewrite(target.resource, metadata)
            token = str(page.metadata.get("continue") or "")
            if not token:
                return

    async def _page(self, resource: Resource, limit: str, token: str) -> _List:
        query = {"limit": limit} | ({"continue": token} if token else {})
        try:
            return decode_view(await self.client.request("GET", resource.path(), query=query), _List)
        except ApiError as error:
            if error.code in _RETRIED or error.code == 410:  # begun again, with a new list
                raise
            raise MigrationFailed(str(error)) from error

    async def _rewrite(self, resource: Resource, metadata: ObjectMeta) -> None:
        same = {"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version}}
        path = resource.path(metadata.namespace, metadata.name)
        try:
            await self.client.request("PATCH", path, body=orjson.dumps(same), content_type=MERGE_PATCH)
        except ApiError as error:
            if error.code in _PASSED_OVER:
                return
            if error.code in _RETRIED:
                raise
            raise MigrationFailed(str(error)) from error

    async def _tell_definition(self, before: Definition) -> None:
        """Take the versions out of `storedVersions` that no object has any more, unless the definition changed."""
        name, stored = before.metadata.name, before.storage().name
        try:
            data = await self.client.get(resources.CUSTOMRESOURCEDEFINITIONS, "", name)
            now = decode_view(data, Definition)
            if now.metadata.generation != before.metadata.generation or now.metadata.uid != before.metadata.uid:
                return
            if now.status.stored_versions == (stored,):
                return
            patch = {
                "metadata": {"resourceVersion": now.metadata.resource_version},
                "status": {"storedVersions": [stored]},
            }
            path = resources.CUSTOMRESOURCEDEFINITIONS.path("", name, "status")
            await self.client.request("PATCH", path, body=orjson.dumps(patch), content_type=MERGE_PATCH)
        except ApiError as error:
            if error.code != 404:
                raise


def storage_version_migration_controller(shared: Shared) -> Controller:
    loop = MigrationLoop(shared)
    return Controller("storage-version-migrator", loop.queue, loop.reconcile, (loop.migrations,), workers=2)
