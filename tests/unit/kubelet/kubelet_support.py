"""Support for kubelet tests: a cluster in memory behind `Client`, virtual time, and a node that runs on both."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tiphys.base import errors
from tiphys.base.clock import LoopClock, Randomness, format_time
from tiphys.client.interface import MERGE_PATCH, STRATEGIC_PATCH, ListResult, Resource, WatchEvent
from tiphys.client.resources import PODS
from tiphys.kubelet.machine import Machine
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.probehandler import AgreeableProbes
from tiphys.kubelet.run import Kubelet, KubeletDeps
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.simulated import Profile, SimulatedRuntime

NODE = "node-1"
Json = dict[str, Any]


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever nothing is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 1000.0

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._virtual_s = max(self._virtual_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run_virtual(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(test(), 100_000))
    finally:
        loop.close()


class MemoryCluster:
    """A `Client` over a dict. Knows graceful deletion of pods, uid preconditions and merging conditions by type."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.revision = 100
        self.history: list[tuple[int, str, str, Json]] = []
        self.changed = asyncio.Condition()
        self.broken = False
        """While True every call raises ConnectionError."""
        self.patches: list[tuple[str, Any]] = []

    # Reading

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        self._check()
        return self._encode(self._find(resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ListResult:
        self._check()
        items = [
            self._encode(o)
            for (plural, ns, _), o in self.objects.items()
            if plural == resource.plural and namespace in ("", ns) and _selected(o, field_selector)
        ]
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
        self._check()
        after = int(resource_version)
        while True:
            for revision, plural, kind, obj in list(self.history):
                here = namespace in ("", obj["metadata"].get("namespace", ""))
                if here and revision > after and plural == resource.plural and _selected(obj, field_selector):
                    yield WatchEvent(kind, self._encode(obj))  # type: ignore[arg-type]
                after = max(after, revision)
            async with self.changed:
                await self.changed.wait()
            self._check()

    # Writing

    async def create(
        self, resource: Resource, namespace: str, obj: Mapping[str, Any], *, name: str = "", subresource: str = ""
    ) -> bytes:
        self._check()
        await asyncio.sleep(0.001)
        if subresource == "token":
            return msgspec.json.encode(
                {
                    "status": {
                        "token": f"token-{self.revision}",
                        "expirationTimestamp": format_time(LoopClock().now_s() + 3600),
                    }
                }
            )
        new = copy.deepcopy(dict(obj))
        meta = new.setdefault("metadata", {})
        if resource.namespaced:
            meta["namespace"] = namespace
        key = (resource.plural, namespace if resource.namespaced else "", meta["name"])
        if key in self.objects:
            raise errors.already_exists(resource.group, resource.plural, meta["name"])
        meta.setdefault("uid", f"uid-{meta['name']}-{self.revision}")
        meta.setdefault("creationTimestamp", format_time(LoopClock().now_s()))
        await self._put(resource, key, new, "ADDED")
        return self._encode(new)

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        self._check()
        self._find(resource, namespace, name)
        new = copy.deepcopy(dict(obj))
        await self._put(resource, (resource.plural, namespace, name), new, "MODIFIED")
        return self._encode(new)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        patch_type: str = MERGE_PATCH,
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        self._check()
        await asyncio.sleep(0.001)
        self._check()
        new = copy.deepcopy(self._find(resource, namespace, name))
        uid = patch.get("metadata", {}).get("uid")
        if uid and uid != new["metadata"]["uid"]:
            raise errors.conflict(resource.group, resource.plural, name, "the uid in the precondition does not match")
        if resource is PODS and subresource == "status":
            self.patches.append((name, patch["status"]))
        _merge(new, patch, strategic=patch_type == STRATEGIC_PATCH)
        await self._put(resource, (resource.plural, namespace, name), new, "MODIFIED")
        return self._encode(new)

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
        self._check()
        obj = copy.deepcopy(self._find(resource, namespace, name))
        if uid and obj["metadata"]["uid"] != uid:
            raise errors.conflict(resource.group, resource.plural, name, "the UID in the precondition does not match")
        grace = grace_period_s
        if resource.plural == "pods" and grace is None:
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
        if resource.plural == "pods" and grace:
            obj["metadata"].setdefault("deletionTimestamp", format_time(LoopClock().now_s() + grace))
            obj["metadata"]["deletionGracePeriodSeconds"] = grace
            await self._put(resource, (resource.plural, namespace, name), obj, "MODIFIED")
        else:
            del self.objects[(resource.plural, namespace, name)]
            await self._tell(resource, obj, "DELETED")
        return self._encode(obj)

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        raise AssertionError("the kubelet names resources; it does not write paths")

    async def close(self) -> None:
        return None

    # Insides

    def _check(self) -> None:
        if self.broken:
            raise ConnectionError("the API server is away")

    def _find(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.objects.get((resource.plural, namespace if resource.namespaced else "", name))
        if found is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    async def _put(self, resource: Resource, key: tuple[str, str, str], obj: Json, kind: str) -> None:
        self.objects[key] = obj
        await self._tell(resource, obj, kind)

    async def _tell(self, resource: Resource, obj: Json, kind: str) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self.history.append((self.revision, resource.plural, kind, copy.deepcopy(obj)))
        async with self.changed:
            self.changed.notify_all()

    def _encode(self, obj: Json) -> bytes:
        return msgspec.json.encode(obj)

    def pod(self, name: str, namespace: str = "default") -> Json:
        return self.objects[("pods", namespace, name)]

    def has_pod(self, name: str) -> bool:
        return ("pods", "default", name) in self.objects

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return (reason, message) of the events about an object, in order of creation."""
        return [
            (o["reason"], o["message"])
            for (plural, _, _), o in self.objects.items()
            if plural == "events" and o["involvedObject"]["name"] == name
        ]

    async def until(self, what: Callable[[], bool], limit_s: float = 3600) -> None:
        """Wait for a state of the cluster; fail after virtual `limit_s`."""
        async with asyncio.timeout(limit_s):
            while not what():
                async with self.changed:
                    await self.changed.wait()


def _selected(obj: Json, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, wanted = term.partition("=")
        value: Any = obj
        for part in path.split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if value != wanted:
            return False
    return True


def _merge(target: Json, patch: Mapping[str, Any], *, strategic: bool) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value, strategic=strategic)
        elif strategic and key in ("conditions", "podIPs"):
            merge_key = "type" if key == "conditions" else "ip"
            entries = {e[merge_key]: e for e in target.get(key) or ()}
            for entry in value:
                if entry.get("$patch") == "delete":
                    entries.pop(entry[merge_key], None)
                else:
                    _merge(entries.setdefault(entry[merge_key], {}), entry, strategic=True)
            target[key] = list(entries.values())
        else:
            target[key] = copy.deepcopy(value)


def pod_object(name: str, containers: list[Json] | None = None, **spec: Any) -> Json:
    """Return a pod as the API server would have it after scheduling."""
    metadata = {"name": name, "namespace": "default", "generation": 1, **spec.pop("metadata", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": containers or [{"name": "web", "image": "nginx"}],
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def bound(obj: Json) -> BoundPod:
    """Return the view of a pod object."""
    obj["metadata"].setdefault("uid", "u1")
    return msgspec.convert(obj, BoundPod)


class Node:
    """A kubelet with a simulated runtime on a cluster in memory. An async context manager."""

    def __init__(
        self, cluster: MemoryCluster | None = None, runtime: SimulatedRuntime | None = None, **more: Any
    ) -> None:
        self.cluster = cluster or MemoryCluster()
        clock, randomness = more.pop("clock", None) or LoopClock(), Randomness(7)
        self.limit_s: float = more.pop("limit_s", 3600)
        profile = more.pop("profile", Profile())
        self.runtime = runtime or SimulatedRuntime(profile, clock, randomness, SimulatedPodNetwork("10.244.0.0/24"))
        self.deps = KubeletDeps(
            client=self.cluster,
            runtime=more.pop("wrapped", None) or self.runtime,
            clock=clock,
            randomness=randomness,
            node_name=NODE,
            node_addresses=("192.168.0.1",),
            machine=more.pop("machine", Machine()),
            network_probes=more.pop("network_probes", AgreeableProbes()),
            **more,
        )
        self.kubelet = Kubelet(self.deps)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Node:
        self._task = asyncio.create_task(self.kubelet.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def run_pod(self, pod: Json) -> None:
        await self.cluster.create(PODS, "default", pod)

    async def until_phase(self, name: str, phase: str) -> Json:
        try:
            await self.cluster.until(lambda: self.cluster.pod(name)["status"].get("phase") == phase, self.limit_s)
        except TimeoutError:
            await self.kubelet.context.recorder.flush()
            raise AssertionError((self.cluster.pod(name)["status"], self.cluster.events(name))) from None
        return self.cluster.pod(name)["status"]

    def condition(self, name: str, kind: str) -> Json:
        return next(c for c in self.cluster.pod(name)["status"]["conditions"] if c["type"] == kind)
