"""EndpointSlices and Endpoints follow the pods of a Service."""

from __future__ import annotations

from typing import Any

import msgspec
from fakecluster import FakeCluster
from running import quiet, running

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.service import Service
from tiphys.base.clock import format_time
from tiphys.client import resources
from tiphys.controllers import endpoints as rules
from tiphys.controllers.views import Pod


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    base = {"selector": {"app": "web"}, "ports": ports, "clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"]}
    return {"metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}}, "spec": {**base, **spec}}


def pod(number: int, *, ready: bool = True, **meta: Any) -> dict[str, Any]:
    now = format_time(1_767_225_600)
    return {
        "metadata": {
            "name": f"web-{number}", "namespace": "default", "labels": {"app": "web"}, "uid": f"uid-{number}", **meta,
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": f"10.0.0.{number}",
            "podIPs": [{"ip": f"10.0.0.{number}"}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}],
        },
    }  # fmt: skip


def view(obj: dict[str, Any], kind: type[Any]) -> Any:
    return msgspec.convert(obj, kind)


async def test_a_service_gets_one_slice_and_one_endpoints_object() -> None:
    cluster = FakeCluster()
    node = {"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "z1"}}}
    cluster.put(resources.NODES, node)
    cluster.put(resources.SERVICES, service())
    async with running(cluster, "endpointslice", "endpoints"):
        await quiet(cluster)
        (empty,) = cluster.list_now(resources.ENDPOINTSLICES)
        assert (empty["endpoints"], empty["ports"]) == ([], [])
        cluster.put(resources.PODS, pod(1))
        cluster.put(resources.PODS, pod(2, ready=False))
        await quiet(cluster)
        (slice_,) = cluster.list_now(resources.ENDPOINTSLICES)
        assert slice_["metadata"]["name"] == empty["metadata"]["name"]
        assert slice_["metadata"]["labels"] == {
            "team": "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        assert "endpoints.kubernetes.io/last-change-trigger-time" in slice_["metadata"]["annotations"]
        assert slice_["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        assert slice_["endpoints"] == [
            {
                "addresses": [f"10.0.0.{n}"],
                "conditions": {"ready": n == 1, "serving": n == 1, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": f"web-{n}", "uid": f"uid-{n}"},
                "nodeName": "node-1",
                "zone": "z1",
            }
            for n in (1, 2)
        ]
        endpoints = cluster.get_now(resources.ENDPOINTS, "default/web")
        assert endpoints is not None
        assert [a["ip"] for a in endpoints["subsets"][0]["addresses"]] == ["10.0.0.1"]
        assert [a["ip"] for a in endpoints["subsets"][0]["notReadyAddresses"]] == ["10.0.0.2"]
        assert endpoints["subsets"][0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        before = cluster.revision
        cluster.change(resources.PODS, "default/web-1", {"metadata": {"annotations": {"x": "y"}}})
        await quiet(cluster)
        assert cluster.revision == before + 1
        cluster.remove(resources.SERVICES, "default/web")
        await quiet(cluster)
    assert not cluster.list_now(resources.ENDPOINTSLICES)
    assert not cluster.list_now(resources.ENDPOINTS)


def test_a_terminating_pod_serves_but_is_not_ready() -> None:
    ending = view(pod(1, deletionTimestamp="2026-01-01T00:00:00Z"), Pod)
    (group,) = rules.plan_groups(view(service(), Service), [ending], "IPv4", {})
    assert group.endpoints["uid-1"]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    (group,) = rules.plan_groups(view(service(publishNotReadyAddresses=True), Service), [ending], "IPv4", {})
    assert group.endpoints["uid-1"]["conditions"]["ready"] is True
    assert rules.plan_subsets(view(service(), Service), [ending]) == []


def test_endpoints_stay_in_their_slice_and_slices_hold_a_hundred() -> None:
    web = view(service(), Service)
    pods = [view(pod(n), Pod) for n in range(250)]
    plan = rules.plan_slices(rules.plan_groups(web, pods, "IPv4", {}), [])
    assert [len(body["endpoints"]) for body in plan.create] == [100, 100, 50]
    slices = [
        msgspec.convert({"metadata": {"name": str(n)}, "addressType": "IPv4", **body}, EndpointSlice)
        for n, body in enumerate(plan.create)
    ]
    fewer = pods[:30] + pods[31:]
    plan = rules.plan_slices(rules.plan_groups(web, fewer, "IPv4", {}), slices)
    assert [(s.metadata.name, len(b["endpoints"])) for s, b in plan.update] == [("0", 99)]
    assert not plan.create
    assert not plan.delete
    more = [*pods, view(pod(999), Pod)]
    plan = rules.plan_slices(rules.plan_groups(web, more, "IPv4", {}), slices)
    assert [(s.metadata.name, len(b["endpoints"])) for s, b in plan.update] == [("2", 51)]
