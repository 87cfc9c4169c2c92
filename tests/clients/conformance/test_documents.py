"""What the server tells of itself: groups, resources, its version; tables; how long a request may take.

Spec: upstream's tests "AggregatedDiscovery", "Discovery", "server version", "Table transformation", "API chunking" of
tables, "Server request timeout", "OpenAPI V3", "health handlers", "kube-apiserver serving certificate".
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import Access, Api, soon

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PREFERRED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
BUILT_IN = {
    "admissionregistration.k8s.io/v1": "validatingwebhookconfigurations",
    "apiextensions.k8s.io/v1": "customresourcedefinitions",
    "apiregistration.k8s.io/v1": "apiservices",
    "apps/v1": "deployments",
    "authentication.k8s.io/v1": "tokenreviews",
    "authorization.k8s.io/v1": "selfsubjectaccessreviews",
    "autoscaling/v1": "horizontalpodautoscalers",
    "autoscaling/v2": "horizontalpodautoscalers",
    "batch/v1": "jobs",
    "certificates.k8s.io/v1": "certificatesigningrequests",
    "coordination.k8s.io/v1": "leases",
    "discovery.k8s.io/v1": "endpointslices",
    "events.k8s.io/v1": "events",
    "networking.k8s.io/v1": "ingresses",
    "node.k8s.io/v1": "runtimeclasses",
    "policy/v1": "poddisruptionbudgets",
    "scheduling.k8s.io/v1": "priorityclasses",
    "storage.k8s.io/v1": "csinodes",
}


def _aggregated(api: Api, path: str, accept: str) -> dict[str, set[str]]:
    """Return group version -> resources."""
    answer = api.ask("GET", path, headers={"Accept": accept})
    assert answer.status == 200
    assert answer.headers["content-type"] == AGGREGATED.replace(" ", "")
    document = answer.json
    assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    return {
        "/".join(filter(None, (group["metadata"].get("name"), version["version"]))): {
            resource["resource"] for resource in version["resources"]
        }
        for group in document["items"]
        for version in group["versions"]
    }


@pytest.mark.parametrize("accept", [AGGREGATED, PREFERRED], ids=["raw", "client"])
def test_aggregated_discovery(api: Api, define: Define, unique: str, accept: str) -> None:
    found = _aggregated(api, "/apis", accept)
    for group_version, resource in BUILT_IN.items():
        assert resource in found[group_version], group_version
    assert "namespaces" in _aggregated(api, "/api", accept)["v1"]
    kind = define(CustomKind(f"group{unique}.example.com", f"testcrds{unique}"))
    soon(lambda: kind.plural in _aggregated(api, "/apis", accept).get(f"{kind.group}/v1", ()))


def test_each_group_has_a_preferred_version(api: Api) -> None:
    groups = api.get("/apis/")["groups"]
    for group in groups:
        if group["name"].endswith("example.com"):
            continue  # other tests make and remove these
        told = api.get(f"/apis/{group['name']}/")
        assert told["preferredVersion"]["groupVersion"].startswith(f"{group['name']}/")
        assert told["preferredVersion"] == told["versions"][0] == group["preferredVersion"]
        listed = api.get(f"/apis/{told['preferredVersion']['groupVersion']}")
        assert listed["groupVersion"] == told["preferredVersion"]["groupVersion"]
        assert listed["resources"]


def test_a_custom_kind_has_the_hash_of_its_storage_version(api: Api, define: Define, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"h{unique}", versions=("v1", "v2")))

    def hashes() -> set[str]:
        answers = [api.ask("GET", f"/apis/{kind.group}/{version}") for version in kind.versions]
        told = [r for a in answers if a.status == 200 for r in a.json["resources"] if r["name"] == kind.plural]
        return {resource["storageVersionHash"] for resource in told} if len(told) == len(kind.versions) else set()

    assert len(soon(hashes)) == 1
    definitions = {r["name"]: r for r in api.get("/apis/apiextensions.k8s.io/v1")["resources"]}
    assert {"customresourcedefinitions", "customresourcedefinitions/status"} <= definitions.keys()


def test_the_version_is_two_numbers(api: Api) -> None:
    told = api.get("/version")
    assert re.fullmatch("[0-9]+", told["major"])
    assert re.fullmatch("[0-9]+", told["minor"])


def test_tables(api: Api, namespace: str) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-1"}, "spec": {"containers": [_container()]}}
    api.create(f"{core}/pods", pod)
    table = _table(api, f"{core}/pods/pod-1")
    assert len(table["columnDefinitions"]) > 2
    assert len(table["rows"]) == 1
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
    assert table["columnDefinitions"][0]["name"] == "Name"
    assert table["rows"][0]["cells"][0] == "pod-1"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    nodes = _table(api, "/api/v1/nodes")
    assert len(nodes["columnDefinitions"]) >= 2
    assert nodes["columnDefinitions"][0]["name"] == "Name"
    assert {len(row["cells"]) for row in nodes["rows"]} == {len(nodes["columnDefinitions"])}


def _container() -> Json:
    return {"name": "c", "image": "nginx"}


def _table(api: Api, path: str, **query: Any) -> Json:
    answer = api.ask("GET", path, query=query, headers={"Accept": TABLE})
    assert answer.status == 200, answer.body
    table: Json = answer.json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    return table


def test_tables_come_in_pages(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/podtemplates"
    for number in range(5):
        template = {"spec": {"containers": [_container()]}}
        name = {"name": f"template-{number:04}"}
        api.create(path, {"apiVersion": "v1", "kind": "PodTemplate", "metadata": name, "template": template})
    first = _table(api, path, limit=2)
    assert len(first["rows"]) == 2
    assert first["metadata"]["continue"]
    rest = _table(api, path, **{"continue": first["metadata"]["continue"]})
    assert len(rest["rows"]) == 3
    assert "continue" not in rest["metadata"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert all(row["cells"] for row in first["rows"])


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_what_has_no_metadata_has_no_table(api: Api, version: str) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    }
    answer = api.ask("POST", path, review, headers={"Accept": f"application/json;as=Table;v={version};g=meta.k8s.io"})
    assert answer.status == 406
    assert answer.json["reason"] == "NotAcceptable"


@pytest.mark.parametrize("path", ["/version", "/api/v1/namespaces"])
def test_requests_may_say_how_long_they_wait(api: Api, path: str) -> None:
    refused = api.refused("GET", path, code=400, timeout="invalid")
    assert "invalid timeout specified in the request URL" in refused["message"]
    assert api.get(path, timeout="0s")
    assert api.get(path, timeout="3m")


def test_the_certificate_names_the_service(access: Access) -> None:
    from cryptography.x509 import DNSName, SubjectAlternativeName, load_der_x509_certificate

    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((access.host, access.port), timeout=10) as plain,
        anyone.wrap_socket(plain) as connection,
    ):
        data = connection.getpeercert(binary_form=True)
    assert data is not None
    names = load_der_x509_certificate(data).extensions.get_extension_for_class(SubjectAlternativeName).value
    short = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    assert {*short, "kubernetes.default.svc.cluster.local"} <= {*names.get_values_for_type(DNSName)}


def test_openapi_v3_tells_of_custom_kinds(api: Api, define: Define, unique: str) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    kind = define(CustomKind(f"{unique}.example.com", f"o{unique}", schema))
    path = f"apis/{kind.group}/v1"
    link = soon(lambda: api.get("/openapi/v3")["paths"].get(path))["serverRelativeURL"]
    document = json.loads(api.ask("GET", link).body)
    told = document["components"]["schemas"][kind.published("v1")]
    assert told["properties"]["spec"] == schema["properties"]["spec"]
    api.delete(kind.path)
    soon(lambda: path not in api.get("/openapi/v3")["paths"])


HOOKS = [
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "rbac/bootstrap-roles",
    "start-kube-aggregator-informers",
    "scheduling/bootstrap-system-priority-classes",
    "start-cluster-authentication-info-controller",
    "apiservice-registration-controller",
    "kube-apiserver-autoregistration",
    "apiservice-openapi-controller",
]


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_told_check_by_check(api: Api, path: str) -> None:
    lines = api.ask("GET", path, query={"verbose": 1}).body.decode().splitlines()
    wanted = ["ping", "log", "etcd", *(f"poststarthook/{hook}" for hook in HOOKS), "autoregister-completion"]
    if path == "/readyz":
        wanted += ["informer-sync", "shutdown"]
    missing = [name for name in wanted if f"[+]{name} ok" not in lines]
    assert not missing
