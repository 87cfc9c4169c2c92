"""Custom resources at work: definitions come and go, and with them the kinds that are served.

Listens to the stored CustomResourceDefinitions. A definition whose names are free is established: its kinds enter the
table in the same turn of the loop in which its status is written, so a client that saw Established=True can use them.
A definition that is deleted takes its objects with it first, held by a finalizer that its DELETE puts there.

Invariant: the table of kinds has the kinds of exactly those definitions that are established and not gone.

Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from tiphys.api.crdvalidation import is_established
from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.api.strategies.extension import CLEANUP_FINALIZER
from tiphys.apiserver.cache import CachedEvent, WatchCache
from tiphys.apiserver.customresources import (
    custom_kinds,
    is_terminating,
    plan_crd_status,
    set_condition,
    terminating_condition,
)
from tiphys.apiserver.deletion import DeleteOptions
from tiphys.apiserver.dirtynames import DirtyNames
from tiphys.apiserver.registry import Make, Registry, WriteContext, take_status
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError

FINISH_AGAIN_S = 1.0
"""How long finalizers of objects are waited for before a deleted definition is looked at again."""


class CustomResources:
    """Keeps the table of kinds equal to the established definitions. `run` until cancelled."""

    def __init__(self, registry: Registry, kinds: Kinds, cache: WatchCache) -> None:
        self._registry = registry
        self._kinds = kinds
        definitions = kinds.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert definitions is not None
        self._kind: Kind = definitions
        self._definitions = cache.resource(definitions.storage_prefix())
        self._cache = cache
        self._served: dict[str, list[Kind]] = {}
        self._fingerprints: dict[str, bytes] = {}
        self._terminating: set[str] = set()
        self._dirty = DirtyNames("CustomResourceDefinition", self._settle)
        self._refused: dict[str, None] = {}
        """Definitions that want a name which another one has: they are looked at again when names become free."""

    async def load(self) -> None:
        """Serve what is established already, and listen from now on."""
        self._definitions.listeners.add(self._on_events)
        self._definitions.on_reset.add(self._on_reset)
        for cached in self._definitions.objects():
            self._serve(cached.decode())
            self._dirty.mark(cached.name)

    async def run(self) -> None:
        """Settle definitions as they change."""
        await self._dirty.run()

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        """Serve changes at once, in the loop's turn in which they became visible; what must be written waits."""
        for event in events:
            name = event.object.name
            cached = self._definitions.get("", name)
            if cached is None:
                self._withdraw(name)
            else:
                self._serve(cached.decode())
                self._dirty.mark(name)

    def _on_reset(self) -> None:
        """Look at everything anew: the cache lost events."""
        for name in list(self._served):
            if self._definitions.get("", name) is None:
                self._withdraw(name)
        for cached in self._definitions.objects():
            self._serve(cached.decode())
            self._dirty.mark(cached.name)

    async def _settle(self, name: str) -> None:
        cached = self._definitions.get("", name)
        if cached is None:
            return
        crd = cached.decode()
        if "deletionTimestamp" in crd["metadata"]:
            await self._finish(name, crd)
            return
        others = self._kinds
        status = plan_crd_status(crd, others, self._registry.now())
        if any(c.get("type") == "NamesAccepted" and c.get("status") != "True" for c in status["conditions"]):
            self._refused[name] = None
        else:
            self._refused.pop(name, None)
        if status == crd.get("status"):
            return

        def change(current: JsonObject) -> JsonObject:
            current["status"] = plan_crd_status(current, others, self._registry.now())
            return current

        await self._update(name, change, "status")

    async def _finish(self, name: str, crd: JsonObject) -> None:
        """Delete the definition's objects, and let it go when none is left."""
        if CLEANUP_FINALIZER not in (crd["metadata"].get("finalizers") or ()):
            return
        done = "NeverEstablished", "resource was never established"
        if is_established(crd):
            done = "InstanceDeletionCompleted", "removed all instances"
            text = "CustomResource deletion is in progress"
            await self._tell_terminating(name, "InstanceDeletionInProgress", text)
            if not await self._delete_objects(crd):  # finalizers hold some: look again when they may be gone
                self._dirty.mark_later(name, FINISH_AGAIN_S)
                return
        await self._tell_terminating(name, *done, done=True)

    async def _delete_objects(self, crd: JsonObject) -> bool:
        """Delete the objects of a definition; return whether none is left."""
        versions = [dict(version, served=True) for version in crd["spec"]["versions"]]
        every = {**crd, "spec": {**crd["spec"], "versions": versions}}
        kinds = custom_kinds(every, self._kinds.kubernetes_version)
        stored = next(kind for kind in kinds if kind.version == kind.stored_as)
        context = WriteContext(API_SERVER, field_manager="kube-apiserver")
        objects = self._cache.resource(stored.storage_prefix())
        for cached in objects.objects():
            try:
                await self._registry.delete(stored, cached.namespace, cached.name, DeleteOptions(), context)
            except ApiError as error:
                if error.code != 404:  # gone meanwhile is what was wanted
                    raise
        return not objects.count()

    async def _tell_terminating(self, name: str, reason: str, message: str, *, done: bool = False) -> None:
        """Write the condition of a deletion; the last one lets the definition go."""

        def change(current: JsonObject) -> JsonObject:
            status = dict(current.get("status") or {})
            conditions = list(status.get("conditions") or ())
            condition = terminating_condition(reason, message, done=done)
            set_condition(conditions, condition, self._registry.now())
            current["status"] = {**status, "conditions": conditions}
            if done:
                finalizers = current["metadata"].get("finalizers") or ()
                current["metadata"]["finalizers"] = [f for f in finalizers if f != CLEANUP_FINALIZER]
            return current

        await self._update(name, change, "status")

    async def _update(self, name: str, change: Make, subresource: str) -> None:
        context = WriteContext(API_SERVER, field_manager="kube-apiserver", subresource=subresource)

        combine = take_status if subresource else None
        try:
            await self._registry.update(self._kind, "", name, change, context, combine=combine)
        except ApiError as error:
            if error.code != 404:
                raise

    def _serve(self, crd: JsonObject) -> None:
        name = crd["metadata"]["name"]
        wanted = custom_kinds(crd, self._kinds.kubernetes_version) if is_established(crd) else []
        names = (crd.get("status") or {}).get("acceptedNames")
        fingerprint = orjson.dumps([crd["spec"], names])
        known = self._fingerprints.get(name) == fingerprint and bool(self._served.get(name)) == bool(wanted)
        terminating = is_terminating(crd)
        if known and terminating == (name in self._terminating):
            return
        (self._terminating.add if terminating else self._terminating.discard)(name)
        self._fingerprints[name] = fingerprint
        versions = {kind.version for kind in wanted}
        for kind in self._served.get(name, ()):
            if kind.version not in versions:
                self._kinds.remove(kind)
        for kind in wanted:
            self._kinds.add(kind)
        if not known:
            self._end_watches(self._served.get(name, ()))
        self._served[name] = wanted
        self._look_again()

    def _withdraw(self, name: str) -> None:
        self._fingerprints.pop(name, None)
        self._refused.pop(name, None)
        self._terminating.discard(name)
        kinds = self._served.pop(name, [])
        for kind in kinds:
            self._kinds.remove(kind)
        self._end_watches(kinds)
        self._look_again()

    def _look_again(self) -> None:
        """A name may be free now: look at those that could not have theirs."""
        for name in self._refused:
            self._dirty.mark(name)

    def _end_watches(self, kinds: Sequence[Kind]) -> None:
        """End the watches of kinds that are no more what they were: clients begin anew, by the new definition."""
        if kinds:
            for close in list(self._cache.resource(kinds[0].storage_prefix()).on_reset):
                close()
