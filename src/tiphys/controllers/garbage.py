"""The garbage collector: deletes what lost its owners, in the way that the owner's deletion asked for.

In: the metadata of every object of every resource that can be listed, watched and deleted, custom ones included; one
watch a resource, and where another controller watches it already, that one is used. Decides in ownership.py. Out:
deletions with uid preconditions, removed owner references, removed finalizers.

Nothing is deleted on the word of a cache: before a deletion the object is read live, and so is an owner that the graph
does not know. A crash loses only the queue; the next start lists everything and looks at each object with an owner.

Spec: see ownership.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys.api.views.meta import ObjectMeta, ObjectReference, OwnerReference, PartialObject, decode_view
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.client.reflector import Reflector
from tiphys.controllers.discovery import discover
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.ownership import FOREGROUND, ORPHAN, Action, Graph, Item, OwnerState, plan_item
from tiphys.controllers.shared import Controller, Shared

log = logging.getLogger(__name__)

IGNORED = frozenset({("", "events"), ("events.k8s.io", "events"), ("", "bindings"), ("", "componentstatuses")})
REDISCOVER_S = 30.0
"""How soon discovery is asked again while a part of it failed."""
QUIET_REDISCOVER_S = 300.0
"""How soon otherwise: definitions that come and go are watched, so this is for what nothing tells."""
FIRST_LOOK_S = 30.0
"""How long the first lists are waited for: what cannot be listed, since its webhook or its server is down, must not
keep everything else from being collected."""
ABSENT_REMEMBERED = 500
LOST = (404,)


class GarbageLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.client = shared.deps.client
        self.queue = shared.queue()
        self.graph = Graph()
        self.recorder = shared.recorder("garbage-collector-controller")
        self.resources: dict[tuple[str, str], Resource] = {}
        """(group, kind) -> resource, of all that is served."""
        self.watched: dict[Resource, asyncio.Task[None] | None] = {}
        """Resource -> the task of our own watch; None where a shared mirror is read."""
        self.ready = asyncio.Event()
        self.rediscover = asyncio.Event()
        self.absent: OrderedDict[tuple[str, str], None] = OrderedDict()
        """(namespace, uid) of owners that are known to be gone; bounded."""
        self.definitions: Mirror[PartialObject] = shared.mirror(resources.CUSTOMRESOURCEDEFINITIONS, PartialObject)
        self.definitions.on_change(lambda old, new: self.rediscover.set())

    # What there is

    async def watch_everything(self) -> None:
        """Keep one watch a resource running, also for resources that appear later."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.rediscover.clear()
                try:
                    complete = await self._follow_discovery(group)
                except (ApiError, OSError) as error:
                    log.warning("garbage collection keeps its picture of the API: discovery failed: %s", error)
                    await asyncio.sleep(1.0)
                    continue
                try:
                    await asyncio.wait_for(self.rediscover.wait(), QUIET_REDISCOVER_S if complete else REDISCOVER_S)
                    # Many definitions come at once; a definition is served a moment after it is seen.
                    await asyncio.sleep(0.5)
                except TimeoutError:
                    pass

    async def _follow_discovery(self, group: asyncio.TaskGroup) -> bool:
        """Watch what is served, and only that; tell whether all of discovery could be read."""
        found = await discover(self.client)
        wanted = {
            s.resource
            for s in found.served
            if {"list", "watch", "delete"} <= s.verbs and (s.resource.group, s.resource.plural) not in IGNORED
        }
        self.resources.update({(s.resource.group, s.resource.kind): s.resource for s in found.served})
        new = []
        for resource in sorted(wanted - set(self.watched), key=lambda r: (r.group, r.plural)):
            reflector, task = self._watch(group, resource)
            self.watched[resource] = task
            new.append(reflector)
        for resource in [known for known in self.watched if known not in wanted]:
            if resource.api_version not in found.failed:
                self._unwatch(resource)
        if not self.ready.is_set():
            await self._wait_for(new)
            self.ready.set()
        return not found.failed

    async def _wait_for(self, reflectors: Sequence[Reflector[Any]]) -> None:
        """Wait until everything is listed, but not for ever: an owner that is not known is read live anyway."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                for reflector in reflectors:
                    await reflector.synced()
        except TimeoutError:
            missing = sorted(reflector.resource.plural for reflector in reflectors if not reflector.is_synced)
            log.warning("garbage collection begins without %s, which cannot be listed now", ", ".join(missing))

    def _watch(self, group: asyncio.TaskGroup, resource: Resource) -> tuple[Reflector[Any], asyncio.Task[None] | None]:
        shared = self.shared.mirrors.get(resource)
        task = None
        if shared is not None:
            reflector: Reflector[Any] = shared.reflector
        else:
            reflector = Reflector(self.client, resource, PartialObject, randomness=self.shared.deps.randomness)
            task = group.create_task(reflector.run(), name=f"garbage-watch-{resource.plural}")

        def changed(old: Any, new: Any) -> None:
            self._changed(resource, None if old is None else old.metadata, None if new is None else new.metadata)

        reflector.on_change(changed)
        self.shared.copies.add(resource, reflector)
        return reflector, task

    def _unwatch(self, resource: Resource) -> None:
        """A resource is served no more: its objects are gone with it."""
        task = self.watched.pop(resource)
        self.shared.copies.remove(resource)
        if task is not None:
            task.cancel()
        for item in [i for i in self.graph.items.values() if i.resource == resource]:
            self._dropped(item.uid)

    # What changes

    def _changed(self, resource: Resource, old: ObjectMeta | None, new: ObjectMeta | None) -> None:
        if new is None:
            assert old is not None
            self._dropped(old.uid)
            return
        if old is not None and old.uid != new.uid:
            self._dropped(old.uid)
            old = None
        if old is not None and _same(old, new):
            return
        lost = set() if old is None else {o.uid for o in old.owner_references} - {o.uid for o in new.owner_references}
        item = self.graph.put(resource, new)
        if item.deleting:
            if ORPHAN in item.finalizers:
                self.queue.add(f"orphan/{item.uid}")
            elif FOREGROUND in item.finalizers:
                for dependent in self.graph.dependents_of(item.uid):
                    self.queue.add(f"look/{dependent.uid}")
                self.queue.add(f"look/{item.uid}")
        elif (item.owners and not all(o.uid in self.graph.items for o in item.owners)) or any(
            self.graph.items[o.uid].waits_for_dependents() for o in item.owners
        ):
            self.queue.add(f"look/{item.uid}")
        self._look_at_owners(lost | {o.uid for o in item.owners} if old is not None else lost)

    def _dropped(self, uid: str) -> None:
        item = self.graph.items.get(uid)
        for dependent in self.graph.drop(uid):
            self.queue.add(f"look/{dependent.uid}")
        if item is not None:
            self._remember_absent(item.namespace, uid)
            self._look_at_owners({owner.uid for owner in item.owners})

    def _look_at_owners(self, uids: set[str]) -> None:
        for uid in sorted(uids):
            owner = self.graph.items.get(uid)
            if owner is not None and owner.waits_for_dependents():
                self.queue.add(f"look/{uid}")

    # What follows

    async def reconcile(self, key: str) -> None:
        await self.ready.wait()
        what, _, uid = key.partition("/")
        item = self.graph.items.get(uid)
        if item is None:
            return
        if what == "orphan":
            await self._orphan(item)
        else:
            await self._look(key, item)

    async def _look(self, key: str, item: Item) -> None:
        # The watch may tell more while owners are read: the verdict, and what is compared with the live object below,
        # both stand on what was seen here. Else a reference that is dropped meanwhile costs the object its life.
        seen = replace(item)
        states = {owner.uid: await self._state(seen, owner) for owner in seen.owners} if not seen.deleting else {}
        verdict = plan_item(seen, lambda owner: states[owner.uid], self.graph)
        if verdict.action in (Action.KEEP, Action.WAIT):
            return
        live = await self._read(item)
        if live is None:
            return
        if live.deletion_timestamp is None and live.owner_references != seen.owners:
            self.queue.retry(key)
            return
        log.debug("garbage: %s %s/%s: %s", item.resource.plural, item.namespace, item.name, verdict.reason)
        try:
            if verdict.action is Action.DELETE:
                await self.client.delete(
                    item.resource, item.namespace, item.name,
                    uid=item.uid, resource_version=live.resource_version, propagation=verdict.propagation,
                )  # fmt: skip
            elif verdict.action is Action.UNREFERENCE:
                await self._unreference(item, live, set(verdict.references))
            elif verdict.action is Action.UNBLOCK:
                await self._unblock(item, live, set(verdict.references))
            else:
                await self._remove_finalizer(item, live, FOREGROUND)
        except ApiError as error:
            if error.code not in LOST:
                raise

    async def _orphan(self, item: Item) -> None:
        if ORPHAN not in item.finalizers:
            return
        dependents = self.graph.dependents_of(item.uid)
        await asyncio.gather(*(self._release(dependent, item.uid) for dependent in dependents))
        live = await self._read(item)
        if live is not None:
            await self._remove_finalizer(item, live, ORPHAN)

    async def _release(self, dependent: Item, owner_uid: str) -> None:
        live = await self._read(dependent)
        if live is not None:
            await self._unreference(dependent, live, {owner_uid})

    async def _read(self, item: Item) -> ObjectMeta | None:
        """Read an object live; None if it is gone (another of its name is another object)."""
        try:
            data = await self.client.get(item.resource, item.namespace, item.name)
        except ApiError as error:
            if error.code in LOST:
                return None
            raise
        meta = decode_view(data, PartialObject).metadata
        return meta if meta.uid == item.uid else None

    async def _state(self, item: Item, owner: OwnerReference) -> OwnerState:
        known = self.graph.items.get(owner.uid)
        if known is not None:
            if known.resource.namespaced and not item.namespace:
                return OwnerState.SOLID
            return (
                OwnerState.WAITING if known.waits_for_dependents() and owner.block_owner_deletion else OwnerState.SOLID
            )
        if (item.namespace, owner.uid) in self.absent:
            return OwnerState.ABSENT
        group = owner.api_version.rpartition("/")[0]
        resource = self.resources.get((group, owner.kind))
        if resource is None:
            # Not served (or not yet): nobody can know whether the owner exists, so nothing is deleted.
            self.rediscover.set()
            return OwnerState.SOLID
        if resource.namespaced and not item.namespace:
            self._warn_scope(item, owner)
            return OwnerState.SOLID
        try:
            data = await self.client.get(resource, item.namespace if resource.namespaced else "", owner.name)
        except ApiError as error:
            if error.code not in LOST:
                raise
            self._remember_absent(item.namespace, owner.uid)
            return OwnerState.ABSENT
        meta = decode_view(data, PartialObject).metadata
        if meta.uid != owner.uid:
            self._remember_absent(item.namespace, owner.uid)
            return OwnerState.ABSENT
        is_waiting = meta.deletion_timestamp is not None and FOREGROUND in meta.finalizers
        return OwnerState.WAITING if is_waiting and owner.block_owner_deletion else OwnerState.SOLID

    def _warn_scope(self, item: Item, owner: OwnerReference) -> None:
        reference = ObjectReference(
            api_version=item.resource.api_version, kind=item.resource.kind, name=item.name, uid=item.uid
        )
        kind = f"{owner.api_version}/{owner.kind}"
        text = f'ownerRef [{kind}, namespace: , name: {owner.name}, uid: {owner.uid}] does not exist in namespace ""'
        self.recorder.record(reference, "Warning", "OwnerRefInvalidNamespace", text)

    def _remember_absent(self, namespace: str, uid: str) -> None:
        self.absent[(namespace, uid)] = None
        if len(self.absent) > ABSENT_REMEMBERED:
            self.absent.popitem(last=False)

    async def _unreference(self, item: Item, live: ObjectMeta, uids: set[str]) -> None:
        kept = [_dump(o) for o in live.owner_references if o.uid not in uids]
        if len(kept) != len(live.owner_references):
            await self._patch(item, live, {"ownerReferences": kept or None})

    async def _unblock(self, item: Item, live: ObjectMeta, uids: set[str]) -> None:
        owners = [_dump(o) | ({"blockOwnerDeletion": False} if o.uid in uids else {}) for o in live.owner_references]
        await self._patch(item, live, {"ownerReferences": owners})

    async def _remove_finalizer(self, item: Item, live: ObjectMeta, finalizer: str) -> None:
        if finalizer in live.finalizers:
            kept = [f for f in live.finalizers if f != finalizer]
            await self._patch(item, live, {"finalizers": kept or None})

    async def _patch(self, item: Item, live: ObjectMeta, metadata: dict[str, Any]) -> None:
        metadata |= {"uid": item.uid, "resourceVersion": live.resource_version}
        try:
            await self.client.patch(item.resource, item.namespace, item.name, {"metadata": metadata})
        except ApiError as error:
            if error.code not in LOST:
                raise


def _same(old: ObjectMeta, new: ObjectMeta) -> bool:
    return (
        old.owner_references == new.owner_references
        and old.finalizers == new.finalizers
        and (old.deletion_timestamp is None) == (new.deletion_timestamp is None)
    )


def _dump(owner: OwnerReference) -> dict[str, Any]:
    dumped: dict[str, Any] = {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
    }
    if owner.controller is not None:
        dumped["controller"] = owner.controller
    if owner.block_owner_deletion is not None:
        dumped["blockOwnerDeletion"] = owner.block_owner_deletion
    return dumped


def garbage_controller(shared: Shared) -> Controller:
    loop = GarbageLoop(shared)
    return Controller(
        "garbage-collector", loop.queue, loop.reconcile, (loop.definitions,), workers=20, tasks=(loop.watch_everything,)
    )
