"""What quotas count, what they refuse, and how soon their status tells of it.

Spec: upstream's tests "ResourceQuota": each creates a quota, waits for its first status, makes objects, sees the usage,
is refused one too many, deletes them and sees the usage go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from custom_kinds import ANYTHING, CustomKind
from direct_api import Api

from tiphys.api.quantity import parse_quantity

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
EXTENDED = "example.com/dongle"
GOLD = "gold.storageclass.storage.k8s.io"
HARD = {
    "pods": "5",
    "services": "10",
    "services.nodeports": "1",
    "services.loadbalancers": "1",
    "replicationcontrollers": "10",
    "resourcequotas": "1",
    "cpu": "1",
    "memory": "500Mi",
    "configmaps": "10",
    "secrets": "10",
    "persistentvolumeclaims": "10",
    "requests.storage": "10Gi",
    "ephemeral-storage": "50Gi",
    f"{GOLD}/persistentvolumeclaims": "10",
    f"{GOLD}/requests.storage": "10Gi",
    "count/replicasets.apps": "5",
    f"requests.{EXTENDED}": "3",
    "count/resourceclaims.resource.k8s.io": "2",
    "gold.deviceclass.resource.k8s.io/devices": "2",
}
COMPUTE = {"requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"}


class Namespace:
    """A namespace with quotas in it."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name
        self.core = f"/api/v1/namespaces/{name}"

    def quota(self, hard: Json, name: str = "test-quota", **spec: Any) -> str:
        """Create a quota and return its path."""
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard, **spec}}
        self.api.create(f"{self.core}/resourcequotas", body)
        return f"{self.core}/resourcequotas/{name}"

    def sees(self, quota: str, **used: str) -> None:
        """Wait until the status tells this usage; `__` in a name stands for a dot, the rest comes as it is."""
        self.sees_all(quota, {name.replace("__", "."): value for name, value in used.items()})

    def sees_all(self, quota: str, used: Json) -> None:
        def holds(thing: Json) -> bool:
            told = thing.get("status", {}).get("used") or {}
            return all(k in told and parse_quantity(told[k]) == parse_quantity(v) for k, v in used.items())

        self.api.wait(quota, holds)

    def pod(self, name: str, requests: Json | None = None, limits: Json | None = None, **spec: Any) -> Json:
        resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
        container = {"name": "pause", "image": "pause", "resources": resources}
        # on no node: nothing but the quota's own counting changes anything
        spec = {"containers": [container], "nodeSelector": {"x-test.k8s.io/unsatisfiable": "not-schedulable"}, **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    def create_pod(self, name: str, requests: Json | None = None, limits: Json | None = None, **spec: Any) -> Json:
        return self.api.create(f"{self.core}/pods", self.pod(name, requests, limits, **spec))

    def delete_pod(self, name: str) -> None:
        self.api.delete(f"{self.core}/pods/{name}", {"gracePeriodSeconds": 0})


@pytest.fixture
def within(api: Api, namespace: str) -> Namespace:
    api.wait(f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt", lambda _: True)
    return Namespace(api, namespace)


def test_the_status_is_calculated_promptly(within: Namespace) -> None:
    within.sees(within.quota(HARD), resourcequotas="1")


def test_services(within: Namespace) -> None:
    quota = within.quota(HARD)
    within.sees(quota, resourcequotas="1")
    services = f"{within.core}/services"

    def service(name: str, kind: str, **spec: Any) -> Json:
        port = {"name": "http", "port": 80, "targetPort": 80}
        spec = {"type": kind, "ports": [port], **spec}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    within.api.create(services, service("test-service", "ClusterIP"))
    within.api.create(services, service("test-service-np", "NodePort"))
    for ports in (True, False):
        load_balancer = service("test-service-lb", "LoadBalancer", allocateLoadBalancerNodePorts=ports)
        if ports:
            refused = within.api.refused("POST", services, load_balancer, code=403)
            assert refused["message"] == (
                'services "test-service-lb" is forbidden: exceeded quota: test-quota, requested: services.nodeports=1, '
                "used: services.nodeports=1, limited: services.nodeports=1"
            )
        else:
            within.api.create(services, load_balancer)
    within.sees(quota, services="3", services__nodeports="1", services__loadbalancers="1")
    for name in ("test-service", "test-service-np", "test-service-lb"):
        within.api.delete(f"{services}/{name}")
    within.sees(quota, services="0", services__nodeports="0", services__loadbalancers="0")


@pytest.mark.parametrize(("resource", "kind"), [("secrets", "Secret"), ("configmaps", "ConfigMap")])
def test_what_was_there_before_counts(within: Namespace, resource: str, kind: str) -> None:
    found = len(within.api.get(f"{within.core}/{resource}")["items"])
    quota = within.quota({**HARD, resource: str(found + 1)})
    within.sees(quota, resourcequotas="1", **{resource: str(found)})
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "test"}}
    within.api.create(f"{within.core}/{resource}", body)
    within.sees(quota, resourcequotas="1", **{resource: str(found + 1)})
    within.api.refused("POST", f"{within.core}/{resource}", {**body, "metadata": {"name": "another"}}, code=403)
    within.api.delete(f"{within.core}/{resource}/test")
    within.sees(quota, **{resource: str(found)})


def test_pods(within: Namespace) -> None:
    quota = within.quota(HARD)
    within.sees(quota, resourcequotas="1")
    dongles = {EXTENDED: "2"}
    wanted = {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", **dongles}
    within.create_pod("test-pod", wanted, dongles)
    usage = {"resourcequotas": "1", "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi"}
    usage[f"requests.{EXTENDED}"] = "2"
    within.sees_all(quota, usage)
    pods = f"{within.core}/pods"
    refused = within.api.refused(
        "POST", pods, within.pod("fail-pod", {"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"}), code=403
    )
    assert refused["message"] == (
        'pods "fail-pod" is forbidden: exceeded quota: test-quota, requested: cpu=600m, used: cpu=500m, limited: cpu=1'
    )
    small = {"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "10Gi"}
    within.api.refused("POST", pods, within.pod("fail-ext", {**small, **dongles}, dongles), code=403)
    refused = within.api.refused("POST", pods, within.pod("fail-none"), code=403)
    assert "failed quota: test-quota: must specify cpu for: pause; memory for: pause" in (refused["message"])
    pod = within.api.get(f"{pods}/test-pod")
    pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m", "memory": "100Mi"}
    within.api.refused("PUT", f"{pods}/test-pod", pod, code=422)
    within.sees_all(quota, usage)
    within.delete_pod("test-pod")
    within.sees_all(quota, dict.fromkeys(usage, "0") | {"resourcequotas": "1"})


@pytest.mark.parametrize(
    ("path", "body", "usage"),
    [
        pytest.param(
            "/api/v1/namespaces/{}/replicationcontrollers",
            {
                "apiVersion": "v1",
                "kind": "ReplicationController",
                "metadata": {"name": "test"},
                "spec": {
                    "replicas": 0,
                    "selector": {"name": "test"},
                    "template": {
                        "metadata": {"labels": {"name": "test"}},
                        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
                    },
                },
            },
            {"replicationcontrollers": "1"},
            id="replication controller",
        ),
        pytest.param(
            "/apis/apps/v1/namespaces/{}/replicasets",
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "test"},
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"name": "test"}},
                    "template": {
                        "metadata": {"labels": {"name": "test"}},
                        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
                    },
                },
            },
            {"count/replicasets.apps": "1"},
            id="replica set",
        ),
        pytest.param(
            "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaims",
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"name": "test"},
                "spec": {"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "gold"}}]}},
            },
            {"count/resourceclaims.resource.k8s.io": "1", "gold.deviceclass.resource.k8s.io/devices": "1"},
            id="resource claim",
        ),
        pytest.param(
            "/api/v1/namespaces/{}/persistentvolumeclaims",
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "test"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
            {"persistentvolumeclaims": "1", "requests.storage": "1Gi"},
            id="persistent volume claim",
        ),
        pytest.param(
            "/api/v1/namespaces/{}/persistentvolumeclaims",
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "test"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "gold",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
            {
                "persistentvolumeclaims": "1",
                "requests.storage": "1Gi",
                f"{GOLD}/persistentvolumeclaims": "1",
                f"{GOLD}/requests.storage": "1Gi",
            },
            id="claim of a storage class",
        ),
    ],
)
def test_objects(within: Namespace, path: str, body: Json, usage: Json) -> None:
    quota = within.quota(HARD)
    nothing = dict.fromkeys(usage, "0")
    within.sees_all(quota, {"resourcequotas": "1", **nothing})
    collection = path.format(within.name)
    within.api.create(collection, body)
    within.sees_all(quota, usage)
    within.api.delete(f"{collection}/test", {"propagationPolicy": "Background"})
    within.sees_all(quota, nothing)


def test_custom_objects(within: Namespace, define: Define, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"q{unique}", ANYTHING))
    count = f"count/{kind.plural}.{kind.group}"
    early = within.quota({count: "0"}, f"quota-for-{kind.plural}")
    within.sees_all(early, {count: "0"})
    within.api.delete(early)
    quota = within.quota({**HARD, count: "1"})
    within.sees_all(quota, {"resourcequotas": "1", count: "0"})
    within.api.create(kind.objects(within.name), kind.object("test-cr-1"))
    within.sees_all(quota, {count: "1"})
    refused = within.api.refused("POST", kind.objects(within.name), kind.object("test-cr-2"), code=403)
    assert (
        f"exceeded quota: test-quota, requested: {count}=1, used: {count}=1, limited: {count}=1" in refused["message"]
    )
    within.api.delete(f"{kind.objects(within.name)}/test-cr-1")
    within.sees_all(quota, {count: "0"})


@pytest.mark.parametrize("form", ["scopes", "selector"])
def test_terminating_scopes(within: Namespace, form: str) -> None:
    def scoped(name: str) -> Json:
        return {"scopes": [name]} if form == "scopes" else _selector(name, "Exists")

    hard = {"pods": "5", **COMPUTE}
    ending = within.quota(hard, "quota-terminating", **scoped("Terminating"))
    lasting = within.quota(hard, "quota-not-terminating", **scoped("NotTerminating"))
    requests, limits = {"cpu": "500m", "memory": "200Mi"}, {"cpu": "1", "memory": "400Mi"}
    usage = {f"requests.{k}": v for k, v in requests.items()} | {f"limits.{k}": v for k, v in limits.items()}
    usage["pods"] = "1"
    nothing = dict.fromkeys(usage, "0")
    within.sees_all(ending, nothing)
    within.sees_all(lasting, nothing)
    within.create_pod("test-pod", requests, limits)
    within.sees_all(lasting, usage)
    within.sees_all(ending, nothing)
    within.delete_pod("test-pod")
    within.sees_all(lasting, nothing)
    within.create_pod("terminating-pod", requests, limits, activeDeadlineSeconds=3600)
    within.sees_all(ending, usage)
    within.sees_all(lasting, nothing)
    within.delete_pod("terminating-pod")
    within.sees_all(ending, nothing)


@pytest.mark.parametrize("form", ["scopes", "selector"])
def test_best_effort_scopes(within: Namespace, form: str) -> None:
    def scoped(name: str) -> Json:
        return {"scopes": [name]} if form == "scopes" else _selector(name, "Exists")

    best = within.quota({"pods": "5"}, "quota-besteffort", **scoped("BestEffort"))
    other = within.quota({"pods": "5"}, "quota-not-besteffort", **scoped("NotBestEffort"))
    within.sees(best, pods="0")
    within.sees(other, pods="0")
    within.create_pod("besteffort-pod")
    within.sees(best, pods="1")
    within.sees(other, pods="0")
    within.delete_pod("besteffort-pod")
    within.sees(best, pods="0")
    within.create_pod("burstable-pod", {"cpu": "500m", "memory": "200Mi"}, {"cpu": "1", "memory": "400Mi"})
    within.sees(other, pods="1")
    within.sees(best, pods="0")
    within.delete_pod("burstable-pod")
    within.sees(other, pods="0")


def _selector(scope: str, operator: str, *values: str) -> Json:
    expression: Json = {"scopeName": scope, "operator": operator}
    if values:
        expression["values"] = list(values)
    return {"scopeSelector": {"matchExpressions": [expression]}}


def test_priority_classes(within: Namespace, unique: str) -> None:
    group = "/apis/scheduling.k8s.io/v1/priorityclasses"
    chosen, other = f"{unique}-a", f"{unique}-b"
    for name in (chosen, other):
        body = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": 1000,
        }
        within.api.create(group, body)
    try:
        one = within.quota({"pods": "1"}, "one", **_selector("PriorityClass", "In", chosen))
        both = within.quota({"pods": "2"}, "both", **_selector("PriorityClass", "In", chosen, other))
        rest = within.quota({"pods": "1"}, "rest", **_selector("PriorityClass", "NotIn", chosen))
        some = within.quota({"pods": "3"}, "some", **_selector("PriorityClass", "Exists"))
        for quota in (one, both, rest, some):
            within.sees(quota, pods="0")
        within.create_pod("first", priorityClassName=chosen)
        for quota, used in ((one, "1"), (both, "1"), (rest, "0"), (some, "1")):
            within.sees(quota, pods=used)
        within.api.refused("POST", f"{within.core}/pods", within.pod("same", priorityClassName=chosen), code=403)
        within.create_pod("second", priorityClassName=other)
        for quota, used in ((one, "1"), (both, "2"), (rest, "1"), (some, "2")):
            within.sees(quota, pods=used)
        within.delete_pod("first")
        within.delete_pod("second")
        for quota in (one, both, rest, some):
            within.sees(quota, pods="0")
    finally:
        for name in (chosen, other):
            within.api.delete(f"{group}/{name}")


def test_priority_classes_with_compute(within: Namespace, unique: str) -> None:
    group = "/apis/scheduling.k8s.io/v1/priorityclasses"
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": unique}, "value": 1000}
    within.api.create(group, body)
    try:
        quota = within.quota({"pods": "1", **COMPUTE}, **_selector("PriorityClass", "In", unique))
        usage = {"pods": "1", "requests.cpu": "1", "requests.memory": "1", "limits.cpu": "2", "limits.memory": "2"}
        nothing = dict.fromkeys(usage, "0")
        within.sees_all(quota, nothing)
        within.create_pod("p", {"cpu": "1", "memory": "1"}, {"cpu": "2", "memory": "2"}, priorityClassName=unique)
        within.sees_all(quota, usage)
        within.delete_pod("p")
        within.sees_all(quota, nothing)
    finally:
        within.api.delete(f"{group}/{unique}")


def test_volume_attributes_classes(within: Namespace) -> None:
    hard = {"requests.storage": "5Gi", "persistentvolumeclaims": "1"}
    quota = within.quota(hard, **_selector("VolumeAttributesClass", "In", "gold"))
    within.sees_all(quota, {"requests.storage": "0", "persistentvolumeclaims": "0"})
    claims = f"{within.core}/persistentvolumeclaims"

    def claim(name: str, class_name: str) -> Json:
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeAttributesClassName": class_name}
        spec["resources"] = {"requests": {"storage": "1Gi"}}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}

    within.api.create(claims, claim("one", "gold"))
    within.sees_all(quota, {"requests.storage": "1Gi", "persistentvolumeclaims": "1"})
    within.api.refused("POST", claims, claim("two", "gold"), code=403)
    within.api.create(claims, claim("three", "silver"))
    within.api.delete(f"{claims}/one")
    within.sees_all(quota, {"requests.storage": "0", "persistentvolumeclaims": "0"})


def test_affinity_across_namespaces(within: Namespace) -> None:
    quota = within.quota({"pods": "1"}, **_selector("CrossNamespacePodAffinity", "Exists"))
    within.sees(quota, pods="0")
    term = {"topologyKey": "region", "labelSelector": {"matchLabels": {"a": "b"}}}
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    far = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, "namespaces": ["ns1"]}]}}
    away = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, "namespaceSelector": {}}]}}
    within.create_pod("no-cross-namespace-affinity", affinity=near)
    within.sees(quota, pods="0")
    within.create_pod("with-namespaces", affinity=far)
    within.sees(quota, pods="1")
    refused = within.api.refused("POST", f"{within.core}/pods", within.pod("selector", affinity=away), code=403)
    assert "exceeded quota: test-quota, requested: pods=1, used: pods=1, limited: pods=1" in refused["message"]
    within.delete_pod("with-namespaces")
    within.sees(quota, pods="0")
    within.create_pod("with-namespace-selector", affinity=away)
    within.sees(quota, pods="1")


def test_quotas_are_updated_and_deleted(within: Namespace) -> None:
    quota = within.quota({"cpu": "1", "memory": "500Mi"})
    assert within.api.get(quota)["spec"]["hard"] == {"cpu": "1", "memory": "500Mi"}
    changed = within.api.change(quota, lambda q: q["spec"]["hard"].update(cpu="2", memory="1Gi"))
    assert changed["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    assert within.api.get(quota)["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    within.api.delete(quota)
    assert not within.api.is_there(quota)


def test_the_life_of_a_quota(within: Namespace, unique: str) -> None:
    quota = within.quota({"cpu": "1", "memory": "500Mi"})
    within.api.get(quota)
    label = {"metadata": {"labels": {"e2e-rq": unique}}, "spec": {"hard": {"memory": "750Mi"}}}
    patched = within.api.patch(quota, label, "application/strategic-merge-patch+json")
    assert patched["metadata"]["labels"]["e2e-rq"] == unique
    assert patched["spec"]["hard"] == {"cpu": "1", "memory": "750Mi"}
    listed = within.api.get("/api/v1/resourcequotas", labelSelector=f"e2e-rq={unique}")
    assert len(listed["items"]) == 1
    within.api.delete(f"{within.core}/resourcequotas", labelSelector=f"e2e-rq={unique}")
    assert within.api.get("/api/v1/resourcequotas", labelSelector=f"e2e-rq={unique}")["items"] == []


def test_the_status_is_written_and_mended(within: Namespace) -> None:
    quota = within.quota({"cpu": "500m", "memory": "500Mi"})
    within.api.wait(quota, lambda q: q.get("status", {}).get("hard") == {"cpu": "500m", "memory": "500Mi"})
    hard = {"cpu": "1", "memory": "1Gi"}

    def set_status(thing: Json) -> None:
        thing["status"] = {"hard": hard}

    assert within.api.change(quota, set_status, "status")["status"]["hard"] == hard
    changed = within.api.patch(quota, {"spec": {"hard": hard}})
    assert changed["spec"]["hard"] == hard
    within.api.wait(quota, lambda q: q["status"].get("hard") == hard and "used" in q["status"])
    more = {"cpu": "2", "memory": "2Gi"}
    patch = {"metadata": {"annotations": {"rqstatus": "patched"}}, "status": {"hard": more}, "spec": {"hard": more}}
    patched = within.api.patch(f"{quota}/status", patch)
    assert patched["status"]["hard"] == more
    assert patched["spec"]["hard"] == hard
    assert patched["metadata"]["annotations"]["rqstatus"] == "patched"
    within.api.wait(quota, lambda q: q["status"]["hard"] == hard)
    read = within.api.get(f"{quota}/status")
    assert read["spec"]["hard"] == hard
