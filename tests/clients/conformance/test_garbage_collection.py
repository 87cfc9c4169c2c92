"""What becomes of dependents when their owner is deleted.

Spec: upstream's tests "Garbage collector", with fewer pods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import STRATEGIC, Api, names

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
COUNT = 6


class Owners:
    """Owners of pods in a namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.core = f"/api/v1/namespaces/{namespace}"
        self.apps = f"/apis/apps/v1/namespaces/{namespace}"
        self.controllers = f"{self.core}/replicationcontrollers"

    def controller(self, name: str, replicas: int = COUNT) -> Json:
        """Create a ReplicationController and wait until its pods are there."""
        spec = {"replicas": replicas, "selector": {"name": name}, "template": _template(name)}
        body = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name}, "spec": spec}
        made = self.api.create(self.controllers, body)
        self.api.wait(f"{self.controllers}/{name}", lambda rc: rc["status"]["replicas"] == replicas)
        return made

    def deployment(self, name: str) -> Json:
        """Create a Deployment, wait for its ReplicaSet and its pods, and return the ReplicaSet."""
        spec = {"replicas": 2, "selector": {"matchLabels": {"name": name}}, "template": _template(name)}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        self.api.create(f"{self.apps}/deployments", body)
        with self.api.watch(f"{self.apps}/replicasets", labelSelector=f"name={name}") as events:
            return events.until(lambda _, thing: thing["status"]["replicas"] == 2)

    def pods(self, name: str) -> list[Json]:
        items: list[Json] = self.api.get(f"{self.core}/pods", labelSelector=f"name={name}")["items"]
        return items

    def wait_without_pods(self, name: str) -> None:
        self._wait_without(f"{self.core}/pods", f"name={name}")

    def _wait_without(self, path: str, selector: str) -> None:
        listed = self.api.get(path, labelSelector=selector)
        left = set(names(listed))
        if left:
            revision = listed["metadata"]["resourceVersion"]
            with self.api.watch(path, labelSelector=selector, resourceVersion=revision) as events:
                while left:
                    kind, thing = events.next()
                    if kind == "DELETED":
                        left.discard(thing["metadata"]["name"])


def _template(name: str) -> Json:
    spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "nginx", "image": "nginx"}]}
    return {"metadata": {"labels": {"name": name}}, "spec": spec}


@pytest.fixture
def owners(api: Api, namespace: str) -> Owners:
    return Owners(api, namespace)


def test_pods_follow_their_controller(owners: Owners) -> None:
    made = owners.controller("simpletest-rc")
    options = {"propagationPolicy": "Background", "preconditions": {"uid": made["metadata"]["uid"]}}
    owners.api.delete(f"{owners.controllers}/simpletest-rc", options)
    assert not owners.api.is_there(f"{owners.controllers}/simpletest-rc")
    owners.wait_without_pods("simpletest-rc")


@pytest.mark.parametrize("options", [{"propagationPolicy": "Orphan"}, {"orphanDependents": True}, None])
def test_pods_are_orphaned(owners: Owners, options: Json | None) -> None:
    """Without options too: that is how deletions of ReplicationControllers have always been."""
    owners.controller("simpletest-rc", 3)
    owners.api.delete(f"{owners.controllers}/simpletest-rc", options)
    owners.api.wait_until_gone(f"{owners.controllers}/simpletest-rc")
    pods = owners.pods("simpletest-rc")
    assert len(pods) == 3
    for pod in pods:
        assert "ownerReferences" not in pod["metadata"]
        assert "deletionTimestamp" not in pod["metadata"]


def test_a_deployment_takes_its_replicaset_along(owners: Owners) -> None:
    replicaset = owners.deployment("simpletest")
    owners.api.delete(f"{owners.apps}/deployments/simpletest", {"propagationPolicy": "Background"})
    owners.api.wait_until_gone(f"{owners.apps}/replicasets/{replicaset['metadata']['name']}")
    owners.wait_without_pods("simpletest")


def test_a_deployment_leaves_its_replicaset(owners: Owners) -> None:
    replicaset = owners.deployment("simpletest")
    owners.api.delete(f"{owners.apps}/deployments/simpletest", {"propagationPolicy": "Orphan"})
    owners.api.wait_until_gone(f"{owners.apps}/deployments/simpletest")
    left = owners.api.get(f"{owners.apps}/replicasets/{replicaset['metadata']['name']}")
    assert "ownerReferences" not in left["metadata"]
    assert all(pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet" for pod in owners.pods("simpletest"))
    assert len(owners.pods("simpletest")) == 2


def test_a_controller_stays_until_its_pods_are_gone(owners: Owners) -> None:
    owners.controller("simpletest-rc")
    listed = owners.api.get(f"{owners.core}/pods")["metadata"]["resourceVersion"]
    path = f"{owners.controllers}/simpletest-rc"
    with owners.api.watch(f"{owners.core}/pods", labelSelector="name=simpletest-rc", resourceVersion=listed) as events:
        deleted = owners.api.delete(path, {"propagationPolicy": "Foreground"})
        assert deleted["metadata"]["finalizers"] == ["foregroundDeletion"]
        gone = {}
        while len(gone) < COUNT:
            kind, pod = events.next()
            assert kind != "ADDED", "a controller that is being deleted makes no pods"
            if kind == "DELETED":
                gone[pod["metadata"]["name"]] = int(pod["metadata"]["resourceVersion"])
    revision = deleted["metadata"]["resourceVersion"]
    with owners.api.watch(
        owners.controllers, fieldSelector="metadata.name=simpletest-rc", resourceVersion=revision
    ) as w:
        last = w.until(lambda kind, _: kind == "DELETED")
    assert int(last["metadata"]["resourceVersion"]) > max(gone.values())


def test_pods_with_another_owner_stay(owners: Owners) -> None:
    owners.controller("simpletest-rc-to-be-deleted")
    stays = owners.controller("simpletest-rc-to-stay", 0)
    reference = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "name": "simpletest-rc-to-stay",
        "uid": stays["metadata"]["uid"],
    }
    pods = owners.pods("simpletest-rc-to-be-deleted")
    shared = [pod["metadata"]["name"] for pod in pods[: COUNT // 2]]
    for name in shared:
        owners.api.patch(f"{owners.core}/pods/{name}", {"metadata": {"ownerReferences": [reference]}}, STRATEGIC)
    owners.api.delete(f"{owners.controllers}/simpletest-rc-to-be-deleted", {"propagationPolicy": "Foreground"})
    owners.api.wait_until_gone(f"{owners.controllers}/simpletest-rc-to-be-deleted")
    left = owners.pods("simpletest-rc-to-be-deleted")
    assert sorted(pod["metadata"]["name"] for pod in left) == sorted(shared)
    for pod in left:
        assert "deletionTimestamp" not in pod["metadata"]
        assert [owner["name"] for owner in pod["metadata"]["ownerReferences"]] == ["simpletest-rc-to-stay"]


def test_a_circle_does_not_hold_its_members(owners: Owners) -> None:
    pods = {name: owners.api.create(f"{owners.core}/pods", _pod(name)) for name in ("pod1", "pod2", "pod3")}
    for name, owner in (("pod1", "pod3"), ("pod2", "pod1"), ("pod3", "pod2")):
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": owner,
            "uid": pods[owner]["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        owners.api.patch(f"{owners.core}/pods/{name}", {"metadata": {"ownerReferences": [reference]}}, STRATEGIC)
    options = {"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}
    owners.api.delete(f"{owners.core}/pods/pod1", options)
    owners.wait_without_pods("circle")


def _pod(name: str) -> Json:
    template = _template("circle")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **template["metadata"]},
        "spec": template["spec"],
    }


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_custom_objects(api: Api, define: Define, unique: str, policy: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"g{unique}", namespaced=False))
    owner = api.create(kind.objects(), kind.object("owner"))
    reference = {
        "apiVersion": f"{kind.group}/v1",
        "kind": kind.kind,
        "name": "owner",
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    api.create(kind.objects(), kind.object("dependent", metadata={"ownerReferences": [reference]}))
    api.delete(f"{kind.objects()}/owner", {"propagationPolicy": policy})
    api.wait_until_gone(f"{kind.objects()}/owner")
    if policy == "Orphan":
        assert "ownerReferences" not in api.get(f"{kind.objects()}/dependent")["metadata"]
    else:
        api.wait_until_gone(f"{kind.objects()}/dependent")
