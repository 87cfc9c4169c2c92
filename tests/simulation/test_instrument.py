"""The instrument itself: checks find what they look for, a witness notices a lie, a crash hits between two writes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tiphys.base.clock import LoopClock, Randomness
from tiphys.base.errors import ApiError
from tiphys.base.virtualloop import run_virtual
from tiphys.client import resources
from tiphys.cluster import checks, workloads
from tiphys.cluster.faultplan import At, CrashAfterWrites, play
from tiphys.cluster.faultystore import FaultyStore
from tiphys.cluster.history import History, NodeEvent, Violation
from tiphys.cluster.simulation import Plan, SimulatedCluster
from tiphys.cluster.witness import Segment, Witness
from tiphys.store.interface import Operation, StoreFailed
from tiphys.store.memory import MemoryStore


def written(*objects: dict[str, Any] | None, key: str = "/registry/core/pods/default/web") -> History:
    history = History()
    for revision, obj in enumerate(objects, 2):
        history.write(float(revision), revision, key, orjson.dumps(obj) if obj else None)
    return history


def pod(node: str = "", phase: str = "Pending", **meta: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "a"}], **({"nodeName": node} if node else {})}
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "1", **meta},
        "spec": spec,
        "status": {"phase": phase},
    }


def test_a_pod_that_moves_is_found() -> None:
    with pytest.raises(Violation, match="bound to a, then to b"):
        checks.check_bindings(written(pod(), pod("a"), pod("b")))


def test_a_pod_that_is_never_gone_is_found_and_its_story_told() -> None:
    history = written(pod(), pod(deletionTimestamp="2026-01-01T00:00:00Z"))
    with pytest.raises(Violation) as caught:
        checks.check_nothing_is_deleting(history)
    assert 'metadata.deletionTimestamp: null -> "2026-01-01T00:00:00Z"' in caught.value.told(history)


def test_an_identity_that_runs_twice_is_found() -> None:
    owner = [{"kind": "StatefulSet", "name": "web", "uid": "s", "apiVersion": "apps/v1"}]
    history = written(pod(ownerReferences=owner))
    for uid in ("1", "2"):
        history.note(NodeEvent(1.0, f"node-{uid}", "STARTED", "default", "web", uid, "a"))
    with pytest.raises(Violation, match="run under one name"):
        checks.check_identities(history)


def test_an_object_that_outlives_its_owner_is_found() -> None:
    owner = [{"kind": "ReplicaSet", "name": "rs", "uid": "gone", "apiVersion": "apps/v1"}]
    with pytest.raises(Violation, match="outlives its owner ReplicaSet rs"):
        checks.check_owners(written(pod(ownerReferences=owner)))


def test_a_write_at_rest_is_found_and_a_heartbeat_is_not() -> None:
    history = written(pod(), pod("a"))
    with pytest.raises(Violation, match="2 writes although nothing is to be done"):
        checks.check_quiet(history, 0.0)
    lease = {"metadata": {"name": "node-0"}}
    checks.check_quiet(written(lease, lease, key="/registry/coordination.k8s.io/leases/kube-node-lease/node-0"), 0.0)


def test_a_witness_that_missed_an_event_notices() -> None:
    witness = Witness(None, resources.PODS)  # type: ignore[arg-type]  # it is not run
    witness.segments = [Segment(1, 3, [(2, "default/web"), (3, "default/web")])]
    witness.check(written(pod(), pod("a")))
    witness.segments[0].told.pop(0)
    with pytest.raises(Violation, match=r"\(1 of 2 events\)"):
        witness.check(written(pod(), pod("a")))


def test_a_full_disk_writes_nothing_and_is_no_history() -> None:
    async def main() -> None:
        history = History()
        store = FaultyStore(MemoryStore(), history, LoopClock(), Randomness(1))
        await store.start()
        await store.commit([Operation("/registry/core/pods/default/a", b"{}")])
        store.errors = 1.0
        with pytest.raises(StoreFailed):
            await store.commit([Operation("/registry/core/pods/default/a", b"[]")])
        assert [change.after for change in history.changes] == [b"{}"]
        await store.stop()

    run_virtual(main())


@pytest.mark.parametrize("writes", (1, 2, 5))
def test_a_crash_comes_after_exactly_so_many_writes(writes: int) -> None:
    async def main() -> None:
        async with SimulatedCluster(Plan(seed=1)) as cluster:
            await asyncio.sleep(1.0)
            await play(cluster, [At(0.0, CrashAfterWrites("controllers", writes, down_s=5.0))])
            start = len(cluster.history.changes)
            await cluster.client.create(resources.DEPLOYMENTS, "default", workloads.deployment("web", 3))
            await asyncio.sleep(4.0)
            made = [c for c in cluster.history.changes[start:] if c.author.startswith("controllers ")]
            # What was on its way already may still arrive: the server works on several requests at once.
            assert writes <= len(made) <= writes + 4
            assert not [c for c in made if c.at_s > made[0].at_s + 0.1]

    run_virtual(main())


def test_a_killed_server_breaks_requests_and_comes_back_with_everything() -> None:
    async def main() -> None:
        async with SimulatedCluster(Plan(seed=1)) as cluster:
            await cluster.client.create(resources.CONFIGMAPS, "default", workloads.config_map("kept", data={"a": "b"}))
            down = asyncio.create_task(cluster.restart_server(5.0))
            await asyncio.sleep(1.0)
            with pytest.raises(OSError, match="down"):
                await cluster.client.get(resources.CONFIGMAPS, "default", "kept")
            await down
            assert orjson.loads(await cluster.client.get(resources.CONFIGMAPS, "default", "kept"))["data"] == {"a": "b"}
            with pytest.raises(ApiError):
                await cluster.client.get(resources.CONFIGMAPS, "default", "lost")

    run_virtual(main())
