"""The kubelet of one node.

`run_kubelet` starts everything and runs until cancelled; containers go on when it ends and are adopted when it starts
again. Order of a start: the runtime's records are read, then pods are watched (each gets its worker, which adopts what
runs), then what belongs to no pod is removed. Cheap: an idle node costs a few tasks and two watches.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tiphys.api.views.service import Service
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.client.events import EventRecorder
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.client.resources import PODS, SERVICES
from tiphys.kubelet.admission import admit_pod
from tiphys.kubelet.context import NodeContext, Writes
from tiphys.kubelet.eviction import run_eviction
from tiphys.kubelet.garbage import run_garbage
from tiphys.kubelet.images import Images
from tiphys.kubelet.machine import Machine
from tiphys.kubelet.node import NodeFacts, allocatable, node_labels
from tiphys.kubelet.objects import Objects
from tiphys.kubelet.pod import BoundPod, is_terminal, pod_reference
from tiphys.kubelet.podfiles import NoFiles, PodFiles
from tiphys.kubelet.probehandler import NetworkProbes, SocketProbes
from tiphys.kubelet.registration import Registration
from tiphys.kubelet.rotation import run_rotation
from tiphys.kubelet.worker import Phase, PodWorker
from tiphys.runtime.interface import Runtime, Sandbox

log = logging.getLogger(__name__)

RESUBSCRIBE_S = 1.0


@dataclass(frozen=True, slots=True)
class KubeletDeps:
    """What a kubelet needs. Paths are absolute."""

    client: Client
    runtime: Runtime
    clock: Clock
    randomness: Randomness
    node_name: str
    node_addresses: tuple[str, ...]
    machine: Machine
    """machine.read_machine(root) on a real node."""
    files: PodFiles = field(default_factory=NoFiles)
    """directory.PodDirectory(...) on a real node."""
    network_probes: NetworkProbes = field(default_factory=SocketProbes)
    """AgreeableProbes() on a simulated node."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    cgroup_root: str = "/"
    kubernetes_version: str = "v1.37.0"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    pod_cidr: str = ""
    services: Reflector[Service] | None = None
    """Shared by many nodes in one process, run by its owner; None: the kubelet runs its own."""
    writes: Writes = field(default_factory=Writes)
    """Shared by many nodes in one process."""
    server_tls: ssl.SSLContext | None = None
    """Of the kubelet's API; it must ask for client certificates. None: no server."""
    server_address: str = "0.0.0.0"
    port: int = 10250
    """0: any free port; the Node object tells which."""
    allowed_clients: tuple[str, ...] = ("kube-apiserver-kubelet-client", "system:masters")
    """Common names or organizations of client certificates that the server obeys."""


class Kubelet:
    """The workers of a node, by pod uid. `run_kubelet` owns it; server.py reads it."""

    def __init__(self, deps: KubeletDeps) -> None:
        self.deps = deps
        recorder = EventRecorder(
            deps.client, "kubelet", deps.node_name, deps.clock, deps.randomness, slots=deps.writes.events
        )
        self.pods: Reflector[BoundPod] = Reflector(
            deps.client,
            PODS,
            BoundPod,
            field_selector=f"spec.nodeName={deps.node_name}",
            randomness=deps.randomness,
        )
        self.objects = Objects(deps.client)
        self._allocatable = allocatable(deps.machine)
        self.context = NodeContext(
            client=deps.client,
            runtime=deps.runtime,
            recorder=recorder,
            clock=deps.clock,
            randomness=deps.randomness,
            files=deps.files,
            images=Images(deps.runtime, recorder, deps.clock),
            objects=self.objects,
            services=Reflector(deps.client, SERVICES, Service, randomness=deps.randomness)
            if deps.services is None
            else deps.services,
            network_probes=deps.network_probes,
            node_name=deps.node_name,
            host_addresses=deps.node_addresses,
            allocatable=lambda: self._allocatable,
            machine_memory_bytes=deps.machine.memory_bytes,
            writes=deps.writes,
            cluster_dns=deps.cluster_dns,
            cluster_domain=deps.cluster_domain,
            cgroup_root=deps.cgroup_root,
        )
        self.workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._by_sandbox: dict[str, PodWorker] = {}
        self._adopted: dict[str, list[Sandbox]] = {}
        self._facts: NodeFacts | None = None

    async def run(self) -> None:
        """Run until cancelled."""
        deps = self.deps
        await deps.runtime.start()
        try:
            for sandbox in await deps.runtime.list_pod_sandboxes():
                self._adopted.setdefault(sandbox.uid, []).append(sandbox)
            await self._run_parts()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.objects.close()
            await deps.files.close()
            await deps.runtime.stop()

    async def _run_parts(self) -> None:
        deps = self.deps
        async with asyncio.TaskGroup() as group:
            port = deps.port
            if deps.server_tls is not None:
                from tiphys.kubelet.server import serve

                port = await serve(self, group)
            registration = Registration(
                deps.client, deps.runtime, self.context.recorder, deps.clock, deps.randomness, await self._node(port)
            )
            group.create_task(self.context.recorder.run(), name="events")
            group.create_task(self._run_events(), name="runtime events")
            if deps.services is None:
                group.create_task(self.context.services.run(), name="services")
            self.pods.on_change(self._pod_changed)
            group.create_task(self.pods.run(), name="pods")
            group.create_task(registration.run(), name="registration")
            group.create_task(registration.run_lease(), name="lease")
            await self.pods.synced()
            await self._remove_orphans()
            group.create_task(run_garbage(self.context), name="garbage")
            group.create_task(run_eviction(self), name="eviction")
            group.create_task(run_rotation(self.context), name="log rotation")

    async def _node(self, port: int) -> NodeFacts:
        deps = self.deps
        self._facts = NodeFacts(
            name=deps.node_name,
            addresses=deps.node_addresses,
            machine=deps.machine,
            kubernetes_version=deps.kubernetes_version,
            runtime_version=await deps.runtime.version(),
            port=port,
            labels=deps.labels,
            taints=deps.taints,
            pod_cidr=deps.pod_cidr,
        )
        return self._facts

    # Pods

    def _pod_changed(self, old: BoundPod | None, new: BoundPod | None) -> None:
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.vanish()
        if new is None:
            return
        worker = self.workers.get(new.metadata.uid)
        if worker is not None:
            worker.update(new)
        else:
            self._add(new)

    def _add(self, pod: BoundPod) -> None:
        uid = pod.metadata.uid
        adopted = self._adopted.pop(uid, [])
        worker = PodWorker(
            self.context,
            pod,
            [s.id for s in adopted],
            on_state=lambda: self._note(uid),
            others=lambda: self._others(uid),
        )
        if not adopted and not pod.metadata.deletion_timestamp and not is_terminal(pod):
            self._admit(pod, worker)
        self.workers[uid] = worker
        self._note(uid)
        task = asyncio.create_task(
            self._run_worker(uid, worker), name=f"pod {pod.metadata.namespace}/{pod.metadata.name}"
        )
        self._tasks[uid] = task

    def _admit(self, pod: BoundPod, worker: PodWorker) -> None:
        others = self._others(pod.metadata.uid)
        facts = self._facts
        labels = node_labels(facts) if facts else {}
        # Labels that users put on the node are not known here, so only the scheduler's word counts for those.
        checked = pod if _needs_only(pod, labels) else _without_selectors(pod)
        refusal = admit_pod(checked, others, self._allocatable, labels, self.deps.node_name)
        if refusal is not None:
            worker.reject(refusal.reason, refusal.message)
            self.context.recorder.record(pod_reference(pod), "Warning", refusal.reason, refusal.message)

    def _others(self, uid: str) -> list[BoundPod]:
        """Return the other pods that take from this node, as they were granted."""
        return [
            w.granted_pod for w in self.workers.values() if w.phase is Phase.RUNNING or w.phase is Phase.ENDING
            if not w.rejected and w.pod.metadata.uid != uid
        ]  # fmt: skip

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # the worker boundary: one pod's failure must not end the node
            log.exception("the worker of pod %s/%s failed; it starts again with the pod's next change or in 10 s",
                          worker.pod.metadata.namespace, worker.pod.metadata.name)  # fmt: skip
            await asyncio.sleep(10.0)
            self._forget(uid)
            current = self.pods.get(f"{worker.pod.metadata.namespace}/{worker.pod.metadata.name}")
            if current is not None and current.metadata.uid == uid:
                self._adopted[uid] = [s for s in await self.deps.runtime.list_pod_sandboxes() if s.uid == uid]
                self._add(current)
        else:
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        for sandbox_id in [s for s, w in self._by_sandbox.items() if w.pod.metadata.uid == uid]:
            del self._by_sandbox[sandbox_id]

    def _note(self, uid: str) -> None:
        """Remember which sandboxes belong to a worker, for runtime events."""
        worker = self.workers.get(uid)
        if worker is not None:
            for sandbox_id in worker.sandbox_ids:
                self._by_sandbox[sandbox_id] = worker

    # Runtime

    async def _run_events(self) -> None:
        while True:
            try:
                async for event in self.deps.runtime.events():
                    worker = self._by_sandbox.get(event.sandbox_id)
                    if worker is not None:
                        worker.wake()
            except (TiphysError, OSError) as error:
                log.warning("runtime events are read again in %.0f s: %s", RESUBSCRIBE_S, error)
            await asyncio.sleep(RESUBSCRIBE_S)
            for worker in list(self.workers.values()):
                worker.wake()

    async def _remove_orphans(self) -> None:
        """Remove what a pod left that was deleted while the kubelet was away."""
        orphans, self._adopted = self._adopted, {}
        for uid, sandboxes in orphans.items():
            for sandbox in sandboxes:
                log.info("pod %s/%s is gone: its sandbox is removed", sandbox.namespace, sandbox.name)
                try:
                    containers = await self.deps.runtime.list_containers(sandbox.id)
                    await asyncio.gather(*(self.deps.runtime.stop_container(c.id, 2.0) for c in containers))
                    await self.deps.runtime.remove_pod_sandbox(sandbox.id)
                except (TiphysError, OSError) as error:
                    log.warning("sandbox %s is removed at the next start: %s", sandbox.id, error)
            await self.context.files.remove_logs(uid)
        for uid in await self.context.files.orphans(frozenset(self.workers)):
            await self.context.files.unmount(uid)
            await self.context.files.remove_logs(uid)


def _needs_only(pod: BoundPod, labels: Mapping[str, str]) -> bool:
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    keys = set(pod.spec.node_selector)
    for term in required.node_selector_terms if required else ():
        keys |= {r.key for r in term.match_expressions}
    return keys <= set(labels)


def _without_selectors(pod: BoundPod) -> BoundPod:
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_selector={}, affinity=None))


async def run_kubelet(deps: KubeletDeps) -> None:
    """Run one node's kubelet until cancelled."""
    await Kubelet(deps).run()
