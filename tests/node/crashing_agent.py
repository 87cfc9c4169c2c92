"""A node agent that starts and removes pods until it is killed; run by test_runtime_crash.py with its directory."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runtime_support import new_runtime

from tiphys.runtime.interface import ContainerConfig, SandboxConfig


async def work(directory: Path) -> None:
    runtime = new_runtime(directory)
    await runtime.start()
    print("ready", runtime.supervisor.pid, flush=True)

    async def worker(name: str) -> None:
        for number in itertools.count():
            pod = f"{name}{number}"
            sandbox = await runtime.run_pod_sandbox(
                SandboxConfig(
                    pod,
                    "default",
                    pod,
                    hostname=pod,
                    cgroup_parent=f"/{directory.name}/{pod}",
                    log_directory=str(directory / "logs"),
                    share_process_namespace=number % 3 == 0,
                )
            )
            config = ContainerConfig("main", "busybox", command=("sleep", "1000"), log_path=f"{pod}.log")
            container = await runtime.create_container(sandbox, config)
            await runtime.start_container(container)
            await runtime.exec_sync(container, ["true"], 20)
            if number % 2:
                await runtime.remove_pod_sandbox(sandbox)

    await asyncio.gather(*(worker(name) for name in "abc"))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
