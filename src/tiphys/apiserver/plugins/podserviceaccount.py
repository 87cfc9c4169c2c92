"""ServiceAccount: every pod runs as a service account that exists, with its token mounted.

Spec: Kubernetes admission controllers, "ServiceAccount"; "Configure Service Accounts for Pods".
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.clock import Randomness
from tiphys.base.errors import forbidden

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_LIFETIME_S = 3607
"""An hour and seven seconds, by which kubelets tell that they may refresh it as a default token."""


class PodServiceAccount(Plugin):
    """`accounts` is the cache of ServiceAccounts."""

    resources = (("", "pods"),)

    def __init__(self, accounts: ResourceCache, randomness: Randomness) -> None:
        self._accounts = accounts
        self._randomness = randomness

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or pod is None:
            return
        spec: JsonObject = pod["spec"]
        if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
            return
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        cached = self._accounts.get(attributes.namespace, name)
        if cached is None:
            where = f"{attributes.namespace}/{name}"
            why = f'error looking up service account {where}: serviceaccount "{name}" not found'
            raise forbidden("", "pods", attributes.name, why)
        account = orjson.loads(cached.body)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        automount = spec.get("automountServiceAccountToken")
        if automount is None:
            automount = account.get("automountServiceAccountToken", True)
        if automount:
            self._mount_token(spec)

    def _mount_token(self, spec: JsonObject) -> None:
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        wanting = [c for c in containers if not _mounts(c, MOUNT_PATH)]
        if not wanting:
            return
        volumes: list[dict[str, Any]] = spec.setdefault("volumes", [])
        name = next((v["name"] for v in volumes if v.get("name", "").startswith("kube-api-access-")), "")
        if not name:
            name = f"kube-api-access-{self._randomness.suffix()}"
            volumes.append(_token_volume(name))
        for container in wanting:
            mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
            container.setdefault("volumeMounts", []).append(mount)


def _mounts(container: JsonObject, path: str) -> bool:
    return any(mount.get("mountPath", "").rstrip("/") == path for mount in container.get("volumeMounts") or ())


def _token_volume(name: str) -> dict[str, Any]:
    token = {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFETIME_S, "path": "token"}}
    ca = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    namespace = {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}}
    return {"name": name, "projected": {"sources": [token, ca, namespace], "defaultMode": 420}}
