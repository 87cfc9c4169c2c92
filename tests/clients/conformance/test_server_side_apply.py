"""Applied configurations: who owns which fields, and what becomes of fields that nobody owns any more.

Spec: upstream's tests "ServerSideApply".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import APPLY, MERGE, Api

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]


def _deployment(name: str, template: Json | None = None, **spec: Any) -> Json:
    pod = {"containers": [{"name": "nginx", "image": "nginx"}], **(template or {})}
    labels = {"app": "nginx"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            **spec,
        },
    }


@pytest.fixture
def path(namespace: str) -> str:
    """The path of a Deployment."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments/deployment"


@pytest.mark.parametrize(
    ("resource", "kind", "spec", "fields"),
    [
        (
            "pods",
            "Pod",
            {"containers": [{"name": "test-container", "image": "test-image"}]},
            {"f:spec": {"f:containers": {'k:{"name":"test-container"}': {".": {}, "f:image": {}, "f:name": {}}}}},
        ),
        (
            "services",
            "Service",
            {"ports": [{"port": 8080, "protocol": "UDP"}]},
            {"f:spec": {"f:ports": {'k:{"port":8080,"protocol":"UDP"}': {".": {}, "f:port": {}, "f:protocol": {}}}}},
        ),
    ],
)
def test_an_object_is_made_and_owned(
    api: Api, namespace: str, resource: str, kind: str, spec: Json, fields: Json
) -> None:
    path = f"/api/v1/namespaces/{namespace}/{resource}/test"
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "test"}, "spec": spec}
    api.patch(path, body, APPLY, fieldManager="apply_test")
    again = api.patch(path, body, APPLY, fieldManager="apply_test_2")
    owned = {entry["manager"]: entry["fieldsV1"] for entry in again["metadata"]["managedFields"]}
    wanted = json.dumps(fields, separators=(",", ":"))
    for manager in ("apply_test", "apply_test_2"):
        assert json.dumps(owned[manager], separators=(",", ":")) == wanted  # the order of keys too


def test_the_status_is_applied_at_its_own_path(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/test-pod"
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod"}}
    spec = {"containers": [{"name": "nginx", "image": "nginx"}]}
    api.patch(path, {**head, "spec": spec}, APPLY, fieldManager="apply_test")
    status = {**head, "status": {"conditions": [{"type": "MyStatus", "status": "True"}]}}
    pod = api.patch(path, status, APPLY, fieldManager="apply_test2")
    assert "MyStatus" not in [c["type"] for c in pod["status"].get("conditions", ())]
    api.patch(f"{path}/status", status, APPLY, fieldManager="apply_test2")
    assert "MyStatus" in [c["type"] for c in api.get(path)["status"]["conditions"]]


def test_a_field_that_is_applied_no_more_goes(api: Api, path: str) -> None:
    container = {"name": "nginx", "image": "nginx"}
    ports = {"containers": [{**container, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}
    api.patch(path, _deployment("deployment", ports, replicas=3), APPLY, fieldManager="apply_test")
    api.patch(path, _deployment("deployment", replicas=3), APPLY, fieldManager="apply_test")
    assert "ports" not in api.get(path)["spec"]["template"]["spec"]["containers"][0]


def test_a_field_that_another_owns_stays(api: Api, path: str) -> None:
    whole = _deployment("deployment", {"hostname": "test-hostname"}, replicas=3)
    for manager in ("shared_owner_1", "shared_owner_2"):
        api.patch(path, whole, APPLY, fieldManager=manager)
    left = api.patch(path, _deployment("deployment"), APPLY, fieldManager="shared_owner_1")
    assert left["spec"]["replicas"] == 3
    assert left["spec"]["template"]["spec"]["hostname"] == "test-hostname"


def test_conflicts_are_told_and_can_be_forced(api: Api, path: str) -> None:
    body = _deployment("deployment", replicas=3)
    api.patch(path, body, APPLY, fieldManager="apply_test")
    api.patch(path, {"spec": {"replicas": 5}}, MERGE)
    refused = api.refused("PATCH", path, body, code=409, kind=APPLY, fieldManager="apply_test")
    assert refused["reason"] == "Conflict"
    assert refused["details"]["causes"][0]["field"] == ".spec.replicas"
    assert refused["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    forced = api.patch(path, body, APPLY, fieldManager="apply_test", force="true")
    assert forced["spec"]["replicas"] == 3


def test_owners_give_up_what_another_takes_by_force(api: Api, path: str) -> None:
    body = _deployment("deployment", replicas=1)
    api.patch(path, body, APPLY, fieldManager="one")
    scaled = {k: body[k] for k in ("apiVersion", "kind")} | {
        "metadata": {"name": "deployment"},
        "spec": {"replicas": 4},
    }
    refused = api.refused("PATCH", path, scaled, code=409, kind=APPLY, fieldManager="controller")
    assert 'conflict with "one"' in refused["details"]["causes"][0]["message"]
    api.patch(path, scaled, APPLY, fieldManager="controller", force="true")
    without = _deployment("deployment")
    assert api.patch(path, without, APPLY, fieldManager="one")["spec"]["replicas"] == 4
    refused = api.refused("PATCH", path, body, code=409, kind=APPLY, fieldManager="one")
    assert 'conflict with "controller"' in refused["details"]["causes"][0]["message"]


PORTS: Json = {
    "type": "array",
    "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
    "x-kubernetes-list-type": "map",
    "items": {
        "type": "object",
        "required": ["containerPort", "protocol"],
        "properties": {
            "containerPort": {"format": "int32", "type": "integer"},
            "name": {"type": "string"},
            "protocol": {"type": "string"},
        },
    },
}


def test_custom_objects(api: Api, define: Define, unique: str) -> None:
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec["properties"] = {"cronSpec": {"type": "string"}, "ports": PORTS}
    schema = {"type": "object", "properties": {"spec": spec}}
    kind = define(CustomKind(f"{unique}.example.com", f"n{unique}", schema, ("v1beta1",), namespaced=False))
    path = f"{kind.objects()}/mytest"
    first = {"name": "x", "containerPort": 80, "protocol": "TCP"}
    body = kind.object("mytest", spec={"cronSpec": "* * * * */5", "replicas": 1, "ports": [first]})
    made = api.patch(path, body, APPLY, fieldManager="apply_test")
    owned = made["metadata"]["managedFields"][0]
    assert owned["apiVersion"] == f"{kind.group}/v1beta1"
    key = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert owned["fieldsV1"]["f:spec"]["f:ports"] == {
        key: {".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {}}
    }
    api.patch(path, {"spec": {"replicas": 5}}, MERGE)
    api.refused("PATCH", path, body, code=409, kind=APPLY, fieldManager="apply_test")
    forced = api.patch(path, body, APPLY, fieldManager="apply_test", force="true")
    assert forced["spec"]["replicas"] == 1
    renamed = kind.object("mytest", spec={"ports": [{**first, "name": "y"}]})
    refused = api.refused("PATCH", path, renamed, code=409, kind=APPLY, fieldManager="apply_test_2")
    assert refused["details"]["causes"][0]["field"] == '.spec.ports[containerPort=80,protocol="TCP"].name'
    other = kind.object("mytest", spec={"ports": [{"name": "y", "containerPort": 8080, "protocol": "TCP"}]})
    added = api.patch(path, other, APPLY, fieldManager="apply_test_2")
    assert [port["containerPort"] for port in added["spec"]["ports"]] == [80, 8080]
