"""Runs the probes of one pod's containers and keeps their verdicts.

One task for each probe of each running instance. The startup probe goes first; liveness and readiness begin when it
has succeeded. A changed verdict wakes the pod's worker. Invariant: no task outlives its container instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.api.views.pod import Probe
from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.plan import PodRuntime, Verdicts, can_probe
from tiphys.kubelet.pod import BoundPod, find_container, pod_reference
from tiphys.kubelet.probehandler import ProbeResult, exec_timeout, resolve_port
from tiphys.kubelet.probing import Tally, count_result, delay_s, first_tally, gave_up
from tiphys.runtime.interface import Container, ContainerState

MAX_OUTPUT = 10 * 1024


class Prober:
    """See the module's docstring."""

    def __init__(self, context: NodeContext, wake: Callable[[], None]) -> None:
        self._context = context
        self._wake = wake
        self._pod = BoundPod()
        self._addresses: tuple[str, ...] = ()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Container id -> the task of its probes."""
        self._ready: dict[str, bool] = {}
        self._started: dict[str, bool] = {}
        self._failed: dict[str, str] = {}
        self._names: dict[str, str] = {}
        """Container id -> name, for those with probes."""

    def sync(self, pod: BoundPod, runtime: PodRuntime, addresses: tuple[str, ...]) -> None:
        """Start probes of new instances, end those of instances that do not run any more."""
        self._pod, self._addresses = pod, addresses
        running = {c.id: c for c in runtime.containers if c.state is ContainerState.RUNNING}
        for container_id in [i for i in self._names if i not in running]:
            self._forget(container_id)
        for container_id, container in running.items():
            spec = find_container(pod, container.name)
            if container_id in self._names or not isinstance(spec, ContainerSpec) or not can_probe(pod, spec.name):
                continue
            if spec.startup_probe or spec.readiness_probe or spec.liveness_probe:
                self._names[container_id] = container.name
                # After a restart of the kubelet a container stays what it was until a probe says otherwise.
                known = _known_status(pod, container_id)
                self._started[container_id] = spec.startup_probe is None or bool(known.get("started"))
                self._ready[container_id] = bool(known.get("ready"))
                self._tasks[container_id] = asyncio.create_task(
                    self._run(container, spec),
                    name=f"probes of {pod.metadata.namespace}/{pod.metadata.name}/{spec.name}",
                )

    def verdicts(self) -> Verdicts:
        ready: dict[str, bool] = {}
        started: dict[str, bool] = {}
        for container_id, name in self._names.items():
            spec = find_container(self._pod, name)
            if isinstance(spec, ContainerSpec):
                started[name] = self._started[container_id]
                ready[name] = self._ready[container_id] if spec.readiness_probe else started[name]
        return Verdicts(ready, started, dict(self._failed))

    async def stop(self, *, keep_readiness: bool = False) -> None:
        """End liveness and startup probes (a pod that ends must not be restarted); without `keep_readiness` all."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not keep_readiness:
            self._names.clear()

    def _forget(self, container_id: str) -> None:
        task = self._tasks.pop(container_id, None)
        if task is not None:
            task.cancel()
        for table in (self._ready, self._started, self._failed, self._names):
            table.pop(container_id, None)

    async def _run(self, container: Container, spec: ContainerSpec) -> None:
        probe = None if self._started[container.id] else spec.startup_probe
        if probe is not None and not await self._wait_started(container, spec, probe):
            return
        self._started[container.id] = True
        self._wake()
        async with asyncio.TaskGroup() as group:
            if spec.readiness_probe is not None:
                group.create_task(self._repeat(container, spec, spec.readiness_probe, "readiness"))
            if spec.liveness_probe is not None:
                group.create_task(self._repeat(container, spec, spec.liveness_probe, "liveness"))

    async def _wait_started(self, container: Container, spec: ContainerSpec, probe: Probe) -> bool:
        tally = first_tally("startup")
        await self._first_delay(container, probe)
        while True:
            tally = await self._once(container, spec, probe, "startup", tally)
            if tally.verdict:
                return True
            if gave_up(tally, probe):
                self._failed[container.id] = "startup"
                self._wake()
                return False
            await asyncio.sleep(probe.period_seconds or 10)

    async def _repeat(self, container: Container, spec: ContainerSpec, probe: Probe, kind: str) -> None:
        tally = first_tally(kind)
        if kind == "readiness":
            tally = replace(tally, verdict=self._ready[container.id])
        await self._first_delay(container, probe)
        while True:
            before = tally.verdict
            tally = await self._once(container, spec, probe, kind, tally)
            if kind == "readiness":
                if tally.verdict is not before:
                    self._ready[container.id] = tally.verdict
                    self._wake()
            elif gave_up(tally, probe):
                self._failed[container.id] = "liveness"
                self._wake()
                return
            await asyncio.sleep(probe.period_seconds or 10)

    async def _first_delay(self, container: Container, probe: Probe) -> None:
        wait_s = delay_s(probe, container.started_at_s, self._context.clock.now_s())
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _once(self, container: Container, spec: ContainerSpec, probe: Probe, kind: str, tally: Tally) -> Tally:
        result = await self._carry_out(container, spec, probe)
        name = kind.capitalize()
        if result.success is None:
            self._event(spec, "Unhealthy", f"{name} probe errored and resulted in unknown state: {result.output}")
            return tally
        if not result.success:
            self._event(spec, "Unhealthy", f"{name} probe failed: {result.output}")
        elif result.warning:
            self._event(spec, "ProbeWarning", f"{name} probe warning: {result.output}")
        return count_result(tally, probe, result.success)

    async def _carry_out(self, container: Container, spec: ContainerSpec, probe: Probe) -> ProbeResult:
        timeout_s = float(probe.timeout_seconds or 1)
        network = self._context.network_probes
        address = self._addresses[0] if self._addresses else ""
        if probe.exec is not None:
            return await self._exec(container, probe.exec.command, timeout_s)
        if probe.grpc is not None:
            return await network.grpc(address, probe.grpc.port or 0, probe.grpc.service, timeout_s)
        action = probe.http_get or probe.tcp_socket
        if action is None:
            return ProbeResult(None, "missing probe handler")
        port = resolve_port(spec, action.port)
        if port is None:
            return ProbeResult(None, f"couldn't find port: {action.port!r} in container {spec.name}")
        if probe.http_get is not None:
            return await network.http(probe.http_get, probe.http_get.host or address, port, timeout_s)
        return await network.tcp(action.host or address, port, timeout_s)

    async def _exec(self, container: Container, command: tuple[str, ...], timeout_s: float) -> ProbeResult:
        try:
            result = await self._context.runtime.exec_sync(container.id, command, timeout_s)
        except TimeoutError:
            return ProbeResult(False, exec_timeout(command, timeout_s))
        except (TiphysError, OSError) as error:
            return ProbeResult(None, f'rpc error: code = Unknown desc = failed to exec in container: "{error}"')
        output = (result.stdout + result.stderr)[:MAX_OUTPUT].decode(errors="replace")
        return ProbeResult(result.exit_code == 0, output)

    def _event(self, spec: ContainerSpec, reason: str, message: str) -> None:
        self._context.recorder.record(pod_reference(self._pod, spec.name), "Warning", reason, message)


def _known_status(pod: BoundPod, container_id: str) -> Mapping[str, Any]:
    """Return the status that the server has of this very instance, or {}."""
    for group in ("containerStatuses", "initContainerStatuses"):
        for status in pod.status.get(group) or ():
            if str(status.get("containerID", "")).endswith("//" + container_id):
                return dict(status)
    return {}
