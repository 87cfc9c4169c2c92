"""Two controllers that furnish each namespace: the `default` ServiceAccount and the cluster's CA certificate.

In: a namespace's name. Out: ServiceAccount `default`, ConfigMap `kube-root-ca.crt`. Pods of a namespace cannot be
created before its ServiceAccount exists, so both are written at once, without a look at a cache where the watch is
younger than the namespace: a create that meets AlreadyExists is a success.

Spec: Kubernetes docs, "Managing Service Accounts" (ServiceAccount controller), "Root CA publisher".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.views.config import ConfigMap, Namespace, ServiceAccount
from tiphys.api.views.meta import View, metadata_of
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.creation import is_namespace_ending
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared

ROOT_CA = "kube-root-ca.crt"
ROOT_CA_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class Furnishing:
    """Keeps one object of a fixed name in each living namespace. `data` is enforced where it is given."""

    def __init__(self, shared: Shared, resource: Resource, view: type[Any], name: str, obj: dict[str, Any]) -> None:
        self.namespaces: Mirror[Namespace] = shared.mirror(resources.NAMESPACES, Namespace)
        self.objects: Mirror[Any] = shared.mirror(resource, view)
        self.name = name
        self.obj = obj
        self.queue = shared.queue()
        self.namespaces.on_change(lambda old, new: self._add(new))
        self.objects.on_change(self._object_changed)

    def _add(self, namespace: Namespace | None) -> None:
        if namespace is not None and namespace.metadata.deletion_timestamp is None:
            self.queue.add(namespace.metadata.name)

    def _object_changed(self, old: View | None, new: View | None) -> None:
        view = new if new is not None else old
        assert view is not None
        metadata = metadata_of(view)
        if metadata.name == self.name and (new is None or "data" in self.obj):
            self.queue.add(metadata.namespace)

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp or namespace.status.phase == "Terminating":
            return
        found = self.objects.get(f"{key}/{self.name}")
        if found is None:
            await self._create(key)
        elif "data" in self.obj and dict(found.data) != self.obj["data"]:
            await self.objects.patch(found, {"data": {**dict.fromkeys(found.data), **self.obj["data"]}})

    async def _create(self, namespace: str) -> None:
        obj = {**self.obj, "metadata": {**self.obj["metadata"], "name": self.name, "namespace": namespace}}
        try:
            await self.objects.create(namespace, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists" and error.code != 404 and not is_namespace_ending(error):
                raise


def serviceaccount_controller(shared: Shared) -> Controller:
    obj = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}}
    loop = Furnishing(shared, resources.SERVICEACCOUNTS, ServiceAccount, "default", obj)
    return Controller("serviceaccount", loop.queue, loop.reconcile, (loop.namespaces, loop.objects), workers=8)


def rootca_controller(shared: Shared) -> Controller:
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"annotations": {"kubernetes.io/description": ROOT_CA_DESCRIPTION}},
        "data": {"ca.crt": shared.deps.cluster_ca},
    }
    loop = Furnishing(shared, resources.CONFIGMAPS, ConfigMap, ROOT_CA, obj)
    return Controller("root-ca-publisher", loop.queue, loop.reconcile, (loop.namespaces, loop.objects), workers=8)
