"""Embedded runtimes for tests, each in its own short directory and cgroup, and the check that nothing is left."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from leaks import assert_no_leaks, snapshot

from tiphys.base.clock import Randomness, SystemClock
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.detect import detect
from tiphys.runtime.embedded import EmbeddedRuntime
from tiphys.runtime.imagebuild import File, ImageConfig, build_busybox_image
from tiphys.runtime.podnetwork import PodNetwork

NETWORKS: dict[Path, PodNetwork] = {}


@functools.cache
def real_containers() -> tuple[bool, str]:
    return detect()


@functools.cache
def image_archives() -> tuple[bytes, bytes]:
    """Return archives with docker.io/library/busybox:latest and app:latest (a user, a directory), made once."""
    with tempfile.TemporaryDirectory() as directory:
        plain, app = Path(directory, "busybox.tar"), Path(directory, "app.tar")
        build_busybox_image(plain)
        files = {
            "etc/passwd": File(b"root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n"),
            "etc/group": File(b"root:x:0:\napp:x:1234:\nextra:x:77:app\n"),
        }
        config = ImageConfig(cmd=("sh", "-c", "sleep 1000"), user="app", env=("FROM_IMAGE=1",), working_dir="/made")
        build_busybox_image(app, ["app:latest"], files, config)
        return plain.read_bytes(), app.read_bytes()


def new_runtime(directory: Path) -> EmbeddedRuntime:
    """Return a runtime over a directory; a second one over the same directory adopts what the first left."""
    network = NETWORKS.setdefault(directory, SimulatedPodNetwork())
    return EmbeddedRuntime(directory / "root", directory / "run", network, SystemClock(), Randomness())


@asynccontextmanager
async def embedded_runtime() -> AsyncIterator[tuple[EmbeddedRuntime, Path]]:
    """Yield a started runtime with the busybox image; afterwards remove everything and check that it is gone."""
    directory = Path(tempfile.mkdtemp(prefix="tr"))
    before = snapshot(directory.name)
    runtime = new_runtime(directory)
    archive = directory / "image.tar"
    for data in image_archives():
        archive.write_bytes(data)
        runtime.images.load_archive(archive)
    await runtime.start()
    try:
        yield runtime, directory
    finally:
        last = new_runtime(directory)
        await runtime.stop()
        await last.start()
        await last.remove_all()
        NETWORKS.pop(directory, None)
        shutil.rmtree(directory)
        assert_no_leaks(before, snapshot(directory.name))
