"""A claim in use outlives its deletion until its pod is gone."""

from __future__ import annotations

from fakecluster import FakeCluster
from running import quiet, running

from tiphys.client import resources


async def test_a_claim_stays_while_a_pod_uses_it() -> None:
    cluster = FakeCluster()
    cluster.put(resources.PERSISTENTVOLUMECLAIMS, {"metadata": {"name": "c", "namespace": "default"}})
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    cluster.put(
        resources.PODS,
        {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"nodeName": "n", "volumes": volumes},
            "status": {},
        },
    )
    async with running(cluster, "pvc-protection"):
        await quiet(cluster)
        claim = cluster.get_now(resources.PERSISTENTVOLUMECLAIMS, "default/c")
        assert claim is not None
        assert claim["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        cluster.remove(resources.PERSISTENTVOLUMECLAIMS, "default/c")
        await quiet(cluster)
        assert cluster.get_now(resources.PERSISTENTVOLUMECLAIMS, "default/c") is not None
        cluster.remove(resources.PODS, "default/p")
        await quiet(cluster)
        assert cluster.get_now(resources.PERSISTENTVOLUMECLAIMS, "default/c") is None
