"""The scheduler's loop: changes of the cluster in, decisions in order, effects out.

Decides nothing itself: plan.py does. Decisions are made one after the other, without waiting in between; their effects
(bindings, status, deletions) are carried out by workers beside it, in parallel. A pod is assumed on its node from the
decision on. A crash loses nothing: what was not bound is listed again.

Bounds: `EFFECTS_LIMIT` effects wait for `EFFECT_WORKERS` workers; then decisions pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from tiphys.api.selectors import selector_of
from tiphys.api.views.config import Namespace
from tiphys.api.views.node import Node
from tiphys.api.views.service import Service
from tiphys.base.errors import ApiError
from tiphys.client.events import EventRecorder
from tiphys.client.reflector import object_key
from tiphys.client.slots import Slots
from tiphys.scheduler import effects
from tiphys.scheduler.plan import VOLUMES_HELP, Plan, plan_pod
from tiphys.scheduler.preemption import TERMINATING, Budget, Preemption, full_message, plan_preemption
from tiphys.scheduler.queue import Happening, SchedulingQueue, Waiting
from tiphys.scheduler.run import SchedulerDeps, Watched
from tiphys.scheduler.state import ClusterState, PodInfo, info_of, is_finished
from tiphys.scheduler.views import PersistentVolume, PersistentVolumeClaim, PlainWorkload, Pod, StorageClass, Workload
from tiphys.scheduler.volumes import VolumePlan, plan_volumes

log = logging.getLogger(__name__)

EFFECT_WORKERS = 64
EFFECTS_AT_ONCE = 8
"""Of the workers; more are at work only while effects hang (client/slots.py)."""
EFFECTS_LIMIT = 4096
SLICE_S = 0.005
"""How long decisions may go on before others on the event loop get their turn."""

V = TypeVar("V", PersistentVolumeClaim, PersistentVolume, StorageClass)
Owner = Workload | PlainWorkload
Effect = Callable[[], Awaitable[None]]


class Scheduler:
    """See the module's docstring."""

    def __init__(self, deps: SchedulerDeps, watched: Watched, recorder: EventRecorder) -> None:
        self._deps = deps
        self._watched = watched
        self._recorder = recorder
        self.state = ClusterState()
        self.queue = SchedulingQueue()
        self._woken = asyncio.Event()
        self._effects: asyncio.Queue[Effect] = asyncio.Queue(EFFECTS_LIMIT)
        self._slots = Slots(EFFECTS_AT_ONCE)

    async def run(self) -> None:
        """Follow the reflectors (which must have their first lists) and place pods, until cancelled."""
        watched = self._watched
        watched.nodes.on_change(self._node_changed)
        watched.namespaces.on_change(self._namespace_changed)
        watched.services.on_change(self._service_changed)
        watched.controllers.on_change(partial(self._owner_changed, "ReplicationController"))
        watched.replicasets.on_change(partial(self._owner_changed, "ReplicaSet"))
        watched.statefulsets.on_change(partial(self._owner_changed, "StatefulSet"))
        watched.claims.on_change(partial(self._storage_changed, self.state.claims))
        watched.volumes.on_change(partial(self._storage_changed, self.state.volumes))
        watched.classes.on_change(partial(self._storage_changed, self.state.classes))
        watched.pods.on_change(self._pod_changed)
        async with asyncio.TaskGroup() as group:
            for number in range(EFFECT_WORKERS):
                group.create_task(self._work(), name=f"scheduler-effects-{number}")
            await self._decide_for_ever()

    # Changes in

    def _now_s(self) -> float:
        return self._deps.clock.monotonic_s()

    def _happened(self, happening: Happening) -> None:
        if self.queue.wake(happening, self._now_s()):
            self._woken.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.state.remove_node(old.metadata.name)
            self._happened(Happening.NODE_CHANGED)
            return
        self.state.set_node(new)
        if old is None:
            self._happened(Happening.NODE_ADDED)
            return
        if old.spec != new.spec or old.metadata.labels != new.metadata.labels:
            self._happened(Happening.NODE_CHANGED)
        if old.status.allocatable != new.status.allocatable:
            self._happened(Happening.NODE_GREW)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is None:
            assert old is not None
            self.state.set_namespace(old.metadata.name, None)
        elif old is None or old.metadata.labels != new.metadata.labels:
            self.state.set_namespace(new.metadata.name, new.metadata.labels)
            self._happened(Happening.NAMESPACE_CHANGED)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        assert service is not None
        if old is None or new is None or old.spec.selector != new.spec.selector:
            selector = new.spec.selector if new is not None else None
            self.state.workloads.set_service(service.metadata.namespace, service.metadata.name, selector)

    def _owner_changed(self, kind: str, old: Owner | None, new: Owner | None) -> None:
        owner = new or old
        assert owner is not None
        if old is None or new is None or old.spec != new.spec:
            selector = new.spec.selector if new is not None else None
            self.state.workloads.set_owner(kind, owner.metadata.namespace, owner.metadata.name, selector)

    def _storage_changed(self, known: dict[str, V], old: V | None, new: V | None) -> None:
        view = new or old
        assert view is not None
        key = object_key(view.metadata)
        if new is None:
            known.pop(key, None)
        else:
            known[key] = new
        self._happened(Happening.STORAGE_CHANGED)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        try:
            self._follow_pod(old, new)
        except (ValueError, ApiError, msgspec.MsgspecError) as error:
            metadata = (new or old or Pod()).metadata
            log.error("pod %s is not understood and is left alone: %s", object_key(metadata), error)

    def _follow_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        assert pod is not None
        key = object_key(pod.metadata)
        if new is None or is_finished(new):
            self._stop_waiting(key)
            held = key in self.state.pods
            self.state.remove_pod(key)
            if held:
                self._happened(Happening.POD_GONE)
        elif new.spec.node_name:
            self._stop_waiting(key)
            self.state.set_pod(new)
            if old is None or not old.spec.node_name:
                self._happened(Happening.POD_PLACED)
            elif old.metadata.labels != new.metadata.labels:
                self._happened(Happening.POD_CHANGED)
        elif key not in self.state.assumed:
            self._want(new)

    def _want(self, pod: Pod) -> None:
        """A pod has no node: queue it if it is ours to place."""
        key = object_key(pod.metadata)
        if pod.spec.scheduler_name != self._deps.scheduler_name or pod.metadata.deletion_timestamp is not None:
            self._stop_waiting(key)
            return
        if pod.status.nominated_node_name and key not in self.state.nominated and key not in self.queue:
            # Found at the start: the room that was cleared for it is still its own.
            self.state.nominated[key] = replace(info_of(pod), node_name=pod.status.nominated_node_name)
        self.queue.set(info_of(pod), self._now_s())
        self._woken.set()

    def _stop_waiting(self, key: str) -> None:
        self.queue.remove(key)
        self.state.nominated.pop(key, None)

    # Decisions

    async def _decide_for_ever(self) -> None:
        while True:
            self._woken.clear()
            started_s = self._now_s()
            while (waiting := self.queue.pop(self._now_s())) is not None:
                try:
                    await self._decide(waiting)
                except Exception:  # the worker boundary: one pod must not stop the others
                    log.exception("deciding on pod %s failed and is tried again", waiting.info.key)
                    self.queue.back_off(waiting.info.key, self._now_s())
                if self._now_s() - started_s > SLICE_S:
                    await asyncio.sleep(0)
                    started_s = self._now_s()
            due_s = self.queue.next_due_s()
            try:
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self._now_s())):
                    await self._woken.wait()
            except TimeoutError:
                pass  # something is due

    async def _decide(self, waiting: Waiting) -> None:
        info = waiting.info
        plan = plan_pod(info, self.state, self._deps.randomness)
        if plan.node is None:
            await self._decline(info, plan)
            return
        if info.claims:
            volumes = plan_volumes(info, self.state, plan.node)
            if not volumes.ready:
                self._keep_place(info, plan.node)
                await self._effects.put(partial(self._prepare_volumes, info, volumes, plan.node))
                return
        self._stop_waiting(info.key)
        self.state.assume(info, plan.node)
        await self._effects.put(partial(self._bind, info, plan.node))

    def _keep_place(self, info: PodInfo, node_name: str) -> None:
        """Its volumes are not ready: the pod waits for them, and nobody of its importance gets its room meanwhile."""
        self.state.nominated[info.key] = replace(info, node_name=node_name)
        self.queue.park(info.key, VOLUMES_HELP, self._now_s())

    async def _decline(self, info: PodInfo, plan: Plan) -> None:
        """Say why there is no node, and make room if the pod is important enough."""
        known = self.state.nominated.get(info.key)
        nominated = known.node_name if known is not None else info.pod.status.nominated_node_name
        preemption = plan_preemption(
            info, self.state, plan.candidates, self._budgets(), nominated, self._deps.randomness
        )
        message = full_message(plan, preemption)
        helped_by = plan.helped_by
        if preemption.node is not None:
            self.state.nominated[info.key] = replace(info, node_name=preemption.node)
            helped_by |= {Happening.POD_GONE}
            self.state.evicting |= {victim.uid for victim in preemption.victims}
        elif preemption.message != TERMINATING:
            self.state.nominated.pop(info.key, None)
            preemption = replace(preemption, node="")
        self.queue.park(info.key, helped_by, self._now_s())
        self._recorder.record(info.pod, "Warning", "FailedScheduling", message)
        await self._effects.put(partial(self._tell, info, message, preemption))

    def _budgets(self) -> list[Budget]:
        return [
            Budget(
                budget.metadata.namespace,
                selector_of(budget.spec.selector),
                budget.status.disruptions_allowed or 0,
                budget.status.disrupted_pods,
            )
            for budget in self._watched.budgets.list()
        ]

    # Effects out

    async def _work(self) -> None:
        while True:
            effect = await self._effects.get()
            give = await self._slots.take()
            try:
                await effect()
            except Exception:  # the worker boundary
                log.exception("an effect of a decision failed; what it left undone is seen at the next try")
            finally:
                give()

    async def _bind(self, info: PodInfo, node_name: str) -> None:
        # The kubelet may hear of the pod before this hears that it is bound: what it tells of it comes after.
        decided_s = self._deps.clock.now_s()
        try:
            await effects.bind(self._deps.client, info, node_name)
        except (ApiError, OSError) as error:
            self._binding_failed(info, node_name, error)
        else:
            message = f"Successfully assigned {info.key} to {node_name}"
            self._recorder.record(info.pod, "Normal", "Scheduled", message, decided_s)

    def _binding_failed(self, info: PodInfo, node_name: str, error: ApiError | OSError) -> None:
        """Take the assumption back. The pod is tried again if it still waits; it may be gone, or bound after all."""
        self.state.forget(info.key, info.uid)
        self._happened(Happening.POD_GONE)
        current = self._watched.pods.get(info.key)
        if current is None or current.metadata.uid != info.uid or current.spec.node_name:
            return
        log.warning("binding pod %s to %s failed and is tried again: %s", info.key, node_name, error)
        self._want(current)
        if info.key in self.queue:
            self.queue.back_off(info.key, self._now_s())
            self._woken.set()

    async def _prepare_volumes(self, info: PodInfo, plan: VolumePlan, node_name: str) -> None:
        try:
            for volume, claim in plan.take:
                await effects.reserve_volume(self._deps.client, volume, claim)
            for claim in plan.provision:
                await effects.select_node(self._deps.client, claim, node_name)
        except (ApiError, OSError) as error:
            log.warning("volumes of pod %s on %s: %s; it is tried again", info.key, node_name, error)
            self.queue.back_off(info.key, self._now_s())
            self._woken.set()

    async def _tell(self, info: PodInfo, message: str, preemption: Preemption) -> None:
        """Write why a pod has no node; then evict its victims, so that the nomination is known before."""
        client, now_s = self._deps.client, self._deps.clock.now_s()
        try:
            await effects.tell_unschedulable(client, info, message, now_s, preemption.node)
            for victim in preemption.victims:
                await effects.evict(client, victim, now_s)
                text = f"Preempted by pod {info.uid} on node {preemption.node}"
                self._recorder.record(victim.pod, "Normal", "Preempted", text)
        except (ApiError, OSError) as error:
            self.state.evicting -= {victim.uid for victim in preemption.victims}
            if not isinstance(error, ApiError) or error.code != 404:
                log.warning("pod %s: its status or room for it could not be made: %s", info.key, error)
