"""Fixtures of the tests that go through upstream's conformance tests of the API machinery, call by call.

They use the live cluster of `tests/clients`. Each test has a namespace of its own and takes away what is not in one.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from custom_kinds import CustomKind
from direct_api import Access, Api
from live_cluster import LiveCluster
from protobuf_api import ProtobufApi


@pytest.fixture(scope="session")
def access(cluster: LiveCluster) -> Access:
    return Access.of_kubeconfig(cluster.kubeconfig)


@pytest.fixture
def api(access: Access) -> Iterator[Api]:
    """The live cluster as its administrator sees it."""
    made = Api(access)
    yield made
    made.close()


@pytest.fixture
def typed_api(access: Access) -> Iterator[Api]:
    """The same, in protobuf where there is a message."""
    made = ProtobufApi(access)
    yield made
    made.close()


@pytest.fixture
def unique() -> str:
    """A word that no other test has."""
    return f"c{uuid.uuid4().hex[:10]}"


@pytest.fixture
def namespace(api: Api, unique: str) -> Iterator[str]:
    """A namespace of this test, whose default service account is there. It carries the label `<name>=true`."""
    name = f"t-{unique}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {unique: "true"}}}
    api.create("/api/v1/namespaces", body)
    api.wait(f"/api/v1/namespaces/{name}/serviceaccounts/default", lambda _: True)
    yield name
    api.ask("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def define(api: Api) -> Iterator[Callable[[CustomKind], CustomKind]]:
    """Make custom kinds, wait until they are served, and take them away after the test."""
    made: list[CustomKind] = []

    def make(kind: CustomKind) -> CustomKind:
        api.create(CustomKind.DEFINITIONS, kind.definition())
        made.append(kind)
        api.wait(kind.path, CustomKind.is_established)
        return kind

    yield make
    for kind in made:
        api.ask("DELETE", kind.path)
