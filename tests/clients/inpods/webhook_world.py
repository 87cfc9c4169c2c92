"""What every test of admission webhooks in pods needs: namespaces, configurations, and when they are in force.

As upstream's tests do it: each configuration carries one more webhook that refuses markers, and the configuration is in
force as soon as a marker is refused.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from direct_api import Api, soon
from pod_servers import PodServer, label_namespace, make_namespace

Json = dict[str, Any]
BASE = "/apis/admissionregistration.k8s.io/v1"
VALIDATING, MUTATING = f"{BASE}/validatingwebhookconfigurations", f"{BASE}/mutatingwebhookconfigurations"
UNWANTED = {"webhook-e2e-test": "webhook-disallow"}


@dataclass
class World:
    """One test's namespaces and configurations; `close` removes them."""

    api: Api
    server: PodServer
    unique: str
    namespace: str = ""
    markers: str = ""
    _made: list[str] = field(default_factory=list)

    def open(self) -> None:
        self.namespace, self.markers = self.make_namespace("webhook"), f"webhook-markers-{self.unique}"
        label_namespace(self.api, self.namespace, **{self.unique: "true"})
        make_namespace(self.api, self.markers, **{f"{self.unique}-markers": "true"})
        self._made.append(f"/api/v1/namespaces/{self.markers}")

    def make_namespace(self, base: str, *, refusing_configmaps: bool = False, **labels: str) -> str:
        name = f"{base}-{self.unique}"
        make_namespace(self.api, name, with_root_ca=not refusing_configmaps, **labels)
        self._made.append(f"/api/v1/namespaces/{name}")
        return name

    def close(self) -> None:
        for path in reversed(self._made):
            self.api.ask("DELETE", path)

    @property
    def configmaps(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def hook(self, name: str, path: str, operations: str, resources: str, **more: Any) -> Json:
        """Return a webhook for this test's namespace; `resources` is `group/version/name`."""
        group, version, resource = resources.split("/", 2)
        rule = {
            "apiGroups": [group],
            "apiVersions": [version],
            "resources": [resource],
            "operations": operations.split(),
        }
        return {
            "name": f"{name}.k8s.io",
            "rules": [rule],
            "clientConfig": self.server.client_config(path),
            "sideEffects": "None",
            "admissionReviewVersions": ["v1", "v1beta1"],
            "namespaceSelector": {"matchLabels": {self.unique: "true"}},
            **more,
        }

    def ready_hook(self) -> Json:
        """Return the webhook that refuses markers."""
        return self.hook(
            "is-webhook-configuration-ready",
            "/always-deny",
            "CREATE",
            "/v1/configmaps",
            failurePolicy="Ignore",
            namespaceSelector={"matchLabels": {f"{self.unique}-markers": "true"}},
            objectSelector={"matchLabels": {self.unique: "true"}},
        )

    def configure(self, kind: str, *hooks: Json, name: str = "", labels: Json | None = None) -> str:
        """Make a configuration (`kind` is its collection) and return its path."""
        name = name or self.unique
        metadata = {"name": name, **({"labels": labels} if labels else {})}
        body = {"metadata": metadata, "webhooks": [*hooks, self.ready_hook()]}
        self.api.create(kind, body)
        self._made.append(f"{kind}/{name}")
        return self._made[-1]

    def register(self, kind: str, *hooks: Json, name: str = "") -> str:
        """Make a configuration and wait until it is in force."""
        path = self.configure(kind, *hooks, name=name)
        self.wait_until_ready()
        return path

    def wait_until_ready(self) -> None:
        path = f"/api/v1/namespaces/{self.markers}/configmaps"

        def refused() -> bool:
            body = {"metadata": {"name": str(uuid.uuid4()), "labels": {self.unique: "true"}}}
            answer = self.api.ask("POST", path, body)
            if answer.status == 201:
                self.api.delete(f"{path}/{answer.json['metadata']['name']}")
                return False
            assert "denied" in answer.json["message"], answer.body
            return True

        soon(refused, 30.0)

    def denied(self, method: str, path: str, body: Any, *texts: str, code: int = 400, kind: str = "") -> str:
        """Ask what a webhook must refuse with these texts; return the message."""
        message = str(self.api.refused(method, path, body, code=code, kind=kind)["message"])
        assert all(text in message for text in texts), message
        return message

    def allows_configmap(self, data: Json) -> bool:
        """Tell whether a ConfigMap is made; it is deleted again."""
        body = {"metadata": {"name": str(uuid.uuid4())}, "data": data}
        answer = self.api.ask("POST", self.configmaps, body)
        if answer.status == 201:
            self.api.delete(f"{self.configmaps}/{body['metadata']['name']}")
            return True
        assert "denied" in answer.json["message"], answer.body
        return False

    def mutates_configmap(self) -> bool:
        body = {"metadata": {"name": str(uuid.uuid4())}, "data": {"mutation-start": "yes"}}
        made = self.api.create(self.configmaps, body)
        self.api.delete(f"{self.configmaps}/{body['metadata']['name']}")
        return "mutation-stage-1" in made["data"]


def pod(name: str, container: str, **labels: str) -> Json:
    containers = [{"name": container, "image": "testbox:1", "command": ["sleep", "1000"]}]
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 0},
    }
