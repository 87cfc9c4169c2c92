"""What a pod's status writer sends when the API server is slower than the node: the newest status, never an older one."""

from __future__ import annotations

import asyncio
from typing import Any

from kubelet_support import MemoryCluster, bound, pod_object, run_virtual

from tiphys.base.clock import Randomness
from tiphys.client.resources import PODS
from tiphys.client.slots import PATIENCE_S, Slots
from tiphys.kubelet.statuswriter import StatusWriter


async def started(slots: Slots) -> tuple[MemoryCluster, StatusWriter]:
    cluster = MemoryCluster()
    obj = {**pod_object("web"), "status": {}}
    await cluster.create(PODS, "default", obj)
    stored = cluster.objects["pods", "default", "web"]
    return cluster, StatusWriter(cluster, Randomness(1), bound(stored), slots)


def test_a_status_is_written_at_once_when_a_slot_is_free() -> None:
    async def test() -> None:
        cluster, writer = await started(Slots(1))
        writer.want(lambda: {"phase": "Pending"})
        await writer.flush()
        writer.want(lambda: {"phase": "Pending"})
        await writer.flush()
        assert cluster.patches == [("web", {"phase": "Pending"})]

    run_virtual(test)


def test_states_that_passed_while_a_pod_waited_for_its_turn_are_not_written() -> None:
    async def test() -> None:
        slots = Slots(1)
        cluster, writer = await started(slots)
        made: list[str] = []

        def status(phase: str) -> dict[str, Any]:
            made.append(phase)
            return {"phase": phase}

        give = await slots.take()
        for phase in ("Pending", "Running", "Succeeded"):
            writer.want(lambda phase=phase: status(phase))
            await asyncio.sleep(PATIENCE_S / 10)
        assert made == ["Pending"]
        give()
        await writer.flush()
        assert cluster.patches == [("web", {"phase": "Succeeded"})]
        assert cluster.objects["pods", "default", "web"]["status"]["phase"] == "Succeeded"

    run_virtual(test)


def test_what_is_wanted_during_a_write_is_written_after_it() -> None:
    async def test() -> None:
        cluster, writer = await started(Slots(1))
        writer.want(lambda: {"phase": "Pending"})
        await asyncio.sleep(0.0005)  # the write is on its way
        writer.want(lambda: {"phase": "Running"})
        writer.want(lambda: {"phase": "Failed"})
        await writer.flush()
        assert [patch["phase"] for _, patch in cluster.patches] == ["Pending", "Failed"]

    run_virtual(test)


def test_a_status_that_could_not_be_written_is_made_again_and_holds_no_slot_meanwhile() -> None:
    async def test() -> None:
        slots = Slots(1)
        cluster, writer = await started(slots)
        cluster.broken = True
        phases = iter(("Pending", "Running"))
        writer.want(lambda: {"phase": next(phases, "Running")})
        await asyncio.sleep(0.1)
        assert not slots.full()
        cluster.broken = False
        await writer.flush()
        assert [patch["phase"] for _, patch in cluster.patches] == ["Running"]

    run_virtual(test)


def test_a_write_that_hangs_holds_up_nobody_for_long() -> None:
    async def test() -> None:
        slots = Slots(1)
        hanging = await slots.take()
        started_s = asyncio.get_running_loop().time()
        give = await slots.take()
        assert asyncio.get_running_loop().time() - started_s == PATIENCE_S
        hanging()  # at last; its slot is not given back a second time
        assert slots.full()
        give()
        assert not slots.full()

    run_virtual(test)
