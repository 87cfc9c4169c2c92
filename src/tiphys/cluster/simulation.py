"""A whole cluster in one event loop: API server, controllers, scheduler and simulated nodes, without a socket.

On a virtual-time loop (base/virtualloop.py) with a seed, the same program gives the same history. Every component
reaches the API server through a `FaultyClient`, which can lose requests and answers and delay them; `crash` ends a
component between two of its steps and starts it anew, as a killed process would be.

What is checked is the caller's business: `client` sees everything, and `history` holds every event of the watch that
this class keeps on pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tiphys.apiserver.assembly import ApiServerConfig, Assembled, assemble
from tiphys.apiserver.user import MASTERS
from tiphys.base.clock import LoopClock, Randomness
from tiphys.client.local import LocalClient
from tiphys.cluster.faults import Faults, FaultyClient
from tiphys.controllers.run import Deps, run_controllers
from tiphys.kubelet.machine import Machine
from tiphys.kubelet.probehandler import AgreeableProbes
from tiphys.kubelet.run import KubeletDeps, run_kubelet
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.simulated import Profile, SimulatedRuntime
from tiphys.scheduler.run import SchedulerDeps, run_scheduler
from tiphys.store.interface import Store
from tiphys.store.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulated cluster is made of."""

    seed: int = 1
    nodes: int = 2
    faults: Faults = field(default_factory=Faults)
    profile: Profile = field(default_factory=Profile)
    machine: Machine = field(default_factory=Machine)
    kubernetes_version: tuple[int, int] = (1, 37)


class SimulatedCluster:
    """An async context manager. Leaving it cancels every component and lets none of their tasks behind."""

    def __init__(self, plan: Plan, store: Store | None = None) -> None:
        self.plan = plan
        self.store = store or MemoryStore()
        self.clock = LoopClock()
        self.randomness = Randomness(plan.seed)
        self._stack = AsyncExitStack()
        self._components: dict[str, tuple[Callable[[], Coroutine[Any, Any, None]], asyncio.Task[None]]] = {}
        self._runtimes: dict[str, SimulatedRuntime] = {}
        self._assembled: Assembled | None = None
        self._client: LocalClient | None = None

    @property
    def client(self) -> LocalClient:
        """A faultless administrator's client."""
        assert self._client is not None, "the cluster has not been started"
        return self._client

    async def __aenter__(self) -> SimulatedCluster:
        await self.store.start()
        self._stack.push_async_callback(self.store.stop)
        config = ApiServerConfig(kubernetes_version=self.plan.kubernetes_version)
        self._assembled = await assemble(config, self.store, self.clock, self.randomness)
        self._stack.push_async_callback(self._assembled.stop)
        self._client = LocalClient(self._assembled.handle, "admin", (MASTERS,), randomness=self.randomness)
        self._stack.push_async_callback(self._client.close)
        self._stack.push_async_callback(self._stop_components)
        self._start("controllers", self._run_controllers)
        self._start("scheduler", self._run_scheduler)
        for index in range(self.plan.nodes):
            self._start(f"node-{index}", self._node(index))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def components(self) -> list[str]:
        """Return the names of the running components."""
        return list(self._components)

    async def crash(self, name: str) -> None:
        """End a component where it stands and start it again; a node's containers live on."""
        make, task = self._components[name]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._start(name, make)

    def failures(self) -> list[BaseException]:
        """Return the errors of components that ended by themselves: there should be none."""
        ended = [task for _, task in self._components.values() if task.done() and not task.cancelled()]
        return [error for task in ended if (error := task.exception()) is not None]

    def _start(self, name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._components[name] = (make, asyncio.create_task(make(), name=name))

    async def _stop_components(self) -> None:
        tasks = [task for _, task in reversed(self._components.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connect(self, user: str, *groups: str) -> FaultyClient:
        assert self._assembled is not None
        local = LocalClient(self._assembled.handle, user, groups, randomness=self.randomness)
        return FaultyClient(local, self.plan.faults, self.randomness)

    async def _run_controllers(self) -> None:
        client = self._connect("system:kube-controller-manager")
        try:
            await run_controllers(Deps(client, self.clock, self.randomness))
        finally:
            await client.close()

    async def _run_scheduler(self) -> None:
        client = self._connect("system:kube-scheduler")
        try:
            await run_scheduler(SchedulerDeps(client, self.clock, self.randomness))
        finally:
            await client.close()

    def _node(self, index: int) -> Callable[[], Coroutine[Any, Any, None]]:
        name = f"node-{index}"
        network = SimulatedPodNetwork(f"10.244.{index}.0/24")
        runtime = SimulatedRuntime(self.plan.profile, self.clock, self.randomness, network)
        self._runtimes[name] = runtime

        async def run() -> None:
            client = self._connect(f"system:node:{name}", "system:nodes")
            try:
                await run_kubelet(
                    KubeletDeps(
                        client=client,
                        runtime=runtime,
                        clock=self.clock,
                        randomness=self.randomness,
                        node_name=name,
                        node_addresses=(f"192.168.0.{index + 1}",),
                        machine=self.plan.machine,
                        network_probes=AgreeableProbes(),
                    )
                )
            finally:
                await client.close()

        return run
