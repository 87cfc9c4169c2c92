"""Owners and dependents: background, foreground and orphan deletion, and namespaces that empty themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakecluster import FakeCluster, settle
from running import deployment, quiet, running

from tiphys.base.errors import internal
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers import garbage

WIDGETS = Resource("example.com", "v1", "widgets", "Widget")


def config(name: str, *owners: dict[str, Any], **meta: Any) -> dict[str, Any]:
    references = [
        {
            "apiVersion": o.get("apiVersion", "v1"),
            "kind": o.get("kind", "ConfigMap"),
            "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for o in owners
    ]
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": references, **meta}}


def names(cluster: FakeCluster) -> list[str]:
    return sorted(o["metadata"]["name"] for o in cluster.list_now(resources.CONFIGMAPS))


async def test_dependents_follow_their_last_owner() -> None:
    cluster = FakeCluster()
    a = cluster.put(resources.CONFIGMAPS, config("a"))
    b = cluster.put(resources.CONFIGMAPS, config("b"))
    cluster.put(resources.CONFIGMAPS, config("both", a, b))
    c = cluster.put(resources.CONFIGMAPS, config("only-a", a))
    cluster.put(resources.CONFIGMAPS, config("grandchild", c))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        cluster.remove(resources.CONFIGMAPS, "default/a")
        await quiet(cluster)
        assert names(cluster) == ["b", "both"]
        both = cluster.get_now(resources.CONFIGMAPS, "default/both")
        assert both is not None
        assert [o["name"] for o in both["metadata"]["ownerReferences"]] == ["b"]


async def test_a_dependent_of_an_owner_that_never_was_goes_and_a_namesake_does_not_count() -> None:
    cluster = FakeCluster()
    cluster.put(resources.CONFIGMAPS, config("a"))
    ghost = {"metadata": {"name": "a", "uid": "another-uid"}}
    cluster.put(resources.CONFIGMAPS, config("child", ghost))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        assert names(cluster) == ["a"]


async def test_foreground_deletion_waits_for_blocking_dependents() -> None:
    cluster = FakeCluster()
    a = cluster.put(resources.CONFIGMAPS, config("a"))
    cluster.put(resources.CONFIGMAPS, config("child", a, finalizers=["example.com/hold"]))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        await cluster.delete(resources.CONFIGMAPS, "default", "a", propagation="Foreground")
        await quiet(cluster)
        assert names(cluster) == ["a", "child"]
        cluster.change(resources.CONFIGMAPS, "default/child", {"metadata": {"finalizers": None}})
        await quiet(cluster)
        assert names(cluster) == []


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_a_circle_of_owners_holds_nobody(size: int) -> None:
    cluster = FakeCluster()
    members = [cluster.put(resources.CONFIGMAPS, config(f"m{number}")) for number in range(size)]
    cluster.put(resources.CONFIGMAPS, config("beside", members[0], finalizers=["example.com/hold"]))
    for number, member in enumerate(members):
        owner = config("", members[number - 1])["metadata"]["ownerReferences"]
        key = f"default/{member['metadata']['name']}"
        cluster.change(resources.CONFIGMAPS, key, {"metadata": {"ownerReferences": owner}})
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        await cluster.delete(resources.CONFIGMAPS, "default", "m0", propagation="Foreground")
        await quiet(cluster)
        assert "beside" in names(cluster)
        assert "m0" in names(cluster), "a dependent that is no part of the circle is still waited for"
        cluster.change(resources.CONFIGMAPS, "default/beside", {"metadata": {"finalizers": None}})
        await quiet(cluster)
        assert names(cluster) == []


async def test_orphans_lose_their_reference_and_live() -> None:
    cluster = FakeCluster()
    a = cluster.put(resources.CONFIGMAPS, config("a"))
    cluster.put(resources.CONFIGMAPS, config("child", a))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        await cluster.delete(resources.CONFIGMAPS, "default", "a", propagation="Orphan")
        await quiet(cluster)
        (child,) = cluster.list_now(resources.CONFIGMAPS)
        assert child["metadata"]["name"] == "child"
        assert not child["metadata"].get("ownerReferences")


class Racing(FakeCluster):
    """Lets a child be released between the verdict on it and the look at its live state, and the watch tell so."""

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> bytes:
        if name == "child" and (self.get_now(resource, "default/child") or {})["metadata"].get("ownerReferences"):
            self.change(resource, "default/child", {"metadata": {"ownerReferences": None}})
            await settle()
        return await super().get(resource, namespace, name, subresource=subresource)


async def test_an_object_that_is_released_while_it_is_judged_lives() -> None:
    cluster = Racing()
    a = cluster.put(resources.CONFIGMAPS, config("a"))
    cluster.put(resources.CONFIGMAPS, config("child", a))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        cluster.remove(resources.CONFIGMAPS, "default/a")
        await quiet(cluster)
        assert names(cluster) == ["child"]


async def test_custom_resources_take_part_as_soon_as_they_are_served() -> None:
    cluster = FakeCluster()
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        cluster.resources.append(WIDGETS)
        cluster.put(resources.CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "widgets.example.com"}})
        widget = cluster.put(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}})
        cluster.put(resources.CONFIGMAPS, config("child", widget))
        await quiet(cluster)
        await asyncio.sleep(0.6)
        assert names(cluster) == ["child"]
        cluster.remove(WIDGETS, "default/w")
        await quiet(cluster)
        assert names(cluster) == []


class Unlistable(FakeCluster):
    """One kind cannot be listed: its conversion webhook, or its API server, is down."""

    async def list(self, resource: Resource, namespace: str = "", **options: Any) -> Any:
        if resource == WIDGETS:
            raise internal("conversion webhook failed")
        return await super().list(resource, namespace, **options)


async def test_a_kind_that_cannot_be_listed_does_not_hold_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "FIRST_LOOK_S", 0.05)
    cluster = Unlistable()
    cluster.resources.append(WIDGETS)
    ghost = {"metadata": {"name": "a", "uid": "gone"}}
    widget = cluster.put(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}})
    cluster.put(resources.CONFIGMAPS, config("child", ghost))
    cluster.put(resources.CONFIGMAPS, config("of-the-widget", {"apiVersion": "example.com/v1", **widget}))
    async with running(cluster, "garbage-collector"):
        await quiet(cluster)
        await asyncio.sleep(0.1)
        await quiet(cluster)
        assert names(cluster) == ["of-the-widget"]


async def test_deleting_a_deployment_takes_its_replicasets_and_pods() -> None:
    cluster = FakeCluster()
    cluster.put(resources.DEPLOYMENTS, deployment())
    async with running(cluster, "garbage-collector", "deployment", "replicaset"):
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 3
        cluster.remove(resources.DEPLOYMENTS, "default/web")
        await quiet(cluster)
        assert not cluster.list_now(resources.REPLICASETS)
        assert not cluster.list_now(resources.PODS)


async def test_a_namespace_is_furnished_and_emptied() -> None:
    cluster = FakeCluster()
    cluster.put(resources.NAMESPACES, {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}})
    async with running(cluster, "namespace", "serviceaccount", "root-ca-publisher", cluster_ca="PEM"):
        await quiet(cluster)
        assert cluster.get_now(resources.SERVICEACCOUNTS, "x/default")
        published = cluster.get_now(resources.CONFIGMAPS, "x/kube-root-ca.crt")
        assert published is not None
        assert published["data"] == {"ca.crt": "PEM"}
        held = {"metadata": {"name": "held", "namespace": "x", "finalizers": ["example.com/hold"]}}
        cluster.put(resources.CONFIGMAPS, held)
        await cluster.delete(resources.NAMESPACES, "", "x")
        await asyncio.sleep(0.05)
        namespace = cluster.get_now(resources.NAMESPACES, "x")
        assert namespace is not None
        told = {c["type"]: c for c in namespace["status"]["conditions"]}
        assert namespace["status"]["phase"] == "Terminating"
        assert told["NamespaceContentRemaining"]["message"] == (
            "Some resources are remaining: configmaps. has 1 resource instances"
        )
        assert told["NamespaceFinalizersRemaining"]["message"] == (
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        )
        cluster.change(resources.CONFIGMAPS, "x/held", {"metadata": {"finalizers": None}})
        for _ in range(100):
            await asyncio.sleep(0.02)
            if cluster.get_now(resources.NAMESPACES, "x") is None:
                break
    assert cluster.get_now(resources.NAMESPACES, "x") is None
    assert not cluster.list_now(resources.SERVICEACCOUNTS)


async def test_nothing_of_a_namespace_goes_before_its_pods() -> None:
    cluster = FakeCluster()
    cluster.put(resources.NAMESPACES, {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}})
    cluster.put(resources.CONFIGMAPS, {"metadata": {"name": "needed", "namespace": "x"}})
    held = {
        "metadata": {"name": "held", "namespace": "x", "finalizers": ["example.com/hold"]},
        "spec": {"containers": []},
    }
    cluster.put(resources.PODS, held)
    async with running(cluster, "namespace"):
        await cluster.delete(resources.NAMESPACES, "", "x")
        await quiet(cluster)
        pod, namespace = cluster.get_now(resources.PODS, "x/held"), cluster.get_now(resources.NAMESPACES, "x")
        assert pod is not None and pod["metadata"]["deletionTimestamp"]
        assert cluster.get_now(resources.CONFIGMAPS, "x/needed"), "the pod may need it to its end"
        assert namespace is not None
        told = {c["type"]: c for c in namespace["status"]["conditions"]}
        assert told["NamespaceContentRemaining"]["message"] == (
            "Some resources are remaining: pods. has 1 resource instances"
        )
        cluster.change(resources.PODS, "x/held", {"metadata": {"finalizers": None}})
        await quiet(cluster)
    assert cluster.get_now(resources.CONFIGMAPS, "x/needed") is None
    assert cluster.get_now(resources.NAMESPACES, "x") is None
