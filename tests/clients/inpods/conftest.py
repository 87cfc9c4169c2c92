"""Fixtures of the tests whose servers run in real pods: upstream's conformance tests of webhooks and aggregation.

They use the real cluster of `tests/clients`; the image with Python is made and loaded once a process.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
sys.path.insert(0, str(Path(__file__).parent))

from direct_api import Access, Api
from live_cluster import LiveCluster, run_tiphys
from pod_servers import IMAGE, PodServer, bind_authentication_reader, deploy, make_namespace
from python_image import PROGRAMS, build_python_image

HERE = Path(__file__).parent
NAMES = ("webhook_program.py", "extension_program.py")
SERVICE_PORT, CONTAINER_PORT = 8443, 8444


@pytest.fixture(scope="session")
def pod_cluster(real_cluster: LiveCluster) -> LiveCluster:
    """The real cluster, with the image of the servers."""
    archive = real_cluster.home / f"python-{uuid.uuid4().hex[:6]}.tar"
    programs = {name: (HERE / name).read_text() for name in NAMES if (HERE / name).exists()}
    build_python_image(archive, f"docker.io/library/{IMAGE}", programs)
    loaded = run_tiphys(real_cluster, "image", "load", str(archive))
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    archive.unlink()
    return real_cluster


@pytest.fixture(scope="session")
def pod_access(pod_cluster: LiveCluster) -> Access:
    return Access.of_kubeconfig(pod_cluster.kubeconfig)


@pytest.fixture
def api(pod_access: Access) -> Iterator[Api]:
    """The real cluster as its administrator sees it."""
    made = Api(pod_access)
    yield made
    made.close()


@pytest.fixture
def unique() -> str:
    """A word that no other test has."""
    return f"c{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def webhook(pod_access: Access) -> Iterator[PodServer]:
    """The webhook server of all tests, in a pod."""
    api, namespace = Api(pod_access), f"webhook-{uuid.uuid4().hex[:6]}"
    command = ["python3", f"/{PROGRAMS}/webhook_program.py", f"--port={CONTAINER_PORT}"]
    try:
        make_namespace(api, namespace)
        binding = bind_authentication_reader(api, f"webhook-auth-reader-{namespace}", namespace)
        yield deploy(api, namespace, "sample-webhook", command, port=SERVICE_PORT, target_port=CONTAINER_PORT)
        api.delete(binding)
    finally:
        api.delete(f"/api/v1/namespaces/{namespace}")
        api.close()
