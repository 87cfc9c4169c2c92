"""Lifecycles of built-in kinds, call by call: events, leases, services, endpoints, pods, volumes, limits, priorities.

Spec: upstream's conformance tests of these names ("lifecycle of", "status lifecycle", "API operations") in the groups of
instrumentation, node, network, scheduling, storage and apps.
"""

from __future__ import annotations

from typing import Any

import pytest
from direct_api import JSON_PATCH, STRATEGIC, Api, names

Json = dict[str, Any]
CONDITION = {
    "type": "StatusUpdate",
    "status": "True",
    "reason": "E2E",
    "message": "Set from e2e test",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def core(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}"


def _object(kind: str, name: str, api_version: str = "v1", **fields: Any) -> Json:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **fields.pop("metadata", {})}, **fields}


def test_core_events(api: Api, core: str, namespace: str, unique: str) -> None:
    involved = {"namespace": namespace}
    label = {"labels": {"testevent-set": unique}}
    for name in ("one", "two"):
        body = {"message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1}
        api.create(f"{core}/events", _object("Event", name, metadata=label, involvedObject=involved, **body))
    found = api.get("/api/v1/events", labelSelector=f"testevent-set={unique}")["items"]
    assert len(found) == 2
    patched = api.patch(f"{core}/events/one", {"message": "This is a test event - patched"}, STRATEGIC)
    assert patched["message"] == "This is a test event - patched"
    read = api.get(f"{core}/events/one")
    assert read["message"] == "This is a test event - patched"

    def set_series(event: Json) -> None:
        event["series"] = {"count": 100, "lastObservedTime": "2026-01-01T00:00:00.123456Z"}

    updated = api.change(f"{core}/events/one", set_series)
    assert updated["series"] == {"count": 100, "lastObservedTime": "2026-01-01T00:00:00.123456Z"}
    newer = api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/one")
    assert newer["series"] == updated["series"]
    assert newer["note"] == updated["message"]
    assert newer["regarding"] == involved
    assert newer["deprecatedCount"] == 1
    api.delete(f"{core}/events/one")
    assert names(api.get("/api/v1/events", labelSelector=f"testevent-set={unique}")) == ["two"]
    api.delete(f"{core}/events", labelSelector=f"testevent-set={unique}")
    assert api.get("/api/v1/events", labelSelector=f"testevent-set={unique}")["items"] == []


def test_newer_events(api: Api, namespace: str, unique: str) -> None:
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    body = {
        "regarding": {"namespace": namespace},
        "eventTime": "2017-09-19T13:49:16.000000Z",
        "note": "This is event-test",
        "action": "Do",
        "reason": "Test",
        "type": "Normal",
        "reportingController": f"test-{unique}",
        "reportingInstance": "test-node",
    }
    made = api.create(
        path, _object("Event", "event-test", "events.k8s.io/v1", metadata={"labels": {"e": unique}}, **body)
    )
    assert made["eventTime"] == body["eventTime"]
    chosen = {"fieldSelector": f"reportingController=test-{unique}"}
    assert names(api.get("/apis/events.k8s.io/v1/events", **chosen)) == ["event-test"]
    assert names(api.get(path, **chosen)) == ["event-test"]
    older = {"fieldSelector": f"reportingComponent=test-{unique}"}
    assert names(api.get(f"/api/v1/namespaces/{namespace}/events", **older)) == ["event-test"]
    old_form = api.get(f"/api/v1/namespaces/{namespace}/events/event-test")
    assert old_form["source"] == {}
    assert old_form["reportingComponent"] == f"test-{unique}"
    assert old_form["firstTimestamp"] is None
    patched = api.patch(f"{path}/event-test", {"note": "This is a test event - patched"}, STRATEGIC)
    assert patched["note"] == "This is a test event - patched"
    series = {"count": 100, "lastObservedTime": "2014-09-19T13:49:16.000000Z"}
    assert api.change(f"{path}/event-test", lambda event: event.update(series=series))["series"] == series
    api.delete(path, labelSelector=f"e={unique}")
    assert names(api.get(path, labelSelector=f"e={unique}")) == []


def test_leases(api: Api, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    spec = {
        "holderIdentity": "holder",
        "leaseDurationSeconds": 30,
        "acquireTime": "2026-01-01T00:00:00.123450Z",
        "renewTime": "2026-01-01T00:00:05.000000Z",
        "leaseTransitions": 0,
    }
    api.create(path, _object("Lease", "lease", "coordination.k8s.io/v1", spec=spec))
    assert api.get(f"{path}/lease")["spec"] == spec
    changed = {**spec, "holderIdentity": "holder2", "leaseDurationSeconds": 60, "leaseTransitions": 1}
    assert api.change(f"{path}/lease", lambda lease: lease.update(spec=changed))["spec"] == changed
    patched = api.patch(f"{path}/lease", {"spec": {"holderIdentity": "holder3"}}, STRATEGIC)
    assert patched["spec"]["holderIdentity"] == "holder3"
    api.create(
        path, _object("Lease", "lease2", "coordination.k8s.io/v1", metadata={"labels": {"deletecollection": "true"}})
    )
    assert len(api.get(path)["items"]) == 2
    api.delete(path, labelSelector="deletecollection=true")
    assert names(api.get(path)) == ["lease"]
    api.delete(f"{path}/lease")
    assert not api.is_there(f"{path}/lease")


def test_the_status_of_a_service(api: Api, core: str) -> None:
    port = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}
    spec = {"type": "LoadBalancer", "ports": [port], "loadBalancerClass": "example.com/internal-vip"}
    path = f"{core}/services/s"
    api.create(f"{core}/services", _object("Service", "s", metadata={"labels": {"t": "1"}}, spec=spec))
    assert api.get(f"{path}/status")["status"] == {"loadBalancer": {}}
    ingress = [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    body = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": ingress}}}
    patched = api.patch(f"{path}/status", body)
    assert patched["status"]["loadBalancer"]["ingress"] == ingress
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    updated = api.change(path, lambda s: s["status"].update(conditions=[CONDITION]), "status")
    assert updated["status"]["conditions"] == [CONDITION]
    patched = api.patch(path, {"metadata": {"labels": {"t": "2"}}}, STRATEGIC)
    assert patched["metadata"]["labels"]["t"] == "2"
    api.delete(f"{core}/services", labelSelector="t=2")
    assert not api.is_there(path)


def test_endpoints(api: Api, core: str, unique: str) -> None:
    subset = {"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    body = _object("Endpoints", "testservice", metadata={"labels": {"t": unique}}, subsets=[subset])
    path = f"{core}/endpoints/testservice"
    with api.watch(f"{core}/endpoints", labelSelector=f"t={unique}") as events:
        api.create(f"{core}/endpoints", body)
        assert events.next()[0] == "ADDED"
        assert names(api.get("/api/v1/endpoints", labelSelector=f"t={unique}")) == ["testservice"]
        api.change(path, lambda e: e["metadata"]["labels"].update(test_service="updated"))
        assert events.next()[1]["metadata"]["labels"]["test_service"] == "updated"
        patched_subset = {"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080}]}
        api.patch(path, {"metadata": {"labels": {"test_service": "patched"}}, "subsets": [patched_subset]}, STRATEGIC)
        seen = events.next()[1]
        assert seen["metadata"]["labels"]["test_service"] == "patched"
        assert seen["subsets"] == [
            {"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}
        ]
        api.delete(f"{core}/endpoints", labelSelector=f"t={unique}")
        assert events.next()[0] == "DELETED"


def test_pods(api: Api, core: str) -> None:
    container = {"name": "pod-test", "image": "one", "securityContext": {"allowPrivilegeEscalation": False}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    labels = {"test-pod-static": "true"}
    path = f"{core}/pods/pod-test"
    revision = api.get(f"{core}/pods", labelSelector="test-pod-static=true")["metadata"]["resourceVersion"]
    with api.watch(f"{core}/pods", labelSelector="test-pod-static=true", resourceVersion=revision) as events:
        api.create(f"{core}/pods", _object("Pod", "pod-test", metadata={"labels": labels}, spec=spec))
        assert events.next()[0] == "ADDED"
        events.until(lambda _, pod: pod["status"].get("phase") == "Running")
        patch = {
            "metadata": {"labels": {"test-pod": "patched"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "pod-test", "image": "two"}]},
        }
        patched = api.patch(path, patch, STRATEGIC)
        assert patched["spec"]["containers"][0]["image"] == "two"
        assert patched["spec"]["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
        events.until(lambda _, pod: pod["metadata"]["labels"].get("test-pod") == "patched")

        def set_ready(pod: Json) -> None:
            for condition in pod["status"]["conditions"]:
                if condition["type"] == "Ready":
                    condition["status"] = "False"

        assert api.change(path, set_ready, "status")["status"]["phase"] == "Running"
        status = {"status": {"message": "Patched by e2e", "reason": "E2E"}, "metadata": {"annotations": {"a": "b"}}}
        patched = api.patch(f"{path}/status", status, STRATEGIC)
        assert (patched["status"]["message"], patched["status"]["reason"]) == ("Patched by e2e", "E2E")
        ephemeral = {
            "spec": {"ephemeralContainers": [{"name": "eph", "image": "one", "targetContainerName": "pod-test"}]}
        }
        assert api.patch(f"{path}/ephemeralcontainers", ephemeral, STRATEGIC)["spec"]["ephemeralContainers"]
        api.delete(f"{core}/pods", labelSelector="test-pod-static=true")
        events.until(lambda kind, _: kind == "DELETED")


def test_a_pod_is_deleted_gracefully(api: Api, core: str) -> None:
    spec = {"containers": [{"name": "nginx", "image": "nginx"}]}
    with api.watch(f"{core}/pods", labelSelector="time=now") as events:
        api.create(f"{core}/pods", _object("Pod", "p", metadata={"labels": {"time": "now"}}, spec=spec))
        events.until(lambda _, pod: pod["status"].get("phase") == "Running")
        answer = api.delete(f"{core}/pods/p", {"gracePeriodSeconds": 30})
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 30
        last = events.until(lambda _, pod: pod["metadata"].get("deletionTimestamp"))
        assert last["metadata"]["deletionGracePeriodSeconds"] == 30
        events.until(lambda kind, _: kind == "DELETED")


def test_limit_ranges(api: Api, core: str, unique: str) -> None:
    limit = {
        "type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"},
        "max": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "default": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"},
        "maxLimitRequestRatio": {},
    }
    body = _object("LimitRange", "limit-range", metadata={"labels": {"t": unique}}, spec={"limits": [limit]})
    with api.watch("/api/v1/limitranges", labelSelector=f"t={unique}") as events:
        api.create(f"{core}/limitranges", body)
        assert events.next()[0] == "ADDED"

    def pod(name: str, requests: Json, limits: Json) -> Json:
        resources = {"requests": requests, "limits": limits}
        return _object("Pod", name, spec={"containers": [{"name": "pause", "image": "pause", "resources": resources}]})

    made = api.create(f"{core}/pods", pod("pod-no-resources", {}, {}))
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": limit["defaultRequest"],
        "limits": limit["default"],
    }
    made = api.create(
        f"{core}/pods",
        pod("pod-partial-resources", {"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "150Gi"}, {}),
    )
    assert made["spec"]["containers"][0]["resources"]["requests"]["memory"] == "150Mi"
    assert made["spec"]["containers"][0]["resources"]["limits"] == limit["default"]
    api.refused("POST", f"{core}/pods", pod("low", {"cpu": "10m", "memory": "50Mi"}, {}), code=403)
    refused = api.refused("POST", f"{core}/pods", pod("high", {"cpu": "600m", "memory": "600Mi"}, {}), code=422)
    assert "must be less than or equal to cpu limit" in refused["message"]

    def lower(thing: Json) -> None:
        thing["spec"]["limits"][0]["min"] = {"cpu": "9m", "memory": "49Mi", "ephemeral-storage": "49Gi"}

    api.change(f"{core}/limitranges/limit-range", lower)
    api.create(f"{core}/pods", pod("low", {"cpu": "10m", "memory": "50Mi", "ephemeral-storage": "50Gi"}, {}))
    changed = [{**limit, "min": {"cpu": "40m"}}]
    patched = api.patch(f"{core}/limitranges/limit-range", {"spec": {"limits": changed}}, STRATEGIC)
    assert patched["spec"]["limits"][0]["min"]["cpu"] == "40m"
    assert names(api.get("/api/v1/limitranges", labelSelector=f"t={unique}")) == ["limit-range"]
    api.delete(f"{core}/limitranges", labelSelector=f"t={unique}")
    assert api.get("/api/v1/limitranges", labelSelector=f"t={unique}")["items"] == []


def test_priority_classes(api: Api, unique: str) -> None:
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    name = f"p1-{unique}"
    made = api.create(path, _object("PriorityClass", name, "scheduling.k8s.io/v1", value=1))
    assert made["preemptionPolicy"] == "PreemptLowerPriority"
    try:
        for kind, body in (
            (STRATEGIC, {"value": 11}),
            (JSON_PATCH, [{"op": "replace", "path": "/value", "value": 11}]),
        ):
            refused = api.refused("PATCH", f"{path}/{name}", body, code=422, kind=kind)
            assert refused["message"] == (
                f'PriorityClass.scheduling.k8s.io "{name}" is invalid: value: Forbidden: may not be changed in an update.'
            )
        made["value"] = 12
        refused = api.refused("PUT", f"{path}/{name}", made, code=422)
        assert refused["details"]["causes"][0]["message"] == "Forbidden: may not be changed in an update."
        patched = api.patch(f"{path}/{name}", {"description": "changed"}, STRATEGIC)
        assert (patched["description"], patched["value"]) == ("changed", 1)
    finally:
        api.delete(f"{path}/{name}")


def test_volumes_and_claims(api: Api, core: str, unique: str) -> None:
    spec = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": unique,
        "csi": {"driver": "e2e-driver", "volumeHandle": "e2e-conformance"},
    }
    volumes = "/api/v1/persistentvolumes"
    volume, claim = f"{volumes}/pv-{unique}", f"{core}/persistentvolumeclaims/claim"
    labels = {"labels": {"e2e": unique}}
    api.create(volumes, _object("PersistentVolume", f"pv-{unique}", metadata=labels, spec=spec))
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": unique,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    api.create(
        f"{core}/persistentvolumeclaims", _object("PersistentVolumeClaim", "claim", metadata=labels, spec=wanted)
    )
    selector = f"e2e={unique}"
    assert len(api.get(volumes, labelSelector=selector)["items"]) == 1
    assert len(api.get(f"{core}/persistentvolumeclaims", labelSelector=selector)["items"]) == 1
    patched = api.patch(volume, {"metadata": {"labels": {"patched": "yes"}}}, STRATEGIC)
    assert patched["metadata"]["labels"]["patched"] == "yes"
    assert api.patch(claim, {"metadata": {"labels": {"patched": "yes"}}}, STRATEGIC)["metadata"]["labels"]["patched"]
    assert "status" in api.get(f"{claim}/status")
    condition = {**CONDITION, "lastProbeTime": "2026-01-01T00:00:00Z"}
    updated = api.change(claim, lambda c: c["status"].update(conditions=[condition]), "status")
    assert updated["status"]["conditions"][0]["reason"] == "E2E"
    body = {
        "metadata": {"annotations": {"patched": "yes"}},
        "status": {"conditions": [{**condition, "reason": "Again"}]},
    }
    assert api.patch(f"{claim}/status", body)["status"]["conditions"][0]["reason"] == "Again"
    updated = api.change(volume, lambda v: v["status"].update(reason="E2E", message="StatusUpdate"), "status")
    assert (updated["status"]["reason"], updated["status"]["message"]) == ("E2E", "StatusUpdate")
    patched = api.patch(f"{volume}/status", {"status": {"message": "StatusPatched"}})
    assert patched["status"]["message"] == "StatusPatched"
    api.delete(f"{core}/persistentvolumeclaims", labelSelector=selector)
    api.wait_until_gone(claim)
    api.delete(volumes, labelSelector=selector)
    api.wait_until_gone(volume)
