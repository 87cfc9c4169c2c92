"""kill -9 and a full disk: what was acknowledged is there, with its revision; watches go on where they were."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import ApiServerProcess, Wire

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
SEED = 7
KILLS = 10
WRITERS = 6


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ApiServerProcess]:
    started = ApiServerProcess(tmp_path)
    try:
        started.start()
        yield started
    finally:
        started.close()


@dataclass(slots=True)
class Truth:
    """What one writer knows of its object."""

    name: str
    value: int = 0
    """The last acknowledged value; 0 before the first."""
    revision: str = ""
    """The revision of that write."""
    attempted: int = 0
    """The value of a write without an answer."""

    def check(self, found: Any) -> None:
        """Hold an object against what was acknowledged; a write without an answer may have happened, whole."""
        value = int(found["data"]["n"])
        if value == self.value:
            assert found["metadata"]["resourceVersion"] == self.revision, self
        else:
            assert value == self.attempted, self
            self.value, self.revision = value, found["metadata"]["resourceVersion"]


@dataclass(slots=True)
class Scene:
    acknowledged: list[int] = field(default_factory=list)
    kill_at: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, revision: str) -> None:
        self.acknowledged.append(int(revision))
        if len(self.acknowledged) >= self.kill_at:
            self.reached.set()


async def _write_on(process: ApiServerProcess, truth: Truth, scene: Scene) -> None:
    """Count up in one object until the server dies."""
    try:
        async with process.wire() as wire:
            while True:
                truth.attempted = truth.value + 1
                body: dict[str, Any] = {"metadata": {"name": truth.name}, "data": {"n": str(truth.attempted)}}
                if truth.value:
                    body["metadata"]["resourceVersion"] = truth.revision
                    reply = await wire.request("PUT", f"{CONFIGMAPS}/{truth.name}", body)
                else:
                    reply = await wire.request("POST", CONFIGMAPS, body)
                assert reply.status in (200, 201), reply.body
                truth.value, truth.revision = truth.attempted, reply.json["metadata"]["resourceVersion"]
                scene.acknowledge(truth.revision)
    except (AssertionError, OSError, asyncio.IncompleteReadError) as error:
        if isinstance(error, AssertionError) and "closed without an answer" not in str(error):
            raise


async def _watch_on(process: ApiServerProcess, revision: str, seen: list[int], until: int = 0) -> None:
    """Watch from a revision until the server dies, or until a revision is seen."""
    try:
        async with process.wire() as wire:
            await wire.send(f"GET {CONFIGMAPS}?watch=1&resourceVersion={revision} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await wire.head()
            assert head is None or head[0] == 200
            if head is None:
                return
            async with aclosing(wire.events()) as events:
                async for event in events:
                    assert event["type"] in ("ADDED", "MODIFIED"), event
                    seen.append(int(event["object"]["metadata"]["resourceVersion"]))
                    if until and seen[-1] >= until:
                        return
    except (OSError, asyncio.IncompleteReadError):
        pass


async def test_ten_kills_lose_no_acknowledged_write_and_no_event(process: ApiServerProcess) -> None:
    chance = random.Random(SEED)
    truths = [Truth(f"w{i}") for i in range(WRITERS)]
    scene = Scene()
    async with process.wire() as wire:
        first = (await wire.request("GET", CONFIGMAPS)).json["metadata"]["resourceVersion"]
    seen: list[int] = []
    for _ in range(KILLS):
        scene.kill_at = len(scene.acknowledged) + chance.randrange(1, 60)
        scene.reached.clear()
        watching = asyncio.create_task(_watch_on(process, str(seen[-1]) if seen else first, seen))
        writers = [asyncio.create_task(_write_on(process, truth, scene)) for truth in truths]
        async with asyncio.timeout(30):
            await scene.reached.wait()
        process.kill()
        await asyncio.gather(watching, *writers)
        process.start()
        async with process.wire() as wire:
            for truth in truths:
                reply = await wire.request("GET", f"{CONFIGMAPS}/{truth.name}")
                if reply.status == 404:
                    assert truth.value == 0, truth
                else:
                    truth.check(reply.json)
            newest = int((await wire.request("GET", CONFIGMAPS)).json["metadata"]["resourceVersion"])
            assert newest >= max(scene.acknowledged)
    async with process.wire() as wire:
        last = await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "last"}})
    await _watch_on(process, str(seen[-1]), seen, until=int(last.json["metadata"]["resourceVersion"]))
    assert seen == sorted(set(seen)), "an event came twice or out of order"
    assert set(scene.acknowledged) <= set(seen), "an acknowledged write was not seen by the resumed watch"
    assert not process.complaints()


async def _fill(wire: Wire, most: int) -> tuple[dict[str, str], Any]:
    """Create large objects until one is refused; return the acknowledged ones and the refusal."""
    written: dict[str, str] = {}
    for number in range(most):
        body = {"metadata": {"name": f"fill{number}"}, "data": {"x": os.urandom(100_000).hex()}}
        reply = await wire.request("POST", CONFIGMAPS, body)
        if reply.status != 201:
            return written, reply
        written[f"fill{number}"] = reply.json["metadata"]["resourceVersion"]
    raise AssertionError("the disk never got full")


async def _assert_all_there(wire: Wire, written: dict[str, str]) -> None:
    listed = (await wire.request("GET", CONFIGMAPS)).json["items"]
    found = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listed}
    assert written.items() <= found.items()


async def _live_through_a_full_disk(process: ApiServerProcess, make_space: Any) -> None:
    async with process.wire() as wire:
        written, refusal = await _fill(wire, 200)
        assert refusal.status == 503 and refusal.is_status, refusal.body
        assert "store" in refusal.json["message"] and "space" in refusal.json["message"]
        assert str(process.store) in refusal.json["message"]
        await _assert_all_there(wire, written)
        for refused in ("PUT", "DELETE"):
            body = {"metadata": {"name": "fill0"}, "data": {"x": os.urandom(300_000).hex()}}
            reply = await wire.request(refused, f"{CONFIGMAPS}/fill0", body if refused == "PUT" else b"")
            assert reply.status in (503, 200)
            if reply.status == 200:
                written.pop("fill0", None)
        make_space()
        reply = await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "after"}})
        assert reply.status == 201, reply.body
        written["after"] = reply.json["metadata"]["resourceVersion"]
    process.kill()
    process.start()
    async with process.wire() as wire:
        await _assert_all_there(wire, written)
    assert not process.complaints()


def _bytes_of(process: ApiServerProcess) -> int:
    return max(path.stat().st_size for path in process.root.glob("store.db*"))


async def test_files_that_may_not_grow_refuse_writes_and_reads_go_on(process: ApiServerProcess) -> None:
    assert process.process is not None
    pid = process.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_bytes_of(process) + 2_000_000, limits[1]))
    await _live_through_a_full_disk(process, lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, limits))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory of 8 MB."""
    home = tmp_path / "disk"
    home.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", home], check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield home
    subprocess.run(["umount", home], check=True)


@pytest.mark.node
async def test_a_full_disk_refuses_writes_until_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    process = ApiServerProcess(small_disk, log_path=tmp_path / "apiserver.log")
    ballast = small_disk / "ballast"
    try:
        ballast.write_bytes(b"\0" * 3_000_000)
        process.start()
        await _live_through_a_full_disk(process, ballast.unlink)
    finally:
        process.close()
