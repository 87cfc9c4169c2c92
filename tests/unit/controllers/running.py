"""Runs controllers against a FakeCluster in a test, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fakecluster import Crash, FakeCluster, settle

from tiphys.base.clock import Randomness
from tiphys.client import resources
from tiphys.controllers.run import CONTROLLERS, run_controllers
from tiphys.controllers.shared import Deps


def deps_for(cluster: FakeCluster, **more: Any) -> Deps:
    return Deps(cluster, cluster.clock, Randomness(7), **more)


@asynccontextmanager
async def running(cluster: FakeCluster, *names: str, **more: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run the named controllers (all without names) while the block lasts."""
    chosen: Mapping[str, Any] = {n: CONTROLLERS[n] for n in names} if names else CONTROLLERS
    task = asyncio.create_task(run_controllers(deps_for(cluster, **more), chosen))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def quiet(cluster: FakeCluster, limit_s: float = 5.0) -> None:
    """Wait until the cluster has not changed for a while of real time (milliseconds)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    seen, still = -1, 0
    while still < 3:
        assert loop.time() < end, f"never quiet: {cluster.writes[-10:]}"
        await settle(80)
        await asyncio.sleep(0.006)
        still = still + 1 if cluster.revision == seen else 0
        seen = cluster.revision


async def run_until_quiet(cluster: FakeCluster, *names: str, **more: Any) -> bool:
    """Run controllers until nothing changes; return False if they crashed on the way (see `crash_after`)."""
    async with running(cluster, *names, **more) as task:
        waiter = asyncio.create_task(quiet(cluster))
        done, _ = await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            waiter.cancel()
            error = task.exception()
            assert _is_crash(error), error
            return False
        await waiter
    return True


def _is_crash(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_crash(e) for e in error.exceptions)
    return isinstance(error, Crash)


def make_ready(cluster: FakeCluster, namespace: str = "") -> int:
    """Play scheduler and kubelet: every pod that is not ready becomes Running and Ready. Return how many did."""
    from tiphys.base.clock import format_time

    count = 0
    for number, pod in enumerate(cluster.list_now(resources.PODS, namespace)):
        if pod.get("status", {}).get("phase", "Pending") != "Pending":
            continue
        count += 1
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if not pod["spec"].get("nodeName"):
            cluster.change(resources.PODS, key, {"spec": {"nodeName": "node-1"}})
        now = format_time(cluster.clock.now_s())
        status = {
            "phase": "Running",
            "podIP": f"10.0.0.{number + 1}",
            "podIPs": [{"ip": f"10.0.0.{number + 1}"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        }
        cluster.change(resources.PODS, key, {"status": status}, "status")
    return count


def template(image: str = "web:1", labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"labels": dict(labels or {"app": "web"})},
        "spec": {"containers": [{"name": "web", "image": image}], "restartPolicy": "Always"},
    }


def deployment(name: str = "web", replicas: int = 3, image: str = "web:1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(image, {"app": name}),
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            **spec,
        },
    }
