"""Real containers with nothing to run beside it: an OCI runtime binary, our image store, our supervisor.

    <root>/images       image store (images.py)
    <root>/sandboxes    one directory a sandbox (sandbox.py)
    <root>/containers   one directory a container: bundle, overlay, FIFOs, records (embeddedstate.py)
    <run_dir>           the supervisor's socket, the OCI runtime's state, the directories of running execs

Input is the kubelet's calls and the supervisor's exits; output is states, events and streams. Containers are created
by bundle.py (overlay mounted, spec written) and run by one call of the OCI runtime at their start. Ordering that a crash
cannot break: make, then record; on removal forget the record first, so what is left is half made and goes at start.
One class and longer than other files because the interface is one; what decides is in the modules around it.

Spec: CRI v1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.runtime import sandbox as sandboxes
from tiphys.runtime.bundle import make_bundle, measure_directory, observe_machine, remove_bundle
from tiphys.runtime.cgroups import detect_cgroups
from tiphys.runtime.embeddedstate import (
    ContainerEntry,
    SandboxEntry,
    load_container,
    load_sandbox,
    lost_exit,
    read_exit,
    save_sandbox,
    write_record,
)
from tiphys.runtime.eventfanout import EventFanout, EventReader
from tiphys.runtime.images import ImageStore
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
from tiphys.runtime.ocibinary import find_oci_binary, read_error
from tiphys.runtime.podnetwork import PodNetwork
from tiphys.runtime.supervisorclient import ProcessRefused, SupervisedStream, SupervisorClient, SupervisorLost

KILL_TIMEOUT_S = 10.0
START_ATTEMPTS = 3
EXEC_OUTPUT_LIMIT_BYTES = 16 << 20
CGROUP_REMOVE_ATTEMPTS = 100
log = logging.getLogger(__name__)


class EmbeddedRuntime:
    """See the module's docstring. `seccomp_directory` is where Localhost profiles are."""

    def __init__(
        self,
        root: Path,
        run_dir: Path,
        network: PodNetwork,
        clock: Clock,
        randomness: Randomness,
        *,
        seccomp_directory: Path = Path("/var/lib/kubelet/seccomp"),
    ) -> None:
        self._network = network
        self._clock = clock
        self._random = randomness
        self._run_dir = run_dir
        self._sandbox_root = root / "sandboxes"
        self._container_root = root / "containers"
        self._exec_root = run_dir / "x"
        for directory in (self._sandbox_root, self._container_root, run_dir, self._exec_root):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.images = ImageStore(root / "images")
        cgroups = detect_cgroups()
        if cgroups is None:
            raise TiphysError("cgroups are not mounted on /sys/fs/cgroup: real containers need them")
        self._cgroups = cgroups
        self._binary = find_oci_binary(run_dir / "oci")
        self._machine = observe_machine(cgroups.unified, str(seccomp_directory))
        self._cgroup_parents_file = root / "cgroup-parents.json"
        self._cgroup_parents: set[str] = set()
        """Parents of pods' cgroups that we made, now or before a restart: what `remove_all` must look at."""
        self._sandboxes: dict[str, SandboxEntry] = {}
        self._containers: dict[str, ContainerEntry] = {}
        self._pulls: dict[str, asyncio.Task[str]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._events = EventFanout(lambda: self._sandboxes)
        self.supervisor = SupervisorClient(
            run_dir,
            (self._container_root, self._sandbox_root, self._exec_root),
            self._on_exit,
            self._on_supervisor_restart,
        )

    # Life
    async def start(self) -> None:
        await self._network.start()
        running = dict(await self.supervisor.start())
        for sandbox_id in running:
            if (self._sandbox_root / sandbox_id).is_dir() and load_sandbox(self._sandbox_root / sandbox_id) is None:
                await self.supervisor.signal(sandbox_id, signal.SIGKILL)
        await asyncio.to_thread(self._load, running)
        attached = await self._network.list_attached()
        for sandbox_id in attached:
            entry = self._sandboxes.get(sandbox_id)
            if entry is None or entry.status.state is SandboxState.NOTREADY:
                await self._network.detach(sandbox_id)
        for container in self._containers.values():
            if container.status.state is ContainerState.EXITED:
                self._clean_up_later(container)

    async def stop(self) -> None:
        await self.supervisor.stop()
        for task in [*self._background, *self._pulls.values()]:
            task.cancel()
        await asyncio.gather(*self._background, *self._pulls.values(), return_exceptions=True)
        self._events.close()

    async def remove_all(self) -> None:
        """Remove every container, sandbox, mount, namespace and cgroup, and end the supervisor. Images stay."""
        removals = [self.remove_pod_sandbox(sandbox_id) for sandbox_id in list(self._sandboxes)]
        failures = [
            str(outcome)
            for outcome in await asyncio.gather(*removals, return_exceptions=True)
            if isinstance(outcome, OSError | TiphysError)
        ]
        if failures:
            raise TiphysError(f"{len(failures)} pods could not be removed; run it again: {failures[0]}")
        for parent in sorted(self._cgroup_parents, reverse=True):
            await asyncio.to_thread(self._cgroups.remove_empty, parent)
        self._cgroup_parents_file.unlink(missing_ok=True)
        await self.supervisor.shutdown()
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self._run_dir, ignore_errors=True)

    async def version(self) -> tuple[str, str]:
        from importlib.metadata import version

        return ("tiphys", f"{version('tiphys')}+{self._binary.name}-{self._binary.version}")

    def events(self) -> EventReader:
        return self._events.subscribe()

    # Sandboxes
    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        sandbox_id = self._new_id()
        directory = self._sandbox_root / sandbox_id
        cgroup = config.cgroup_parent or f"/tiphys/{sandbox_id[:12]}"
        self._remember_cgroup_parent(os.path.dirname(cgroup))
        directory.mkdir(mode=0o700)
        (directory / "cgroup").write_text(cgroup)
        try:
            namespaces, _ = await asyncio.gather(
                asyncio.to_thread(sandboxes.make_namespaces, directory, config),
                asyncio.to_thread(self._cgroups.make, cgroup, config.resources),
            )
            addresses: tuple[str, ...] = ()
            if "network" in namespaces:
                attached = await self._network.attach(
                    sandbox_id, namespaces["network"], hostname=config.hostname, ports=config.port_mappings
                )
                addresses = attached.addresses
            if config.share_process_namespace and not config.host_pid:
                answer = await self.supervisor.request("hold", id=sandbox_id, dir=str(directory), kind="holder")
                if "error" in answer:
                    raise RuntimeFailed("CreatePodSandboxError", f"cannot share processes: {answer['error']}")
                namespaces["pid"] = await asyncio.to_thread(sandboxes.bind_pid_namespace, directory, answer["pid"])
        except BaseException as error:
            await self._undo_sandbox(sandbox_id, directory)
            if isinstance(error, OSError | TiphysError) and not isinstance(error, RuntimeFailed):
                raise RuntimeFailed("CreatePodSandboxError", f"failed to create pod sandbox: {error}") from error
            raise
        status = Sandbox(
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
        entry = SandboxEntry(status, config, directory, namespaces, cgroup)
        save_sandbox(entry)
        self._sandboxes[sandbox_id] = entry
        self._publish(sandbox_id, "", "STARTED")
        return sandbox_id

    def _remember_cgroup_parent(self, parent: str) -> None:
        if parent not in self._cgroup_parents:
            self._cgroup_parents.add(parent)
            write_record(self._cgroup_parents_file, {"parents": sorted(self._cgroup_parents)})

    async def _undo_sandbox(self, sandbox_id: str, directory: Path) -> None:
        with contextlib.suppress(SupervisorLost):
            await self.supervisor.signal(sandbox_id, signal.SIGKILL)
        await self._network.detach(sandbox_id)
        await asyncio.to_thread(self._remove_sandbox_directory, directory)

    def _remove_sandbox_directory(self, directory: Path) -> None:
        """Remove a sandbox's namespaces, its pod's cgroup unless another sandbox of the pod has it, its directory."""
        (directory / "sandbox.json").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            cgroup = (directory / "cgroup").read_text()
            if cgroup and not any(other.cgroup == cgroup for other in self._sandboxes.values()):
                self._cgroups.remove(cgroup)
        sandboxes.remove_directory(directory)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        entry = self._sandboxes.get(sandbox_id)
        if entry is None or entry.status.state is SandboxState.NOTREADY:
            return
        await asyncio.gather(*(self.stop_container(c.status.id, 0) for c in self._containers_of(sandbox_id)))
        if "pid" in entry.namespaces:
            await self.supervisor.signal(sandbox_id, signal.SIGKILL)
        if "network" in entry.namespaces:
            await self._network.detach(sandbox_id)
        await asyncio.to_thread(sandboxes.remove_namespaces, entry.directory)
        self._become_not_ready(entry)

    def _become_not_ready(self, entry: SandboxEntry) -> None:
        if entry.status.state is SandboxState.READY:
            entry.status = replace(entry.status, state=SandboxState.NOTREADY)
            save_sandbox(entry)
            self._publish(entry.status.id, "", "STOPPED")

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        entry = self._sandboxes.get(sandbox_id)
        if entry is None:
            return
        await self.stop_pod_sandbox(sandbox_id)
        await asyncio.gather(*(self.remove_container(c.status.id) for c in self._containers_of(sandbox_id)))
        self._sandboxes.pop(sandbox_id, None)
        await asyncio.to_thread(self._remove_sandbox_directory, entry.directory)
        self._publish(sandbox_id, "", "DELETED")

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: Resources) -> None:
        entry = self._sandbox(sandbox_id)
        try:
            await asyncio.to_thread(self._cgroups.limit, entry.cgroup, resources)
        except OSError as error:
            raise RuntimeFailed("UpdateFailed", f"cannot change the limits of the pod's cgroup: {error}") from error

    async def list_pod_sandboxes(self) -> Sequence[Sandbox]:
        return [entry.status for entry in self._sandboxes.values()]

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        return self._sandbox(sandbox_id).status

    # Containers
    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._sandbox(sandbox_id)
        if sandbox.status.state is not SandboxState.READY:
            raise RuntimeFailed("CreateContainerError", f'sandbox "{sandbox_id}" is not running')
        container_id = self._new_id()
        directory = self._container_root / container_id
        target_id = config.security.target_id
        target_pid = self._running(target_id).status.pid if target_id else 0
        now_s = self._clock.now_s()
        try:
            entry = await asyncio.to_thread(
                make_bundle, self.images, self._machine, sandbox, directory, config, now_s, target_pid
            )
        except BaseException as error:
            await asyncio.to_thread(remove_bundle, directory)
            if isinstance(error, OSError | TiphysError) and not isinstance(error, RuntimeFailed):
                raise RuntimeFailed("CreateContainerError", f"failed to create container: {error}") from error
            raise
        self._containers[container_id] = entry
        self._publish(sandbox_id, container_id, "CREATED")
        return container_id

    async def start_container(self, container_id: str) -> None:
        entry = self._container(container_id)
        if entry.status.state is not ContainerState.CREATED or entry.starting is not None:
            raise RuntimeFailed("RunContainerError", f'container "{container_id}" was started before')
        # A caller that is cancelled leaves the start to come to its end: who stops or removes it waits for that.
        entry.starting = asyncio.create_task(self._start(entry))
        await asyncio.shield(entry.starting)

    async def _start(self, entry: ContainerEntry) -> None:
        started_at_s = self._clock.now_s()
        answer = await self._request_start(entry)
        if "error" not in answer:
            entry.become_running(started_at_s, answer["pid"])
            self._publish(entry.status.sandbox_id, entry.status.id, "STARTED")
            return
        spec = json.loads((entry.directory / "config.json").read_text())
        output = answer.get("output") or answer["error"]
        why = read_error(entry.directory / "oci.log", output, spec["process"]["args"][0])
        message = (
            f"failed to create containerd task: failed to create shim task: OCI runtime create failed: "
            f"runc create failed: unable to start container process: {why}: unknown"
        )
        record = {"code": 128, "time": self._clock.now_s(), "reason": "StartError", "message": message}
        write_record(entry.directory / "exit.json", record)
        entry.become_exited(record)
        self._clean_up_later(entry)
        self._publish(entry.status.sandbox_id, entry.status.id, "STOPPED")
        raise RuntimeFailed("RunContainerError", message)

    async def _request_start(self, entry: ContainerEntry) -> dict[str, Any]:
        """Run the container; if the supervisor is killed meanwhile, see what came of it and otherwise try again."""
        streams = json.loads((entry.directory / "streams.json").read_text())
        container_id = entry.status.id
        request = {
            "id": container_id,
            "dir": str(entry.directory),
            "argv": self._binary.run(entry.directory, container_id, tty=streams["tty"]),
            "log": entry.status.log_path,
            "oom": self._cgroups.oom_file(entry.cgroup),
            "hide": self._binary.hide,
            **streams,
        }
        for _ in range(START_ATTEMPTS):
            try:
                return await self.supervisor.request("start", **request)
            except SupervisorLost as lost:
                error = str(lost)
            try:
                running = (await self.supervisor.request("hello"))["running"]
            except SupervisorLost:
                continue
            if container_id in running:
                return {"pid": running[container_id]}
            ended = read_exit(entry.directory)
            if ended:
                self._on_exit({**ended, "id": container_id})
                return {"pid": 0}
            await self._clean_up(entry)
        return {"error": error, "output": error}

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        entry = self._containers.get(container_id)
        if entry is not None and entry.starting is not None:
            await asyncio.wait([entry.starting])
        if entry is None or entry.status.state is not ContainerState.RUNNING:
            return
        if timeout_s > 0 and await self._signal(entry, entry.stop_signal):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await entry.exited.wait()
        if not entry.exited.is_set():
            await self._signal(entry, signal.SIGKILL)
            try:
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await entry.exited.wait()
            except TimeoutError as error:
                raise RuntimeFailed(
                    "KillContainerError",
                    f'container "{container_id}" is still there {KILL_TIMEOUT_S:.0f} s after SIGKILL',
                ) from error

    async def _signal(self, entry: ContainerEntry, number: int) -> bool:
        try:
            return await self.supervisor.signal(entry.status.id, number)
        except SupervisorLost:  # its successor tells whether the process still runs; until then signal it ourselves
            if entry.status.pid and entry.status.state is ContainerState.RUNNING:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.status.pid, number)
            return True

    async def remove_container(self, container_id: str) -> None:
        entry = self._containers.get(container_id)
        if entry is None:
            return
        await self.stop_container(container_id, 0)
        if entry.cleanup:
            await entry.cleanup
        (entry.directory / "container.json").unlink(missing_ok=True)
        self._containers.pop(container_id, None)
        await asyncio.to_thread(remove_bundle, entry.directory)
        self._publish(entry.status.sandbox_id, container_id, "DELETED")

    async def list_containers(self, sandbox_id: str = "") -> Sequence[Container]:
        return [c.status for c in self._containers.values() if sandbox_id in ("", c.status.sandbox_id)]

    async def container_status(self, container_id: str) -> Container:
        return self._container(container_id).status

    async def update_container_resources(self, container_id: str, resources: Resources) -> None:
        entry = self._container(container_id)
        try:
            await asyncio.to_thread(self._cgroups.limit, entry.cgroup, resources)
        except OSError as error:
            raise RuntimeFailed(
                "UpdateFailed", f'cannot change the limits of container "{container_id}": {error}'
            ) from error

    async def reopen_container_log(self, container_id: str) -> None:
        self._container(container_id)
        await self.supervisor.request("reopen", id=container_id)

    # Streams
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        stream = await self.exec(container_id, command, stdin=False, tty=False)
        output: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        try:
            async with asyncio.timeout(timeout_s if timeout_s > 0 else None):
                async for fd, data in stream.output():
                    if len(output[fd]) < EXEC_OUTPUT_LIMIT_BYTES:
                        output[fd] += data
                code = await stream.wait()
        finally:
            await stream.close()
        return ExecResult(code, bytes(output[1]), bytes(output[2]))

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> ProcessStream:
        entry = self._running(container_id)
        exec_id = self._new_id()[:16]
        directory = self._exec_root / exec_id
        directory.mkdir(mode=0o700)

        def remove() -> None:
            shutil.rmtree(directory, ignore_errors=True)

        process: dict[str, Any] = json.loads((entry.directory / "config.json").read_bytes())["process"]
        process |= {"args": list(command), "terminal": tty}
        if tty and not any(variable.startswith("TERM=") for variable in process["env"]):
            process["env"].append("TERM=xterm")
        (directory / "process.json.spec").write_text(json.dumps(process))
        try:
            stream = await self.supervisor.open_stream(
                "exec",
                id=exec_id,
                kind="exec",
                dir=str(directory),
                argv=self._binary.exec(directory, container_id, tty=tty),
                hide=self._binary.hide,
                stdin=stdin,
                tty=tty,
            )
        except ProcessRefused as refused:
            why = read_error(directory / "oci.log", refused.output, command[0] if command else "")
            remove()
            raise RuntimeFailed(
                "ExecFailed",
                f'failed to exec in container: failed to start exec "{exec_id}": OCI runtime exec failed: '
                f"exec failed: unable to start container process: {why}: unknown",
            ) from refused
        except BaseException as error:
            remove()
            if isinstance(error, SupervisorLost | OSError):
                raise RuntimeFailed("ExecFailed", f"failed to exec in container: {error}") from error
            raise
        stream.on_close = remove
        return stream

    async def attach(self, container_id: str, *, stdin: bool) -> SupervisedStream:
        self._running(container_id)
        try:
            return await self.supervisor.open_stream("attach", id=container_id, stdin=stdin)
        except ProcessRefused as refused:
            raise RuntimeFailed("NotRunning", f'container "{container_id}" is not running') from refused
        except (SupervisorLost, OSError) as error:
            raise RuntimeFailed("AttachFailed", f"failed to attach to container: {error}") from error

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[ByteReader, ByteWriter]:
        entry = self._sandbox(sandbox_id)
        if entry.status.state is not SandboxState.READY:
            raise ConnectionError(f'sandbox "{sandbox_id}" is not running')
        sock = await asyncio.to_thread(sandboxes.connect_socket, entry.namespaces.get("network", ""))
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise ConnectionRefusedError(
                f"failed to connect to localhost:{port} inside namespace {sandbox_id}: {error.strerror or error}"
            ) from error
        return await asyncio.open_connection(sock=sock)

    # Images
    async def list_images(self) -> Sequence[Image]:
        return self.images.images()

    async def image_status(self, reference: str) -> Image | None:
        return self.images.status(reference)

    async def pull_image(self, reference: str, auth: ImageAuth | None = None) -> str:
        """Pull; callers of the same reference share one pull, which goes on when a caller is cancelled."""
        from tiphys.runtime.registry import pull

        key = f"{reference} {auth.username if auth else ''}"
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(pull, self.images, reference, auth), name=f"pull {reference}")
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._end_pull(key, done))
        return await asyncio.shield(task)

    def _end_pull(self, key: str, task: asyncio.Task[str]) -> None:
        self._pulls.pop(key, None)
        if not task.cancelled() and (error := task.exception()):  # its callers may all have been cancelled
            log.info("pull failed: %s", error)

    async def remove_image(self, reference: str) -> None:
        in_use = [c.status.image_id for c in self._containers.values()]
        await asyncio.to_thread(self.images.remove, reference, in_use)

    async def container_stats(self, container_id: str) -> Stats:
        entry = self._container(container_id)
        return await asyncio.to_thread(self._observe_stats, entry)

    def _observe_stats(self, entry: ContainerEntry) -> Stats:
        stats = self._cgroups.stats(entry.cgroup)
        return replace(stats, writable_layer_bytes=measure_directory(entry.directory / "upper"))

    # Exits
    def _on_exit(self, event: dict[str, Any]) -> None:
        sandbox = self._sandboxes.get(event["id"])
        if sandbox:
            self._become_not_ready(sandbox)
            return
        entry = self._containers.get(event["id"])
        if entry is None or entry.status.state is ContainerState.EXITED:
            return  # told twice: by the supervisor and by its record
        entry.become_exited(event)
        self._clean_up_later(entry)
        self._publish(entry.status.sandbox_id, entry.status.id, "STOPPED")

    async def _on_supervisor_restart(self, running: Mapping[str, int]) -> None:
        """Take what happened while no supervisor told us from the exit records."""
        log.warning("the container supervisor was killed; a new one has adopted %d processes", len(running))
        for entry in list(self._containers.values()):
            if entry.status.state is ContainerState.RUNNING and entry.status.id not in running:
                self._on_exit({"id": entry.status.id, **(read_exit(entry.directory) or lost_exit(self._clock.now_s()))})

    def _clean_up_later(self, entry: ContainerEntry) -> None:
        task = asyncio.create_task(self._clean_up(entry), name=f"clean up {entry.status.id[:12]}")
        entry.cleanup = task
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _clean_up(self, entry: ContainerEntry) -> None:
        """Remove a stopped container's cgroup and OCI state. Processes it left behind (shared PID namespace) die."""
        for attempt in range(CGROUP_REMOVE_ATTEMPTS):
            if await asyncio.to_thread(self._remove_cgroup, entry):
                return
            await asyncio.sleep(0.001 * (attempt + 1))  # the kernel frees a dead process's cgroup a moment later
        log.warning(
            "the cgroup %s of container %s is still busy; it is removed at the next start",
            entry.cgroup,
            entry.status.id,
        )

    def _remove_cgroup(self, entry: ContainerEntry) -> bool:
        self._cgroups.kill(entry.cgroup)
        gone = self._cgroups.remove(entry.cgroup)
        if gone:
            shutil.rmtree(self._binary.state / entry.status.id, ignore_errors=True)
        return gone

    # State
    def _load(self, running: dict[str, int]) -> None:
        """Read back what stands; remove what a crash left half made."""
        shutil.rmtree(self._exec_root, ignore_errors=True)
        self._exec_root.mkdir(mode=0o700, exist_ok=True)  # an exec that is just ending may still write there
        self.images.clean()
        with contextlib.suppress(FileNotFoundError):
            self._cgroup_parents.update(json.loads(self._cgroup_parents_file.read_bytes())["parents"])
        half_made = []
        for directory in self._sandbox_root.iterdir():
            sandbox = load_sandbox(directory)
            if sandbox is None:
                half_made.append(directory)
                continue
            if not sandboxes.namespaces_stand(directory) or (
                "pid" in sandbox.namespaces and directory.name not in running
            ):
                sandbox.status = replace(sandbox.status, state=SandboxState.NOTREADY)
            self._sandboxes[directory.name] = sandbox
        for directory in self._container_root.iterdir():
            container = load_container(directory, running, self._clock.now_s())
            if container is None or container.status.sandbox_id not in self._sandboxes:
                self._kill_half_made(directory)
                remove_bundle(directory)
            else:
                self._containers[directory.name] = container
        for directory in half_made:
            self._remove_sandbox_directory(directory)

    def _kill_half_made(self, directory: Path) -> None:
        """End what a start that nobody finished may have left running."""
        try:
            cgroup = json.loads((directory / "config.json").read_bytes())["linux"]["cgroupsPath"]
        except (OSError, ValueError, KeyError):
            return
        self._cgroups.kill(cgroup)
        self._cgroups.remove(cgroup)
        shutil.rmtree(self._binary.state / directory.name, ignore_errors=True)

    def _new_id(self) -> str:
        return (self._random.uid() + self._random.uid()).replace("-", "")

    def _containers_of(self, sandbox_id: str) -> list[ContainerEntry]:
        return [c for c in self._containers.values() if c.status.sandbox_id == sandbox_id]

    def _sandbox(self, sandbox_id: str) -> SandboxEntry:
        if sandbox_id not in self._sandboxes:
            raise RuntimeFailed("NotFound", f'sandbox "{sandbox_id}" not found')
        return self._sandboxes[sandbox_id]

    def _container(self, container_id: str) -> ContainerEntry:
        if container_id not in self._containers:
            raise RuntimeFailed("NotFound", f'container "{container_id}" not found')
        return self._containers[container_id]

    def _running(self, container_id: str) -> ContainerEntry:
        entry = self._container(container_id)
        if entry.status.state is not ContainerState.RUNNING:
            raise RuntimeFailed("NotRunning", f'container "{container_id}" is not running')
        return entry

    def _publish(self, sandbox_id: str, container_id: str, type_: ContainerEventType) -> None:
        self._events.publish(ContainerEvent(sandbox_id, container_id, type_))
