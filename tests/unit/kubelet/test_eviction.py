"""Pods that take too much are ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from kubelet_support import Node, bound, pod_object, run_virtual

from tiphys.kubelet.eviction import MemoryUse, StorageUse, format_bytes, plan_memory_eviction, storage_excess
from tiphys.kubelet.podfiles import NoFiles

MI = 1 << 20
VOLUME = {"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}


def limited(limit: str) -> dict[str, Any]:
    return {"name": "c", "image": "i", "resources": {"limits": {"ephemeral-storage": limit}}}


@pytest.mark.parametrize(
    ("pod", "use", "why"),
    [
        (pod_object("p", volumes=[VOLUME]), StorageUse({"scratch": MI}, {}), ""),
        (
            pod_object("p", volumes=[VOLUME]),
            StorageUse({"scratch": MI + 1}, {}),
            'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". ',
        ),
        (
            pod_object("p", [limited("2Mi")]),
            StorageUse({}, {"c": 3 * MI}),
            'Container c exceeded its local ephemeral storage limit "2Mi". ',
        ),
        (
            pod_object("p", [limited("2Mi")]),
            StorageUse({"other": MI}, {"c": 2 * MI}),
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
        ),
    ],
)
def test_why_a_pod_takes_too_much_disk(pod: dict[str, Any], use: StorageUse, why: str) -> None:
    assert storage_excess(bound(pod), use) == why


def test_memory_is_taken_from_who_is_most_over_his_request_but_never_from_critical_pods() -> None:
    request = {"name": "c", "image": "i", "resources": {"requests": {"memory": "64Mi"}}}
    modest = MemoryUse(bound(pod_object("modest", [request])), 60 * MI)
    greedy = MemoryUse(bound(pod_object("greedy", [request])), 300 * MI)
    critical = MemoryUse(bound(pod_object("critical", [request], priority=2_000_000_000)), 900 * MI)
    planned = plan_memory_eviction([modest, greedy, critical], 50 * MI)
    assert planned is not None and planned[0].metadata.name == "greedy"
    assert planned[1].startswith(
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. Container c was using"
    )
    assert plan_memory_eviction([critical], 50 * MI) is None


def test_sizes_are_told_in_the_largest_unit_that_fits() -> None:
    assert [format_bytes(n) for n in (0, 1, 1024, 1536, 5 << 30)] == ["0", "1", "1Ki", "1536", "5Gi"]


class FullFiles(NoFiles):
    async def volume_bytes(self, uid: str, volume: str) -> int:
        return 2 * MI


def test_a_pod_whose_volume_is_too_full_becomes_failed() -> None:
    async def test() -> None:
        async with Node() as node:
            node.kubelet.context = replace(node.kubelet.context, files=FullFiles())
            await node.run_pod(pod_object("web", volumes=[VOLUME]))
            await node.until_phase("web", "Running")
            status = await node.until_phase("web", "Failed")
            assert status["reason"] == "Evicted"
            assert status["message"] == 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". '
            condition = node.condition("web", "DisruptionTarget")
            assert (condition["status"], condition["reason"]) == ("True", "TerminationByKubelet")
            await asyncio.sleep(1)
            await node.kubelet.context.recorder.flush()
            assert ("Evicted", status["message"]) in node.cluster.events("web")

    run_virtual(test)
