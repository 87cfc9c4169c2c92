"""The official Python client: objects, lists, watches, patches, the dynamic client, exec and logs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubectl_cli import Kubectl
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

# these libraries leave sockets to the garbage collector, and warn of their own future
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def api(kubectl: Kubectl) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(kubectl.environment["KUBECONFIG"]) as made:
        yield made


def pod(name: str, *command: str) -> client.V1Pod:
    container = client.V1Container(name="c", image="busybox", command=list(command))
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}), spec=spec)


def test_objects_from_creation_to_deletion(api: client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = client.CoreV1Api(api), kubectl.namespace
    made = core.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="made-"), data={"a": "1"})
    )
    name = made.metadata.name
    assert name.startswith("made-")
    patched = core.patch_namespaced_config_map(name, namespace, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}
    patched = core.patch_namespaced_config_map(name, namespace, [{"op": "remove", "path": "/data/a"}])
    assert patched.data == {"b": "2"}
    made.data = {"c": "3"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map(name, namespace, made)
    assert (stale.value.status, stale.value.reason) == (409, "Conflict")
    listed = core.list_namespaced_config_map(namespace, limit=1)
    rest = core.list_namespaced_config_map(namespace, limit=1, _continue=listed.metadata._continue)
    assert {listed.items[0].metadata.name, rest.items[0].metadata.name} == {"kube-root-ca.crt", name}
    core.delete_namespaced_config_map(name, namespace, body=client.V1DeleteOptions(propagation_policy="Background"))
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map(name, namespace)
    assert gone.value.status == 404


def test_a_watch_sees_a_pod_live_and_die(api: client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = client.CoreV1Api(api), kubectl.namespace
    core.create_namespaced_pod(namespace, pod("talker", "sh", "-c", "echo hello; sleep 10000"))
    phases = []
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, namespace, label_selector="app=talker", timeout_seconds=60):
        phases.append((event["type"], event["object"].status.phase))
        if phases[-1] == ("MODIFIED", "Running") and phases.count(phases[-1]) == 1:
            core.delete_namespaced_pod("talker", namespace)
        if event["type"] == "DELETED":
            watcher.stop()
    assert phases[0][0] == "ADDED"
    assert ("MODIFIED", "Running") in phases
    assert phases[-1][0] == "DELETED"


def test_exec_and_logs(api: client.ApiClient, kubectl: Kubectl) -> None:
    core, namespace = client.CoreV1Api(api), kubectl.namespace
    core.create_namespaced_pod(namespace, pod("talker", "sh", "-c", "echo hello; sleep 10000"))
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    assert core.read_namespaced_pod_log("talker", namespace) == "hello\n"
    connect = core.connect_get_namespaced_pod_exec
    said = stream(
        connect, "talker", namespace, command=["echo", "hi"], stderr=True, stdin=False, stdout=True, tty=False
    )
    assert said == "hi\n"
    session = stream(
        connect, "talker", namespace, command=["sh", "-c", "exit 7"], stderr=True, stdin=False, stdout=True, tty=False,
        _preload_content=False,
    )  # fmt: skip
    session.run_forever(timeout=30)
    assert session.returncode == 7


def test_the_dynamic_client_applies_and_finds_kinds(api: client.ApiClient, kubectl: Kubectl) -> None:
    found = dynamic.DynamicClient(api)
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    labels = {"app": "web"}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
        },
    }
    applied = deployments.server_side_apply(body, namespace=kubectl.namespace, field_manager="test")
    assert applied.spec.replicas == 1
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    scaled = deployments.scale.patch(body={"spec": {"replicas": 2}}, name="web", namespace=kubectl.namespace,
                                     content_type="application/merge-patch+json")  # fmt: skip
    assert scaled.spec.replicas == 2
    assert [item.metadata.name for item in deployments.get(namespace=kubectl.namespace).items] == ["web"]


def test_who_may_do_what(api: client.ApiClient, kubectl: Kubectl) -> None:
    reviews = client.AuthorizationV1Api(api)
    attributes = client.V1ResourceAttributes(namespace=kubectl.namespace, verb="delete", resource="pods")
    spec = client.V1SubjectAccessReviewSpec(user="jane", resource_attributes=attributes)
    answer = reviews.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
    assert answer.status.allowed is False
    assert client.VersionApi(api).get_code().major == "1"
    leases = client.CoordinationV1Api(api)
    lease = client.V1Lease(
        metadata=client.V1ObjectMeta(name="mine"),
        spec=client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15),
    )
    assert leases.create_namespaced_lease(kubectl.namespace, lease).spec.holder_identity == "me"
