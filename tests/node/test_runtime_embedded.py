"""What only real containers show: users, limits, mounts, namespaces, terminals, failures, crashes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from leaks import snapshot
from runtime_support import embedded_runtime, new_runtime, real_containers

from tiphys.runtime.embedded import EmbeddedRuntime
from tiphys.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    Mount,
    Resources,
    RuntimeFailed,
    SandboxConfig,
    SandboxState,
    SecurityContext,
)

pytestmark = pytest.mark.node
TIMEOUT_S = 20


class Place:
    """A runtime with its directory, and the few lines that most tests need."""

    def __init__(self, runtime: EmbeddedRuntime, directory: Path) -> None:
        self.runtime = runtime
        self.directory = directory

    async def sandbox(self, name: str = "web", **fields: object) -> str:
        values = {
            "uid": name,
            "hostname": name,
            "cgroup_parent": f"/{self.directory.name}/pod{name}",
            "log_directory": str(self.directory / "logs"),
            **fields,
        }
        return await self.runtime.run_pod_sandbox(SandboxConfig(name=name, namespace="default", **values))  # type: ignore[arg-type]

    async def run(self, sandbox: str, script: str, name: str = "main", **fields: object) -> str:
        values = {"image": "busybox", "command": ("sh", "-c", script), "log_path": f"{name}/0.log", **fields}
        container = await self.runtime.create_container(sandbox, ContainerConfig(name, **values))  # type: ignore[arg-type]
        await self.runtime.start_container(container)
        return container

    async def ended(self, container: str) -> Container:
        events = self.runtime.events()
        async with asyncio.timeout(TIMEOUT_S):
            while (status := await self.runtime.container_status(container)).state is not ContainerState.EXITED:
                async for event in events:
                    if event.container_id == container:
                        break
        return status

    async def say(self, container: str, *command: str) -> str:
        result = await self.runtime.exec_sync(container, command, 10)
        return (result.stdout + result.stderr).decode()

    async def output(self, script: str, **fields: object) -> str:
        """Run a script in a pod of its own; return what it printed."""
        sandbox = await self.sandbox(f"p{os.urandom(3).hex()}")
        container = await self.run(sandbox, script, name=sandbox[:8], **fields)
        status = await self.ended(container)
        return "\n".join(line.split(" ", 3)[3] for line in lines_of(status.log_path))


def lines_of(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    possible, reason = real_containers()
    if not possible:
        pytest.skip(f"no real containers: {reason}")
    async with embedded_runtime() as (runtime, directory):
        yield Place(runtime, directory)


async def test_users_groups_environment_and_working_directory(place: Place) -> None:
    app = await place.output(
        "id -u; id -g; id -G; pwd; echo $FROM_IMAGE $HOME $MINE", image="app", envs=(("MINE", "2"),)
    )
    assert app.split("\n") == ["1234", "1234", "1234 77", "/made", "1 /home/app 2"]
    security = SecurityContext(run_as_user=5, run_as_group=6, supplemental_groups=(7,))
    assert await place.output("id -u; id -g; id -G", security=security) == "5\n6\n6 7"


async def test_security_settings_reach_the_process(place: Place) -> None:
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x 2>&1; cat /proc/timer_list | head -1"
    default = await place.output(script)
    assert "CapEff:\t00000000a80425fb" in default
    assert "NoNewPrivs:\t0" in default
    security = SecurityContext(
        drop_capabilities=("ALL",),
        add_capabilities=("NET_ADMIN",),
        allow_privilege_escalation=False,
        readonly_rootfs=True,
        seccomp_profile="RuntimeDefault",
    )
    tight = await place.output(script, security=security)
    assert "CapEff:\t0000000000001000" in tight
    assert "NoNewPrivs:\t1" in tight
    assert "Seccomp:\t2" in tight
    assert "Read-only file system" in tight
    privileged = await place.output(
        "mount -t tmpfs x /mnt 2>&1 || mkdir /mnt && mount -t tmpfs x /mnt && echo mounted",
        security=SecurityContext(privileged=True),
    )
    assert privileged.endswith("mounted")


async def test_mounts(place: Place) -> None:
    source = place.directory / "volume"
    source.mkdir()
    (source / "file").write_text("content")
    mounts = (
        Mount("/vol", str(source)),
        Mount("/vol-ro", str(source), readonly=True),
        Mount("/etc/hosts", str(source / "file")),
    )
    said = await place.output(
        "cat /vol/file /etc/hosts; echo; echo x > /vol/new; echo y 2>&1 > /vol-ro/new", mounts=mounts
    )
    assert said.startswith("contentcontent")
    assert (source / "new").read_text() == "x\n"


async def test_pod_namespaces_are_shared_and_processes_are_not(place: Place) -> None:
    sandbox = await place.sandbox(sysctls={"kernel.shm_rmid_forced": "1", "net.core.somaxconn": "99"})
    first = await place.run(sandbox, "echo shared > /dev/shm/x; sleep 1000", "a")
    second = await place.run(sandbox, "sleep 1000", "b")
    for namespace in ("net", "ipc", "uts"):
        link = ("readlink", f"/proc/self/ns/{namespace}")
        assert await place.say(first, *link) == await place.say(second, *link) != os.readlink(link[1])
    assert await place.say(second, "cat", "/dev/shm/x") == "shared\n"
    assert (
        await place.say(first, "cat", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/net/core/somaxconn") == "1\n99\n"
    )
    assert "sleep" in await place.say(first, "cat", "/proc/1/cmdline")


async def test_shared_process_namespace_ends_with_the_pod(place: Place) -> None:
    sandbox = await place.sandbox(share_process_namespace=True)
    first = await place.run(sandbox, "sleep 1000 & exec sleep 999", "a")
    second = await place.run(sandbox, "sleep 998", "b")
    assert "sleep 998" in await place.say(first, "ps")
    await place.runtime.stop_container(first, 0)
    assert (await place.runtime.container_status(second)).state is ContainerState.RUNNING
    await place.runtime.remove_pod_sandbox(sandbox)
    assert not await place.runtime.list_containers()


async def test_host_namespaces(place: Place) -> None:
    sandbox = await place.sandbox(host_network=True, host_pid=True, host_ipc=True)
    container = await place.run(sandbox, "sleep 1000")
    for namespace in ("net", "ipc", "uts", "pid"):
        own = await place.say(container, "readlink", f"/proc/self/ns/{namespace}")
        assert own.strip() == os.readlink(f"/proc/self/ns/{namespace}")
    assert (await place.runtime.pod_sandbox_status(sandbox)).addresses == ()


async def test_memory_limit_ends_in_oom_killed(place: Place) -> None:
    sandbox = await place.sandbox()
    limits = Resources(memory_limit_bytes=16 << 20, cpu_shares=102, cpu_quota_us=20_000, pids_limit=50)
    container = await place.run(sandbox, "tail /dev/zero", resources=limits)
    status = await place.ended(container)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


async def test_stats_and_new_limits(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(
        sandbox, "head -c 100000 /dev/zero > /data; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; sleep 1000"
    )
    stream = await place.runtime.attach(container, stdin=False)
    async for _ in stream.output():
        break
    await stream.close()
    stats = await place.runtime.container_stats(container)
    assert stats.cpu_usage_ns > 0
    assert stats.memory_usage_bytes >= stats.memory_working_set_bytes > 0
    assert stats.pids >= 1
    assert stats.writable_layer_bytes >= 100_000
    await place.runtime.update_container_resources(container, Resources(memory_limit_bytes=64 << 20))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("nope",), 'exec: "nope": executable file not found in $PATH'),
        (("/nope",), 'exec: "/nope": stat /nope: no such file or directory'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
    ],
)
async def test_a_command_that_cannot_run(place: Place, command: tuple[str, ...], why: str) -> None:
    sandbox = await place.sandbox()
    container = await place.runtime.create_container(sandbox, ContainerConfig("x", "busybox", command=command))
    with pytest.raises(RuntimeFailed) as failure:
        await place.runtime.start_container(container)
    assert failure.value.reason == "RunContainerError"
    status = await place.runtime.container_status(container)
    assert (status.state, status.reason, status.exit_code) == (ContainerState.EXITED, "StartError", 128)
    assert why in status.message


async def test_creation_failures_leave_nothing(place: Place) -> None:
    sandbox = await place.sandbox()
    for config in (
        ContainerConfig("x", "busybox", security=SecurityContext(run_as_username="nobody-here")),
        ContainerConfig("x", "no-such-image"),
        ContainerConfig("x", "busybox", security=SecurityContext(add_capabilities=("NONSENSE",))),
    ):
        with pytest.raises(RuntimeFailed) as failure:
            await place.runtime.create_container(sandbox, config)
        assert failure.value.reason == "CreateContainerError"
    assert not list((place.directory / "root/containers").iterdir())


async def test_graceful_stop(place: Place) -> None:
    sandbox = await place.sandbox()
    polite = await place.run(sandbox, "trap 'exit 7' TERM; echo ready; while true; do sleep 0.02; done", "polite")
    rude = await place.run(sandbox, "trap '' TERM; echo ready; while true; do sleep 0.02; done", "rude")
    for container in (polite, rude):
        stream = await place.runtime.attach(container, stdin=False)
        if not lines_of((await place.runtime.container_status(container)).log_path):
            async for _ in stream.output():
                break
        await stream.close()
    await place.runtime.stop_container(polite, 10)
    await place.runtime.stop_container(rude, 0.1)
    assert (await place.runtime.container_status(polite)).exit_code == 7
    assert (await place.runtime.container_status(rude)).exit_code == 137


async def test_a_terminal(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "read line; stty size; echo got $line; exit 4", tty=True, stdin=True)
    stream = await place.runtime.attach(container, stdin=True)
    await stream.resize(100, 40)
    await stream.write_stdin(b"hello\n")
    async with asyncio.timeout(TIMEOUT_S):
        said = b"".join([data async for _, data in stream.output()])
        assert await stream.wait() == 4
    assert b"40 100\r\n" in said
    assert b"got hello\r\n" in said
    await stream.close()


async def test_attached_input_ends_once(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "cat; echo done", stdin=True, stdin_once=True)
    stream = await place.runtime.attach(container, stdin=True)
    await stream.write_stdin(b"text\n")
    await stream.close_stdin()
    async with asyncio.timeout(TIMEOUT_S):
        assert b"".join([data async for _, data in stream.output()]) == b"text\ndone\n"
    await stream.close()


async def test_large_exec_streams_both_ways(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "sleep 1000")
    stream = await place.runtime.exec(
        container, ["sh", "-c", "cat | wc -c; head -c 3000000 /dev/zero"], stdin=True, tty=False
    )
    await stream.write_stdin(b"x" * 3_000_000)
    await stream.close_stdin()
    async with asyncio.timeout(TIMEOUT_S):
        said = b"".join([data async for _, data in stream.output()])
    assert said.startswith(b"3000000\n")
    assert len(said) == 3_000_008
    await stream.close()


async def test_closing_an_exec_kills_it(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "sleep 1000")
    stream = await place.runtime.exec(container, ["sleep", "12345"], stdin=False, tty=False)
    await stream.close()
    async with asyncio.timeout(TIMEOUT_S):
        while "12345" in await place.say(container, "ps"):
            pass
    assert not list((place.directory / "run/x").iterdir())


async def test_an_exec_ends_with_the_supervisor(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "sleep 1000")
    stream = await place.runtime.exec(container, ["sleep", "12346"], stdin=False, tty=False)
    place.runtime.supervisor.kill()
    async with asyncio.timeout(TIMEOUT_S):
        assert [item async for item in stream.output()] == []
        assert await stream.wait() == 137
        while any("12346" in process for process in snapshot(container).processes):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    await stream.close()


async def test_long_lines_are_cut_into_parts(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "head -c 20000 /dev/zero | tr '\\0' a; echo; printf end >&2")
    status = await place.ended(container)
    parts = [line.split(" ", 3)[1:] for line in lines_of(status.log_path)]
    assert sorted((stream, tag, len(text)) for stream, tag, text in parts) == [
        ("stderr", "P", 3),
        ("stdout", "F", 20000 - 16384),
        ("stdout", "P", 16384),
    ]


async def test_logs_rotate(place: Place) -> None:
    sandbox = await place.sandbox()
    line = "a" * 1000
    container = await place.run(sandbox, f"yes {line} | head -n 12000")
    status = await place.ended(container)
    files = sorted(Path(status.log_path).parent.iterdir())
    assert len(files) == 2
    assert all(file.stat().st_size <= 10 << 20 for file in files)
    assert sum(len(lines_of(str(file))) for file in files) == 12000


async def test_port_forward(place: Place) -> None:
    sandbox = await place.sandbox()
    await place.run(sandbox, "echo ready; echo page | nc -lp 8080")
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                reader, writer = await place.runtime.port_forward(sandbox, 8080)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        assert await reader.read(100) == b"page\n"
    writer.close()


async def test_restart_of_the_node_agent_adopts_everything(place: Place) -> None:
    sandbox = await place.sandbox(share_process_namespace=True)
    lives = await place.run(sandbox, "sleep 1000", "lives")
    dies = await place.run(sandbox, "while [ ! -e /dev/shm/stop ]; do sleep 0.01; done; echo bye; exit 6", "dies")
    created = await place.runtime.create_container(sandbox, ContainerConfig("half", "busybox"))
    before = await place.runtime.container_status(lives)
    await place.runtime.stop()
    (place.directory / "root/sandboxes" / sandbox / "shm/stop").touch()
    second = place.runtime = new_runtime(place.directory)
    await second.start()
    try:
        status = await second.container_status(lives)
        assert (status.state, status.pid) == (ContainerState.RUNNING, before.pid)
        assert (await second.exec_sync(lives, ["echo", "still"], 10)).stdout == b"still\n"
        status = await place.ended(dies)
        assert (status.exit_code, status.reason) == (6, "Error")
        assert lines_of(status.log_path)[-1].endswith("stdout F bye")
        with pytest.raises(RuntimeFailed):
            await second.container_status(created)
        assert not (place.directory / "root/containers" / created).exists()
        assert (await second.pod_sandbox_status(sandbox)).state is SandboxState.READY
        again = await place.run(sandbox, "exit 0", "again")
        assert (await place.ended(again)).exit_code == 0
    finally:
        await second.stop()


async def test_killed_supervisor_is_followed_by_one_that_adopts(place: Place) -> None:
    sandbox = await place.sandbox()
    talks = await place.run(sandbox, "while [ ! -e /dev/shm/stop ]; do echo tick; sleep 0.01; done; exit 5", "talks")
    events = place.runtime.events()
    first = place.runtime.supervisor.pid
    place.runtime.supervisor.kill()
    async with asyncio.timeout(TIMEOUT_S):
        while place.runtime.supervisor.pid == first or not place.runtime.supervisor.connected:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    assert (await place.runtime.container_status(talks)).state is ContainerState.RUNNING
    stream = await place.runtime.attach(talks, stdin=False)
    async for _, data in stream.output():
        assert data.startswith(b"tick")
        break
    await stream.close()
    (place.directory / "root/sandboxes" / sandbox / "shm/stop").touch()
    async with asyncio.timeout(TIMEOUT_S):
        async for event in events:
            if event.type == "STOPPED":
                break
    status = await place.runtime.container_status(talks)
    assert (status.exit_code, status.reason) in ((5, "Error"), (137, "ContainerStatusUnknown"))
    assert (await place.ended(await place.run(sandbox, "exit 2", "next"))).exit_code == 2


async def test_a_start_survives_the_supervisor_being_killed(place: Place) -> None:
    sandbox = await place.sandbox()
    for number in range(5):
        config = ContainerConfig(f"c{number}", "busybox", command=("sleep", "1000"))
        container = await place.runtime.create_container(sandbox, config)
        starting = asyncio.create_task(place.runtime.start_container(container))
        await asyncio.sleep(0.004 * number)
        if place.runtime.supervisor.connected:
            place.runtime.supervisor.kill()
        await starting
        assert (await place.runtime.container_status(container)).state is ContainerState.RUNNING
        assert len(snapshot(container).processes) == 1


async def test_a_start_survives_a_supervisor_whose_end_was_not_heard_of_yet(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.runtime.create_container(
        sandbox, ContainerConfig("c", "busybox", command=("sleep", "1000"))
    )
    handle = os.pidfd_open(place.runtime.supervisor.pid)
    place.runtime.supervisor.kill()
    select.select([handle], [], [])  # without a turn of the loop: nobody has read the end of the connection
    os.close(handle)
    await place.runtime.start_container(container)
    assert (await place.runtime.container_status(container)).state is ContainerState.RUNNING


async def test_exit_while_agent_and_supervisor_are_dead_is_unknown(place: Place) -> None:
    sandbox = await place.sandbox()
    container = await place.run(sandbox, "sleep 1000")
    pid = (await place.runtime.container_status(container)).pid
    supervisor = place.runtime.supervisor.pid
    await place.runtime.stop()
    kill(supervisor)
    kill(pid)
    second = place.runtime = new_runtime(place.directory)
    await second.start()
    try:
        status = await place.ended(container)
        assert status.exit_code == 137
        assert status.reason in ("ContainerStatusUnknown", "Error")
    finally:
        await second.stop()


async def test_the_files_of_an_image_are_a_volume(place: Place) -> None:
    mounts = (Mount("/all", "", image="busybox"), Mount("/bin2", "", image="busybox", image_sub_path="bin"))
    said = await place.output("ls /all/bin/sh /bin2/sh; touch /all/x 2>&1 || echo refused", mounts=mounts)
    assert said.splitlines()[:2] == ["/all/bin/sh", "/bin2/sh"] and said.endswith("refused")
    with pytest.raises(RuntimeFailed, match='subpath "nope" not found'):
        await place.output("true", mounts=(Mount("/x", "", image="busybox", image_sub_path="nope"),))


async def test_a_container_sees_the_processes_of_its_target(place: Place) -> None:
    sandbox = await place.sandbox()
    target = await place.run(sandbox, "sleep 4711")
    watcher = await place.run(sandbox, "ps", name="watcher", security=SecurityContext(target_id=target))
    status = await place.ended(watcher)
    assert any("sleep 4711" in line for line in lines_of(status.log_path))


async def test_limits_of_a_pod_change_while_it_runs(place: Place) -> None:
    sandbox = await place.sandbox()
    await place.run(sandbox, "sleep 1000")
    await place.runtime.update_pod_sandbox_resources(sandbox, Resources(memory_limit_bytes=96 << 20))
    root = Path("/sys/fs/cgroup")  # with one hierarchy, or with one for each controller; others' come and go meanwhile
    places = [root / place.directory.name, *(h / place.directory.name for h in root.iterdir())]  # noqa: ASYNC240
    limits = [path / "podweb" / name for path in places for name in ("memory.limit_in_bytes", "memory.max")]
    assert [limit.read_text().strip() for limit in limits if limit.exists()] == [str(96 << 20)]


async def test_a_status_names_image_and_user(place: Place) -> None:
    container = await place.run(await place.sandbox(), "sleep 1000", security=SecurityContext(run_as_user=1234))
    status = await place.runtime.container_status(container)
    assert status.image == "docker.io/library/busybox:latest"
    assert status.image_ref.startswith(("docker.io/library/busybox@sha256:", "sha256:"))
    assert (status.uid, status.gid) == (1234, 0)


async def test_a_start_whose_caller_is_cancelled_leaves_nothing(place: Place) -> None:
    sandbox = await place.sandbox()
    container_id = await place.runtime.create_container(
        sandbox, ContainerConfig("main", "busybox", command=("sleep", "1000"))
    )
    start = asyncio.create_task(place.runtime.start_container(container_id))
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await place.runtime.remove_container(container_id)
    assert not await place.runtime.list_containers(sandbox)
