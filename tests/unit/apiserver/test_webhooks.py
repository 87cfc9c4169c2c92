"""Admission webhooks over real HTTPS: what upstream's conformance suite asks of them, and what breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
import pytest
from assembled_server import Server, peer_of, running_server
from webhook_server import Review, Webhook, allowed, ca_bundle, denied, patched, serving

from tiphys.wire.message import Request, Response

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as server:
        yield server


def rule(
    resources: str, operations: str = "CREATE", group: str = "", version: str = "*", **more: Any
) -> dict[str, Any]:
    named = {"operations": operations.split(","), "resources": resources.split(",")}
    return {**named, "apiGroups": [group], "apiVersions": [version], **more}


def webhook(hook: Webhook | None, *rules: Mapping[str, Any], path: str = "/", name: str = "", **more: Any) -> Any:
    config = hook.config(path) if hook is not None else {"url": "https://127.0.0.1:1/", "caBundle": ca_bundle()}
    return {
        "name": name or "deny.example.com",
        "clientConfig": config,
        "rules": list(rules),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
        **more,
    }


async def register(server: Server, sort: str, *webhooks: Any, name: str = "config") -> Any:
    kind = f"{sort.capitalize()}WebhookConfiguration"
    body = {"metadata": {"name": name}, "webhooks": list(webhooks)}
    return await server.made(f"{CONFIGURATIONS}/{kind.lower()}s", {"kind": kind, **body})


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def pod(name: str = "one", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "spec": {"containers": [{"name": "a", "image": "x"}]}}


def replying(answer: Callable[[Review], Any]) -> Callable[[str, Review], Any]:
    return lambda path, review: answer(review)


# Refusals


async def test_a_refusal_reaches_the_client_with_code_reason_and_message(server: Server) -> None:
    def answer(review: Review) -> Any:
        data = review["request"]["object"]["data"]
        if "webhook-e2e-test" in data:
            return denied(review, reason="the configmap contains unwanted key and value")
        return allowed(review) if "plain" not in data else denied(review)

    async with serving(replying(answer)) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps", "CREATE,UPDATE,DELETE")))
        status, told = await server.call("POST", CONFIG_MAPS, config_map(**{"webhook-e2e-test": "webhook-disallow"}))
        assert status == 400
        assert told["message"] == (
            'admission webhook "deny.example.com" denied the request: the configmap contains unwanted key and value'
        )
        assert told["reason"] == "the configmap contains unwanted key and value"
        status, told = await server.call("POST", CONFIG_MAPS, config_map(plain=""))
        assert told["message"] == 'admission webhook "deny.example.com" denied the request without explanation'
        made = await server.made(CONFIG_MAPS, config_map(fine="x"))
        made["data"] = {"webhook-e2e-test": "webhook-disallow"}
        for method, body, kind in (
            ("PUT", made, "application/json"),
            ("PATCH", {"data": made["data"]}, "application/merge-patch+json"),
        ):
            status, told = await server.call(method, f"{CONFIG_MAPS}/one", body, content_type=kind)
            assert (status, "denied the request" in told["message"]) == (400, True)
        assert "webhook-e2e-test" not in (await server.named(f"{CONFIG_MAPS}/one"))["data"]


async def test_the_status_that_a_webhook_chooses_is_the_answer(server: Server) -> None:
    details = {"retryAfterSeconds": 3}
    status = {"code": 429, "reason": "TooManyRequests", "message": "later", "details": details}
    async with serving(replying(lambda review: denied(review, **status))) as hook:
        await register(server, "validating", webhook(hook, rule("pods")))
        code, told = await server.call("POST", PODS, pod())
    assert (code, told["reason"], told["details"]) == (429, "TooManyRequests", details)
    assert told["message"] == 'admission webhook "deny.example.com" denied the request: later'


async def test_configurations_count_from_their_answer_to_their_deletion(server: Server) -> None:
    async with serving(replying(denied)) as hook:
        made = await register(server, "validating", webhook(hook, rule("configmaps", "UPDATE")))
        await server.made(CONFIG_MAPS, config_map("a"))
        path = f"{CONFIGURATIONS}/validatingwebhookconfigurations/config"
        operations = [{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "CREATE"}]
        status, made = await server.call("PATCH", path, operations, content_type="application/json-patch+json")
        assert (status, made["metadata"]["generation"]) == (200, 2)
        assert (await server.call("POST", CONFIG_MAPS, config_map("b")))[0] == 400
        assert (await server.call("DELETE", path))[0] == 200
        await server.made(CONFIG_MAPS, config_map("b"))
        await register(server, "validating", webhook(hook, rule("configmaps")))
        assert (await server.call("POST", CONFIG_MAPS, config_map("c")))[0] == 400
        assert (await server.call("DELETE", f"{CONFIGURATIONS}/validatingwebhookconfigurations"))[0] == 200
        await server.made(CONFIG_MAPS, config_map("c"))


async def test_deletes_are_asked_about_one_by_one_with_the_old_object(server: Server) -> None:
    def answer(review: Review) -> Any:
        keep = review["request"]["oldObject"]["metadata"].get("labels", {}).get("keep")
        return denied(review, message="kept") if keep else allowed(review)

    async with serving(replying(answer)) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps", "DELETE")))
        await server.made(CONFIG_MAPS, config_map("a"))
        kept = {"metadata": {"name": "b", "labels": {"keep": "x"}}}
        revision = (await server.made(CONFIG_MAPS, kept))["metadata"]["resourceVersion"]
        assert (await server.call("DELETE", f"{CONFIG_MAPS}/b", {"gracePeriodSeconds": 0}))[0] == 400
        asked = hook.asked[0]
        assert (asked["operation"], asked["name"], asked["object"]) == ("DELETE", "b", None)
        assert asked["oldObject"]["metadata"]["resourceVersion"] == revision
        assert asked["options"] == {
            "kind": "DeleteOptions",
            "apiVersion": "meta.k8s.io/v1",
            "gracePeriodSeconds": 0,
        }
        status, told = await server.call("DELETE", CONFIG_MAPS)
        assert (status, "kept" in told["message"]) == (400, True)
        assert [item["metadata"]["name"] for item in (await server.named(CONFIG_MAPS))["items"]] == ["b"]
        assert all("name" not in request for request in hook.asked[1:])


# What is asked


async def test_the_question_holds_all_that_the_api_promises(server: Server) -> None:
    async with serving(replying(allowed)) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps", "CREATE,UPDATE")))
        path = f"{CONFIG_MAPS}?fieldManager=me&fieldValidation=Strict"
        made = await server.made(path, config_map(a="1"), user="jane,admins,system:masters")
        await server.call("PUT", f"{CONFIG_MAPS}/one?dryRun=All", {**made, "data": {"a": "2"}})
    create, update = hook.reviews
    assert (create["kind"], create["apiVersion"]) == ("AdmissionReview", "admission.k8s.io/v1")
    request = dict(create["request"])
    assert len(request.pop("uid")) == 36
    obj = request.pop("object")
    assert (obj["kind"], obj["apiVersion"], obj["data"]) == ("ConfigMap", "v1", {"a": "1"})
    assert obj["metadata"]["uid"] == made["metadata"]["uid"]
    assert request == {
        "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "resource": {"group": "", "version": "v1", "resource": "configmaps"},
        "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "requestResource": {"group": "", "version": "v1", "resource": "configmaps"},
        "name": "one",
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "jane", "groups": ["admins", "system:masters", "system:authenticated"]},
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me",
                    "fieldValidation": "Strict"},
    }  # fmt: skip
    asked = update["request"]
    assert (asked["operation"], asked["dryRun"]) == ("UPDATE", True)
    assert asked["options"] == {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]}
    assert asked["oldObject"]["data"] == {"a": "1"}
    assert asked["oldObject"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_webhook_that_knows_v1beta1_only_is_asked_so(server: Server) -> None:
    def answer(review: Review) -> Any:  # neither kind nor uid need be told back
        return {"kind": "x", "apiVersion": "y", "response": {"allowed": True, "patch": patch_of(review)}}

    def patch_of(review: Review) -> Any:
        return patched(review, {"op": "add", "path": "/data", "value": {"b": "1"}})["response"]["patch"]

    async with serving(replying(answer)) as hook:
        versions = {"admissionReviewVersions": ["v7", "v1beta1", "v1"]}
        await register(server, "mutating", webhook(hook, rule("configmaps"), **versions))
        assert (await server.made(CONFIG_MAPS, config_map()))["data"] == {"b": "1"}
    assert hook.reviews[0]["apiVersion"] == "admission.k8s.io/v1beta1"


async def test_a_mutating_webhook_does_not_see_what_the_server_makes_later(server: Server) -> None:
    async with serving(replying(allowed)) as hook:
        await register(server, "mutating", webhook(hook, rule("pods")), name="first")
        await register(server, "validating", webhook(hook, rule("pods")), name="second")
        body = pod()
        body["metadata"] = {"generateName": "gen-"}
        made = await server.made(PODS, body)
    mutating, validating = hook.asked
    assert "name" not in mutating
    assert not {"name", "uid", "creationTimestamp"} & set(mutating["object"]["metadata"])
    assert validating["name"] == made["metadata"]["name"]
    assert validating["object"]["metadata"]["uid"] == made["metadata"]["uid"]


# Mutation


async def test_a_pod_is_changed_and_then_defaulted(server: Server) -> None:
    container = {"name": "webhook-added-init-container", "image": "webhook-added-image"}
    patch = {"op": "add", "path": "/spec/initContainers", "value": [container]}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("pods")))
        made = await server.made(PODS, pod())
    init = made["spec"]["initContainers"][0]
    assert init["name"] == "webhook-added-init-container"
    assert init["terminationMessagePolicy"] == "File"
    assert made["metadata"]["uid"] == (await server.named(f"{PODS}/one"))["metadata"]["uid"]
    assert "generation" in made["metadata"]


async def test_configurations_run_in_the_order_of_their_names_each_on_the_last_result(server: Server) -> None:
    def answer(path: str, review: Review) -> Any:
        data = review["request"]["object"]["data"]
        stage = path.strip("/")
        if {"one": "start", "two": "one"}[stage] in data:
            return patched(review, {"op": "add", "path": f"/data/{stage}", "value": "yes"})
        return allowed(review)

    async with serving(answer) as hook:
        await register(server, "mutating", webhook(hook, rule("configmaps"), path="/two", name="b.x.io"), name="b")
        await register(server, "mutating", webhook(hook, rule("configmaps"), path="/one", name="a.x.io"), name="a")
        made = await server.made(CONFIG_MAPS, config_map(start="yes"))
    assert made["data"] == {"start": "yes", "one": "yes", "two": "yes"}
    assert [request.path for request in hook.requests] == ["/one", "/two"]


async def test_a_writer_owns_what_he_wrote_and_not_what_admission_added(server: Server) -> None:
    patch = {"op": "add", "path": "/spec/nodeSelector", "value": {"a": "b"}}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("pods")))
        made = await server.made(f"{PODS}?fieldManager=me", pod())
    (entry,) = made["metadata"]["managedFields"]
    owned = entry["fieldsV1"]["f:spec"]
    assert entry["manager"] == "me"
    assert "f:containers" in owned
    assert not {"f:nodeSelector", "f:volumes", "f:serviceAccountName"} & set(owned)
    assert hook.asked[0]["object"]["metadata"]["managedFields"] == [entry]


@pytest.mark.parametrize(("policy", "asked"), [("Never", ["/a", "/b"]), ("IfNeeded", ["/a", "/b", "/a"])])
async def test_a_webhook_may_ask_to_see_what_later_ones_changed(server: Server, policy: str, asked: list[str]) -> None:
    def answer(path: str, review: Review) -> Any:
        if path == "/b":
            return patched(review, {"op": "add", "path": "/data/b", "value": "1"})
        return allowed(review)

    async with serving(answer) as hook:
        first = webhook(hook, rule("configmaps"), path="/a", name="a.x.io", reinvocationPolicy=policy)
        await register(server, "mutating", first, webhook(hook, rule("configmaps"), path="/b", name="b.x.io"))
        await server.made(CONFIG_MAPS, config_map(x="1"))
    assert [request.path for request in hook.requests] == asked
    if policy == "IfNeeded":
        assert hook.asked[2]["object"]["data"] == {"x": "1", "b": "1"}


async def test_built_in_plugins_see_what_webhooks_made(server: Server) -> None:
    """A container that a webhook adds gets the service account's volume and the limits like any other."""
    limits = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}
    path = "/api/v1/namespaces/default/limitranges"
    await server.made(path, {"metadata": {"name": "l"}, "spec": {"limits": [limits]}})
    patch = {"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "y"}}

    def answer(review: Review) -> Any:
        return (
            patched(review, patch) if len(review["request"]["object"]["spec"]["containers"]) == 1 else allowed(review)
        )

    async with serving(replying(answer)) as hook:
        await register(server, "mutating", webhook(hook, rule("pods"), reinvocationPolicy="IfNeeded"))
        made = await server.made(PODS, pod())
    sidecar = made["spec"]["containers"][1]
    assert sidecar["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    assert sidecar["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert len(hook.requests) == 2  # its own change made the plugins run, and these changed the object again


async def test_a_change_that_is_invalid_is_refused_like_the_clients_own(server: Server) -> None:
    patch = {"op": "replace", "path": "/spec/containers/0/name", "value": "Not Valid"}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("pods")))
        status, told = await server.call("POST", PODS, pod())
    assert status == 422
    assert "spec.containers[0].name" in told["message"]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"op": "remove", "path": "/absent"}, "error in remove for path: '/absent': Unable to remove nonexistent key: "
         "absent: missing value"),
        ({"op": "add", "path": "/metadata/absent/x", "value": 1}, 'add operation does not apply: doc is missing path: '
         '"/metadata/absent/x": missing value'),
        ({"op": "test", "path": "/kind", "value": "Cat"}, "testing value /kind failed: test failed"),
        ({"op": "add", "path": "/spec/containers", "value": 7}, "json: cannot unmarshal number into Go"),
    ],
)  # fmt: skip
async def test_a_patch_that_does_not_fit_is_an_internal_error(
    server: Server, patch: Mapping[str, Any], message: str
) -> None:
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("pods"), failurePolicy="Ignore"))
        status, told = await server.call("POST", PODS, pod())
    assert (status, told["reason"]) == (500, "InternalError")
    assert message in told["message"]


async def test_only_what_a_status_write_may_change_is_changed(server: Server) -> None:
    patches = (
        {"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}},
        {"op": "replace", "path": "/spec/containers/0/image", "value": "evil"},
        {"op": "add", "path": "/status/reason", "value": "hooked"},
    )
    async with serving(replying(lambda review: patched(review, *patches))) as hook:
        await server.made(PODS, pod())
        await register(server, "mutating", webhook(hook, rule("pods/status", "UPDATE")))
        status, _ = await server.call(
            "PATCH", f"{PODS}/one/status", {"status": {"phase": "Running"}}, content_type="application/merge-patch+json"
        )
        assert status == 200
    stored = await server.named(f"{PODS}/one")
    assert (stored["status"]["reason"], stored["spec"]["containers"][0]["image"]) == ("hooked", "x")
    assert hook.asked[0]["subResource"] == hook.asked[0]["requestSubResource"] == "status"


async def test_a_delete_cannot_be_changed(server: Server) -> None:
    await server.made(CONFIG_MAPS, config_map())
    patch = {"op": "add", "path": "/data", "value": {}}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("configmaps", "DELETE")))
        status, told = await server.call("DELETE", f"{CONFIG_MAPS}/one")
    assert status == 500
    assert "attempted to modify the object, which is not supported for this operation" in told["message"]


# Which requests


async def test_configurations_cannot_lock_themselves_in(server: Server) -> None:
    everything = rule("*/*", "*", group="*")
    async with serving(replying(denied)) as hook:
        patches = webhook(hook, everything)
        await register(server, "validating", webhook(hook, everything), name="all")
        await register(server, "mutating", patches, name="all")
        await register(server, "validating", webhook(hook, everything), name="more")
        policies = f"{CONFIGURATIONS}/validatingadmissionpolicybindings"
        await server.made(
            policies, {"metadata": {"name": "p"}, "spec": {"policyName": "x", "validationActions": ["Deny"]}}
        )
        assert (await server.call("POST", CONFIG_MAPS, config_map()))[0] == 400
        for sort in ("validating", "mutating"):
            path = f"{CONFIGURATIONS}/{sort}webhookconfigurations/all"
            assert (await server.call("DELETE", path))[0] == 200


@pytest.mark.parametrize(
    ("more", "labels", "matches"),
    [
        ({"namespaceSelector": {"matchLabels": {"on": "yes"}}}, {}, True),
        ({"namespaceSelector": {"matchLabels": {"on": "no"}}}, {}, False),
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, {"a": "b"}, True),
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, {}, False),
        ({"matchConditions": [{"name": "c", "expression": "object.metadata.name != 'one'"}]}, {}, False),
        ({"matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'admin'"}]}, {}, True),
        ({"matchConditions": [
            {"name": "c", "expression": "authorizer.group('').resource('pods').check('create').allowed()"}]}, {}, True),
        ({"rules": [rule("*")]}, {}, True),
        ({"rules": [rule("pods/*")]}, {}, True),
        ({"rules": [rule("*/*", scope="Cluster")]}, {}, False),
        ({"rules": [rule("pods", group="apps")]}, {}, False),
        ({"rules": [rule("pods", "UPDATE")]}, {}, False),
    ],
)  # fmt: skip
async def test_rules_selectors_and_conditions_choose(
    server: Server, more: Mapping[str, Any], labels: Mapping[str, str], matches: bool
) -> None:
    namespace = {"metadata": {"labels": {"on": "yes"}}}
    await server.call("PATCH", "/api/v1/namespaces/default", namespace, content_type="application/merge-patch+json")
    async with serving(replying(denied)) as hook:
        await register(server, "validating", webhook(hook, *more.get("rules", [rule("pods")]), **{
            key: value for key, value in more.items() if key != "rules"}))  # fmt: skip
        status, _ = await server.call("POST", PODS, pod(labels=labels))
    assert status == (400 if matches else 201)


async def test_a_namespace_is_chosen_by_the_labels_that_it_will_have(server: Server) -> None:
    async with serving(replying(denied)) as hook:
        selector = {"namespaceSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}}
        await register(server, "validating", webhook(hook, rule("namespaces", "*"), **selector))
        assert (await server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "a"}}))[0] == 400
        await server.made("/api/v1/namespaces", {"metadata": {"name": "b", "labels": {"skip": "x"}}})
    assert hook.asked[0]["namespace"] == hook.asked[0]["name"] == "a"


async def test_conditions_that_fail_decide_by_the_failure_policy(server: Server) -> None:
    conditions = [{"name": "c", "expression": "object.metadata.absent == 'x'"}]
    async with serving(replying(denied)) as hook:
        await register(server, "validating", webhook(hook, rule("pods"), matchConditions=conditions))
        status, told = await server.call("POST", PODS, pod())
        assert status == 403
        assert "resulted in error: no such key: absent" in told["message"]
        operations = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
        path = f"{CONFIGURATIONS}/validatingwebhookconfigurations/config"
        await server.call("PATCH", path, operations, content_type="application/json-patch+json")
        await server.made(PODS, pod())
        assert not hook.requests


async def test_equivalent_versions_are_shown_in_the_version_of_the_rule(server: Server) -> None:
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 7}},
    }
    body = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [metric]}}
    patch = {"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 50}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        older = rule("horizontalpodautoscalers", group="autoscaling", version="v1")
        await register(server, "mutating", webhook(hook, older))
        made = await server.made(path, body)
        exact = webhook(hook, older, matchPolicy="Exact")
        await register(server, "validating", exact, name="exact")
        await server.made(path, {**body, "metadata": {"name": "other"}})
    request = hook.asked[0]
    assert request["kind"]["version"] == request["resource"]["version"] == "v1"
    assert request["requestKind"]["version"] == request["requestResource"]["version"] == "v2"
    assert request["object"]["apiVersion"] == "autoscaling/v1"
    assert made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert len(hook.requests) == 2


# Failures


async def test_a_webhook_that_cannot_be_reached_fails_closed_or_open(server: Server) -> None:
    await register(server, "validating", webhook(None, rule("configmaps")))
    status, told = await server.call("POST", CONFIG_MAPS, config_map())
    assert (status, told["reason"]) == (500, "InternalError")
    assert told["message"] == (
        'Internal error occurred: failed calling webhook "deny.example.com": failed to call webhook: Post '
        '"https://127.0.0.1:1/?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused'
    )
    path = f"{CONFIGURATIONS}/validatingwebhookconfigurations/config"
    operations = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
    await server.call("PATCH", path, operations, content_type="application/json-patch+json")
    await server.made(CONFIG_MAPS, config_map())


async def test_a_service_without_endpoints_is_told_by_name(server: Server) -> None:
    service = {"service": {"namespace": "hooks", "name": "hook", "path": "/x"}, "caBundle": ca_bundle()}
    await register(server, "validating", webhook(None, rule("configmaps"), clientConfig=service))
    _, told = await server.call("POST", CONFIG_MAPS, config_map())
    assert told["message"].endswith('Post "https://hook.hooks.svc:443/x?timeout=10s": service "hook" not found')


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda review: Response(500, b"boom"), 'failed to call webhook: an error on the server ("boom") has prevented'),
        (lambda review: b"\x00garbage", "failed to call webhook: couldn't get version/kind; json parse error"),
        (lambda review: allowed(review) | {"response": {"uid": "x", "allowed": True}}, "received invalid webhook "
         'response: expected response.uid="'),
        (lambda review: allowed(review) | {"response": None}, "received invalid webhook response: webhook response was "
         "absent"),
        (lambda review: allowed(review) | {"apiVersion": "admission.k8s.io/v2"}, "expected webhook response of "
         "admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v2, Kind=AdmissionReview"),
        (lambda review: allowed(review, patch="W10="), "webhook returned response.patch but not response.patchType"),
        (lambda review: allowed(review, patchType="JSONPatch"), "webhook returned response.patchType but not "
         "response.patch"),
        (lambda review: allowed(review, patch="!", patchType="JSONPatch"), "response.patch is not base64"),
        (lambda review: allowed(review, warnings=7), "received invalid webhook response: couldn't decode response"),
        (lambda review: patched(review, {"op": "add", "path": "/data", "value": {"x": "1"}}) | {
            "response": {**patched(review, {"op": "add", "path": "/data", "value": {}})["response"],
                         "patchType": "Merge"}}, 'unsupported patch type "Merge"'),
    ],
)  # fmt: skip
async def test_answers_that_are_none_count_as_failures(server: Server, answer: Any, told: str) -> None:
    async with serving(replying(answer)) as hook:
        await register(server, "mutating", webhook(hook, rule("configmaps")))
        status, answered = await server.call("POST", CONFIG_MAPS, config_map())
        assert (status, answered["reason"]) == (500, "InternalError")
        assert answered["message"].startswith('Internal error occurred: failed calling webhook "deny.example.com": ')
        assert told in answered["message"]


async def test_a_validating_webhook_may_not_change_anything(server: Server) -> None:
    patch = {"op": "add", "path": "/data", "value": {}}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps")))
        _, told = await server.call("POST", CONFIG_MAPS, config_map())
    assert "received invalid webhook response: validating webhook may not return response.patch" in told["message"]


async def test_a_webhook_that_hangs_holds_a_write_up_no_longer_than_its_timeout(server: Server) -> None:
    forever = asyncio.Event()

    async def hang(path: str, review: Review) -> Any:
        await forever.wait()

    async with serving(hang) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps"), timeoutSeconds=1))
        status, told = await server.call("POST", CONFIG_MAPS, config_map())
        forever.set()
    assert status == 500
    assert told["message"].endswith(f'Post "https://127.0.0.1:{hook.port}/?timeout=1s": context deadline exceeded')
    assert (await server.named(CONFIG_MAPS))["items"] == []


async def test_validating_webhooks_are_asked_at_the_same_time(server: Server) -> None:
    both = asyncio.Barrier(2)

    async def meet(path: str, review: Review) -> Any:
        await both.wait()
        return allowed(review) if path == "/b" else denied(review, message="a says no")

    async with serving(meet) as hook:
        hooks = [webhook(hook, rule("pods"), path=f"/{name}", name=f"{name}.x.io") for name in "ba"]
        await register(server, "validating", *hooks)
        status, told = await server.call("POST", PODS, pod())
    assert (status, told["message"]) == (400, 'admission webhook "a.x.io" denied the request: a says no')


# Dry run, warnings, annotations


@pytest.mark.parametrize(("effects", "expected"), [("None", 201), ("NoneOnDryRun", 201), ("Some", 400)])
async def test_a_dry_run_asks_only_webhooks_without_side_effects(server: Server, effects: str, expected: int) -> None:
    async with serving(replying(allowed)) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps")))
        await set_side_effects(server, effects)
        status, told = await server.call("POST", f"{CONFIG_MAPS}?dryRun=All", config_map())
    assert status == expected
    if expected == 400:
        assert told["message"] == 'admission webhook "deny.example.com" does not support dry run'


async def set_side_effects(server: Server, effects: str) -> None:
    """v1 refuses `Some`; objects that v1beta1 stored may have it."""
    cache = server.assembled.cache.resource("/registry/admissionregistration.k8s.io/validatingwebhookconfigurations/")
    stored = cache.get("", "config")
    assert stored is not None
    value = stored.value.replace(b'"sideEffects":"None"', f'"sideEffects":"{effects}"'.encode())
    from tiphys.store.interface import Operation

    revision = await server.store.commit([Operation(stored.key, value, stored.revision)])
    await server.assembled.cache.wait_for(revision)


async def test_warnings_reach_the_client(server: Server) -> None:
    async with serving(replying(lambda review: allowed(review, warnings=["careful", "x" * 5000]))) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps")))
        answer = await server.answer("POST", CONFIG_MAPS, config_map())
    assert isinstance(answer, Response)
    told = [value for name, value in answer.headers if name == "Warning"]
    assert told[0] == '299 - "careful"'
    assert len(told[1]) < 300


# Subresources whose body is of another kind, connections, reviews


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def deployment(replicas: int) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"metadata": {"name": "d"}, "spec": spec}


async def test_a_scale_is_shown_and_changed_as_a_scale(server: Server) -> None:
    patch = {"op": "replace", "path": "/spec/replicas", "value": 3}

    def answer(path: str, review: Review) -> Any:
        wanted = review["request"]["object"]["spec"].get("replicas", 0)
        return denied(review, message="too many") if wanted > 10 else patched(review, patch)

    async with serving(answer) as hook:
        made = await server.made(DEPLOYMENTS, deployment(1))
        await register(server, "mutating", webhook(hook, rule("*/scale", "UPDATE", group="*")))
        path = f"{DEPLOYMENTS}/d/scale"
        kind = "application/merge-patch+json"
        status, scale = await server.call("PATCH", path, {"spec": {"replicas": 2}}, content_type=kind)
        assert (status, scale["spec"]["replicas"]) == (200, 3)
        status, told = await server.call("PATCH", path, {"spec": {"replicas": 20}}, content_type=kind)
        assert (status, "too many" in told["message"]) == (400, True)
        scale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        assert (await server.call("PUT", path, scale))[0] == 409
        assert (await server.call("PUT", f"{DEPLOYMENTS}/none/scale", scale))[0] == 404
    request = hook.asked[0]
    assert request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert request["resource"] == {"group": "apps", "version": "v1", "resource": "deployments"}
    assert (request["subResource"], request["object"]["kind"], request["object"]["spec"]) == (
        "scale",
        "Scale",
        {"replicas": 2},
    )
    assert (request["oldObject"]["spec"], request["oldObject"]["metadata"]["name"]) == ({"replicas": 1}, "d")
    assert (await server.named(f"{DEPLOYMENTS}/d"))["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (f"{PODS}/one/eviction", {"apiVersion": "policy/v1", "kind": "Eviction"}, "Eviction"),
        (f"{PODS}/one/binding", {"metadata": {"name": "one"}, "target": {"name": "n", "kind": "Node"}}, "Binding"),
        ("/api/v1/namespaces/default/bindings", {"metadata": {"name": "one"}, "target": {"name": "n"}}, "Binding"),
        ("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {"audiences": ["x"]}}, "TokenRequest"),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": {"verb": "get"}}},
         "SelfSubjectAccessReview"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}}, "TokenReview"),
    ],
)  # fmt: skip
async def test_bodies_that_are_not_stored_are_asked_about(server: Server, path: str, body: Any, kind: str) -> None:
    everything = rule("*/*", "CREATE", group="*")
    async with serving(replying(lambda review: denied(review, message="no"))) as hook:
        await server.made(PODS, pod())
        await register(server, "validating", webhook(hook, everything))
        status, told = await server.call("POST", path, body)
        assert (status, told["message"]) == (400, 'admission webhook "deny.example.com" denied the request: no')
        request = hook.asked[0]
        assert (request["operation"], request["kind"]["kind"], request["object"]["kind"]) == ("CREATE", kind, kind)
        assert request["options"]["kind"] == "CreateOptions"
        await server.call("DELETE", f"{CONFIGURATIONS}/validatingwebhookconfigurations/config")
        assert (await server.call("POST", path, body))[0] == 201
    assert len(hook.requests) == 1


@pytest.mark.parametrize(
    ("path", "resource", "options"),
    [
        (f"{PODS}/one/attach?stdin=true&container=a", "pods/attach", {"kind": "PodAttachOptions", "stdin": True,
         "container": "a"}),
        (f"{PODS}/one/exec?command=ls&command=-l&stdout=true&tty=1", "pods/exec", {"kind": "PodExecOptions",
         "stdout": True, "tty": True, "command": ["ls", "-l"]}),
        (f"{PODS}/one/portforward?ports=80", "pods/portforward", {"kind": "PodPortForwardOptions", "ports": [80]}),
        (f"{PODS}/one/proxy/a/b?x=y", "pods/proxy", {"kind": "PodProxyOptions", "path": "/a/b"}),
        ("/api/v1/nodes/n/proxy/metrics", "nodes/proxy", {"kind": "NodeProxyOptions", "path": "/metrics"}),
    ],
)  # fmt: skip
async def test_connections_are_asked_about(
    server: Server, path: str, resource: str, options: Mapping[str, Any]
) -> None:
    message = "attaching to pod 'to-be-attached-pod' is not allowed"
    async with serving(replying(lambda review: denied(review, message=message))) as hook:
        await register(server, "validating", webhook(hook, rule(resource, "CONNECT")))
        status, told = await server.call("GET", path)
        assert (status, message in told["message"]) == (400, True)
    request = hook.asked[0]
    plural, _, subresource = resource.partition("/")
    assert request["object"] == {"apiVersion": "v1", **options}
    assert (request["operation"], request["resource"]["resource"], request["subResource"]) == (
        "CONNECT",
        plural,
        subresource,
    )
    assert request["kind"]["kind"] == options["kind"]
    assert request["options"] is None


async def test_calls_are_counted_and_annotated(server: Server) -> None:
    def answer(review: Review) -> Any:
        annotated = allowed(review, auditAnnotations={"seen": "yes", "not valid!": "x"})
        return denied(review) if review["request"]["name"] == "bad" else annotated

    notes: dict[str, str] = {}
    async with serving(replying(answer)) as hook:
        down = webhook(None, rule("configmaps"), name="down.example.com", failurePolicy="Ignore")
        await register(server, "validating", webhook(hook, rule("configmaps")), down)
        await register(server, "mutating", webhook(hook, rule("configmaps"), name="change.example.com"))
        body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map()}
        headers = {"content-type": "application/json"}
        request = Request("POST", CONFIG_MAPS, "", headers, orjson.dumps(body), peer_of("admin"), notes=notes)
        answered = await server.assembled.handle(request)
        assert isinstance(answered, Response)
        assert answered.status == 201
        await server.call("POST", CONFIG_MAPS, config_map("bad"))
    told = {key: value for key, value in notes.items() if "webhook" in key or "example.com" in key}
    assert told == {
        "deny.example.com/seen": "yes",
        "change.example.com/seen": "yes",
        "failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "down.example.com",
        "mutation.webhook.admission.k8s.io/round_0_index_0": '{"configuration":"config","webhook":"change.example.com",'
        '"mutated":false}',
    }
    text = server.assembled.metrics.format().decode()
    for line in (
        'apiserver_admission_webhook_rejection_count{error_type="no_error",name="change.example.com",'
        'operation="CREATE",rejection_code="400",type="admit"} 1',
        'apiserver_admission_webhook_fail_open_count{name="down.example.com",type="validating"} 1',
        'apiserver_admission_webhook_request_total{code="200",name="deny.example.com",operation="CREATE",'
        'rejected="false",type="validating"} 1',
    ):
        assert line in text


async def test_patches_are_annotated(server: Server) -> None:
    patch = {"op": "add", "path": "/data/mutated", "value": "yes"}
    notes: dict[str, str] = {}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("configmaps"), name="change.example.com"))
        body = orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", **config_map(a="b")})
        headers = {"content-type": "application/json"}
        request = Request("POST", CONFIG_MAPS, "", headers, body, peer_of("admin"), notes=notes)
        assert isinstance(await server.assembled.handle(request), Response)
    head = '{"configuration":"config","webhook":"change.example.com",'
    assert notes["mutation.webhook.admission.k8s.io/round_0_index_0"] == f'{head}"mutated":true}}'
    told = '"patch":[{"op":"add","path":"/data/mutated","value":"yes"}],"patchType":"JSONPatch"}'
    assert notes["patch.webhook.admission.k8s.io/round_0_index_0"] == f"{head}{told}"


async def test_the_service_of_the_api_server_is_asked_in_process_as_its_own_user(server: Server) -> None:
    service = {"service": {"namespace": "default", "name": "kubernetes", "path": "/apis/reviews.example.com/v1/things"}}
    await register(server, "validating", webhook(None, rule("configmaps"), clientConfig=service))
    status, told = await server.call("POST", CONFIG_MAPS, config_map())
    assert status == 500
    assert told["message"].endswith("failed to call webhook: the server could not find the requested resource")


async def test_a_mutating_webhook_is_not_asked_about_what_its_conditions_leave_out(server: Server) -> None:
    patch = {"op": "add", "path": "/data", "value": {"mutated": "yes"}}
    conditions = [{"name": "skip", "expression": "object.metadata.name != 'skip-me'"}]
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("configmaps", "*"), matchConditions=conditions))
        assert (await server.made(CONFIG_MAPS, config_map("other")))["data"] == {"mutated": "yes"}
        assert "mutated" not in (await server.made(CONFIG_MAPS, config_map("skip-me", a="b")))["data"]
    assert len(hook.requests) == 1


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_a_call_takes_no_longer_than_its_request_may(server: Server, policy: str) -> None:
    forever = asyncio.Event()

    async def hang(path: str, review: Review) -> Any:
        await forever.wait()

    async with serving(hang) as hook:
        await register(server, "validating", webhook(hook, rule("configmaps"), failurePolicy=policy))
        status, _ = await server.call("POST", f"{CONFIG_MAPS}?timeout=50ms", config_map())
        forever.set()
    assert status in (500, 504)
    assert (await server.named(CONFIG_MAPS))["items"] == []


async def test_addresses_are_given_once_when_all_webhooks_had_their_say(server: Server) -> None:
    patch = {"op": "replace", "path": "/spec/type", "value": "NodePort"}
    async with serving(replying(lambda review: patched(review, patch))) as hook:
        await register(server, "mutating", webhook(hook, rule("services"), reinvocationPolicy="IfNeeded"))
        body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
        made = await server.made("/api/v1/namespaces/default/services", body)
    assert made["spec"]["ports"][0]["nodePort"]
    assert "clusterIP" not in hook.asked[0]["object"]["spec"]
    addresses = await server.named("/apis/networking.k8s.io/v1/ipaddresses")
    assert [item["metadata"]["name"] for item in addresses["items"]] == [made["spec"]["clusterIP"]]
