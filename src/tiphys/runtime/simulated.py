"""A runtime without processes: containers that start, print, run and exit on the event loop's time.

What a container does comes from its command line (simulatedprocess.py) or from its pod's annotations, which tests set:
`tiphys.dev/simulate-exit: "1 after 5s"` for every container, `simulate-exit.<container>` for one,
`tiphys.dev/simulate-start-error: "message"` to make a start fail and `tiphys.dev/simulate-ignore-term: "true"` for a
process that only SIGKILL ends (both also with `.<container>`). How long things take comes from
the `Profile`. Only `asyncio.sleep` passes time, so a virtual-time loop runs thousands of nodes.

Invariant: the same states, reasons and exit codes as embedded.py gives; tests/contract/test_runtime.py holds both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tiphys.base.clock import Clock, Randomness
from tiphys.base.orderedset import OrderedSet
from tiphys.runtime.criformat import format_log_lines
from tiphys.runtime.eventfanout import EventFanout, EventReader
from tiphys.runtime.interface import (
    ByteReader,
    ByteWriter,
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerEventType,
    ContainerState,
    ExecResult,
    Image,
    ImageAuth,
    ProcessStream,
    Resources,
    RuntimeFailed,
    Sandbox,
    SandboxConfig,
    SandboxState,
    Stats,
)
from tiphys.runtime.podnetwork import PodNetwork
from tiphys.runtime.references import parse_reference, status_names
from tiphys.runtime.simulatedprocess import (
    CopyInput,
    Exit,
    Print,
    RunForever,
    Sleep,
    Step,
    parse_exit_annotation,
    plan_process,
)
from tiphys.runtime.simulatedstream import SimulatedStream

EXIT_ANNOTATION = "tiphys.dev/simulate-exit"
START_ERROR_ANNOTATION = "tiphys.dev/simulate-start-error"
IGNORE_TERM_ANNOTATION = "tiphys.dev/simulate-ignore-term"
LOG_MEMORY_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """How long a simulated node takes, in seconds, and what it has."""

    sandbox_start_s: float = 0.03
    container_create_s: float = 0.01
    container_start_s: float = 0.02
    container_stop_s: float = 0.01
    """From the stop signal to the exit of a process that obeys it."""
    pull_s: float = 0.5
    """Of an image that is not there yet."""
    pull_again_s: float = 0.02
    """Of one that is: its digest is compared, no layer is fetched."""
    jitter: float = 0.1
    """Each time is drawn from +- this share."""
    images_present: bool = True
    """Every image is there without a pull."""
    absent_images: frozenset[str] = frozenset()
    """Repositories (docker.io/library/nginx) that no registry has."""
    memory_usage_bytes: int = 8 << 20
    """Of each running container."""
    cpu_milli: int = 2
    """Mean use of each running container."""


@dataclass(slots=True)
class _Container:
    status: Container
    config: ContainerConfig
    hostname: str
    annotations: Mapping[str, str]
    """The pod's."""
    task: asyncio.Task[None] | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    log: bytearray = field(default_factory=bytearray)
    attached: list[SimulatedStream] = field(default_factory=list)


class SimulatedRuntime:
    """One simulated node's runtime."""

    def __init__(self, profile: Profile, clock: Clock, randomness: Randomness, network: PodNetwork) -> None:
        self._profile = profile
        self._clock = clock
        self._random = randomness
        self._network = network
        self._sandboxes: dict[str, Sandbox] = {}
        self._configs: dict[str, SandboxConfig] = {}
        self._containers: dict[str, _Container] = {}
        self._of_sandbox: dict[str, dict[str, _Container]] = {}
        """The same by sandbox."""
        self._images: dict[str, Image] = {}
        self._events = EventFanout(lambda: self._sandboxes)
        self._background: OrderedSet[asyncio.Task[None]] = OrderedSet()

    async def start(self) -> None:
        await self._network.start()

    async def stop(self) -> None:
        """End the simulated processes too: nothing of a simulated node outlives it."""
        tasks = [c.task for c in self._containers.values() if c.task] + list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._events.close()

    async def version(self) -> tuple[str, str]:
        return ("tiphys-simulated", "0.1.0")

    def events(self) -> EventReader:
        return self._events.subscribe()

    # Sandboxes
    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        sandbox_id = self._new_id()
        await self._pass_time(self._profile.sandbox_start_s)
        addresses: tuple[str, ...] = ()
        if not config.host_network:
            attached = await self._network.attach(sandbox_id, "", hostname=config.hostname, ports=config.port_mappings)
            addresses = attached.addresses
        self._configs[sandbox_id] = config
        self._sandboxes[sandbox_id] = Sandbox(
            id=sandbox_id,
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            state=SandboxState.READY,
            created_at_s=self._clock.now_s(),
            addresses=addresses,
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )
        self._publish(sandbox_id, "", "STARTED")
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.state is SandboxState.NOTREADY:
            return
        for container in [*self._of_sandbox.get(sandbox_id, {}).values()]:
            await self._end(container, 137)
        await self._network.detach(sandbox_id)
        self._sandboxes[sandbox_id] = replace(sandbox, state=SandboxState.NOTREADY)
        self._publish(sandbox_id, "", "STOPPED")

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id not in self._sandboxes:
            return
        await self.stop_pod_sandbox(sandbox_id)
        for container in [*self._of_sandbox.get(sandbox_id, {}).values()]:
            await self.remove_container(container.status.id)
        del self._sandboxes[sandbox_id], self._configs[sandbox_id]
        self._of_sandbox.pop(sandbox_id, None)
        self._publish(sandbox_id, "", "DELETED")

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: Resources) -> None:
        await self.pod_sandbox_status(sandbox_id)
        self._configs[sandbox_id] = replace(self._configs[sandbox_id], resources=resources)

    async def list_pod_sandboxes(self) -> Sequence[Sandbox]:
        return list(self._sandboxes.values())

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        if sandbox_id not in self._sandboxes:
            raise RuntimeFailed("NotFound", f'sandbox "{sandbox_id}" not found')
        return self._sandboxes[sandbox_id]

    # Containers
    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = await self.pod_sandbox_status(sandbox_id)
        if sandbox.state is not SandboxState.READY:
            raise RuntimeFailed("CreateContainerError", f'sandbox "{sandbox_id}" is not running')
        image = await self.image_status(config.image)
        if image is None:
            raise RuntimeFailed("CreateContainerError", f'failed to resolve image "{config.image}": not found')
        await self._pass_time(self._profile.container_create_s)
        container_id = self._new_id()
        pod = self._configs[sandbox_id]
        log_path = os.path.join(pod.log_directory, config.log_path) if pod.log_directory and config.log_path else ""
        name, digest = status_names(config.image, image.id, image.tags, image.digests)
        security = config.security
        self._of_sandbox.setdefault(sandbox_id, {})[container_id] = self._containers[container_id] = _Container(
            status=Container(
                id=container_id,
                sandbox_id=sandbox_id,
                name=config.name,
                attempt=config.attempt,
                state=ContainerState.CREATED,
                image=name,
                image_id=image.id,
                image_ref=digest,
                uid=security.run_as_user or 0,
                gid=security.run_as_group or 0,
                groups=tuple(sorted({security.run_as_group or 0, *security.supplemental_groups})),
                created_at_s=self._clock.now_s(),
                log_path=log_path,
                labels=dict(config.labels),
                annotations=dict(config.annotations),
            ),
            config=config,
            hostname=pod.hostname,
            annotations=pod.annotations,
        )
        self._publish(sandbox_id, container_id, "CREATED")
        return container_id

    async def start_container(self, container_id: str) -> None:
        container = self._container(container_id)
        if container.status.state is not ContainerState.CREATED:
            raise RuntimeFailed("RunContainerError", f'container "{container_id}" was started before')
        await self._pass_time(self._profile.container_start_s)
        message = self._annotation(container, START_ERROR_ANNOTATION)
        if message:
            self._become_exited(container, 128, "StartError", message)
            raise RuntimeFailed("RunContainerError", message)
        steps = self._plan(container)
        now_s = self._clock.now_s()
        container.status = replace(
            container.status, state=ContainerState.RUNNING, started_at_s=now_s, pid=self._random.integer(1000, 65535)
        )
        container.task = asyncio.create_task(self._run(container, steps), name=f"simulated {container.status.name}")
        self._publish(container.status.sandbox_id, container_id, "STARTED")

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.status.state is not ContainerState.RUNNING:
            return
        if self._annotation(container, IGNORE_TERM_ANNOTATION):
            try:
                await asyncio.wait_for(container.exited.wait(), timeout_s)
            except TimeoutError:
                await self._end(container, 137)
            return
        try:
            await asyncio.wait_for(container.exited.wait(), self._profile.container_stop_s)
        except TimeoutError:
            await self._end(container, 143 if timeout_s > 0 else 137)

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        await self._end(container, 137)
        self._containers.pop(container_id, None)
        self._of_sandbox.get(container.status.sandbox_id, {}).pop(container_id, None)
        self._publish(container.status.sandbox_id, container_id, "DELETED")

    async def list_containers(self, sandbox_id: str = "") -> Sequence[Container]:
        found = self._of_sandbox.get(sandbox_id, {}) if sandbox_id else self._containers
        return [c.status for c in found.values()]

    async def container_status(self, container_id: str) -> Container:
        return self._container(container_id).status

    async def update_container_resources(self, container_id: str, resources: Resources) -> None:
        container = self._container(container_id)
        container.config = replace(container.config, resources=resources)

    async def reopen_container_log(self, container_id: str) -> None:
        self._container(container_id)

    # Streams
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        stream = await self.exec(container_id, command, stdin=False, tty=False)
        try:
            async with asyncio.timeout(timeout_s if timeout_s > 0 else None):
                code = await stream.wait()
        finally:
            await stream.close()
        output = [(fd, data) async for fd, data in stream.output()]
        return ExecResult(
            code, b"".join(data for fd, data in output if fd == 1), b"".join(data for fd, data in output if fd == 2)
        )

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> ProcessStream:
        container = self._running(container_id)
        steps = plan_process(command, dict(container.config.envs), container.hostname, server=False)
        stream = SimulatedStream(stdin)
        task = asyncio.create_task(self._play(steps, stream), name="simulated exec")
        stream.task = task
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return stream

    async def attach(self, container_id: str, *, stdin: bool) -> ProcessStream:
        container = self._running(container_id)
        stream = SimulatedStream(stdin)
        container.attached.append(stream)
        return stream

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[ByteReader, ByteWriter]:
        await self.pod_sandbox_status(sandbox_id)
        raise ConnectionRefusedError(
            f"failed to connect to localhost:{port} inside namespace: connection refused "
            "(a simulated container listens on no port)"
        )

    # Images
    async def list_images(self) -> Sequence[Image]:
        return list(self._images.values())

    async def image_status(self, reference: str) -> Image | None:
        if reference.startswith("sha256:"):
            return next((image for image in self._images.values() if image.id == reference), None)
        parsed = parse_reference(reference)
        if self._profile.images_present and parsed.name not in self._profile.absent_images:
            self._add_image(reference)
        return self._images.get(str(parsed))

    async def pull_image(self, reference: str, auth: ImageAuth | None = None) -> str:
        parsed = parse_reference(reference)
        present = str(parsed) in self._images or self._profile.images_present
        await self._pass_time(self._profile.pull_again_s if present else self._profile.pull_s)
        if parsed.name in self._profile.absent_images:
            raise RuntimeFailed(
                "ErrImagePull",
                f'failed to pull and unpack image "{parsed}": failed to resolve reference "{parsed}": '
                f"{parsed}: not found",
            )
        return self._add_image(reference).id

    async def remove_image(self, reference: str) -> None:
        for key, image in list(self._images.items()):
            if image.id == reference or (
                not reference.startswith("sha256:") and key == str(parse_reference(reference))
            ):
                del self._images[key]

    async def container_stats(self, container_id: str) -> Stats:
        status = self._container(container_id).status
        if status.state is not ContainerState.RUNNING:
            return Stats()
        ran_s = self._clock.now_s() - status.started_at_s
        memory = self._profile.memory_usage_bytes
        return Stats(
            cpu_usage_ns=int(ran_s * self._profile.cpu_milli * 1e6),
            memory_working_set_bytes=memory,
            memory_usage_bytes=memory,
            pids=1,
        )

    # Insides
    def container_log(self, container_id: str) -> bytes:
        """Return the CRI log lines of a container without a log file (tests)."""
        return bytes(self._container(container_id).log)

    def _new_id(self) -> str:
        return (self._random.uid() + self._random.uid()).replace("-", "")

    async def _pass_time(self, seconds: float) -> None:
        jitter = self._profile.jitter
        await asyncio.sleep(seconds * self._random.uniform(1 - jitter, 1 + jitter))

    def _publish(self, sandbox_id: str, container_id: str, type_: ContainerEventType) -> None:
        self._events.publish(ContainerEvent(sandbox_id, container_id, type_))

    def _container(self, container_id: str) -> _Container:
        if container_id not in self._containers:
            raise RuntimeFailed("NotFound", f'container "{container_id}" not found')
        return self._containers[container_id]

    def _running(self, container_id: str) -> _Container:
        container = self._container(container_id)
        if container.status.state is not ContainerState.RUNNING:
            raise RuntimeFailed("NotRunning", f'container "{container_id}" is not running')
        return container

    def _annotation(self, container: _Container, key: str) -> str:
        own = container.annotations.get(f"{key}.{container.config.name}")
        return own if own is not None else container.annotations.get(key, "")

    def _plan(self, container: _Container) -> list[Step]:
        rule = self._annotation(container, EXIT_ANNOTATION)
        if rule:
            return parse_exit_annotation(rule)
        command = [*container.config.command, *container.config.args]
        return plan_process(command, dict(container.config.envs), container.hostname)

    async def _run(self, container: _Container, steps: Sequence[Step]) -> None:
        code = 0
        for step in steps:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Print):
                self._print(container, step.text)
            elif isinstance(step, RunForever | CopyInput):
                await container.stopped.wait()
            elif isinstance(step, Exit):
                code = step.code
        self._become_exited(container, code)

    async def _play(self, steps: Sequence[Step], stream: SimulatedStream) -> None:
        code = 0
        for step in steps:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Print):
                stream.put(1, step.text)
            elif isinstance(step, CopyInput):
                await stream.copy_input()
            elif isinstance(step, Exit):
                code = step.code
        stream.end(code)

    def _print(self, container: _Container, text: bytes) -> None:
        for stream in container.attached:
            stream.put(1, text)
        lines = format_log_lines(self._clock.now_s(), "stdout", text)
        path = container.status.log_path
        if path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "ab") as log:
                log.write(lines)
        elif len(container.log) < LOG_MEMORY_LIMIT_BYTES:
            container.log += lines

    async def _end(self, container: _Container, code: int) -> None:
        if container.task and not container.task.done():
            container.task.cancel()
            await asyncio.gather(container.task, return_exceptions=True)
        if container.status.state is ContainerState.RUNNING:
            self._become_exited(container, code)

    def _become_exited(self, container: _Container, code: int, reason: str = "", message: str = "") -> None:
        now_s = self._clock.now_s()
        container.status = replace(
            container.status,
            state=ContainerState.EXITED,
            finished_at_s=now_s,
            exit_code=code,
            reason=reason or ("Error" if code else "Completed"),
            message=message,
            pid=0,
        )
        container.exited.set()
        for stream in container.attached:
            stream.end(code)
        self._publish(container.status.sandbox_id, container.status.id, "STOPPED")

    def _add_image(self, reference: str) -> Image:
        parsed = parse_reference(reference)
        key = str(parsed)
        if key not in self._images:
            image_id = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
            digest = parsed.digest or "sha256:" + hashlib.sha256(b"manifest " + key.encode()).hexdigest()
            self._images[key] = Image(
                id=image_id,
                tags=(parsed.tagged,) if parsed.tag else (),
                digests=(f"{parsed.name}@{digest}",),
                size_bytes=10 << 20,
            )
        return self._images[key]
