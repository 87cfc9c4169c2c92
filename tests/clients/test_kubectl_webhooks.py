"""kubectl before admission webhooks: what it prints when they refuse, change or warn, and what they are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubectl_cli import Kubectl
from webhook_thread import ThreadedWebhook, patch_of, refusal, threaded_webhook

POD = """
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {containers: [{name: c, image: busybox, command: [sleep, "10000"]}]}
"""


def decide(path: str, request: dict[str, Any]) -> dict[str, Any]:
    if path == "/deny":
        return refusal("not allowed here")
    if path == "/sidecar":
        container = {"name": "sidecar", "image": "busybox", "command": ["sleep", "10000"]}
        return patch_of({"op": "add", "path": "/spec/containers/-", "value": container})
    return {"warnings": ["this is seen"]}


@pytest.fixture
def hook() -> Iterator[ThreadedWebhook]:
    with threaded_webhook(decide) as webhook:
        yield webhook


class Configured:
    """Registers webhooks for the test's own namespace; removes them at the end."""

    def __init__(self, kubectl: Kubectl, hook: ThreadedWebhook) -> None:
        self._kubectl = kubectl
        self._hook = hook
        self._made: list[str] = []

    def add(self, sort: str, path: str, operations: str, *resources: str, **more: Any) -> None:
        kind = f"{sort.capitalize()}WebhookConfiguration"
        name = f"{self._kubectl.namespace}-{len(self._made)}"
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self._kubectl.namespace}}
        rule = {
            "operations": operations.split(","),
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "resources": list(resources),
        }
        webhook = {
            "name": "hook.example.com",
            "clientConfig": self._hook.client_config(path),
            "rules": [rule],
            "namespaceSelector": selector,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }
        group = "admissionregistration.k8s.io/v1"
        body = {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]}
        self._kubectl.apply(json.dumps(body))
        self._made.append(f"{kind.lower()}/{name}")

    def remove(self) -> None:
        if self._made:
            self._kubectl("delete", *self._made)


@pytest.fixture
def configured(kubectl: Kubectl, hook: ThreadedWebhook) -> Iterator[Configured]:
    made = Configured(kubectl, hook)
    yield made
    made.remove()


def test_a_refusal_and_a_warning_are_printed(kubectl: Kubectl, configured: Configured) -> None:
    configured.add("validating", "/deny", "CREATE", "secrets")
    configured.add("validating", "/warn", "CREATE", "configmaps")
    told = kubectl.run("create", "secret", "generic", "s")
    assert told.returncode == 1
    assert 'admission webhook "hook.example.com" denied the request: not allowed here' in told.stderr
    told = kubectl.run("create", "configmap", "c")
    assert (told.returncode, "Warning: this is seen" in told.stderr) == (0, True)


def test_a_pod_gets_a_sidecar_and_nobody_attaches(
    kubectl: Kubectl, configured: Configured, hook: ThreadedWebhook
) -> None:
    configured.add("mutating", "/sidecar", "CREATE", "pods")
    configured.add("validating", "/deny", "CONNECT", "pods/attach", "pods/exec")
    kubectl.apply(POD)
    kubectl("wait", "pod/one", "--for=condition=Ready", "--timeout=30s")
    names = kubectl("get", "pod", "one", "-o", "jsonpath={.spec.containers[*].name}")
    assert names == "c sidecar"
    for words in (("attach", "one", "-c", "c"), ("exec", "one", "-c", "c", "--", "ls")):
        told = kubectl.run(*words)
        assert told.returncode == 1
        assert 'admission webhook "hook.example.com" denied the request: not allowed here' in told.stderr
    commands = [r["object"].get("command") for r in hook.requests if r.get("subResource") == "exec"]
    assert commands
    assert all(command == ["ls"] for command in commands)


def test_a_dry_run_of_the_server_shows_the_change(kubectl: Kubectl, configured: Configured) -> None:
    configured.add("mutating", "/sidecar", "CREATE", "pods")
    shown = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=POD)
    assert [c["name"] for c in json.loads(shown)["spec"]["containers"]] == ["c", "sidecar"]
    assert kubectl("get", "pods") == ""


def test_bad_match_conditions_are_refused_with_the_compilers_words(configured: Configured) -> None:
    conditions = [{"name": "x", "expression": "... [] bad expression"}]
    with pytest.raises(pytest.fail.Exception, match="compilation failed"):
        configured.add("validating", "/deny", "CREATE", "pods", matchConditions=conditions)
