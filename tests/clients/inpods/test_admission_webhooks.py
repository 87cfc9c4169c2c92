"""Upstream's conformance tests of AdmissionWebhook, with the webhook's server in a real pod behind its Service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import JSON_PATCH, STRATEGIC, Api
from kubectl_cli import NEWEST, Kubectl, find_client
from live_cluster import LiveCluster
from pod_servers import PodServer
from webhook_world import MUTATING, UNWANTED, VALIDATING, World, pod

pytestmark = pytest.mark.xdist_group("inpods")
LISTED = 10


@pytest.fixture
def world(api: Api, webhook: PodServer, unique: str) -> Iterator[World]:
    made = World(api, webhook, unique)
    try:
        made.open()
        yield made
    finally:
        made.close()


def deny_configmap(world: World, **more: Any) -> dict[str, Any]:
    selector = {
        "matchLabels": {world.unique: "true"},
        "matchExpressions": [{"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}],
    }
    operations = "CREATE UPDATE DELETE"
    return world.hook(
        "deny-unwanted-configmap-data",
        "/configmaps",
        operations,
        "/v1/configmaps",
        **{"namespaceSelector": selector, **more},
    )


def mutate_configmap(world: World, stage: int = 1, **more: Any) -> dict[str, Any]:
    name = f"adding-configmap-data-stage-{stage}"
    return world.hook(name, "/mutating-configmaps", "CREATE", "/v1/configmaps", **more)


def unreachable(world: World, name: str, **more: Any) -> dict[str, Any]:
    """Return a webhook whose certificate nobody believes."""
    config = world.server.client_config("/configmaps", believed=False)
    return world.hook(name, "", "CREATE", "/v1/configmaps", **{"clientConfig": config, **more})


def test_it_denies_pods_and_configmaps(world: World) -> None:
    deny_pod = world.hook("deny-unwanted-pod-container-name-and-label", "/pods", "CREATE", "/v1/pods", timeoutSeconds=1)
    world.register(VALIDATING, deny_pod, deny_configmap(world), unreachable(world, "fail-open", failurePolicy="Ignore"))
    both = ("the pod contains unwanted container name", "the pod contains unwanted label")
    world.denied("POST", world.pods, pod("disallowed-pod", "webhook-disallow", **UNWANTED), *both)
    hanging = pod("hanging-pod", "wait-forever", **{"webhook-e2e-test": "wait-forever"})
    world.denied("POST", world.pods, hanging, "webhook", "deadline", code=500)
    assert not world.api.is_there(f"{world.pods}/hanging-pod")
    text = "the configmap contains unwanted key and value"
    refused = {"metadata": {"name": "disallowed-configmap"}, "data": UNWANTED}
    world.denied("POST", world.configmaps, refused, text)
    allowed = f"{world.configmaps}/allowed-configmap"
    world.api.create(world.configmaps, {"metadata": {"name": "allowed-configmap"}, "data": {"admit": "this"}})
    current = world.api.get(allowed)
    world.denied("PUT", allowed, {**current, "data": {**current["data"], **UNWANTED}}, text)
    world.denied("PATCH", allowed, {"data": UNWANTED}, text, kind=STRATEGIC)
    labels = {"skip-webhook-admission": "yes", world.unique: "true"}
    skipped = world.make_namespace("exempted-namespace", **labels)
    world.api.create(f"/api/v1/namespaces/{skipped}/configmaps", refused)


def test_it_denies_attaching(world: World, pod_cluster: LiveCluster) -> None:
    world.register(VALIDATING, world.hook("deny-attaching-pod", "/pods/attach", "CONNECT", "/v1/pods/attach"))
    world.api.create(world.pods, pod("to-be-attached-pod", "container1"))
    path = f"{world.pods}/to-be-attached-pod"
    world.api.wait(path, lambda one: one["status"]["phase"] == "Running")
    kubectl = Kubectl(find_client(f"kubectl-{NEWEST}"), pod_cluster.environment()).within(world.namespace)
    for sockets in ("true", "false"):
        said = kubectl.run(
            "attach", "to-be-attached-pod", "-i", "-c=container1", KUBECTL_REMOTE_COMMAND_WEBSOCKETS=sockets
        )
        assert said.returncode == 1
        assert "attaching to pod 'to-be-attached-pod' is not allowed" in said.stderr
    command = ("exec", "to-be-attached-pod", "-c=container1", "--", "echo", "allowed")
    assert kubectl(*command) == "allowed\n"
    deny = world.hook("deny-exec", "/always-deny", "CONNECT", "/v1/pods/exec")
    world.register(VALIDATING, deny, name=f"{world.unique}-exec")
    said = kubectl.run(*command)
    assert (said.returncode, said.stdout) == (1, "")
    assert 'admission webhook "deny-exec.k8s.io" denied the request: this webhook denies all requests' in said.stderr
    world.api.delete(path)


@pytest.fixture
def custom(world: World) -> Iterator[CustomKind]:
    """A custom kind of two versions, v1 stored."""
    kind = CustomKind(f"{world.unique}.example.com", f"{world.unique}s", versions=("v1", "v2"))
    world.api.create(CustomKind.DEFINITIONS, kind.definition())
    world.api.wait(kind.path, CustomKind.is_established)
    yield kind
    world.api.delete(kind.path)


def test_it_denies_creation_update_and_deletion_of_custom_resources(world: World, custom: CustomKind) -> None:
    resources = f"{custom.group}/*/{custom.plural}"
    world.register(
        VALIDATING,
        world.hook("deny-unwanted-custom-resource-data", "/custom-resource", "CREATE UPDATE DELETE", resources),
    )
    objects, text = custom.objects(world.namespace), "the custom resource contains unwanted data"
    world.denied("POST", objects, custom.object("cr-instance-1", data=UNWANTED), text)
    kept = {"webhook-e2e-test": "webhook-nondeletable"}
    made = world.api.create(objects, custom.object("cr-instance-2", data=kept))
    world.denied("PUT", f"{objects}/cr-instance-2", {**made, "data": UNWANTED}, text)
    text = "the custom resource cannot be deleted because it contains unwanted key and value"
    world.denied("DELETE", f"{objects}/cr-instance-2", None, text)
    world.denied("DELETE", objects, None, text)
    world.api.replace(f"{objects}/cr-instance-2", {**made, "data": {"webhook-e2e-test": "webhook-allow"}})
    world.api.delete(f"{objects}/cr-instance-2")


def test_what_fails_closed_refuses_everything(world: World) -> None:
    selector = {
        "matchLabels": {world.unique: "true"},
        "matchExpressions": [{"key": "fail-closed-webhook", "operator": "In", "values": ["yes"]}],
    }
    world.register(VALIDATING, unreachable(world, "fail-closed", failurePolicy="Fail", namespaceSelector=selector))
    namespace = world.make_namespace(
        "fail-closed", refusing_configmaps=True, **{"fail-closed-webhook": "yes", world.unique: "true"}
    )
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    status = world.api.refused("POST", path, {"metadata": {"name": "foo"}}, code=500)
    assert status["reason"] == "InternalError"
    assert 'failed calling webhook "fail-closed.k8s.io": failed to call webhook: Post "https://' in status["message"]
    assert status["message"].endswith("x509: certificate signed by unknown authority")


def test_it_mutates_configmaps_in_order(world: World) -> None:
    world.register(MUTATING, mutate_configmap(world, 1), mutate_configmap(world, 2))
    body = {"metadata": {"name": "to-be-mutated"}, "data": {"mutation-start": "yes"}}
    made = world.api.create(world.configmaps, body)
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}


def test_it_mutates_a_pod_and_defaults_apply_afterwards(world: World) -> None:
    world.register(MUTATING, world.hook("adding-init-container", "/mutating-pods", "CREATE", "/v1/pods"))
    made = world.api.create(world.pods, pod("webhook-to-be-mutated", "example"))
    (added,) = made["spec"]["initContainers"]
    assert added["name"] == "webhook-added-init-container"
    assert added["terminationMessagePolicy"] == "File"
    assert [mount["mountPath"] for mount in added["volumeMounts"]] == ["/var/run/secrets/kubernetes.io/serviceaccount"]


def test_webhooks_are_asked_again_when_others_changed_the_object(world: World) -> None:
    world.register(
        MUTATING,
        world.hook("counting-again", "/count", "CREATE", "/v1/pods", reinvocationPolicy="IfNeeded"),
        world.hook("labelling", "/add-label-once", "CREATE", "/v1/pods"),
    )
    made = world.api.create(world.pods, pod("asked-twice", "example"))
    assert made["metadata"]["labels"] == {"asked": "2", "second": "yes"}


def test_webhooks_have_no_say_about_webhook_configurations(world: World) -> None:
    resources = {"resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]}
    groups = {"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"]}
    # a namespace selector says nothing about what is in no namespace
    deny = world.hook("deny-webhook-configuration-deletions", "/always-deny", "DELETE", "x/y/z", failurePolicy="Fail")
    deny["rules"] = [{**groups, **resources, "operations": ["DELETE"]}]
    label = world.hook("add-label-to-webhook-configurations", "/add-label", "CREATE", "x/y/z", failurePolicy="Fail")
    label["rules"] = [{**groups, **resources, "operations": ["CREATE"]}]
    world.register(VALIDATING, deny, name=f"{world.unique}blocking")
    world.register(MUTATING, label, name=f"{world.unique}blocking")
    for kind in (VALIDATING, MUTATING):
        dummy = world.hook("dummy-webhook", "/always-deny", "CREATE", "/v1/invalid", failurePolicy="Ignore")
        path = world.register(kind, dummy)
        assert world.api.get(path)["metadata"].get("labels") is None
        world.api.delete(path)


def test_it_mutates_custom_resources(world: World, custom: CustomKind) -> None:
    register_custom(world, custom)
    made = world.api.create(
        custom.objects(world.namespace), custom.object("cr-instance-1", data={"mutation-start": "yes"})
    )
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}


def register_custom(world: World, kind: CustomKind) -> None:
    first, second = (f"mutate-custom-resource-data-stage-{stage}" for stage in (1, 2))
    path, resources = "/mutating-custom-resource", f"{kind.group}/*/{kind.plural}"
    world.register(
        MUTATING,
        world.hook(first, path, "CREATE UPDATE", resources),
        world.hook(second, path, "CREATE", resources),
    )


def test_it_denies_definitions(world: World) -> None:
    hook = world.hook(
        "deny-crd-with-unwanted-label", "/crd", "CREATE", "apiextensions.k8s.io/*/customresourcedefinitions",
        objectSelector={"matchLabels": {world.unique: "true"}},
    )  # fmt: skip
    del hook["namespaceSelector"]
    world.register(VALIDATING, hook)
    labels = {world.unique: "true", **UNWANTED}
    kind = CustomKind(f"{world.unique}.example.com", "e2e-test-denied", labels=labels)
    world.denied("POST", CustomKind.DEFINITIONS, kind.definition(), "the crd contains unwanted label")


def test_it_mutates_custom_resources_that_are_stored_in_another_version(world: World, custom: CustomKind) -> None:
    register_custom(world, custom)
    world.api.create(custom.objects(world.namespace), custom.object("cr-instance-1", data={"mutation-start": "yes"}))
    versions = custom.definition()["spec"]["versions"]
    swapped = [{**each, "storage": not each["storage"]} for each in versions]
    world.api.patch(custom.path, {"spec": {"versions": swapped}}, STRATEGIC)
    patch = [{"op": "add", "path": "/dummy", "value": "test"}]
    made = world.api.patch(f"{custom.objects(world.namespace, 'v2')}/cr-instance-1", patch, JSON_PATCH)
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}
    assert made["dummy"] == "test"


def test_what_a_webhook_adds_is_pruned(world: World) -> None:
    data = {"type": "object", "properties": {key: {"type": "string"} for key in ("mutation-start", "mutation-stage-1")}}
    schema = {"type": "object", "properties": {"data": data}}
    kind = CustomKind(f"{world.unique}.example.com", f"{world.unique}s", schema=schema, versions=("v1", "v2"))
    world.api.create(CustomKind.DEFINITIONS, kind.definition())
    world.api.wait(kind.path, CustomKind.is_established)
    register_custom(world, kind)
    made = world.api.create(kind.objects(world.namespace), kind.object("one", data={"mutation-start": "yes"}))
    assert made["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes"}
    world.api.delete(kind.path)


@pytest.mark.parametrize(
    ("policy", "timeout_s", "passes"), [("Fail", 1, False), ("Ignore", 1, True), ("Fail", 10, True), ("Fail", 0, True)]
)
def test_timeouts_are_honoured(world: World, policy: str, timeout_s: int, passes: bool) -> None:
    hook = world.hook("allow-configmap-with-delay-webhook", "/slow", "CREATE", "/v1/configmaps", failurePolicy=policy)
    if timeout_s:
        hook["timeoutSeconds"] = timeout_s
    path = world.register(VALIDATING, hook)
    assert world.api.get(path)["webhooks"][0]["timeoutSeconds"] == (timeout_s or 10)
    body = {"metadata": {"name": "slow"}}
    if passes:
        world.api.create(world.configmaps, body)
        world.api.delete(f"{world.configmaps}/slow")
    else:
        world.denied("POST", world.configmaps, body, "context deadline exceeded", "/slow?timeout=1s", code=500)


@pytest.mark.parametrize("kind", [VALIDATING, MUTATING])
def test_configurations_are_updated_and_patched(world: World, kind: str) -> None:
    hook = deny_configmap(world) if kind == VALIDATING else mutate_configmap(world)
    path = world.register(kind, hook)

    def works() -> bool:
        return not world.allows_configmap(UNWANTED) if kind == VALIDATING else world.mutates_configmap()

    assert works()
    current = world.api.get(path)
    current["webhooks"][0]["rules"][0]["operations"] = ["UPDATE"]
    world.api.replace(path, current)
    assert not works()
    patch = [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]
    world.api.patch(path, patch, JSON_PATCH)
    assert works()


@pytest.mark.parametrize("kind", [VALIDATING, MUTATING])
def test_configurations_are_listed_and_deleted_together(world: World, kind: str) -> None:
    labels = {"e2e-list-test-uuid": str(uuid.uuid4())}
    selector = f"e2e-list-test-uuid={labels['e2e-list-test-uuid']}"
    hook = deny_configmap(world) if kind == VALIDATING else mutate_configmap(world)
    for index in range(LISTED):
        world.configure(kind, hook, name=f"{world.unique}-{index}", labels=labels)
    assert len(world.api.get(kind, labelSelector=selector)["items"]) == LISTED
    world.wait_until_ready()
    if kind == VALIDATING:
        assert not world.allows_configmap(UNWANTED)
    else:
        assert world.mutates_configmap()
    world.api.delete(kind, labelSelector=selector)
    assert world.api.get(kind, labelSelector=selector)["items"] == []
    if kind == VALIDATING:
        assert world.allows_configmap(UNWANTED)
    else:
        assert not world.mutates_configmap()


@pytest.mark.parametrize("kind", [VALIDATING, MUTATING])
def test_match_conditions_are_kept_and_checked(world: World, kind: str) -> None:
    first = {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}
    second = {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"}
    bad = {"name": "invalid-expression-1", "expression": "... [] bad expression"}

    def hook(*conditions: dict[str, str]) -> dict[str, Any]:
        return world.hook(
            "with-match-conditions", "/always-deny", "CREATE", "/v1/configmaps", matchConditions=conditions
        )

    path = world.configure(kind, hook(first))
    made = world.api.get(path)
    assert made["webhooks"][0]["matchConditions"] == [first]
    made["webhooks"][0]["matchConditions"] = [first, second]
    world.api.replace(path, made)
    assert world.api.get(path)["webhooks"][0]["matchConditions"] == [first, second]
    body = {"metadata": {"name": f"{world.unique}-bad"}, "webhooks": [hook(bad), world.ready_hook()]}
    status = world.api.refused("POST", kind, body, code=422)
    assert "compilation failed" in status["message"]


def test_it_mutates_everything_but_what_its_conditions_leave_out(world: World) -> None:
    conditions = [{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]
    world.register(MUTATING, mutate_configmap(world, matchConditions=conditions))
    for name, stages in ((str(uuid.uuid4()), {"mutation-stage-1": "yes"}), ("skip-me", {})):
        body = {"metadata": {"name": name}, "data": {"mutation-start": "yes"}}
        assert world.api.create(world.configmaps, body)["data"] == {"mutation-start": "yes", **stages}
