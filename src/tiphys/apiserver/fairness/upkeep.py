"""Keeps the FlowSchemas and PriorityLevelConfigurations that every cluster has, and tells schemas that lead nowhere.

`plan_object` is pure: what is there and what should be in, what to write out. Mandatory objects are restored whatever
was done to them; suggested ones follow the table unless their annotation says "false"; those of another version's table
that nobody claimed go. `run` does it at the start, after each change and every minute. A write that fails is tried again
soon.

Spec: Kubernetes documentation, "API Priority and Fairness: Maintenance of the Mandatory and Suggested Configuration
Objects"; FlowSchema condition Dangling.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from tiphys.api.fairnessobjects import AUTOUPDATE, EXEMPT, GROUP, LEVELS, MANDATORY, SCHEMAS
from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.deletion import DeleteOptions
from tiphys.apiserver.fairness.gate import Gate
from tiphys.apiserver.registry import Registry, WriteContext, take_status
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.errors import ApiError

log = logging.getLogger(__name__)

CHECK_EVERY_S = 60.0
RETRY_S = 1.0
"""Pause after a failure; each further one is twice as long, up to CHECK_EVERY_S."""
SETTLE_S = 0.05
"""Changes that come together are looked at together."""
FIELD_MANAGER = "api-priority-and-fairness-config-producer-v1"
STATUS_MANAGER = "api-priority-and-fairness-config-consumer-v1"
_WRITER = User("system:apiserver", (MASTERS,))
DANGLING = "Dangling"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with one object."""

    create: JsonObject | None = None
    update: JsonObject | None = None
    delete: bool = False
    reason: str = ""


NOTHING = Plan()


def plan_object(wanted: JsonObject | None, current: JsonObject | None) -> Plan:
    """Return what makes an object of the cluster as the table (None: it is not in it) wants it."""
    if current is None:
        return Plan(create=wanted, reason="it is missing") if wanted is not None else NOTHING
    annotation = (current["metadata"].get("annotations") or {}).get(AUTOUPDATE)
    if wanted is None:
        return Plan(delete=True, reason="this version does not have it any more") if annotation == "true" else NOTHING
    name = current["metadata"]["name"]
    ours = name in MANDATORY or annotation == "true"
    if annotation is None and not ours:
        ours = current["metadata"].get("generation", 1) == 1  # nobody has changed it since it was made
    if not ours:
        return NOTHING
    spec = wanted["spec"]
    if name == EXEMPT and "exempt" in spec:
        spec = {**spec, "exempt": {**spec["exempt"], **((current.get("spec") or {}).get("exempt") or {})}}
    if current.get("spec") == spec and annotation == "true":
        return NOTHING
    metadata = current["metadata"]
    annotations = {**(metadata.get("annotations") or {}), AUTOUPDATE: "true"}
    return Plan(
        update={**current, "metadata": {**metadata, "annotations": annotations}, "spec": spec}, reason="it was changed"
    )


def plan_dangling(schema: JsonObject, levels: set[str], now: str) -> JsonObject | None:
    """Return the schema with its condition as it should be; None when it is so already."""
    level = ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name", "")
    exists = level in levels
    told = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    wanted = {
        "type": DANGLING,
        "status": "False" if exists else "True",
        "lastTransitionTime": now,
        "reason": "Found" if exists else "NotFound",
        "message": f"{told} and it exists" if exists else f"{told} but there is no such object",
    }
    conditions = (schema.get("status") or {}).get("conditions") or []
    for condition in conditions:
        if condition.get("type") != DANGLING:
            continue
        if all(condition.get(key) == wanted[key] for key in ("status", "reason", "message")):
            return None
        if condition.get("status") == wanted["status"] and condition.get("lastTransitionTime"):
            wanted["lastTransitionTime"] = condition["lastTransitionTime"]
    others = [condition for condition in conditions if condition.get("type") != DANGLING]
    return {**schema, "status": {**(schema.get("status") or {}), "conditions": [*others, wanted]}}


class Upkeep:
    """See the module's docstring."""

    def __init__(self, registry: Registry, gate: Gate) -> None:
        self._registry = registry
        self._gate = gate
        self._tables = {"prioritylevelconfigurations": LEVELS, "flowschemas": SCHEMAS}

    async def run(self, delay_s: float = 0.0) -> None:
        """Keep up for ever. `delay_s`: a start has more urgent things to do; the mandatory rules stand without objects."""
        await asyncio.sleep(delay_s)
        pause_s = RETRY_S
        while True:
            self._gate.changed.clear()
            if not await self._try():
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, CHECK_EVERY_S)
                continue
            pause_s = RETRY_S
            try:
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._gate.changed.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                continue  # nothing changed for long: what is there is looked at anyhow

    async def _try(self) -> bool:
        """Do what has to be done now; return False when some of it has to be tried again."""
        try:
            return await self.sync()
        except Exception:  # the worker boundary: what fails once must not end the upkeep
            log.exception("flow schemas and priority levels are not kept up, it is tried again")
            return False

    async def sync(self) -> bool:
        """Do what has to be done now, and return whether the server took all of it. Idempotent."""
        taken = True
        for plural, table in self._tables.items():
            kind = served_kind(self._registry.kinds, plural)
            cached = self._registry.cache.resource(kind.storage_prefix())
            present = {c.name for c in cached}
            wanted = {obj["metadata"]["name"]: obj for obj in table}
            writes = (self._ensure(kind, name, wanted.get(name)) for name in sorted({*wanted, *present}))
            taken &= all(await asyncio.gather(*writes))
        return await self._tell_dangling() and taken

    async def _ensure(self, kind: Kind, name: str, wanted: JsonObject | None) -> bool:
        """Make one object what the table says; return False when the server did not take it."""
        current = self._registry.current(kind, "", name)
        if wanted is not None:
            wanted = self._converted(kind, wanted)
        plan = plan_object(wanted, current.obj if current is not None else None)
        context = WriteContext(_WRITER, field_manager=FIELD_MANAGER, field_validation="Ignore")
        try:
            if plan.create is not None:
                await self._registry.create(kind, "", plan.create, context)
            elif plan.update is not None:
                log.info("%s %s is written anew: %s", kind.kind, name, plan.reason)
                assert current is not None, "what is absent is created"
                update = _at(plan.update, current.revision)
                await self._registry.update(kind, "", name, lambda _: update, context)
            elif plan.delete:
                log.info("%s %s is removed: %s", kind.kind, name, plan.reason)
                await self._registry.delete(kind, "", name, DeleteOptions(), context)
        except ApiError as error:
            return _is_overtaken(kind, name, error)
        return True

    def _converted(self, kind: Kind, wanted: JsonObject) -> JsonObject:
        """Return an object of the table in the version that this server stores, as a fresh copy with its defaults."""
        made: JsonObject = {**wanted, "metadata": {**wanted["metadata"]}}
        if kind.convert is not None and kind.api_version != wanted["apiVersion"]:
            made = kind.convert(made, wanted["apiVersion"], kind.api_version)
        return {**made, "apiVersion": kind.api_version}

    async def _tell_dangling(self) -> bool:
        levels_kind = served_kind(self._registry.kinds, "prioritylevelconfigurations")
        levels = {c.name for c in self._registry.cache.resource(levels_kind.storage_prefix())}
        kind = served_kind(self._registry.kinds, "flowschemas")
        names = [c.name for c in self._registry.cache.resource(kind.storage_prefix())]
        return all(await asyncio.gather(*(self._tell(kind, name, levels) for name in names)))

    async def _tell(self, kind: Kind, name: str, levels: set[str]) -> bool:
        """Write the condition of one schema; return False when the server did not take it."""
        current = self._registry.current(kind, "", name)
        planned = None if current is None else plan_dangling(current.obj, levels, self._registry.now())
        if current is None or planned is None:
            return True
        update = _at(planned, current.revision)
        context = WriteContext(_WRITER, field_manager=STATUS_MANAGER, subresource="status")
        try:
            await self._registry.update(kind, "", name, lambda _: update, context, combine=take_status)
        except ApiError as error:
            return _is_overtaken(kind, name, error)
        return True


def _is_overtaken(kind: Kind, name: str, error: ApiError) -> bool:
    """Tell whether a write failed because somebody else was first: their change is an event, and wakes the upkeep."""
    if error.reason in ("AlreadyExists", "NotFound", "Conflict"):
        return True
    log.warning("%s %s is not as it should be, it is tried again: %s", kind.kind, name, error)
    return False


def _at(obj: JsonObject, revision: int) -> JsonObject:
    """Return an object that says from which revision it was made: what changed meanwhile is not written over."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}


def served_kind(kinds: Kinds, plural: str) -> Kind:
    """Return the stored version of a kind of this group; every Kubernetes version serves one."""
    return kinds.stored(kinds.versions_of(GROUP, plural)[0])
