"""Which pods run on which node, and what these pods refer to: the node authorizer's knowledge.

Fed by the watch cache with each change of a pod, so that a question costs the pods of one node and not those of the
cluster. What a pod refers to is worked out when first asked, once for each of its revisions.

Invariant: between two turns of the event loop this shows the same revision as the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tiphys.api.kind import JsonObject
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.cached import CachedEvent, CachedObject

Reference = tuple[str, str, str]
"""(resource, namespace, name)."""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str | None = None


class _Pod(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


_decode_pod = msgspec.json.Decoder(_Pod).decode


class NodePods:
    """See the module's docstring. `pods` is the cache's resource, which is loaded."""

    def __init__(self, pods: ResourceCache) -> None:
        self._pods = pods
        self._by_node: dict[str, dict[str, CachedObject]] = {}
        self._node_of: dict[str, str] = {}
        self._references: dict[str, tuple[int, frozenset[Reference]]] = {}
        """References by pod, with the revision that they were read from."""
        pods.listeners.add(self._follow)
        pods.on_reset.add(self._load)
        self._load()

    def refer(self, node: str, reference: Reference) -> bool:
        """Tell whether a pod of the node refers to an object."""
        return any(reference in self._references_of(pod) for pod in self._by_node.get(node, {}).values())

    def _references_of(self, pod: CachedObject) -> frozenset[Reference]:
        known = self._references.get(pod.key)
        if known is None or known[0] != pod.revision:
            known = self._references[pod.key] = (pod.revision, frozenset(pod_references(pod.decode())))
        return known[1]

    def _load(self) -> None:
        self._by_node.clear()
        self._node_of.clear()
        self._references.clear()
        for pod in self._pods:
            self._put(pod)

    def _follow(self, events: Sequence[CachedEvent]) -> None:
        for event in events:
            if event.deleted:
                self._drop(event.object.key)
                self._references.pop(event.object.key, None)
            else:
                self._put(event.object)

    def _put(self, pod: CachedObject) -> None:
        node = _decode_pod(pod.value).spec.node_name or ""
        if self._node_of.get(pod.key, node) != node:
            self._drop(pod.key)
        if node:
            self._node_of[pod.key] = node
            self._by_node.setdefault(node, {})[pod.key] = pod

    def _drop(self, key: str) -> None:
        node = self._node_of.pop(key, "")
        if node:
            pods = self._by_node[node]
            del pods[key]
            if not pods:
                del self._by_node[node]


def pod_references(pod: JsonObject) -> Iterator[Reference]:
    """Yield the Secrets, ConfigMaps, claims and the service account that a pod's node must read for it."""
    namespace, spec = pod["metadata"].get("namespace", ""), pod["spec"]
    if spec.get("serviceAccountName"):
        yield ("serviceaccounts", namespace, spec["serviceAccountName"])
    for secret in spec.get("imagePullSecrets") or ():
        yield ("secrets", namespace, secret.get("name", ""))
    for volume in spec.get("volumes") or ():
        yield from _volume_references(namespace, volume)
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from _volume_references(namespace, source)
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            for source in container.get("envFrom") or ():
                yield from _env_references(namespace, source, "configMapRef", "secretRef")
            for variable in container.get("env") or ():
                yield from _env_references(
                    namespace, variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef"
                )


def _volume_references(namespace: str, volume: dict[str, Any]) -> Iterator[Reference]:
    if volume.get("configMap"):
        yield ("configmaps", namespace, volume["configMap"].get("name", ""))
    if volume.get("secret"):
        yield ("secrets", namespace, volume["secret"].get("secretName") or volume["secret"].get("name", ""))
    if volume.get("persistentVolumeClaim"):
        yield ("persistentvolumeclaims", namespace, volume["persistentVolumeClaim"].get("claimName", ""))


def _env_references(namespace: str, source: dict[str, Any], config_map: str, secret: str) -> Iterator[Reference]:
    if source.get(config_map):
        yield ("configmaps", namespace, source[config_map].get("name", ""))
    if source.get(secret):
        yield ("secrets", namespace, source[secret].get("name", ""))
