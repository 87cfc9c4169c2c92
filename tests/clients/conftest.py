"""Fixtures of the tests with stock clients: the shared cluster, a kubectl in a namespace of its own.

Every test that uses the live cluster gets the mark `clients`, so `-m "not clients"` leaves them out.
"""

from __future__ import annotations

import gc
import sys
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kubectl_cli import NEWEST, Kubectl, find_client
from live_cluster import PAGE, REAL, SIMULATED, TESTBOX, LiveCluster, run_tiphys, shared_cluster

from tiphys.runtime.detect import detect
from tiphys.runtime.imagebuild import File, build_busybox_image


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Collect what stock client libraries leave open where they left it, so that no later test is blamed for it."""
    yield
    if item.path.name.startswith("test_client_"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.clients)
        if here in item.path.parents and "real_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[LiveCluster]:
    """A cluster of two simulated nodes, shared by all tests of the run."""
    base = tmp_path_factory.getbasetemp()
    with shared_cluster(base if worker_id == "master" else base.parent, "clients", SIMULATED) as live:
        yield live


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[LiveCluster]:
    """A cluster of this machine as its one real node, with a small image."""
    possible, reason = detect(Path("/var/lib"))
    if not possible:
        pytest.skip(f"no real containers here: {reason}")
    base = tmp_path_factory.getbasetemp()
    with shared_cluster(base if worker_id == "master" else base.parent, "real", REAL) as live:
        archive = live.home / f"image-{worker_id}.tar"
        build_busybox_image(archive, (TESTBOX,), files={"www/index.html": File(PAGE.encode())})
        loaded = run_tiphys(live, "image", "load", str(archive))
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        yield live


@pytest.fixture
def make_namespace(cluster: LiveCluster, request: pytest.FixtureRequest) -> Callable[[str], Kubectl]:
    """Make a namespace whose default service account is there, and return a kubectl (of a minor) that works in it."""

    def make(minor: str = NEWEST) -> Kubectl:
        plain = Kubectl(find_client(f"kubectl-{minor}"), cluster.environment())
        name = f"t-{uuid.uuid4().hex[:10]}"
        plain("create", "namespace", name)
        made = plain.within(name)
        # kubectl before 1.31 cannot wait for a creation; all that are tested can
        made("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        return made

    return make


@pytest.fixture
def kubectl(make_namespace: Callable[..., Kubectl]) -> Kubectl:
    """The newest kubectl, in a namespace of its own."""
    return make_namespace()
