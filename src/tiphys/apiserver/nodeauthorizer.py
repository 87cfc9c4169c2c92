"""The node authorizer: a kubelet may read only what its own pods need, and write only about itself.

Which Secrets, ConfigMaps and claims a node may get follows from the pods bound to it, read from the watch cache; the
references of a pod are worked out once for each of its revisions.

Spec: Kubernetes documentation, "Using Node Authorization"; admission controllers, "NodeRestriction".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.bootstrap_roles import CLUSTER_ROLES, parse_rule_line
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.pipeline import Authorizer, Decision
from tiphys.apiserver.rbac import ALLOWED, DENIED, Rule, parse_rule
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import NODES, User

NODE_PREFIX = "system:node:"
_BY_REFERENCE = frozenset({"secrets", "configmaps", "persistentvolumeclaims"})
Reference = tuple[str, str, str]
"""(resource, namespace, name)."""


class AuthorizerChain:
    """Allows what any of its authorizers allows; the first reason given for a refusal is told."""

    def __init__(self, *authorizers: Authorizer) -> None:
        self._authorizers = authorizers

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        reason = ""
        for authorizer in self._authorizers:
            decision = authorizer.authorize(user, info)
            if decision.allowed:
                return decision
            reason = reason or decision.reason
        return Decision(False, reason)


class NodeAuthorizer:
    """See the module's docstring. `kind_of(plural)` returns a Kind of the core group."""

    def __init__(self, cache: WatchCache, kind_of: Callable[[str], Kind]) -> None:
        self._pods = cache.resource(kind_of("pods").storage_prefix())
        self._pods_kind = kind_of("pods")
        self._rules: tuple[Rule, ...] = tuple(
            parse_rule(parse_rule_line(line)) for line in CLUSTER_ROLES["system:node"]
        )
        self._references: dict[str, tuple[int, str, frozenset[Reference]]] = {}
        self._allowed: dict[str, set[Reference]] = {}
        self._version = -1

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
            return DENIED
        node = user.name.removeprefix(NODE_PREFIX)
        if not any(rule.allows(info) for rule in self._rules):
            return DENIED
        if info.resource in _BY_REFERENCE and not info.group:
            return self._by_reference(node, info)
        if info.resource == "serviceaccounts" and info.subresource == "token":
            return self._by_reference(node, info)
        if info.resource == "nodes" and info.verb in ("update", "patch", "delete") and info.name != node:
            return Decision(False, f'node "{node}" is not allowed to modify node "{info.name}"')
        if info.resource == "leases" and info.name and info.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return ALLOWED

    def _by_reference(self, node: str, info: RequestInfo) -> Decision:
        if not info.name:
            if info.verb in ("list", "watch"):
                return Decision(False, f"can only read {info.resource} by name, with a metadata.name field selector")
            return DENIED
        self._refresh()
        if (info.resource, info.namespace, info.name) in self._allowed.get(node, ()):
            return ALLOWED
        return Decision(False, f"no relationship found between node '{node}' and this object")

    def _refresh(self) -> None:
        if self._version == self._pods.changed_at:
            return
        self._version = self._pods.changed_at
        references, allowed = {}, dict[str, set[Reference]]()
        for pod in self._pods.objects():
            known = self._references.get(pod.key)
            if known is None or known[0] != pod.revision:
                obj = orjson.loads(pod.body)
                node = obj["spec"].get("nodeName") or ""
                known = (pod.revision, node, frozenset(pod_references(obj)) if node else frozenset())
            references[pod.key] = known
            if known[1]:
                allowed.setdefault(known[1], set()).update(known[2])
        self._references, self._allowed = references, allowed


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
