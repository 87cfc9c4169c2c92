"""A whole cluster in one event loop: API server, controllers, scheduler and simulated nodes, without a socket.

On a virtual-time loop (base/virtualloop.py) with a seed, the same program gives the same history. Every component
reaches the API server through a `FaultyClient`; the methods of `SimulatedCluster` are the things that can go wrong,
faultplan.py strings them over time, and `history` holds everything that was written and done, for checks.py.

Invariant: each component has its own `Link` for as long as the cluster lives, also while the component is down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tiphys.apiserver.user import MASTERS
from tiphys.base.clock import Clock, LoopClock, Randomness
from tiphys.client.local import LocalClient
from tiphys.cluster.faults import Faults, FaultyClient, Link
from tiphys.cluster.faultystore import FaultyStore
from tiphys.cluster.history import FAULT, History, NodeEvent, Violation
from tiphys.cluster.simulatedserver import SimulatedServer
from tiphys.controllers.run import Deps, run_controllers
from tiphys.kubelet.machine import Machine
from tiphys.kubelet.probehandler import AgreeableProbes
from tiphys.kubelet.run import KubeletDeps, run_kubelet
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.simulated import Profile, SimulatedRuntime
from tiphys.scheduler.run import SchedulerDeps, run_scheduler
from tiphys.store.interface import Store
from tiphys.store.memory import MemoryStore

CONTROLLERS = "controllers"
SCHEDULER = "scheduler"
LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulated cluster is made of."""

    seed: int = 1
    nodes: int = 2
    faults: Faults = field(default_factory=Faults)
    """Of every component's line, from the start to the end."""
    profile: Profile = field(default_factory=Profile)
    machine: Machine = field(default_factory=Machine)
    kubernetes_version: tuple[int, int] = (1, 37)


class DriftingClock:
    """A clock that is `offset_s` ahead of another one. Its monotonic time is right."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_s = 0.0

    def now_s(self) -> float:
        return self._clock.now_s() + self.offset_s

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()


class NodeRuntime(SimulatedRuntime):
    """A runtime whose containers outlive the kubelet, as real ones do."""

    async def stop(self) -> None:
        """The kubelet ends: nothing happens to the containers."""

    async def halt(self) -> None:
        """The machine ends, and everything on it."""
        await super().stop()


@dataclass(slots=True)
class Component:
    """One process of the cluster."""

    link: Link
    run: Callable[[FaultyClient], Coroutine[Any, Any, None]]
    user: str
    groups: tuple[str, ...] = ()
    task: asyncio.Task[None] | None = None
    client: FaultyClient | None = None


@dataclass(slots=True)
class SimulatedNode:
    """One machine."""

    name: str
    index: int
    clock: DriftingClock
    runtime: NodeRuntime
    watch: asyncio.Task[None] | None = None


class SimulatedCluster:
    """An async context manager. Leaving it cancels every component and lets none of their tasks behind."""

    def __init__(self, plan: Plan, store: Store | None = None) -> None:
        self.plan = plan
        self.clock = LoopClock()
        self.randomness = Randomness(plan.seed)
        self.chance = Randomness(plan.seed * 7919 + 1)
        """For faults and scenarios: what they draw does not change what the components draw."""
        self.history = History()
        self.store = FaultyStore(store or MemoryStore(), self.history, self.clock, self.chance)
        self.server = SimulatedServer(plan.kubernetes_version, self.store, self.clock, self.randomness)
        self.nodes: dict[str, SimulatedNode] = {}
        self.client = LocalClient(self.server.handler("admin"), "admin", (MASTERS,), randomness=self.randomness)
        """A faultless administrator's client."""
        self._stack = AsyncExitStack()
        self._components: dict[str, Component] = {}
        self._ended: list[BaseException] = []

    async def __aenter__(self) -> SimulatedCluster:
        await self.store.start()
        self._stack.push_async_callback(self.store.stop)
        await self.server.start()
        self._stack.push_async_callback(self.server.kill)
        self._stack.push_async_callback(self.client.close)
        self._stack.push_async_callback(self._stop_components)
        if self.plan.faults != Faults():
            self.note(f"all lines have {self.plan.faults}")
        self._add(CONTROLLERS, self._run_controllers, "system:kube-controller-manager")
        self._add(SCHEDULER, self._run_scheduler, "system:kube-scheduler")
        for index in range(self.plan.nodes):
            self.add_node(index)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # What a scenario asks

    def components(self) -> list[str]:
        """Return the names of all components, also of those that are down."""
        return list(self._components)

    def link(self, name: str) -> Link:
        return self._components[name].link

    def failures(self) -> list[BaseException]:
        """Return the errors of components that ended by themselves: there should be none."""
        tasks = [c.task for c in self._components.values() if c.task is not None]
        ended = [task for task in tasks if task.done() and not task.cancelled()]
        return self._ended + [error for task in ended if (error := task.exception()) is not None]

    async def until(
        self, check: Callable[[], Any], what: str, *parts: str, within_s: float = 600.0, every_s: float = LOOK_EVERY_S
    ) -> Any:
        """Look again and again until `check` (sync or async) returns something true, and return it.

        Raises Violation naming `what`, with the stories of `parts`, when it takes longer than `within_s`.
        """
        deadline_s = self.clock.monotonic_s() + within_s
        while self.clock.monotonic_s() < deadline_s:
            if failures := self.failures():
                raise failures[0]
            result = check()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return result
            await asyncio.sleep(every_s)
        raise Violation(f"not within {within_s:.0f} simulated seconds: {what}", *parts)

    # What can go wrong

    def note(self, what: str) -> None:
        """Record that something goes wrong on purpose."""
        self.history.note(NodeEvent(self.clock.monotonic_s(), FAULT, what))

    async def crash(self, name: str, down_s: float = 0.0) -> None:
        """Kill a component and start it again later; a node's containers live on."""
        self.note(f"{name} is killed for {down_s:.1f} s")
        await self._stop(name)
        if down_s:
            await asyncio.sleep(down_s)
        self._start(name)

    def crash_after_writes(self, name: str, writes: int, down_s: float = 0.0) -> None:
        """Kill a component right after one of its next writes was done, before it learns so."""
        link = self._components[name].link
        link.writes_left = writes

        def dies() -> None:
            link.writes_left = None
            self._background(self.crash(name, down_s))

        link.on_last_write = dies

    async def restart_server(self, down_s: float = 0.0) -> None:
        """Kill the API server and start it again on the same store."""
        self.note(f"the API server is killed for {down_s:.1f} s")
        await self.server.kill()
        await asyncio.sleep(down_s)
        await self.server.start()
        self.note("the API server is back")

    async def fail_store(self, share: float, for_s: float) -> None:
        """Let a share of all commits fail for a while."""
        self.note(f"{share:.0%} of the store's commits fail for {for_s:.1f} s")
        self.store.errors = share
        await asyncio.sleep(for_s)
        self.store.errors = 0.0

    async def compact(self) -> None:
        """Forget all history of the store."""
        self.note("the store is compacted")
        await self.store.compact(self.store.current_revision())

    async def change_network(self, name: str, faults: Faults, for_s: float) -> None:
        """Make a component's line worse for a while."""
        link = self.link(name)
        before, link.faults = link.faults, faults
        self.note(f"the line of {name} has {faults} for {for_s:.1f} s")
        await asyncio.sleep(for_s)
        link.faults = before

    async def cut(self, name: str, for_s: float) -> None:
        """Cut a component off; it runs on, and so do a node's containers."""
        self.note(f"{name} is cut off for {for_s:.1f} s")
        component = self._components[name]
        component.link.is_cut = True
        if component.client is not None:
            await component.client.cut()
        await asyncio.sleep(for_s)
        component.link.is_cut = False
        self.note(f"{name} is connected again")

    async def stall(self, name: str, for_s: float) -> None:
        """Let a component read its watches late."""
        self.note(f"{name} reads nothing for {for_s:.1f} s")
        self.link(name).stalled_until_s = self.clock.monotonic_s() + for_s

    async def lose_node(self, name: str, for_s: float) -> None:
        """Turn a machine off and on again: its containers are gone, its kubelet starts anew."""
        self.note(f"{name} loses power for {for_s:.1f} s")
        node = self.nodes[name]
        await self._stop(name)
        await self._unplug(node)
        await asyncio.sleep(for_s)
        self._plug(node)
        self._start(name)

    def drift(self, name: str, offset_s: float) -> None:
        """Set a node's wall clock wrong."""
        self.note(f"the clock of {name} is {offset_s:+.1f} s wrong")
        self.nodes[name].clock.offset_s = offset_s

    def add_node(self, index: int) -> str:
        """Start one more node and return its name."""
        name = f"node-{index}"
        clock = DriftingClock(self.clock)
        node = SimulatedNode(name, index, clock, self._runtime(index, clock))
        self.nodes[name] = node
        self._watch_runtime(node)

        async def run(client: FaultyClient) -> None:
            await self._run_kubelet(node, client)

        self._add(name, run, f"system:node:{name}", "system:nodes")
        return name

    async def remove_node(self, name: str) -> None:
        """Take a machine away for ever; its Node object stays until somebody deletes it."""
        self.note(f"{name} is taken away")
        await self._stop(name)
        await self._unplug(self.nodes.pop(name))
        del self._components[name]

    # Inside

    def _background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine, name="fault")

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._ended.append(error)

        task.add_done_callback(done)
        self._stack.callback(task.cancel)

    def _add(
        self, name: str, run: Callable[[FaultyClient], Coroutine[Any, Any, None]], user: str, *groups: str
    ) -> None:
        self._components[name] = Component(Link(name, self.plan.faults), run, user, groups)
        self._start(name)

    def _start(self, name: str) -> None:
        component = self._components.get(name)
        if component is None or component.task is not None:
            return
        handler = self.server.handler(name)
        local = LocalClient(handler, component.user, component.groups, randomness=self.randomness)
        client = component.client = FaultyClient(local, component.link, self.chance)

        async def run() -> None:
            try:
                await component.run(client)
            finally:
                await client.close()

        component.task = asyncio.create_task(run(), name=name)

    async def _stop(self, name: str) -> None:
        component = self._components[name]
        task, component.task, component.client = component.task, None, None
        component.link.writes_left = component.link.on_last_write = None
        if task is not None:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self._ended.append(error)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stop_components(self) -> None:
        tasks = [c.task for c in reversed(self._components.values()) if c.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self.nodes.values():
            await self._unplug(node)

    async def _run_controllers(self, client: FaultyClient) -> None:
        await run_controllers(Deps(client, self.clock, self.randomness))

    async def _run_scheduler(self, client: FaultyClient) -> None:
        await run_scheduler(SchedulerDeps(client, self.clock, self.randomness))

    async def _run_kubelet(self, node: SimulatedNode, client: FaultyClient) -> None:
        await run_kubelet(
            KubeletDeps(
                client=client,
                runtime=node.runtime,
                clock=node.clock,
                randomness=self.randomness,
                node_name=node.name,
                node_addresses=(f"192.168.{node.index // 250}.{node.index % 250 + 1}",),
                machine=self.plan.machine,
                network_probes=AgreeableProbes(),
            )
        )

    def _runtime(self, index: int, clock: Clock) -> NodeRuntime:
        network = SimulatedPodNetwork(f"10.{244 + index // 250}.{index % 250}.0/24")
        return NodeRuntime(self.plan.profile, clock, self.randomness, network)

    def _plug(self, node: SimulatedNode) -> None:
        node.runtime = self._runtime(node.index, node.clock)
        self._watch_runtime(node)

    async def _unplug(self, node: SimulatedNode) -> None:
        running = await node.runtime.list_containers()
        await node.runtime.halt()
        if node.watch is not None:
            node.watch.cancel()
            await asyncio.gather(node.watch, return_exceptions=True)
        for container in running:
            sandbox = await node.runtime.pod_sandbox_status(container.sandbox_id)
            self._note_container(node, "STOPPED", sandbox.namespace, sandbox.name, sandbox.uid, container.name)

    def _watch_runtime(self, node: SimulatedNode) -> None:
        node.watch = asyncio.create_task(self._record_runtime(node, node.runtime), name=f"recorder of {node.name}")

    async def _record_runtime(self, node: SimulatedNode, runtime: NodeRuntime) -> None:
        known: dict[str, tuple[str, str, str, str]] = {}
        async for event in runtime.events():
            if not event.container_id:
                continue
            if event.type == "CREATED":
                container = await runtime.container_status(event.container_id)
                sandbox = await runtime.pod_sandbox_status(event.sandbox_id)
                known[event.container_id] = (sandbox.namespace, sandbox.name, sandbox.uid, container.name)
            elif event.container_id in known:
                self._note_container(node, event.type, *known[event.container_id])

    def _note_container(
        self, node: SimulatedNode, what: str, namespace: str, pod: str, uid: str, container: str
    ) -> None:
        at_s = self.clock.monotonic_s()
        self.history.note(NodeEvent(at_s, node.name, what, namespace, pod, uid, container))
