"""What stands in a cluster before the first client comes: namespaces, roles, priority classes, the API's own Service,
and what extension API servers need to know of this one.

`bootstrap` writes what is absent, many objects a commit; it is idempotent, so every start of an API server runs
it. The Endpoints of the `kubernetes` Service are kept equal to the address that the server is reached at.

Spec: Kubernetes documentation, "Namespaces: initial namespaces", "Using RBAC Authorization: auto-reconciliation".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.api.kind import JsonObject
from tiphys.apiserver.bootstrap_roles import bootstrap_rbac
from tiphys.apiserver.frontproxy import FrontProxy, trust_data
from tiphys.apiserver.registry import Registry, WriteContext
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError

AUTHENTICATION = "extension-apiserver-authentication"
"""ConfigMap of kube-system by which extension API servers know this one's clients."""
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_CLASSES = (
    ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster."),
    ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their node."),
)


@dataclass(frozen=True, slots=True)
class Advertised:
    """Where clients inside the cluster reach this API server. `service_ip` is the first of the Service network."""

    address: str
    port: int
    service_ip: str


async def bootstrap(
    registry: Registry, advertised: Advertised | None, front_proxy: FrontProxy | None = None, service_cidr: str = ""
) -> None:
    """Make the cluster's first objects; existing ones stay as they are, but for the API server's own endpoints and what
    it tells extension API servers."""
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]
    await _ensure_all(registry, spaces)
    objects = [*bootstrap_rbac(), *_priority_classes(), *extension_reader()]
    if service_cidr:
        cidr = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [service_cidr]}}
        objects.append({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **cidr})
    await _ensure_all(registry, objects)
    if front_proxy is not None:
        await publish_trust(registry, front_proxy)
    if advertised is not None:
        await _publish(registry, advertised)


def _priority_classes() -> list[JsonObject]:
    api_version = "scheduling.k8s.io/v1"
    return [
        {
            "apiVersion": api_version,
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        }
        for name, value, description in _CLASSES
    ]


async def _ensure_all(registry: Registry, objects: Sequence[JsonObject], *, replace: bool = False) -> None:
    """Create those that are absent, at the same time: the store commits them in groups, and waits once for the disk."""
    await asyncio.gather(
        *(_ensure(registry, obj["metadata"].get("namespace") or "", obj, replace=replace) for obj in objects)
    )


async def publish_trust(registry: Registry, front_proxy: FrontProxy) -> None:
    """Write what extension API servers authenticate requests with, unless it stands there already."""
    data = trust_data(front_proxy)
    kind = registry.kinds.resource("", "v1", "configmaps")
    assert kind is not None
    cached = registry.cache.resource(kind.storage_prefix()).get("kube-system", AUTHENTICATION)
    if cached is None or cached.decode().get("data") != data:
        metadata = {"name": AUTHENTICATION, "namespace": "kube-system"}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await _ensure(registry, "kube-system", config, replace=True)


def extension_reader() -> list[JsonObject]:
    """Return the Role by which extension API servers read that, and its binding to the cluster's own components."""
    name, group = f"{AUTHENTICATION}-reader", "rbac.authorization.k8s.io"
    metadata = {
        "namespace": "kube-system",
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [AUTHENTICATION],
        "verbs": ["get", "list", "watch"],
    }
    users = ("system:kube-controller-manager", "system:kube-scheduler")
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {"name": name, **metadata},
            "rules": [rule],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"system::{name}", **metadata},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user} for user in users],
        },
    ]


async def _publish(registry: Registry, advertised: Advertised) -> None:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    port = {"name": "https", "protocol": "TCP", "port": 443, "targetPort": advertised.port}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": advertised.service_ip, "ports": [port], "sessionAffinity": "None"},
    }
    endpoint_port = {"name": "https", "protocol": "TCP", "port": advertised.port}
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": advertised.address}], "ports": [endpoint_port]}],
    }
    endpoint_slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [advertised.address], "conditions": {"ready": True}}],
        "ports": [endpoint_port],
    }
    await asyncio.gather(
        _ensure_all(registry, [service]), _ensure_all(registry, [endpoints, endpoint_slice], replace=True)
    )


async def _ensure(registry: Registry, namespace: str, obj: JsonObject, *, replace: bool = False) -> None:
    """Create the object if it is absent; with `replace` make an existing one equal to it."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = registry.kinds.by_kind(group, version, obj["kind"])
    if kind is None:
        return  # this Kubernetes version does not serve it
    name = obj["metadata"]["name"]
    context = WriteContext(API_SERVER, field_manager="kube-apiserver", field_validation="Ignore")
    cached = registry.cache.resource(kind.storage_prefix()).get(namespace, name)
    if cached is None:
        try:
            await registry.create(kind, namespace, obj, context)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    elif replace:
        await registry.update(kind, namespace, name, lambda current: _merged(current, obj), context)


def _merged(current: JsonObject, wanted: JsonObject) -> JsonObject:
    metadata = {**current["metadata"], "labels": wanted["metadata"].get("labels") or {}}
    metadata.pop("resourceVersion", None)
    return {**current, **wanted, "metadata": metadata}
