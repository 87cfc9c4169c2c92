"""HTTPS servers in real pods, deployed and waited for as upstream's conformance tests do it, call by call.

A Secret with certificates, a Deployment whose pod mounts it and has an HTTPS readiness probe, its revision and its image,
its status, a Service of another port, and the endpoints of that Service.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from direct_api import STRATEGIC, Api

from tiphys.wire.tls import create_ca, issue

IMAGE = "pybox:1"
REVISION = "deployment.kubernetes.io/revision"
MOUNTED = "/webhook.local.config/certificates"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PodServer:
    """A server behind a Service: what clientConfigs and APIServices refer to."""

    namespace: str
    service: str
    port: int
    ca_bundle: str
    labels: Json

    def client_config(self, path: str, *, believed: bool = True) -> Json:
        """Return a clientConfig; without an authority no call of it can succeed."""
        where = {"namespace": self.namespace, "name": self.service, "path": path, "port": self.port}
        return {"service": where, **({"caBundle": self.ca_bundle} if believed else {})}


def make_namespace(api: Api, name: str, *, with_root_ca: bool = True, **labels: str) -> None:
    """Make a namespace as upstream's framework does, and wait for what it waits for: in a test's first namespace for the
    authority's ConfigMap too."""
    labels = {"pod-security.kubernetes.io/enforce": "baseline", **labels}
    api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    api.wait(f"/api/v1/namespaces/{name}/serviceaccounts/default", lambda account: True)
    if with_root_ca:
        api.wait(f"/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt", lambda config: "ca.crt" in config["data"])


def label_namespace(api: Api, name: str, **labels: str) -> None:
    api.patch(f"/api/v1/namespaces/{name}", {"metadata": {"labels": labels}}, STRATEGIC)


def bind_authentication_reader(api: Api, name: str, namespace: str) -> str:
    """Let a namespace's default account read how front proxies are believed; return the binding's path."""
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings"
    account = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    role = {"apiGroup": "", "kind": "Role", "name": "extension-apiserver-authentication-reader"}
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    body = {"metadata": {"name": name, "annotations": annotations}, "roleRef": role, "subjects": [account]}
    made = api.create(path, body)
    assert made["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io", "an empty group means this one"
    return f"{path}/{name}"


def deploy(
    api: Api, namespace: str, name: str, command: Sequence[str], *, port: int, target_port: int, **probe: int
) -> PodServer:
    """Run a program of the image in a pod behind a Service, and return when its endpoint is there."""
    service = f"{name}-service"
    authority = create_ca(f"{name}-ca")
    pair = issue(authority, f"{service}.{namespace}.svc", dns_names=[f"{service}.{namespace}.svc"], server=True)
    data = {"tls.crt": _encoded(pair.certificate), "tls.key": _encoded(pair.key)}
    secret = {"metadata": {"name": f"{name}-secret"}, "type": "Opaque", "data": data}
    api.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    labels = {"app": name, f"{name}-server": "true"}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = api.create(path, deployment(name, labels, command, target_port, **probe))
    wait_for_revision(api, namespace, name, made)
    wait_until_complete(api, namespace, name)
    ports = [{"protocol": "TCP", "port": port, "targetPort": target_port}]
    metadata = {"name": service, "labels": {"test": name}}
    spec = {"selector": {f"{name}-server": "true"}, "ports": ports}
    api.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": metadata, "spec": spec})
    wait_for_endpoints(api, namespace, service)
    return PodServer(namespace, service, port, _encoded(authority.certificate), labels)


def deployment(name: str, labels: Json, command: Sequence[str], port: int, **probe: int) -> Json:
    check = {"httpGet": {"scheme": "HTTPS", "port": port, "path": "/readyz"}}
    container = {
        "name": name,
        "image": IMAGE,
        "command": [*command, f"--tls-cert-file={MOUNTED}/tls.crt", f"--tls-private-key-file={MOUNTED}/tls.key"],
        "volumeMounts": [{"name": "certs", "readOnly": True, "mountPath": MOUNTED}],
        "readinessProbe": {**check, "periodSeconds": 1, "successThreshold": 1, "failureThreshold": 30, **probe},
        "ports": [{"containerPort": port}],
    }
    volume = {"name": "certs", "secret": {"secretName": f"{name}-secret"}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def wait_for_revision(api: Api, namespace: str, name: str, made: Json) -> None:
    """Wait until the Deployment tells its first revision, and so does its ReplicaSet, with the image."""
    base = f"/apis/apps/v1/namespaces/{namespace}"
    api.wait(f"{base}/deployments/{name}", lambda one: one["metadata"].get("annotations", {}).get(REVISION) == "1")
    listed = api.get(f"{base}/replicasets", labelSelector=f"app={name}")["items"]
    (own,) = [each for each in listed if each["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]]
    assert own["metadata"]["annotations"][REVISION] == "1"
    assert own["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE


def wait_until_complete(api: Api, namespace: str, name: str) -> None:
    def complete(one: Json) -> bool:
        status, wanted = one.get("status", {}), one["spec"]["replicas"]
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return counts == [wanted] * 3 and status["observedGeneration"] >= one["metadata"]["generation"]

    api.wait(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}", complete)


def wait_for_endpoints(api: Api, namespace: str, service: str, count: int = 1) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    with api.watch(path, labelSelector=f"kubernetes.io/service-name={service}") as events:
        events.until(lambda kind, one: len(one.get("endpoints") or ()) == count)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
