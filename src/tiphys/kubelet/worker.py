"""One pod on this node: brings the runtime to what the pod wants, until the pod is gone.

One task a pod. It sleeps until something happens (a change of the pod, a runtime event, a probe verdict, the end of an
operation of its own, a timer), then observes, plans (plan.py) and applies. Slow effects (volumes and sandbox, starting
containers, stopping one) are child tasks that the plan leaves alone while they run. Invariants: at most one start
sequence at a time, in the plan's order; the API object is deleted only after everything has stopped and the last
status is written, so a crash at any point is mended by planning again from the runtime's state. Long, because every
step of a pod's life must be read against the others.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from tiphys.base.clock import parse_time
from tiphys.base.errors import ApiError, TiphysError
from tiphys.base.orderedset import OrderedSet
from tiphys.client.events import EventKind
from tiphys.client.resources import PODS
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.operations import Operations
from tiphys.kubelet.plan import (
    Backoff,
    Kill,
    Plan,
    PodRuntime,
    Verdicts,
    arrange,
    next_backoff,
    plan_pod,
    plan_stop,
)
from tiphys.kubelet.pod import BoundPod, find_container, grace_period_s, is_terminal, pod_reference
from tiphys.kubelet.podfiles import VolumeFailed
from tiphys.kubelet.prober import Prober
from tiphys.kubelet.resize import RETRY_S, Granted, Resizer, apply_grant, with_granted
from tiphys.kubelet.sandbox import pod_resolver, sandbox_config
from tiphys.kubelet.starter import ContainerStarter, StartFailed
from tiphys.kubelet.status import StatusInput, pod_status, rejected_status
from tiphys.kubelet.statuswriter import StatusWriter
from tiphys.kubelet.stopper import stop_container
from tiphys.runtime.interface import Container, ContainerState, RuntimeFailed, Sandbox

log = logging.getLogger(__name__)

POD = "(pod)"
"""Name of the operation that makes volumes and sandbox; container names hold no brackets."""
RESIZE = "(resize)"
"""Name of the operation that changes the limits of running containers."""
START = "(start)"
"""Name of the operation that starts containers one after another."""
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


EVICTION_GRACE_S = 1


class Phase(enum.Enum):
    """What the worker is at. RUNNING -> ENDING -> ENDED -> GONE; never back."""

    RUNNING = "containers are started and kept running"
    ENDING = "containers are being stopped"
    ENDED = "everything has stopped; the object and its records are still there"
    GONE = "nothing is left"


class PodWorker:
    """See the module's docstring."""

    def __init__(
        self,
        context: NodeContext,
        pod: BoundPod,
        sandbox_ids: Sequence[str] = (),
        *,
        on_state: Callable[[], None],
        others: Callable[[], Iterable[BoundPod]] = tuple,
    ) -> None:
        self.context = context
        self.pod = pod
        self.runtime = PodRuntime()
        self.phase = Phase.RUNNING
        self.sandbox_ids: list[str] = list(sandbox_ids)
        self.rejected: tuple[str, str] | None = None
        self.observers: OrderedSet[asyncio.Event] = OrderedSet()
        """Set after each observation; followers of logs wait for them."""
        self._on_state = on_state
        self._vanished = False
        """The API object is gone: no status, no delete."""
        self._wake = asyncio.Event()
        self._operations = Operations(context.clock, self.wake, f"{pod.metadata.namespace}/{pod.metadata.name}")
        self._backoffs: dict[str, Backoff] = {}
        self._waiting: dict[str, tuple[str, str]] = {}
        self._messages: dict[str, str] = {}
        self._failed: tuple[str, str] | None = None
        self._evicted = False
        self._mounted = False
        self._unmounted = False
        self._remount = False
        self._renew_at_s: float | None = None
        """When content of the volumes runs out (tokens)."""
        self._starting: set[str] = set()
        self._grace_s = grace_period_s(pod)
        self._deleted_object = False
        self._granted: tuple[BoundPod, Granted, BoundPod] | None = None
        """A pod, what it was granted, and the pod as it was granted: made once for each."""
        self.prober = Prober(context, self.wake)
        self.writer = StatusWriter(context.client, context.randomness, pod, context.writes.status)
        self._starter = ContainerStarter(context)
        self.resizer = Resizer(pod, others)

    # What happens from outside

    def wake(self) -> None:
        """Observe and plan again soon."""
        self._wake.set()

    def update(self, pod: BoundPod) -> None:
        """Take a new state of the API object."""
        shown = (pod.metadata.labels, pod.metadata.annotations)
        if shown != (self.pod.metadata.labels, self.pod.metadata.annotations):
            # Downward API files may show them.
            self._remount = True
        self.pod = pod
        self.writer.observe(pod)
        self.wake()

    def vanish(self) -> None:
        """The API object is gone; clean up."""
        self._vanished = True
        self.wake()

    def reject(self, reason: str, message: str) -> None:
        """The node does not take the pod: it becomes Failed and nothing is started."""
        self.rejected = (reason, message)
        self.wake()

    def evict(self, reason: str, message: str) -> None:
        """End the pod as Failed, with hardly any grace: it harms its node."""
        if self._failed is None and self.phase is Phase.RUNNING:
            self._failed = (reason, message)
            self._evicted = True
            self.wake()

    @property
    def ended(self) -> bool:
        """Tell whether nothing of the pod runs or will run any more."""
        return self.phase in (Phase.ENDED, Phase.GONE)

    @property
    def addresses(self) -> tuple[str, ...]:
        if self.pod.spec.host_network:
            return self.context.host_addresses
        return self.runtime.sandboxes[0].addresses if self.runtime.sandboxes else ()

    # The loop

    async def run(self) -> None:
        """Run until nothing of the pod is left."""
        try:
            while self.phase is not Phase.GONE:
                self._wake.clear()
                try:
                    await self._step()
                    self._operations.succeeded("step")
                except (TiphysError, OSError) as error:
                    log.warning("pod %s: %s; the step is tried again", self._name(), error)
                    self._operations.retry("step")
                    self._operations.due("step")
                await self._sleep()
        finally:
            await self._operations.close()
            await self.prober.stop()
            await self.writer.close()
            self.context.objects.forget(self.pod.metadata.uid)
            for observer in self.observers:
                observer.set()

    async def _sleep(self) -> None:
        if self.phase is Phase.GONE:
            return
        timeout_s = None
        if self._operations.next_s is not None:
            timeout_s = max(0.0, self._operations.next_s - self.context.clock.now_s())
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _step(self) -> None:
        self._operations.next_s = None
        await self._observe()
        self._check_grace()
        self.prober.sync(self._known_pod(), self.runtime, self.addresses)
        if self.phase is Phase.RUNNING and self._should_end():
            await self._become_ending()
        if self.phase is Phase.RUNNING:
            self._resize()
            self._apply(plan_pod(
                self._known_pod(), self.runtime, self.prober.verdicts(), self._backoffs,
                self.context.clock.now_s(), self._busy(),
            ))  # fmt: skip
        if self.phase is Phase.ENDING:
            await self._step_ending()
        if self.phase is Phase.ENDED:
            await self._step_ended()
        else:
            self._write_status()
            await self._collect_dead()
        self._on_state()
        for observer in self.observers:
            observer.set()

    def _known_pod(self) -> BoundPod:
        """Return the pod with the newest status that the server has and the resources that it was granted."""
        return msgspec.structs.replace(self.granted_pod, status=self.writer.known)

    @property
    def granted_pod(self) -> BoundPod:
        """The pod with the resources that this node agreed to."""
        pod, granted = self.pod, self.resizer.granted
        if self._granted is None or self._granted[0] is not pod or self._granted[1] is not granted:
            self._granted = (pod, granted, with_granted(pod, granted))
        return self._granted[2]

    async def _observe(self) -> None:
        sandboxes: list[Sandbox] = []
        containers: list[Container] = []
        for sandbox_id in list(self.sandbox_ids):
            try:
                sandboxes.append(await self.context.runtime.pod_sandbox_status(sandbox_id))
                containers += await self.context.runtime.list_containers(sandbox_id)
            except RuntimeFailed as error:
                if error.reason != "NotFound":
                    raise
                self.sandbox_ids.remove(sandbox_id)
        self.runtime = arrange(tuple(sandboxes), tuple(containers))
        for container in containers:
            if container.state is ContainerState.EXITED and container.id not in self._messages:
                spec = find_container(self.pod, container.name)
                if spec is not None:
                    self._messages[container.id] = self.context.files.termination_message(self.pod, spec, container)

    def _busy(self) -> frozenset[str]:
        return frozenset({*self._starting, *(n for n in self._operations.names() if n not in (POD, START, RESIZE))})

    # Running

    def _should_end(self) -> bool:
        if self._vanished or self.rejected or self.pod.metadata.deletion_timestamp or is_terminal(self._known_pod()):
            return True
        if self._evicted:
            return True
        limit_s = self.pod.spec.active_deadline_seconds
        start = self.writer.known.get("startTime")
        if limit_s is not None and start:
            end_s = parse_time(start) + limit_s
            if self.context.clock.now_s() >= end_s:
                self._failed = ("DeadlineExceeded", DEADLINE_MESSAGE)
                self._event("Normal", "DeadlineExceeded", DEADLINE_MESSAGE)
                return True
            self._operations.wake_at(end_s)
        return False

    def _apply(self, plan: Plan) -> None:
        log.debug("pod %s: %s", self._name(), plan.reason)
        for name, waiting in plan.waiting.items():
            if self._waiting.get(name) != waiting:
                self._event(
                    "Warning", "BackOff",
                    f"Back-off restarting failed container {name} in pod {self._full_name()}", name,
                )  # fmt: skip
            self._waiting[name] = waiting
        if plan.wake_at_s is not None:
            self._operations.wake_at(plan.wake_at_s)
        for kill in plan.kills:
            self._operations.start(kill.container.name, self._kill(kill))
        if plan.stop_pod:
            self.phase = Phase.ENDING
        elif plan.create_sandbox is not None:
            if not plan.kills and self._operations.due("prepare"):
                self._operations.start(POD, self._prepare(plan.create_sandbox))
        else:
            self._apply_starts(plan)

    def _apply_starts(self, plan: Plan) -> None:
        if self._renew_at_s is not None:
            self._operations.wake_at(self._renew_at_s)
            if self.context.clock.now_s() >= self._renew_at_s:
                self._renew_at_s = None
                self._remount = True
        if not self._mounted or self._remount:
            if self._operations.due("prepare"):
                self._operations.start(POD, self._mount())
            if not self._mounted:
                return
        starts = [s for s in plan.starts if self._operations.due(f"start {s.name}")]
        if starts and self._operations.start(START, self._start_all([(s.name, s.attempt) for s in starts])):
            self._starting = {s.name for s in starts}

    def _resize(self) -> None:
        """Grant what the pod wishes, if it can be, and begin to apply what was granted."""
        resizer = self.resizer
        if resizer.consider(self.pod, self.context.allocatable()):
            self._event("Normal", "ResizeStarted", f"Pod resize started: generation {self.pod.metadata.generation}")
        if resizer.refused is not None:
            self._operations.wake_at(self.context.clock.now_s() + RETRY_S)
        pending = resizer.pending(self.pod, self.runtime.running())
        for container, restarts in pending:
            if restarts:
                text = f"Container {container.name} resize requires restart"
                self._operations.start(container.name, self._kill(Kill(container, text)))
        live = [container for container, restarts in pending if not restarts]
        sandbox = self.runtime.ready_sandbox()
        if live and sandbox is not None:
            self._operations.start(RESIZE, apply_grant(self.context, resizer, self.pod, sandbox, live))

    async def _prepare(self, attempt: int) -> None:
        """Make volumes and sandbox."""
        context = self.context
        if not self._mounted:
            await self._mount()
            if not self._mounted:
                return
        if attempt:
            self._event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        resolver = pod_resolver(
            self.pod, context.cluster_dns, context.cluster_domain, context.files.host_resolver()
        )  # fmt: skip
        config = sandbox_config(
            self.granted_pod,
            attempt,
            resolver=resolver,
            cluster_domain=context.cluster_domain,
            node_name=context.node_name,
            log_directory=context.files.log_directory(self.pod),
            cgroup_root=context.cgroup_root,
        )
        try:
            for sandbox in self.runtime.sandboxes:
                await context.runtime.stop_pod_sandbox(sandbox.id)
            self.sandbox_ids.append(await context.runtime.run_pod_sandbox(config))
        except (TiphysError, OSError) as error:
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            self._operations.retry("prepare")
            return
        self._operations.succeeded("prepare")

    async def _mount(self) -> None:
        self._remount = False
        uid = self.pod.metadata.uid
        try:
            await self.context.files.mount(self._known_pod(), self.context.around(self.addresses), self._volume_changed)
        except VolumeFailed as error:
            self._event("Warning", "FailedMount", str(error))
            self._remount = True
            self._operations.retry("prepare")
            return
        except (ApiError, OSError) as error:
            self._event("Warning", "FailedMount", f"Unable to attach or mount volumes: {error}")
            self._remount = True
            self._operations.retry("prepare")
            return
        self._mounted = True
        self._operations.succeeded("prepare")
        self._renew_at_s = await self.context.files.volume_renewal_s(uid)

    def _volume_changed(self) -> None:
        self._remount = True
        self._operations.succeeded("prepare")
        self.wake()

    async def _start_all(self, starts: Sequence[tuple[str, int]]) -> None:
        try:
            for name, attempt in starts:
                if not await self._start_one(name, attempt):
                    return
        finally:
            self._starting.clear()

    async def _start_one(self, name: str, attempt: int) -> bool:
        """Start one container; tell whether the ones after it may be tried."""
        container = find_container(self.granted_pod, name)
        sandbox = self.runtime.ready_sandbox()
        if container is None or sandbox is None:
            return False
        last = self.runtime.newest(name)
        now_s = self.context.clock.now_s()
        if last is not None and last.state is ContainerState.EXITED:
            self._backoffs[name] = next_backoff(self._backoffs.get(name), last.finished_at_s, now_s)
        try:
            await self._starter.start(self._known_pod(), container, attempt, sandbox, self.addresses)
            self._waiting.pop(name, None)
            self._operations.succeeded(f"start {name}")
        except StartFailed as error:
            self._waiting[name] = (error.reason, str(error))
            if error.retry_at_s is not None:
                self._operations.retry_at(f"start {name}", error.retry_at_s)
            else:
                self._operations.retry(f"start {name}", first_s=2.0)
        finally:
            self._starting.discard(name)
        self.wake()
        return True

    async def _kill(self, kill: Kill) -> None:
        pod = self.pod
        if self._evicted and not pod.metadata.deletion_timestamp:
            grace_s = min(EVICTION_GRACE_S, grace_period_s(pod))
            pod = msgspec.structs.replace(
                pod, spec=msgspec.structs.replace(pod.spec, termination_grace_period_seconds=grace_s)
            )
        await stop_container(self.context, pod, kill, self.addresses)

    # Ending

    async def _become_ending(self) -> None:
        self.phase = Phase.ENDING
        for name in (POD, START, RESIZE):
            await self._operations.cancel(name)
        self._starting.clear()
        await self.prober.stop(keep_readiness=True)
        await self._observe()

    def _check_grace(self) -> None:
        """Stop again with the new grace when a later deletion asks for a shorter one."""
        grace_s = grace_period_s(self.pod)
        if self.phase is Phase.ENDING and grace_s < self._grace_s:
            self._operations.interrupt()
        self._grace_s = grace_s

    async def _step_ending(self) -> None:
        plan = plan_stop(self.pod, self.runtime, self._busy())
        for kill in plan.kills:
            self._operations.start(kill.container.name, self._kill(kill))
        if not plan.stop_pod or self._operations.names():
            return
        for sandbox_id in self.sandbox_ids:
            await self.context.runtime.stop_pod_sandbox(sandbox_id)
        await self._observe()
        self.phase = Phase.ENDED

    async def _step_ended(self) -> None:
        if not self._vanished:
            self._write_status()
            await self.writer.flush()
        if not self._unmounted:
            self.context.objects.forget(self.pod.metadata.uid)
            await self.context.files.unmount(self.pod.metadata.uid)
            self._unmounted = True
        if self.pod.metadata.deletion_timestamp and not self._deleted_object and not self._vanished:
            await self._delete_object()
        if self._vanished:
            await self._remove_records()
            self.phase = Phase.GONE

    async def _delete_object(self) -> None:
        meta = self.pod.metadata
        try:
            await self.context.client.delete(PODS, meta.namespace, meta.name, uid=meta.uid, grace_period_s=0)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        self._deleted_object = True

    async def _remove_records(self) -> None:
        for sandbox_id in list(self.sandbox_ids):
            await self.context.runtime.remove_pod_sandbox(sandbox_id)
        self.sandbox_ids.clear()
        await self.context.files.remove_logs(self.pod.metadata.uid)
        self.context.images.forget(self.pod.metadata.uid)

    # Status and garbage

    def _write_status(self) -> None:
        if not self._vanished:
            self.writer.want(self._status)

    def _status(self) -> dict[str, Any]:
        """Return the status that the pod should have now."""
        now_s = self.context.clock.now_s()
        pod = self._known_pod()
        if self.rejected and not self.runtime.containers:
            return rejected_status(pod, *self.rejected, now_s)
        return pod_status(pod, self.runtime, self._status_input(), now_s)

    def _status_input(self) -> StatusInput:
        ended = self.phase in (Phase.ENDED, Phase.GONE)
        running = self.runtime.running()
        pending = self.resizer.pending(self.pod, running)
        return StatusInput(
            verdicts=self.prober.verdicts() if not ended else Verdicts(),
            waiting=dict(self._waiting),
            messages=self._messages,
            host_addresses=self.context.host_addresses,
            ended=ended,
            failed=self._failed if ended else None,
            resize=self.resizer.conditions(bool(pending)) if not ended else {},
            applied={c.name: a for c in running if (a := self.resizer.applied(c))},
        )

    async def _collect_dead(self) -> None:
        """Keep the newest instance of each container and the one before it; remove older ones and empty sandboxes."""
        seen: dict[str, int] = {}
        kept_sandboxes = {self.runtime.sandboxes[0].id} if self.runtime.sandboxes else set()
        for container in self.runtime.containers:
            seen[container.name] = seen.get(container.name, 0) + 1
            if seen[container.name] > 2 and container.state is not ContainerState.RUNNING:
                await self.context.runtime.remove_container(container.id)
                self._messages.pop(container.id, None)
            else:
                kept_sandboxes.add(container.sandbox_id)
        for sandbox in self.runtime.sandboxes:
            if sandbox.id not in kept_sandboxes and POD not in self._operations.names():
                await self.context.runtime.remove_pod_sandbox(sandbox.id)
                self.sandbox_ids.remove(sandbox.id)

    def _name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    def _full_name(self) -> str:
        return f"{self.pod.metadata.name}_{self.pod.metadata.namespace}({self.pod.metadata.uid})"

    def _event(self, kind: EventKind, reason: str, message: str, container: str = "") -> None:
        self.context.recorder.record(pod_reference(self.pod, container), kind, reason, message)
