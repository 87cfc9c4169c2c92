"""What every Runtime does, simulated or real."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "node"))

from runtime_support import embedded_runtime, real_containers

from tiphys.base.clock import Randomness, SystemClock
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    Runtime,
    RuntimeFailed,
    SandboxConfig,
    SandboxState,
)
from tiphys.runtime.simulated import Profile, SimulatedRuntime

QUICK = Profile(0.001, 0.001, 0.001, 0.001, 0.001)
TIMEOUT_S = 20


@pytest.fixture(params=["simulated", pytest.param("embedded", marks=pytest.mark.node)])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    if request.param == "simulated":
        simulated = SimulatedRuntime(QUICK, SystemClock(), Randomness(1), SimulatedPodNetwork())
        await simulated.start()
        yield simulated
        await simulated.stop()
        return
    possible, reason = real_containers()
    if not possible:
        pytest.skip(f"no real containers: {reason}")
    async with embedded_runtime() as (embedded, directory):
        CGROUPS[id(embedded)] = f"/{directory.name}/pod"
        yield embedded


CGROUPS: dict[int, str] = {}


def pod(runtime: Runtime, name: str = "web", **fields: object) -> SandboxConfig:
    parent = CGROUPS.get(id(runtime), "")
    values = {"uid": f"uid-{name}", "hostname": name, "cgroup_parent": parent and f"{parent}{name}", **fields}
    return SandboxConfig(name=name, namespace="default", **values)  # type: ignore[arg-type]


def shell(script: str, name: str = "main", **fields: object) -> ContainerConfig:
    return ContainerConfig(name, "busybox", command=("sh", "-c", script), **fields)  # type: ignore[arg-type]


async def run(runtime: Runtime, sandbox: str, config: ContainerConfig) -> str:
    container = await runtime.create_container(sandbox, config)
    await runtime.start_container(container)
    return container


def read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


async def ended(runtime: Runtime, container: str) -> Container:
    """Return a container's status once it has exited, without polling."""
    events = runtime.events()
    async with asyncio.timeout(TIMEOUT_S):
        while (status := await runtime.container_status(container)).state is not ContainerState.EXITED:
            async for event in events:
                if event.container_id == container:
                    break
    return status


async def test_sandbox_life(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime, labels={"a": "b"}))
    status = await runtime.pod_sandbox_status(sandbox)
    assert status.state is SandboxState.READY
    assert (status.name, status.namespace, status.uid, status.labels) == ("web", "default", "uid-web", {"a": "b"})
    assert len(status.addresses) == 1
    other = await runtime.run_pod_sandbox(pod(runtime, "other"))
    assert (await runtime.pod_sandbox_status(other)).addresses != status.addresses
    await runtime.stop_pod_sandbox(sandbox)
    await runtime.stop_pod_sandbox(sandbox)
    assert (await runtime.pod_sandbox_status(sandbox)).state is SandboxState.NOTREADY
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.remove_pod_sandbox(sandbox)
    assert [s.id for s in await runtime.list_pod_sandboxes()] == [other]
    with pytest.raises(RuntimeFailed) as failure:
        await runtime.pod_sandbox_status(sandbox)
    assert failure.value.reason == "NotFound"


async def test_container_life(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await runtime.create_container(sandbox, shell("sleep 1000", labels={"x": "y"}))
    status = await runtime.container_status(container)
    assert (status.state, status.started_at_s, status.labels) == (ContainerState.CREATED, 0.0, {"x": "y"})
    assert status.image_id.startswith("sha256:")
    await runtime.start_container(container)
    status = await runtime.container_status(container)
    assert status.state is ContainerState.RUNNING
    assert status.pid > 0
    assert status.started_at_s >= status.created_at_s > 0
    assert [c.id for c in await runtime.list_containers(sandbox)] == [container]
    await runtime.stop_container(container, 0)
    await runtime.stop_container(container, 0)
    status = await runtime.container_status(container)
    assert (status.state, status.exit_code, status.reason, status.pid) == (ContainerState.EXITED, 137, "Error", 0)
    assert status.finished_at_s >= status.started_at_s
    await runtime.remove_container(container)
    await runtime.remove_container(container)
    assert not await runtime.list_containers()


@pytest.mark.parametrize(("script", "code", "reason"), [("exit 3", 3, "Error"), ("true", 0, "Completed")])
async def test_exit_is_told_with_its_code(runtime: Runtime, script: str, code: int, reason: str) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    status = await ended(runtime, await run(runtime, sandbox, shell(script)))
    assert (status.exit_code, status.reason, status.message) == (code, reason, "")


async def test_events_come_in_order(runtime: Runtime) -> None:
    events = runtime.events()
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await run(runtime, sandbox, shell("sleep 0.05"))
    await ended(runtime, container)
    await runtime.remove_pod_sandbox(sandbox)
    seen = []
    async with asyncio.timeout(TIMEOUT_S):
        async for event in events:
            assert event.sandbox_id == sandbox
            if event.container_id:
                seen.append(event.type)
            elif event.type == "DELETED":
                break
    assert seen == ["CREATED", "STARTED", "STOPPED", "DELETED"]


async def test_log_lines(runtime: Runtime) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sandbox = await runtime.run_pod_sandbox(pod(runtime, log_directory=directory))
        container = await run(runtime, sandbox, shell("echo one; echo two", log_path="main/0.log"))
        status = await ended(runtime, container)
        assert status.log_path == f"{directory}/main/0.log"
        lines = read_lines(status.log_path)
        assert [line.split(" ", 1)[1] for line in lines] == ["stdout F one", "stdout F two"]
        assert all(len(line.split(" ")[0]) == len("2026-01-01T00:00:00.000000000Z") for line in lines)


async def test_exec(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await run(runtime, sandbox, shell("sleep 1000", envs=(("GREETING", "hello"),)))
    result = await runtime.exec_sync(container, ["echo", "hi"], 10)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"hi\n", b"")
    assert (await runtime.exec_sync(container, ["sh", "-c", "exit 5"], 10)).exit_code == 5
    assert (await runtime.exec_sync(container, ["hostname"], 10)).stdout == b"web\n"
    assert b"GREETING=hello\n" in (await runtime.exec_sync(container, ["env"], 10)).stdout
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(container, ["sleep", "100"], 0.05)


async def test_exec_with_input(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await run(runtime, sandbox, shell("sleep 1000"))
    stream = await runtime.exec(container, ["cat"], stdin=True, tty=False)
    await stream.write_stdin(b"one ")
    await stream.write_stdin(b"two")
    await stream.close_stdin()
    async with asyncio.timeout(TIMEOUT_S):
        assert b"".join([data async for fd, data in stream.output() if fd == 1]) == b"one two"
        assert await stream.wait() == 0
    await stream.close()
    await stream.close()


async def test_streams_need_a_running_container(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await run(runtime, sandbox, shell("exit 0"))
    await ended(runtime, container)
    with pytest.raises(RuntimeFailed):
        await runtime.exec_sync(container, ["true"], 1)
    with pytest.raises(RuntimeFailed):
        await runtime.attach(container, stdin=False)
    with pytest.raises(RuntimeFailed) as failure:
        await runtime.exec_sync("none", ["true"], 1)
    assert failure.value.reason == "NotFound"


async def test_attach_ends_with_the_container(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    container = await run(runtime, sandbox, shell("sleep 0.3; echo late; exit 9"))
    stream = await runtime.attach(container, stdin=False)
    async with asyncio.timeout(TIMEOUT_S):
        assert b"".join([data async for _, data in stream.output()]) == b"late\n"
        assert await stream.wait() == 9
    await stream.close()


async def test_images(runtime: Runtime) -> None:
    image = await runtime.image_status("busybox")
    assert image is not None
    assert image.tags[0] == "docker.io/library/busybox:latest" or "docker.io/library/busybox:latest" in image.tags
    assert await runtime.image_status(image.id) == image
    assert image.id in [known.id for known in await runtime.list_images()]
    with pytest.raises(RuntimeFailed) as failure:
        await runtime.image_status("Not A Name")
    assert failure.value.reason == "InvalidImageName"


async def test_port_forward_is_refused_where_nobody_listens(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    with pytest.raises(ConnectionError):
        await runtime.port_forward(sandbox, 81)


async def test_removing_a_sandbox_takes_its_containers(runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(pod(runtime))
    await run(runtime, sandbox, shell("sleep 1000", "a"))
    await run(runtime, sandbox, shell("sleep 1000", "b"))
    await runtime.remove_pod_sandbox(sandbox)
    assert not await runtime.list_containers()
    with pytest.raises(RuntimeFailed):
        await runtime.create_container(sandbox, shell("true"))
