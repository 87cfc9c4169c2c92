"""kill -9 of the node agent, of the supervisor and of both, in the middle of work: nothing is lost, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from leaks import assert_no_leaks, snapshot
from runtime_support import NETWORKS, image_archives, new_runtime, real_containers

from tiphys.runtime.images import ImageStore
from tiphys.runtime.interface import ContainerState, SandboxState

pytestmark = pytest.mark.node


@pytest.mark.parametrize("seed", range(6))
async def test_killed_in_the_middle(seed: int) -> None:
    possible, reason = real_containers()
    if not possible:
        pytest.skip(f"no real containers: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="tr"))
    before = snapshot(directory.name)
    (directory / "busybox.tar").write_bytes(image_archives()[0])
    ImageStore(directory / "root/images").load_archive(directory / "busybox.tar")
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("crashing_agent.py")),
        str(directory),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert agent.stdout is not None
    async with asyncio.timeout(20):
        supervisor = int((await agent.stdout.readline()).split()[1])
    await asyncio.sleep(random.Random(seed).uniform(0.02, 0.4))
    if seed % 3:
        os.kill(supervisor, signal.SIGKILL)
    if seed % 3 == 1:
        await asyncio.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):  # a failed exec, for one, ends it
        agent.kill()
    await agent.communicate()  # to the end of its output: a pipe left open is a warning
    runtime = new_runtime(directory)
    try:
        await runtime.start()
        for container in await runtime.list_containers():
            assert container.state in (ContainerState.RUNNING, ContainerState.EXITED)
            if container.state is ContainerState.RUNNING:
                assert (await runtime.exec_sync(container.id, ["true"], 20)).exit_code == 0
        for sandbox in await runtime.list_pod_sandboxes():
            assert sandbox.state in (SandboxState.READY, SandboxState.NOTREADY)
    finally:
        await runtime.remove_all()
        NETWORKS.pop(directory, None)
        shutil.rmtree(directory)
    assert_no_leaks(before, snapshot(directory.name))
