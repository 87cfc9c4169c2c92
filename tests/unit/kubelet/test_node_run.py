"""Pods on a simulated node, on virtual time: from bound to running to gone."""

from __future__ import annotations

import asyncio
from typing import Any

from kubelet_support import Node, pod_object, run_virtual

from tiphys.base.clock import parse_time
from tiphys.client.resources import PODS
from tiphys.kubelet.probehandler import AgreeableProbes, ProbeResult
from tiphys.runtime.simulated import Profile, SimulatedRuntime


def test_a_pod_becomes_running_and_ready() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web"))
            status = await node.until_phase("web", "Running")
            assert status["podIP"].startswith("10.244.")
            assert status["hostIP"] == "192.168.0.1"
            assert status["qosClass"] == "BestEffort"
            assert node.condition("web", "Ready")["status"] == "True"
            container = status["containerStatuses"][0]
            assert container["ready"] and container["started"] and container["restartCount"] == 0
            assert container["containerID"].startswith("tiphys://")
            await node.kubelet.context.recorder.flush()
            assert [reason for reason, _ in node.cluster.events("web")] == ["Pulling", "Pulled", "Created", "Started"]

    run_virtual(test)


def test_a_deleted_pod_stops_gracefully_and_leaves_nothing() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web"))
            await node.until_phase("web", "Running")
            await node.cluster.delete(PODS, "default", "web")
            await node.cluster.until(lambda: not node.cluster.has_pod("web"), 5)
            last = [status for name, status in node.cluster.patches if "containerStatuses" in status][-1]
            assert "terminated" in last["containerStatuses"][0]["state"]
            await asyncio.sleep(1)
            assert not await node.runtime.list_pod_sandboxes()
            assert not node.kubelet.workers

    run_virtual(test)


def test_a_crashing_container_waits_ten_seconds_then_twenty() -> None:
    async def test() -> None:
        async with Node() as node:
            annotations = {"tiphys.dev/simulate-exit": "1 after 1s"}
            await node.run_pod(pod_object("web", metadata={"annotations": annotations}))

            def waiting() -> dict[str, str]:
                statuses = node.cluster.pod("web")["status"].get("containerStatuses") or [{"state": {}}]
                return statuses[0]["state"].get("waiting") or {}

            await node.cluster.until(lambda: waiting().get("reason") == "CrashLoopBackOff")
            uid = node.cluster.pod("web")["metadata"]["uid"]
            assert waiting()["message"] == f"back-off 10s restarting failed container=web pod=web_default({uid})"
            assert node.cluster.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1
            assert node.cluster.pod("web")["status"]["phase"] == "Running"
            await node.cluster.until(lambda: waiting().get("message", "").startswith("back-off 20s"))
            last = node.cluster.pod("web")["status"]["containerStatuses"][0]["lastState"]["terminated"]
            assert (last["exitCode"], last["reason"]) == (1, "Error")
            await asyncio.sleep(600)
            assert len(await node.runtime.list_containers()) == 2
            await node.kubelet.context.recorder.flush()
            assert ("BackOff", f"Back-off restarting failed container web in pod web_default({uid})") in (
                node.cluster.events("web")
            )

    run_virtual(test)


def test_init_containers_run_in_order_before_the_main_one_and_sidecars_stay() -> None:
    async def test() -> None:
        async with Node() as node:
            pod = pod_object(
                "job",
                [{"name": "main", "image": "busybox"}],
                initContainers=[
                    {"name": "first", "image": "busybox"},
                    {"name": "side", "image": "busybox", "restartPolicy": "Always"},
                    {"name": "second", "image": "busybox"},
                ],
                restartPolicy="Never",
                metadata={
                    "annotations": {
                        "tiphys.dev/simulate-exit.first": "0 after 2s",
                        "tiphys.dev/simulate-exit.second": "0 after 2s",
                        "tiphys.dev/simulate-exit.main": "0 after 5s",
                    }
                },
            )
            await node.run_pod(pod)
            await node.until_phase("job", "Running")
            first, side, second = node.cluster.pod("job")["status"]["initContainerStatuses"]
            assert first["state"]["terminated"]["finishedAt"] <= side["state"]["running"]["startedAt"]
            assert side["started"] and second["state"]["terminated"]["reason"] == "Completed"
            assert node.condition("job", "Initialized")["status"] == "True"
            status = await node.until_phase("job", "Succeeded")
            assert "terminated" in status["initContainerStatuses"][1]["state"]
            assert node.condition("job", "Ready")["reason"] == "PodCompleted"

    run_virtual(test)


def test_a_kubelet_that_starts_again_adopts_what_runs_and_removes_what_has_no_pod() -> None:
    async def test() -> None:
        node = Node()
        keep_alive = KeepAlive(node.runtime)
        node = Node(node.cluster, node.runtime, wrapped=keep_alive)
        async with node:
            for name in ("stays", "goes"):
                await node.run_pod(pod_object(name))
            await node.until_phase("stays", "Running")
            await node.until_phase("goes", "Running")
        before = {c.id for c in await node.runtime.list_containers()}
        del node.cluster.objects[("pods", "default", "goes")]
        async with Node(node.cluster, node.runtime, wrapped=keep_alive) as again:
            await asyncio.sleep(30)
            left = await again.runtime.list_containers()
            assert len(left) == 1 and left[0].id in before and left[0].attempt == 0
            assert again.cluster.pod("stays")["status"]["containerStatuses"][0]["ready"]
        await node.runtime.stop()

    run_virtual(test)


class KeepAlive:
    """A runtime whose processes outlive the kubelet, as real ones do."""

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    async def stop(self) -> None:
        return None


def test_a_failed_readiness_probe_makes_the_pod_unready_and_a_liveness_probe_restarts() -> None:
    async def test() -> None:
        probes = Scripted()
        async with Node(network_probes=probes) as node:
            probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5, "failureThreshold": 1}
            container = {
                "name": "web",
                "image": "nginx",
                "ports": [{"name": "http", "containerPort": 80}],
                "readinessProbe": probe,
            }
            await node.run_pod(pod_object("web", [container]))
            await node.cluster.until(lambda: ready(node, "web"))
            probes.answer = ProbeResult(False, "HTTP probe failed with statuscode: 500")
            await node.cluster.until(lambda: not ready(node, "web"), 10)
            assert node.condition("web", "Ready")["message"] == "containers with unready status: [web]"
            assert node.condition("web", "Ready")["reason"] == "ContainersNotReady"
            await node.kubelet.context.recorder.flush()
            assert node.cluster.events("web")[-1] == (
                "Unhealthy",
                "Readiness probe failed: HTTP probe failed with statuscode: 500",
            )
            live = {**container, "name": "live", "readinessProbe": None, "livenessProbe": probe}
            await node.run_pod(pod_object("live", [live]))
            await node.cluster.until(
                lambda: (
                    (node.cluster.pod("live")["status"].get("containerStatuses") or [{}])[0].get("restartCount") == 1
                )
            )
            await node.kubelet.context.recorder.flush()
            assert ("Killing", "Container live failed liveness probe, will be restarted") in node.cluster.events("live")

    run_virtual(test)


class Scripted(AgreeableProbes):
    """Answers as told."""

    def __init__(self) -> None:
        self.answer = ProbeResult(True)

    async def http(self, action: object, address: str, port: int, timeout_s: float) -> ProbeResult:
        return self.answer

    async def tcp(self, address: str, port: int, timeout_s: float) -> ProbeResult:
        return self.answer


def ready(node: Node, name: str) -> bool:
    conditions = node.cluster.pod(name)["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def test_an_image_that_no_registry_has_ends_in_back_off() -> None:
    async def test() -> None:
        profile = Profile(images_present=False, absent_images=frozenset({"docker.io/library/nope"}))
        async with Node(profile=profile) as node:
            await node.run_pod(pod_object("web", [{"name": "web", "image": "nope"}]))

            def waiting() -> dict[str, str]:
                statuses = node.cluster.pod("web")["status"].get("containerStatuses") or [{"state": {}}]
                return statuses[0]["state"].get("waiting") or {}

            await node.cluster.until(lambda: waiting().get("reason") == "ErrImagePull")
            await node.cluster.until(lambda: waiting().get("reason") == "ImagePullBackOff")
            assert waiting()["message"].startswith('Back-off pulling image "nope": ErrImagePull: ')
            assert node.cluster.pod("web")["status"]["phase"] == "Pending"

    run_virtual(test)


def test_the_last_status_and_the_delete_survive_an_api_server_that_is_away() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("web"))
            await node.until_phase("web", "Running")
            await node.cluster.delete(PODS, "default", "web")
            node.cluster.broken = True
            await asyncio.sleep(20)
            node.cluster.broken = False
            await node.cluster.until(lambda: not node.cluster.has_pod("web"), 60)

    run_virtual(test)


def test_a_pod_past_its_deadline_fails() -> None:
    async def test() -> None:
        async with Node() as node:
            await node.run_pod(pod_object("slow", activeDeadlineSeconds=30))
            status = await node.until_phase("slow", "Failed")
            assert status["reason"] == "DeadlineExceeded"
            assert status["message"] == "Pod was active on the node longer than the specified deadline"

    run_virtual(test)


def test_a_node_without_room_refuses_the_pod() -> None:
    async def test() -> None:
        async with Node() as node:
            big = [{"name": "big", "image": "nginx", "resources": {"requests": {"cpu": "5"}}}]
            await node.run_pod(pod_object("big", big))
            status = await node.until_phase("big", "Failed")
            assert status["reason"] == "OutOfcpu"
            assert status["message"] == (
                "Pod was rejected: Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 4000"
            )

    run_virtual(test)


def test_the_node_registers_and_renews_its_lease() -> None:
    async def test() -> None:
        async with Node() as node:
            await asyncio.sleep(60)
            node_object = node.cluster.objects[("nodes", "", "node-1")]
            conditions = {c["type"]: (c["status"], c["reason"]) for c in node_object["status"]["conditions"]}
            assert conditions["Ready"] == ("True", "KubeletReady")
            assert node_object["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
            lease = node.cluster.objects[("leases", "kube-node-lease", "node-1")]
            assert lease["spec"]["holderIdentity"] == "node-1"
            assert parse_time(lease["spec"]["renewTime"]) > node.deps.clock.now_s() - 11
            await node.kubelet.context.recorder.flush()
            assert ("NodeReady", "Node node-1 status is now: NodeReady") in node.cluster.events("node-1")

    run_virtual(test)


def test_a_node_that_was_taken_for_lost_says_soon_that_it_is_ready() -> None:
    async def test() -> None:
        async with Node() as node:
            await asyncio.sleep(60)
            conditions = node.cluster.objects[("nodes", "", "node-1")]["status"]["conditions"]
            ready = next(c for c in conditions if c["type"] == "Ready")
            ready |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
            await asyncio.sleep(11)
            conditions = node.cluster.objects[("nodes", "", "node-1")]["status"]["conditions"]
            assert next(c["status"] for c in conditions if c["type"] == "Ready") == "True"

    run_virtual(test)


def test_many_pods_at_once_cost_three_status_writes_each() -> None:
    async def test() -> None:
        async with Node() as node:
            for index in range(40):
                await node.run_pod(pod_object(f"web-{index}"))
            await node.cluster.until(lambda: all(ready(node, f"web-{i}") for i in range(40)))
            assert len(node.cluster.patches) <= 40 * 3

    run_virtual(test)


def test_a_ready_container_stays_ready_while_the_kubelet_starts_again() -> None:
    async def test() -> None:
        first = Node()
        keep_alive = KeepAlive(first.runtime)
        probe = {"tcpSocket": {"port": 80}, "initialDelaySeconds": 60, "periodSeconds": 5, "failureThreshold": 1}
        container = {"name": "web", "image": "nginx", "readinessProbe": probe}
        async with Node(first.cluster, first.runtime, wrapped=keep_alive) as node:
            await node.run_pod(pod_object("web", [container]))
            await node.cluster.until(lambda: ready(node, "web"))
        probes = Scripted()
        async with Node(first.cluster, first.runtime, wrapped=keep_alive, network_probes=probes) as again:
            writes = len(again.cluster.patches)
            await asyncio.sleep(3)
            assert ready(again, "web") and len(again.cluster.patches) == writes
            probes.answer = ProbeResult(False, "no")
            await again.cluster.until(lambda: not ready(again, "web"), 30)
        await first.runtime.stop()

    run_virtual(test)
