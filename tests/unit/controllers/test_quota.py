"""ResourceQuotas: what pods and other objects use."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster
from running import quiet, running

from tiphys.client import resources
from tiphys.controllers.quota import ResourceQuota, measure, plan_usage
from tiphys.controllers.views import Pod


def pod(name: str = "p", cpu: str = "250m", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": "1"}}}]
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": containers, **spec}}


def test_an_init_container_counts_only_where_it_wants_more() -> None:
    init = [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Mi"}}}]
    sidecar = [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}]
    used = plan_usage(ResourceQuota(), [measure(msgspec.convert(pod(initContainers=init), Pod))])
    assert used["requests.cpu"] == 2 * 10**9
    assert used["memory"] == 64 * 2**20 * 10**9
    used = plan_usage(ResourceQuota(), [measure(msgspec.convert(pod(initContainers=sidecar), Pod))])
    assert used["cpu"] == 350 * 10**6


@pytest.mark.parametrize(
    ("scopes", "count"), [(["BestEffort"], 1), (["NotBestEffort"], 2), (["Terminating"], 1), (["NotTerminating"], 2)]
)
def test_scopes_choose_pods(scopes: list[str], count: int) -> None:
    bare = {"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "c"}]}}
    pods = [measure(msgspec.convert(p, Pod)) for p in (pod(), pod(activeDeadlineSeconds=5), bare)]
    quota = msgspec.convert({"spec": {"scopes": scopes}}, ResourceQuota)
    assert plan_usage(quota, pods)["pods"] == count * 10**9


FAR = {"namespaces": ["other"], "topologyKey": "zone"}


@pytest.mark.parametrize(
    ("scope", "operator", "values", "names"),
    [
        ("PriorityClass", "In", ["high"], ["high", "unlike"]),
        ("PriorityClass", "NotIn", ["high"], ["far", "near"]),
        ("PriorityClass", "Exists", [], ["high", "unlike"]),
        ("CrossNamespacePodAffinity", "Exists", [], ["far", "unlike"]),
    ],
)
def test_selectors_of_scopes_choose_pods(scope: str, operator: str, values: list[str], names: list[str]) -> None:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = [{"weight": 1, "podAffinityTerm": {"namespaceSelector": {}, "topologyKey": "zone"}}]
    pods = {
        "high": pod(priorityClassName="high"),
        "far": pod(affinity={"podAffinity": {required: [FAR]}}),
        "near": pod(affinity={"podAffinity": {required: [{"topologyKey": "zone"}]}}),
        "unlike": pod(
            priorityClassName="high",
            affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
        ),
    }
    expression = {"scopeName": scope, "operator": operator, "values": values}
    quota = msgspec.convert({"spec": {"scopeSelector": {"matchExpressions": [expression]}}}, ResourceQuota)
    chosen = [name for name, p in pods.items() if plan_usage(quota, [measure(msgspec.convert(p, Pod))])]
    assert chosen == names


def test_what_a_pod_asks_for_as_a_whole_counts() -> None:
    whole = pod(resources={"requests": {"cpu": "3", "hugepages-2Mi": "4Mi"}})
    used = plan_usage(ResourceQuota(), [measure(msgspec.convert(whole, Pod))])
    assert used["cpu"] == 3 * 10**9
    assert used["hugepages-2Mi"] == 4 * 2**20 * 10**9


async def test_kinds_that_nobody_else_watches_are_counted_at_once() -> None:
    cluster = FakeCluster()
    hard = {"count/ingresses.networking.k8s.io": "5", "requests.storage": "10Gi"}
    cluster.put(resources.RESOURCEQUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})
    async with running(cluster, "resourcequota", "garbage-collector"):
        await quiet(cluster)
        cluster.put(resources.INGRESSES, {"metadata": {"name": "i", "namespace": "default"}})
        spec = {"resources": {"requests": {"storage": "2Gi"}}}
        cluster.put(resources.PERSISTENTVOLUMECLAIMS, {"metadata": {"name": "c", "namespace": "default"}, "spec": spec})
        await quiet(cluster)
        used = cluster.list_now(resources.RESOURCEQUOTAS)[0]["status"]["used"]
        assert used == {"count/ingresses.networking.k8s.io": "1", "requests.storage": "2Gi"}
        cluster.remove(resources.INGRESSES, "default/i")
        await quiet(cluster)
        used = cluster.list_now(resources.RESOURCEQUOTAS)[0]["status"]["used"]
        assert used["count/ingresses.networking.k8s.io"] == "0"


async def test_a_kind_that_is_watched_only_later_is_counted_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.controllers.quota.RECOUNT_FIRST_S", 0.01)
    cluster = FakeCluster()
    hard = {"count/jobs.batch": "5"}
    cluster.put(resources.RESOURCEQUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})
    cluster.put(resources.JOBS, {"metadata": {"name": "j", "namespace": "default"}})
    async with running(cluster, "resourcequota"):
        await quiet(cluster)
        cluster.remove(resources.JOBS, "default/j")
        async with asyncio.timeout(10):
            while cluster.list_now(resources.RESOURCEQUOTAS)[0]["status"]["used"] != {"count/jobs.batch": "0"}:
                await quiet(cluster)


async def test_the_status_follows_what_is_there() -> None:
    cluster = FakeCluster()
    hard = {"pods": "5", "requests.cpu": "1", "requests.memory": "1Gi", "configmaps": "3", "count/jobs.batch": "2"}
    hard |= {"services": "2", "services.nodeports": "1", "requests.storage": "10Gi"}
    cluster.put(resources.RESOURCEQUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})
    claim = {"metadata": {"name": "c", "namespace": "default"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    cluster.put(resources.PERSISTENTVOLUMECLAIMS, claim)
    cluster.put(resources.JOBS, {"metadata": {"name": "j", "namespace": "default"}})
    async with running(cluster, "resourcequota"):
        await quiet(cluster)
        for name in ("a", "b"):
            cluster.put(resources.PODS, pod(name))
        cluster.put(resources.CONFIGMAPS, {"metadata": {"name": "c", "namespace": "default"}})
        service = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
        cluster.put(resources.SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": service})
        await quiet(cluster)
        status = cluster.list_now(resources.RESOURCEQUOTAS)[0]["status"]
        assert status["hard"] == hard
        assert status["used"] == {
            "pods": "2", "requests.cpu": "500m", "requests.memory": "128Mi", "configmaps": "1", "count/jobs.batch": "1",
            "services": "1", "services.nodeports": "1", "requests.storage": "2Gi",
        }  # fmt: skip
        cluster.remove(resources.PODS, "default/a")
        await quiet(cluster)
        assert cluster.list_now(resources.RESOURCEQUOTAS)[0]["status"]["used"]["requests.cpu"] == "250m"
