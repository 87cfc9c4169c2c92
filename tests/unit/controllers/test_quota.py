"""ResourceQuotas: what pods and other objects use."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakecluster import FakeCluster
from running import quiet, running

from tiphys.client import resources
from tiphys.controllers.quota import ResourceQuota, plan_usage
from tiphys.controllers.views import Pod


def pod(name: str = "p", cpu: str = "250m", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": "1"}}}]
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": containers, **spec}}


def test_an_init_container_counts_only_where_it_wants_more() -> None:
    init = [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Mi"}}}]
    sidecar = [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}]
    used = plan_usage(ResourceQuota(), [msgspec.convert(pod(initContainers=init), Pod)])
    assert used["requests.cpu"] == 2 * 10**9
    assert used["memory"] == 64 * 2**20 * 10**9
    used = plan_usage(ResourceQuota(), [msgspec.convert(pod(initContainers=sidecar), Pod)])
    assert used["cpu"] == 350 * 10**6


@pytest.mark.parametrize(
    ("scopes", "count"), [(["BestEffort"], 1), (["NotBestEffort"], 2), (["Terminating"], 1), (["NotTerminating"], 2)]
)
def test_scopes_choose_pods(scopes: list[str], count: int) -> None:
    bare = {"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "c"}]}}
    pods = [msgspec.convert(p, Pod) for p in (pod(), pod(activeDeadlineSeconds=5), bare)]
    quota = msgspec.convert({"spec": {"scopes": scopes}}, ResourceQuota)
    assert plan_usage(quota, pods)["pods"] == count * 10**9


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
