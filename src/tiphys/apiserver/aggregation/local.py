"""APIServices for all that this server serves itself: made, kept as they should be, and removed.

Those of built-in groups are written once after a start (label `onstart`): who deletes or changes one later keeps it so
until the next start. Those of custom resources (label `true`) follow their definitions at all times. APIServices without
the label belong to others and are never touched, even where they take a group version away from this server. A built-in
group version whose APIService somebody deleted is served on but not told among all groups (`withdrawn`), until the next
start.

Writes are idempotent: a crash after any of them is mended by the next start.

Spec: Kubernetes documentation, "Kubernetes API Aggregation Layer"; behaviour of upstream's registration as seen from
outside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.aggregation.apiservices import MANAGED, ApiService, ApiServices
from tiphys.apiserver.aggregation.priorities import OWN_GROUP, UNKNOWN, priority_of
from tiphys.apiserver.cache import CachedEvent, ResourceCache
from tiphys.apiserver.deletion import DeleteOptions
from tiphys.apiserver.registry import Registry, WriteContext
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError

log = logging.getLogger(__name__)

ON_START = "onstart"
ALWAYS = "true"
RETRY_S = 1.0
WRITES_AT_ONCE = 16
"""APIServices written at the same time, so that the store commits them in groups."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A group version that this server serves itself."""

    group: str
    version: str
    group_priority: int
    version_priority: int
    managed: str

    @property
    def name(self) -> str:
        return f"{self.version}.{self.group}"

    def spec(self) -> JsonObject:
        spec: JsonObject = {"group": self.group} if self.group else {}
        return {
            **spec,
            "groupPriorityMinimum": self.group_priority,
            "version": self.version,
            "versionPriority": self.version_priority,
        }


def wanted_services(kinds: Kinds) -> dict[str, Wanted]:
    """Return name -> what there should be an APIService for."""
    wanted: dict[str, Wanted] = {}
    for kind in kinds.all():
        priorities = priority_of(kind.group, kind.version, custom=kind.custom)
        if kind.group == OWN_GROUP or priorities == UNKNOWN:
            continue
        each = Wanted(kind.group, kind.version, *priorities, ALWAYS if kind.custom else ON_START)
        wanted.setdefault(each.name, each)
    return wanted


def plan_local(wanted: Wanted | None, current: ApiService | None, *, existed: bool, done: bool) -> str:
    """Return what to do about one APIService: create, update, delete or "".

    `existed`: it was there when the server started. `done`: it has been seen to since then.
    """
    if wanted is not None and wanted.managed == ON_START and done:
        return ""
    if current is None:
        return "" if wanted is None else "create"
    if not current.managed:
        return ""
    if current.managed == ON_START and (not existed or done):
        return ""
    if wanted is None:
        return "delete"
    told = (current.group, current.version, current.group_priority, current.version_priority, current.service)
    same = told == (wanted.group, wanted.version, wanted.group_priority, wanted.version_priority, None)
    return "" if same else "update"


class LocalApiServices:
    """Keeps local APIServices as they should be. `run` until cancelled."""

    def __init__(self, services: ApiServices, definitions: ResourceCache, registry: Registry, kind: Kind) -> None:
        self._services = services
        self._registry = registry
        self._kinds = registry.kinds
        self._kind = kind
        self._at_start = frozenset(services.by_name)
        self._seen = set(self._at_start)
        self.withdrawn: frozenset[tuple[str, str]] = frozenset()
        """(group, version) of built-in ones that were there, and that somebody deleted."""
        self._done: set[str] = set()
        self._wanted: dict[str, Wanted] = {}
        self._wanted_at = -1
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        services.listeners.add(self._on_names)
        definitions.listeners.add(self._on_definitions)
        self._dirty.update(dict.fromkeys(services.by_name))
        self._wake.set()

    async def run(self) -> None:
        """See to what changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._look()
            while self._dirty:
                names = list(self._dirty)[:WRITES_AT_ONCE]
                for name in names:
                    del self._dirty[name]
                await asyncio.gather(*(self._settle(name) for name in names))

    def _on_names(self, names: Sequence[str]) -> None:
        self._dirty.update(dict.fromkeys(names))
        self._wake.set()
        there = self._services.by_name
        self._seen.update(name for name in names if name in there)
        gone = (self._wanted[name] for name in self._seen if name not in there and name in self._wanted)
        self.withdrawn = frozenset((each.group, each.version) for each in gone if each.managed == ON_START)

    def _on_definitions(self, events: Sequence[CachedEvent]) -> None:
        self._wake.set()  # the table of kinds has changed, or will in this turn of the loop

    def _look(self) -> None:
        """Mark what became wanted or unwanted with the table of kinds."""
        if self._wanted_at == self._kinds.revision:
            return
        self._wanted_at = self._kinds.revision
        old, self._wanted = self._wanted, wanted_services(self._kinds)
        changed = [name for name in self._wanted if old.get(name) != self._wanted[name]]
        self._dirty.update(dict.fromkeys([*changed, *(name for name in old if name not in self._wanted)]))

    async def _settle(self, name: str) -> None:
        wanted, current = self._wanted.get(name), self._services.by_name.get(name)
        action = plan_local(wanted, current, existed=name in self._at_start, done=name in self._done)
        try:
            if action:
                await self._apply(action, name, wanted)
        except ApiError as error:
            if error.code not in (404, 409):
                log.warning("APIService %s is tried again: %s", name, error)
            asyncio.get_running_loop().call_later(RETRY_S, self._on_names, (name,))
            return
        self._done.add(name)

    async def _apply(self, action: str, name: str, wanted: Wanted | None) -> None:
        context = WriteContext(API_SERVER, field_manager="kube-apiserver")
        if action == "delete" or wanted is None:
            await self._registry.delete(self._kind, "", name, DeleteOptions(), context)
            return
        spec = wanted.spec()
        if action == "create":
            metadata = {"name": name, "labels": {MANAGED: wanted.managed}}
            obj = {"apiVersion": self._kind.api_version, "kind": "APIService", "metadata": metadata, "spec": spec}
            await self._registry.create(self._kind, "", obj, context)
            return
        await self._registry.update(self._kind, "", name, lambda current: {**current, "spec": spec}, context)
