"""The kubelet with real containers: logs, exec, hooks, probes, volumes, limits, and nothing left."""
# ruff: noqa: ASYNC110  (a test looks at the machine until it shows what it should)

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from runtime_support import embedded_runtime, real_containers

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "kubelet"))

from kubelet_support import MemoryCluster, Node, pod_object

from tiphys.base.clock import SystemClock
from tiphys.client.resources import CONFIGMAPS, PODS
from tiphys.kubelet.directory import PodDirectory
from tiphys.kubelet.server import KubeletApi
from tiphys.runtime.embedded import EmbeddedRuntime
from tiphys.wire.message import Peer, Request, Stream

pytestmark = pytest.mark.node
SERVER = Peer("127.0.0.1", "kube-apiserver-kubelet-client")


class Shared:
    """A runtime that the fixture starts and stops, whatever the kubelet does."""

    def __init__(self, runtime: EmbeddedRuntime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    possible, reason = real_containers()
    if not possible:
        pytest.skip(f"no real containers: {reason}")
    async with embedded_runtime() as (runtime, directory):
        cluster = MemoryCluster()
        files = PodDirectory(str(directory / "kubelet"), cluster, SystemClock())
        async with Node(
            cluster,
            runtime,
            wrapped=Shared(runtime),
            files=files,
            cgroup_root=f"/{directory.name}",
            clock=SystemClock(),
            limit_s=10,
        ) as running:  # type: ignore[arg-type]
            yield running
            for name in [key[2] for key in cluster.objects if key[0] == "pods"]:
                await cluster.delete(PODS, "default", name)
            await until(lambda: not running.kubelet.workers)


async def until(what: Callable[[], Any], limit_s: float = 15) -> None:
    async with asyncio.timeout(limit_s):
        while not what():
            await asyncio.sleep(0.01)


def script(text: str, name: str = "web", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", text], **more}


async def logs(node: Node, pod: str, container: str = "web", query: str = "") -> bytes:
    path = f"/containerLogs/default/{pod}/{container}"
    answer: Any = await KubeletApi(node.kubelet).handle(Request("GET", path, query, peer=SERVER))
    if not isinstance(answer, Stream):
        return bytes(answer.body_bytes())
    done = asyncio.Event()
    data = bytearray()

    class Sink:
        send = data.extend
        close = staticmethod(done.set)

        def pending_bytes(self) -> int:
            return 0

        async def drain(self) -> None: ...

    answer.start(Sink())  # type: ignore[arg-type]
    await asyncio.wait_for(done.wait(), 10)
    return bytes(data)


def status(node: Node, pod: str) -> dict[str, Any]:
    return dict(node.cluster.pod(pod)["status"])


async def test_a_pod_runs_prints_and_goes_in_little_time(node: Node) -> None:
    await node.cluster.create(CONFIGMAPS, "default", {"metadata": {"name": "c"}, "data": {"greeting": "hello"}})
    container = script(
        "cat /cfg/greeting; echo \" $WHO $(hostname)\"; trap 'exit 0' TERM; sleep 1000 & wait",
        env=[{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        volumeMounts=[{"name": "v", "mountPath": "/cfg"}],
        resources={"limits": {"memory": "64Mi", "cpu": "500m"}},
    )
    began = time.monotonic()
    await node.run_pod(pod_object("web", [container], volumes=[{"name": "v", "configMap": {"name": "c"}}]))
    await node.until_phase("web", "Running")
    print(f"create to Running: {(time.monotonic() - began) * 1000:.0f} ms")
    following = asyncio.create_task(logs(node, "web", query="follow=true"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await node.cluster.delete(PODS, "default", "web")
    await node.cluster.until(lambda: not node.cluster.has_pod("web"), 10)
    print(f"delete until gone: {(time.monotonic() - began) * 1000:.0f} ms")
    assert await following == b"hello web web\n"


async def test_hooks_run_around_the_container_s_life(node: Node) -> None:
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /v/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /proc/1/fd/1"]}},
    }
    container = script(
        "trap 'exit 0' TERM; sleep 1000 & wait", lifecycle=hooks, volumeMounts=[{"name": "v", "mountPath": "/v"}]
    )
    await node.run_pod(pod_object("web", [container], volumes=[{"name": "v", "emptyDir": {}}]))
    await node.until_phase("web", "Running")
    uid = node.cluster.pod("web")["metadata"]["uid"]
    base = Path(node.kubelet.context.files.disk_root())
    await until(lambda: (base / "pods" / uid / "volumes" / "v" / "post").exists())
    following = asyncio.create_task(logs(node, "web", query="follow=true"))
    await node.cluster.delete(PODS, "default", "web")
    assert b"stopping" in await following


async def test_a_crash_shows_its_message_and_previous_log(node: Node) -> None:
    container = script(
        "echo instance; echo bad luck > /dev/termination-log; exit 7", terminationMessagePath="/dev/termination-log"
    )
    await node.run_pod(pod_object("web", [container]))
    await until(lambda: "CrashLoopBackOff" in str(status(node, "web")))
    last = status(node, "web")["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (7, "Error", "bad luck\n")
    assert await logs(node, "web", query="previous=true") == b"instance\n"


async def test_exec_probes_make_ready_and_restart(node: Node) -> None:
    container = script(
        "touch /live; sleep 0.4; touch /ready; sleep 1000",
        readinessProbe={"exec": {"command": ["cat", "/ready"]}, "periodSeconds": 1},
        livenessProbe={"exec": {"command": ["test", "-e", "/live"]}, "periodSeconds": 1, "failureThreshold": 1},
    )
    await node.run_pod(pod_object("web", [container], terminationGracePeriodSeconds=0))
    await until(
        lambda: any(c["type"] == "Ready" and c["status"] == "True" for c in status(node, "web").get("conditions", ()))
    )
    container_id = status(node, "web")["containerStatuses"][0]["containerID"].removeprefix("tiphys://")
    await node.runtime.exec_sync(container_id, ["rm", "/live"], 5)
    await until(lambda: status(node, "web")["containerStatuses"][0]["restartCount"] == 1)
    await node.kubelet.context.recorder.flush()
    assert any(m.startswith("Readiness probe failed: cat: can't open '/ready'") for _, m in node.cluster.events("web"))


async def test_a_killed_container_out_of_memory_says_so(node: Node) -> None:
    container = script("x=a; while true; do x=$x$x; done", resources={"limits": {"memory": "16Mi"}})
    await node.run_pod(pod_object("web", [container], restartPolicy="Never"))
    shown = await node.until_phase("web", "Failed")
    end = shown["containerStatuses"][0]["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)
