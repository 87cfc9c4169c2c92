"""kubectl against the server's own description: versions, resources, explanations, permissions, configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kubectl_cli import ESSENTIAL, Kubectl, check_golden

MakeNamespace = Callable[..., Kubectl]


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_version_and_cluster_info(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    told = json.loads(kubectl("version", "-o", "json"))
    assert told["clientVersion"]["minor"] == minor.partition(".")[2]
    assert told["serverVersion"]["gitVersion"].startswith("v1.37.")
    shown = kubectl.within("")("cluster-info")
    assert "Kubernetes control plane" in shown
    assert "CoreDNS" in shown


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_api_resources_and_versions(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    check_golden("api-versions", _built_in(kubectl("api-versions")))
    check_golden("api-resources", _built_in(kubectl("api-resources", "--sort-by=name")))


CUSTOM_GROUPS = ("tiphys.dev", "example.com", "example.org")


def _built_in(text: str) -> str:
    """Other tests define custom resources in the same cluster: leave them out."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not any(group in line for group in CUSTOM_GROUPS))


def test_api_resources_wide_and_chosen(kubectl: Kubectl) -> None:
    check_golden("api-resources-wide", kubectl("api-resources", "-o", "wide", "--api-group=apps"))
    names = kubectl("api-resources", "--namespaced=false", "--verbs=list,watch", "-o", "name").split()
    assert "nodes" in names
    assert "pods" not in names


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_explain(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    check_golden("explain-strategy", kubectl("explain", "deployments.spec.strategy"))
    assert "topologySpreadConstraints" in kubectl("explain", "pod", "--recursive")
    assert "nonsense" in kubectl.refused("explain", "pod.spec.nonsense")


def test_every_resource_is_explained(kubectl: Kubectl) -> None:
    for name in ("pods", "services", "jobs", "ingresses", "events", "leases", "clusterroles", "storageclasses", "csr"):
        assert "FIELDS:" in kubectl("explain", name, "--recursive"), name
    assert "autoscaling/v1" not in kubectl("explain", "hpa")
    assert "VERSION:    v1" in kubectl("explain", "hpa", "--api-version=autoscaling/v1")


def test_permissions(kubectl: Kubectl) -> None:
    robot = f"--as=system:serviceaccount:{kubectl.namespace}:robot"
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods,deployments.apps")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={kubectl.namespace}:robot")
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert kubectl("auth", "can-i", "list", "pods", robot).strip() == "yes"
    assert kubectl.run("auth", "can-i", "delete", "pods", robot).stdout.strip() == "no"
    check_golden("auth-can-i-list", kubectl("auth", "can-i", "--list", robot))
    check_golden("forbidden", kubectl.refused("delete", "pod", "p", robot), [kubectl.namespace])
    check_golden("auth-whoami", kubectl("auth", "whoami", robot), [kubectl.namespace])
    done = kubectl("auth", "reconcile", "-f", "-", stdin=ROLE.replace("NAMESPACE", kubectl.namespace))
    assert done == "role.rbac.authorization.k8s.io/reconciled reconciled\n"


ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: NAMESPACE}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
"""


def test_token_of_a_service_account(kubectl: Kubectl, tmp_path: Path) -> None:
    token = kubectl("create", "token", "default", "--duration=15m")
    config = json.loads(kubectl("config", "view", "--minify", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    answer = json.loads(kubectl("auth", "whoami", "-o", "json", KUBECONFIG=str(tmp_path / "kubeconfig")))
    who = answer["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{kubectl.namespace}:default"
    assert who["groups"][0] == "system:serviceaccounts"
    assert who["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


def test_the_admin_is_known_by_his_certificate(kubectl: Kubectl) -> None:
    shown = kubectl("auth", "whoami")
    assert "authentication.kubernetes.io/credential-id" in shown
    assert "X509SHA256=" in shown


def test_config_commands(kubectl: Kubectl) -> None:
    assert kubectl("config", "current-context").strip() == "tiphys-clients"
    assert "DATA+OMITTED" in kubectl("config", "view")
    assert "tiphys-clients" in kubectl("config", "get-contexts", "-o", "name")
    raw = kubectl("config", "view", "--minify", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert raw.startswith("https://127.0.0.1:")


def test_raw_paths(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert kubectl("get", "--raw", "/livez") == "ok"
    assert json.loads(kubectl("get", "--raw", "/version"))["major"] == "1"
    assert "NotFound" in kubectl.refused("get", "--raw", "/apis/nothing.example.com/v1")


def test_metrics_are_absent(kubectl: Kubectl) -> None:
    assert kubectl.refused("top", "node") == "error: Metrics API not available\n"
    assert kubectl.refused("top", "pod") == "error: Metrics API not available\n"


def test_proxy(kubectl: Kubectl) -> None:
    import urllib.request

    serving = kubectl.start("proxy", "--port=0")
    assert serving.stdout is not None
    address = serving.stdout.readline().split()[-1]
    with urllib.request.urlopen(f"http://{address}/api/v1/namespaces/{kubectl.namespace}", timeout=10) as answer:
        assert json.load(answer)["metadata"]["name"] == kubectl.namespace
    serving.kill()
    serving.communicate()


def test_system_objects_are_described(kubectl: Kubectl) -> None:
    for namespace, thing in (
        ("default", "service/kubernetes"),
        ("default", "priorityclass/system-node-critical"),
        ("kube-system", "configmap/kube-root-ca.crt"),
        ("kube-node-lease", "lease"),
        ("", f"namespace/{kubectl.namespace}"),
        ("", "clusterrole/system:node"),
    ):
        assert "Name:" in kubectl.within(namespace)("describe", thing), thing
