"""A small in-memory API server behind the `Client` seam, for the controllers' tests.

It keeps what the controllers rely on: one revision sequence, generation, optimistic locks, uid preconditions, the status
subresource, finalizers, graceful deletion of running pods, list and watch. A test can make the process "crash" after the
n-th write (`Crash`), lose the answer of a write, or hold back the watch.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import orjson

from tiphys.base import errors
from tiphys.base.clock import Clock, ManualClock, Randomness, format_time
from tiphys.client import resources
from tiphys.client.interface import JSON_PATCH, STRATEGIC_PATCH, ListResult, Resource, WatchEvent

ALL = [r for r in vars(resources).values() if isinstance(r, Resource)]


class TickingClock(ManualClock):
    """A manual clock that moves a microsecond whenever it is read, as real ones do: names of events come from it."""

    def now_s(self) -> float:
        self.current_s += 1e-6
        return self.current_s


class Crash(BaseException):
    """The process of the controllers ends here."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class FakeCluster:
    """See the module's docstring."""

    def __init__(self, clock: Clock | None = None, seed: int = 1) -> None:
        self.clock = clock or TickingClock()
        self.random = Randomness(seed)
        self.revision = 1
        self.objects: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self.log: list[tuple[int, str, tuple[str, str], bytes]] = []
        """(revision, event type, (group, plural), object)."""
        self.changed = asyncio.Event()
        self.writes: list[str] = []
        self.calls: dict[str, int] = {}
        self.crash_after: int | None = None
        """Raise Crash instead of answering the write of this number (counted from 1)."""
        self.lose_answers: int = 0
        """How many of the next creates are done but answered with a broken connection."""
        self.watch_gate = asyncio.Event()
        self.watch_gate.set()
        self.refuse: Callable[[str, Resource, Mapping[str, Any]], errors.ApiError | None] = lambda *_: None
        self.resources: list[Resource] = list(ALL)
        self.graceful_pods = False

    # Test's view

    def get_now(self, resource: Resource, key: str) -> dict[str, Any] | None:
        namespace, _, name = key.rpartition("/")
        return self.objects.get((resource.group, resource.plural, namespace, name))

    def list_now(self, resource: Resource, namespace: str = "") -> list[dict[str, Any]]:
        return [
            o
            for (g, p, ns, _), o in self.objects.items()
            if (g, p) == (resource.group, resource.plural) and (not namespace or ns == namespace)
        ]

    def put(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        """Create an object as a user would, outside the count of writes."""
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        key = (resource.group, resource.plural, meta.get("namespace", ""), meta["name"])
        if key in self.objects:
            raise errors.already_exists(resource.group, resource.plural, meta["name"])
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        meta.setdefault("uid", self.random.uid())
        meta.setdefault("creationTimestamp", format_time(self.clock.now_s()))
        meta.setdefault("generation", 1)
        return self._store(resource, key, obj, "ADDED")

    def change(self, resource: Resource, key: str, patch: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        namespace, _, name = key.rpartition("/")
        return self._patch(resource, namespace, name, patch, subresource)

    def remove(self, resource: Resource, key: str, grace_period_s: int | None = 0) -> None:
        namespace, _, name = key.rpartition("/")
        self._delete(resource, namespace, name, grace_period_s=grace_period_s)

    # Client

    async def request(self, method: str, path: str, *, query: Any = None, body: Any = None, **_: Any) -> bytes:
        await asyncio.sleep(0)
        if method == "DELETE":
            resource, namespace = self._resource_of(path)
            for obj in self.list_now(resource, namespace):
                self._delete(resource, namespace, obj["metadata"]["name"])
            return b'{"kind":"Status","apiVersion":"v1","status":"Success"}'
        return orjson.dumps(self._discovery(path))

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        await self._call("get", resource)
        return orjson.dumps(self._find(resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        await self._call("list", resource)
        items = [orjson.dumps(o) for o in self.list_now(resource, namespace)]
        return ListResult(items, str(self.revision))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        position = len(self.log)
        while position and self.log[position - 1][0] > int(resource_version):
            position -= 1
        while True:
            while position < len(self.log):
                if not self.watch_gate.is_set():
                    await self.watch_gate.wait()
                _, type_, slot, data = self.log[position]
                position += 1
                if slot == (resource.group, resource.plural):
                    yield WatchEvent(type_, data)  # type: ignore[arg-type]
            event = self.changed
            await event.wait()

    async def create(
        self, resource: Resource, namespace: str, obj: Mapping[str, Any], *, name: str = "", subresource: str = ""
    ) -> bytes:
        async def write() -> dict[str, Any]:
            refusal = self.refuse("create", resource, obj)
            if refusal:
                raise refusal
            if subresource == "eviction":
                self._delete(resource, namespace, name)
                return {}
            new = dict(obj)
            new["metadata"] = {**obj["metadata"], **({"namespace": namespace} if namespace else {})}
            if not new["metadata"].get("name"):
                new["metadata"]["name"] = new["metadata"]["generateName"] + self.random.suffix()
            return self.put(resource, new)

        answer = await self._write(f"create {resource.plural} {obj['metadata'].get('name', '')}", resource, write)
        if self.lose_answers and resource.plural != "events":
            self.lose_answers -= 1
            raise ConnectionResetError("the connection broke")
        return answer

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        async def write() -> dict[str, Any]:
            old = self._find(resource, namespace, name)
            self._check(resource, name, old, obj["metadata"])
            new = copy.deepcopy(dict(obj))
            key = (resource.group, resource.plural, namespace, name)
            self._store(resource, key, new, "MODIFIED")
            self._end_if_free(resource, key)
            return new

        return await self._write(f"update {resource.plural} {name} {subresource}".strip(), resource, write)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        patch_type: str = "application/merge-patch+json",
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        async def write() -> dict[str, Any]:
            return self._patch(resource, namespace, name, patch, subresource)

        assert patch_type != JSON_PATCH
        if patch_type == STRATEGIC_PATCH and "conditions" in patch.get("status", {}):
            now = self._find(resource, namespace, name).get("status", {}).get("conditions", [])
            types = {c["type"] for c in patch["status"]["conditions"]}
            kept = [c for c in now if c["type"] not in types]
            patch = {**patch, "status": {**patch["status"], "conditions": [*kept, *patch["status"]["conditions"]]}}
        return await self._write(f"patch {resource.plural} {name} {subresource}".strip(), resource, write)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> bytes:
        async def write() -> dict[str, Any]:
            return self._delete(
                resource, namespace, name, uid=uid, grace_period_s=grace_period_s, propagation=propagation
            )

        return await self._write(f"delete {resource.plural} {name}", resource, write)

    async def close(self) -> None:
        return None

    # Inside

    async def _call(self, verb: str, resource: Resource) -> None:
        self.calls[f"{verb} {resource.plural}"] = self.calls.get(f"{verb} {resource.plural}", 0) + 1
        await asyncio.sleep(0)

    async def _write(self, text: str, resource: Resource, write: Callable[[], Awaitable[dict[str, Any]]]) -> bytes:
        await asyncio.sleep(0)
        result = await write()
        if resource.plural != "events":
            self.writes.append(text)
            self.calls[" ".join(text.split()[:2])] = self.calls.get(" ".join(text.split()[:2]), 0) + 1
            if self.crash_after is not None and len(self.writes) >= self.crash_after:
                self.crash_after = None
                raise Crash(text)
        await asyncio.sleep(0)
        return orjson.dumps(result)

    def _find(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        obj = self.objects.get((resource.group, resource.plural, namespace, name))
        if obj is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return obj

    def _store(
        self, resource: Resource, key: tuple[str, str, str, str], obj: dict[str, Any], type_: str
    ) -> dict[str, Any]:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        if type_ == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        self.log.append((self.revision, type_, key[:2], orjson.dumps(obj)))
        event, self.changed = self.changed, asyncio.Event()
        event.set()
        return obj

    def _check(self, resource: Resource, name: str, old: dict[str, Any], meta: Mapping[str, Any]) -> None:
        if meta.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, name)
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise errors.conflict(resource.group, resource.plural, name, "the UID in the precondition differs")

    def _patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, subresource: str = ""
    ) -> dict[str, Any]:
        old = self._find(resource, namespace, name)
        self._check(resource, name, old, patch.get("metadata") or {})
        new = merge(copy.deepcopy(old), patch)
        if subresource == "status":
            kept = {k: v for k, v in old.items() if k != "status"}
            new = {**copy.deepcopy(kept), "status": new.get("status", {})}
        elif new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        if orjson.dumps(new) == orjson.dumps(old):
            return old
        key = (resource.group, resource.plural, namespace, name)
        self._store(resource, key, new, "MODIFIED")
        self._end_if_free(resource, key)
        return new

    def _end_if_free(self, resource: Resource, key: tuple[str, str, str, str]) -> None:
        obj = self.objects[key]
        meta = obj["metadata"]
        held = meta.get("finalizers") or (resource.plural == "namespaces" and obj.get("spec", {}).get("finalizers"))
        if meta.get("deletionTimestamp") and not held and not meta.get("deletionGracePeriodSeconds"):
            self._store(resource, key, obj, "DELETED")

    def _delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> dict[str, Any]:
        old = self._find(resource, namespace, name)
        self._check(resource, name, old, {"uid": uid} if uid else {})
        obj = copy.deepcopy(old)
        meta = obj["metadata"]
        grace = 0
        if self.graceful_pods and resource.plural == "pods" and obj.get("spec", {}).get("nodeName"):
            grace = 30 if grace_period_s is None else grace_period_s
        if propagation in ("Foreground", "Orphan"):
            wanted = "foregroundDeletion" if propagation == "Foreground" else "orphan"
            meta["finalizers"] = sorted({*meta.get("finalizers", ()), wanted})
        held = meta.get("finalizers") or (resource.plural == "namespaces" and obj.get("spec", {}).get("finalizers"))
        key = (resource.group, resource.plural, namespace, name)
        if grace or held:
            meta.setdefault("deletionTimestamp", format_time(self.clock.now_s()))
            meta["deletionGracePeriodSeconds"] = grace
            return self._store(resource, key, obj, "MODIFIED")
        self._store(resource, key, obj, "DELETED")
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _resource_of(self, path: str) -> tuple[Resource, str]:
        parts = path.strip("/").split("/")
        for resource in self.resources:
            if parts[-1] == resource.plural and (resource.group in parts or (not resource.group and parts[0] == "api")):
                return resource, parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else ""
        raise AssertionError(path)

    def _discovery(self, path: str) -> Any:
        groups: dict[str, str] = {r.group: r.version for r in self.resources if r.group}
        if path == "/apis":
            return {
                "groups": [
                    {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}}
                    for g, v in groups.items()
                ]
            }
        group = "" if path == "/api/v1" else path.split("/")[2]
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        return {
            "resources": [
                {
                    "name": r.plural,
                    "kind": r.kind,
                    "namespaced": r.namespaced,
                    "verbs": ["create"] if r.plural == "bindings" else verbs,
                }
                for r in self.resources
                if r.group == group
            ]
        }


async def settle(rounds: int = 60) -> None:
    """Let every task run until nothing is ready; no time passes."""
    for _ in itertools.repeat(None, rounds):
        await asyncio.sleep(0)
