"""Upstream's conformance test of the Aggregator, with the extension API server in a real pod behind its Service."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from typing import Any

import pytest
from direct_api import MERGE, STRATEGIC, Api, soon
from kubectl_cli import NEWEST, Kubectl, find_client
from live_cluster import LiveCluster
from pod_servers import PodServer, bind_authentication_reader, deploy, make_namespace
from python_image import PROGRAMS

pytestmark = pytest.mark.xdist_group("inpods")
Json = dict[str, Any]
GROUP, VERSION = "wardle.example.com", "v1alpha1"
NAME = f"{VERSION}.{GROUP}"
ROOT = f"/apis/{GROUP}/{VERSION}"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SERVICE_PORT = 7443
LARGE_BYTES = 5 * 1024 * 1024
"""More than this server itself would take."""
READERS = (
    ("", "namespaces"),
    ("admissionregistration.k8s.io", "*"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
)


def bind(api: Api, name: str, role: str, namespace: str) -> str:
    account = {"apiGroup": "", "kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [account]}
    api.create(f"{RBAC}/clusterrolebindings", body)
    return f"{RBAC}/clusterrolebindings/{name}"


@pytest.fixture(scope="module")
def extension(pod_access: Any) -> Iterator[PodServer]:
    """The extension server, with the rights that its documentation asks for."""
    api, namespace = Api(pod_access), "aggregator-test"
    command = ["python3", f"/{PROGRAMS}/extension_program.py", "--port=443"]
    verbs = ["get", "list", "watch"]
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": verbs} for group, resource in READERS]
    made = [f"{RBAC}/clusterroles/sample-apiserver-reader"]
    try:
        make_namespace(api, namespace)
        api.create(f"{RBAC}/clusterroles", {"metadata": {"name": "sample-apiserver-reader"}, "rules": rules})
        made.append(bind(api, "wardler:sample-apiserver-reader", "sample-apiserver-reader", namespace))
        made.append(bind(api, "wardler:auth-delegator", "system:auth-delegator", namespace))
        made.append(bind_authentication_reader(api, "wardler-auth-reader", namespace))
        yield deploy(api, namespace, "sample-apiserver", command, port=SERVICE_PORT, target_port=443)
    finally:
        for path in made:
            api.ask("DELETE", path)
        api.delete(f"/api/v1/namespaces/{namespace}")
        api.close()


@pytest.fixture
def registered(api: Api, extension: PodServer) -> Iterator[PodServer]:
    """The extension server behind an APIService, as soon as requests reach it."""
    spec = {
        "service": {"namespace": extension.namespace, "name": extension.service, "port": extension.port},
        "group": GROUP,
        "version": VERSION,
        "caBundle": extension.ca_bundle,
        "groupPriorityMinimum": 2000,
        "versionPriority": 200,
    }
    api.create(SERVICES, {"metadata": {"name": NAME}, "spec": spec})

    def answers() -> bool:
        answer = api.ask("GET", f"{ROOT}/namespaces/default/flunders")
        assert answer.status in (200, 403, 404, 503), answer.body
        return answer.status == 200

    soon(answers)
    yield extension
    api.ask("DELETE", f"{SERVICES}/{NAME}")
    soon(lambda: GROUP not in [group["name"] for group in api.get("/apis")["groups"]])


def flunder(name: str, **metadata: Any) -> Json:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": {"name": name, **metadata}}


def names(api: Api, path: str) -> list[str]:
    return [item["metadata"]["name"] for item in api.get(path)["items"]]


def test_the_sample_api_server_is_supported(api: Api, registered: PodServer) -> None:
    in_default, within = (f"{ROOT}/namespaces/{where}/flunders" for where in ("default", registered.namespace))
    body = json.dumps(flunder("rest-flunder", labels={"sample-label": "true"}, namespace="default"))
    # as the Go client sends bytes: without a content type, with protobuf before anything else for a deletion
    made = api.ask("POST", in_default, body, headers={"Content-Type": ""})
    assert made.status == 201
    told = made.json["apiVersion"], made.json["kind"], made.json["metadata"]["name"]
    assert told == (f"{GROUP}/{VERSION}", "Flunder", "rest-flunder")
    assert names(api, in_default) == ["rest-flunder"]
    protobuf = {"Accept": "application/vnd.kubernetes.protobuf, */*"}
    assert api.ask("DELETE", f"{in_default}/rest-flunder", headers=protobuf).status == 200
    assert names(api, in_default) == []
    check_discovery(api)
    api.create(within, flunder("dynamic-flunder"))
    assert names(api, within) == ["dynamic-flunder"]
    check_api_service(api)
    api.delete(f"{within}/dynamic-flunder")
    assert names(api, within) == []
    api.create(within, flunder("dynamic-flunder"))
    assert names(api, within) == ["dynamic-flunder"]
    check_patched_status(api)
    api.delete(SERVICES, labelSelector=f"{NAME}=updated")
    assert api.get(SERVICES, labelSelector=f"{NAME}=updated")["items"] == []
    assert api.ask("GET", within).status == 404


def check_discovery(api: Api) -> None:
    """Both forms name its resources, the aggregated one as current."""
    (group,) = [group for group in api.get("/apis")["groups"] if group["name"] == GROUP]
    assert group["preferredVersion"]["groupVersion"] == f"{GROUP}/{VERSION}"
    assert [one["name"] for one in api.get(ROOT)["resources"]] == ["fischers", "flunders"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    items = api.ask("GET", "/apis", headers={"Accept": accept}).json["items"]
    (version,) = next(item["versions"] for item in items if item["metadata"]["name"] == GROUP)
    assert version["freshness"] == "Current"
    assert [one["resource"] for one in version["resources"]] == ["fischers", "flunders"]


def check_api_service(api: Api) -> None:
    path = f"{SERVICES}/{NAME}"
    read = api.get(f"{path}/status")
    assert read["status"]["conditions"][0]["message"] == "all checks passed"
    patched = api.patch(path, {"spec": {"versionPriority": 400}}, MERGE)
    assert patched["spec"]["versionPriority"] == 400
    assert int(patched["metadata"]["resourceVersion"]) > int(read["metadata"]["resourceVersion"])
    assert NAME in names(api, SERVICES)
    api.patch(path, {"metadata": {"labels": {"e2e-apiservice": "patched"}}}, STRATEGIC)
    assert api.get(path)["metadata"]["labels"] == {"e2e-apiservice": "patched"}
    status = api.get(f"{path}/status")
    status["status"]["conditions"].append(condition("StatusUpdated", "Set from e2e test"))
    api.replace(f"{path}/status", status)
    assert has(api.get(f"{path}/status"), "StatusUpdated")
    current = api.get(path)
    current["metadata"]["labels"] = {NAME: "updated"}
    assert api.replace(path, current)["metadata"]["labels"] == {NAME: "updated"}


def check_patched_status(api: Api) -> None:
    path = f"{SERVICES}/{NAME}/status"
    conditions = [*api.get(path)["status"]["conditions"], condition("StatusPatched", "Set by e2e test")]
    api.patch(path, {"status": {"conditions": conditions}}, MERGE)
    assert has(api.get(path), "StatusPatched")


def condition(kind: str, message: str) -> Json:
    told = {"type": kind, "status": "True", "reason": "E2E", "message": message}
    return {**told, "lastTransitionTime": None}  # as Go writes a time that nobody set


def has(service: Json, kind: str) -> bool:
    return any(one["type"] == kind and one["reason"] == "E2E" for one in service["status"]["conditions"])


def test_who_asks_is_told_and_may_do_what_the_cluster_says(api: Api, registered: PodServer, unique: str) -> None:
    path = f"{ROOT}/namespaces/{registered.namespace}/flunders"
    jane = Api(api.access, {"Impersonate-User": "jane", "Impersonate-Group": "dev"})
    jane.refused("POST", path, flunder(unique), code=403)
    rules = [{"apiGroups": [GROUP], "resources": ["flunders"], "verbs": ["create", "get"]}]
    role = {"metadata": {"name": unique}, "rules": rules}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": unique}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}
    within = f"{RBAC}/namespaces/{registered.namespace}"
    api.create(f"{within}/roles", role)
    api.create(f"{within}/rolebindings", {"metadata": {"name": unique}, "roleRef": reference, "subjects": [group]})
    assert jane.create(path, flunder(unique))["status"]["madeBy"] == "jane"
    assert jane.get(f"{path}/{unique}")["metadata"]["name"] == unique
    jane.refused("DELETE", f"{path}/{unique}", code=403)
    jane.close()
    api.delete(f"{path}/{unique}")


def test_large_objects_go_on_as_they_come(api: Api, registered: PodServer, unique: str) -> None:
    path = f"{ROOT}/namespaces/{registered.namespace}/flunders"
    body = json.dumps(flunder(unique, annotations={"large": "x" * LARGE_BYTES}))
    made = api.ask("POST", path, body)
    assert (made.status, made.json["status"]["bytes"]) == (201, len(body))
    api.delete(f"{path}/{unique}")


def test_the_server_in_the_pod_reviews_tokens_of_who_asks_it_directly(api: Api, registered: PodServer) -> None:
    accounts = f"/api/v1/namespaces/{registered.namespace}/serviceaccounts"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = api.create(f"{accounts}/default/token", request)["status"]["token"]
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{registered.namespace}/endpointslices"
    address = api.get(slices)["items"][0]["endpoints"][0]["addresses"][0]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask(**headers: str) -> tuple[int, str]:
        connection = HTTPSConnection(address, 443, context=context, timeout=10)
        connection.request("GET", f"{ROOT}/namespaces/default/flunders", headers=headers)
        answer = connection.getresponse()
        told = answer.status, answer.read().decode()
        connection.close()
        return told

    status, text = ask(Authorization=f"Bearer {token}")
    assert (status, f"system:serviceaccount:{registered.namespace}:default" in text) == (403, True)
    status, text = ask(**{"X-Remote-User": "kubernetes-admin", "X-Remote-Group": "system:masters"})
    assert (status, "system:anonymous" in text) == (403, True), "nobody is believed without the proxy's certificate"
    assert ask(Authorization="Bearer wrong")[0] == 401


def test_watches_and_kubectl_reach_it(api: Api, registered: PodServer, pod_cluster: LiveCluster, unique: str) -> None:
    path = f"{ROOT}/namespaces/{registered.namespace}/flunders"
    kubectl = Kubectl(find_client(f"kubectl-{NEWEST}"), pod_cluster.environment()).within(registered.namespace)
    with api.watch(path) as events:
        kubectl("create", "-f", "-", stdin=json.dumps(flunder(unique)))
        assert events.until(lambda kind, one: one["metadata"]["name"] == unique)
        kubectl("delete", "fl", unique, "--wait=false")
        events.until(lambda kind, one: kind == "DELETED" and one["metadata"]["name"] == unique)
    shown = kubectl("api-resources", f"--api-group={GROUP}", "--no-headers").split()
    assert shown == ["fischers", f"{GROUP}/{VERSION}", "false", "Fischer", "flunders", "fl", f"{GROUP}/{VERSION}",
                     "true", "Flunder"]  # fmt: skip
    soon(lambda: "What a Flunder is to be." in kubectl.run("explain", "flunder.spec").stdout)
