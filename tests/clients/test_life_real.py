"""The life of a cluster with real containers: what a kill -9 of any process must not do, and what `down` leaves."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from life_support import Life, connected, create, deployment, insist, kill, living, rolled_out, wait_for

from tiphys.client.http import HttpClient
from tiphys.client.resources import CONFIGMAPS, DEPLOYMENTS
from tiphys.cluster.config import Files
from tiphys.cluster.sweep import find_traces
from tiphys.runtime.detect import detect
from tiphys.runtime.imagebuild import build_busybox_image

sys.path.insert(0, str(Path(__file__).parent.parent / "node"))

from leaks import assert_no_leaks, snapshot

IMAGE = "docker.io/library/life:1"
REPLICAS = 3
KILLS = 10
SEED = 2026
POSSIBLE, REASON = detect()

pytestmark = [pytest.mark.node, pytest.mark.skipif(not POSSIBLE, reason=f"NO REAL CONTAINERS: {REASON}")]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    with living() as made:
        before = snapshot(made.name)
        made("up")
        archive = tmp_path / "image.tar"
        build_busybox_image(archive, [IMAGE])
        made("image", "load", str(archive))
        yield made
        made("down")
        assert_no_leaks(before, snapshot(made.name))


async def test_containers_outlive_the_agents_and_nothing_outlives_down(life: Life) -> None:
    assert "life:1" in life("image", "list")
    async with connected(life) as client:
        await create(client, DEPLOYMENTS, deployment(IMAGE, REPLICAS))
        await wait_for(client, DEPLOYMENTS, "life", rolled_out)
    containers = container_pids(life)
    assert len(containers) >= REPLICAS
    pids = life.pids()
    for name in ("guardian", "node", "controllers", "apiserver"):
        kill(pids[name])
    life("up")
    async with connected(life) as client:
        await wait_for(client, DEPLOYMENTS, "life", rolled_out)
    assert container_pids(life) >= containers, "adopted, not started again"


async def test_down_after_a_crash_that_took_the_files_of_the_cluster(life: Life) -> None:
    async with connected(life) as client:
        await create(client, DEPLOYMENTS, deployment(IMAGE, REPLICAS))
        await wait_for(client, DEPLOYMENTS, "life", rolled_out)
    kill(life.pids()["guardian"])
    (life.root / "cluster.json").unlink()
    (life.root / "network.json").write_text("{")


async def test_ten_kills_during_rollouts_lose_no_write_and_leave_nothing(life: Life) -> None:
    chance = random.Random(SEED)
    acknowledged: dict[str, str] = {}
    async with connected(life) as client:
        await create(client, DEPLOYMENTS, deployment(IMAGE, REPLICAS))
        for number in range(KILLS):
            writer = asyncio.create_task(write(client, acknowledged, number))
            template = {"metadata": {"annotations": {"turn": str(number)}}}
            patch = {"spec": {"template": template}}
            await insist(lambda patch=patch: client.patch(DEPLOYMENTS, "default", "life", patch))
            await asyncio.sleep(chance.uniform(0.0, 0.4))  # a moment of the rollout, by the seed
            pids = await asyncio.to_thread(life.pids)
            victim = chance.choice(["guardian", "apiserver", "controllers", "node", "supervisor"])
            if victim in pids:
                kill(pids[victim])
            if victim == "guardian":
                await asyncio.to_thread(life, "up")
            await writer
        final = await wait_for(client, DEPLOYMENTS, "life", rolled_out)
        assert final["spec"]["template"]["metadata"]["annotations"] == {"turn": str(KILLS - 1)}
        for name, value in acknowledged.items():
            found = msgspec.json.decode(await client.get(CONFIGMAPS, "default", name))
            assert found["data"] == {"value": value}
        assert len(acknowledged) == KILLS * 20


async def write(client: HttpClient, acknowledged: dict[str, str], number: int) -> None:
    """Write objects while things are killed, and note each that the server said it has."""
    for step in range(20):
        name, value = f"write-{number}-{step}", f"{number}.{step}"
        await create(client, CONFIGMAPS, {"metadata": {"name": name}, "data": {"value": value}})
        acknowledged[name] = value


def container_pids(life: Life) -> set[str]:
    """Return the processes in the cluster's cgroups."""
    files = Files(life.root)
    return {trace.name for trace in find_traces(life.name, files) if trace.kind == "container process"}
