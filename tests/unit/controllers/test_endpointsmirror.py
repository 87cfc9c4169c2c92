"""Endpoints of a Service without selector are mirrored into slices."""

from __future__ import annotations

from typing import Any

import pytest
from fakecluster import FakeCluster
from running import quiet, running

from tiphys.client import resources

OWN = "endpointslicemirroring-controller.k8s.io"


def endpoints(addresses: list[str], port: int = 80, **meta: Any) -> dict[str, Any]:
    labels = {"team": "a"}
    return {
        "metadata": {"name": "web", "namespace": "default", "labels": labels, "uid": "e1", **meta},
        "subsets": [{"addresses": [{"ip": a} for a in addresses], "ports": [{"name": "http", "port": port}]}],
    }


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web", "namespace": "default", "uid": "s1"}, "spec": spec}


async def test_slices_follow_custom_endpoints_from_create_to_delete() -> None:
    cluster = FakeCluster()
    cluster.put(resources.SERVICES, service())
    async with running(cluster, "endpointslicemirroring"):
        annotations = {"own": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
        cluster.put(resources.ENDPOINTS, endpoints(["10.0.0.1", "fd00::1"], annotations=annotations))
        await quiet(cluster)
        four, six = sorted(cluster.list_now(resources.ENDPOINTSLICES), key=lambda s: str(s["addressType"]))
        assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")
        assert four["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]
        assert four["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
        assert four["metadata"]["annotations"] == {"own": "1"}
        assert four["metadata"]["labels"] == {
            "team": "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": OWN,
        }
        assert four["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"

        cluster.change(resources.ENDPOINTS, "default/web", {"subsets": endpoints(["10.0.0.2"], port=81)["subsets"]})
        await quiet(cluster)
        (one,) = cluster.list_now(resources.ENDPOINTSLICES)
        assert one["metadata"]["name"] == four["metadata"]["name"], "a slice of the family is used again"
        assert (one["endpoints"][0]["addresses"], one["ports"][0]["port"]) == (["10.0.0.2"], 81)

        cluster.remove(resources.ENDPOINTS, "default/web")
        await quiet(cluster)
        assert cluster.list_now(resources.ENDPOINTSLICES) == []


@pytest.mark.parametrize(
    ("spec", "meta"),
    [
        ({"selector": {"app": "web"}}, {}),
        ({}, {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}),
        ({}, {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
    ],
)
async def test_what_is_not_mirrored(spec: dict[str, Any], meta: dict[str, Any]) -> None:
    cluster = FakeCluster()
    cluster.put(resources.SERVICES, service(**spec))
    cluster.put(resources.ENDPOINTS, endpoints(["10.0.0.1"], **meta))
    async with running(cluster, "endpointslicemirroring"):
        await quiet(cluster)
        assert cluster.list_now(resources.ENDPOINTSLICES) == []
