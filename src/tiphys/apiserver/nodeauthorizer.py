"""The node authorizer: a kubelet may read only what its own pods need, and write only about itself.

Which Secrets, ConfigMaps and claims a node may get follows from the pods bound to it (nodepods.py).

Spec: Kubernetes documentation, "Using Node Authorization"; admission controllers, "NodeRestriction".
"""

from __future__ import annotations

from collections.abc import Callable

from tiphys.api.kind import Kind
from tiphys.apiserver.bootstrap_roles import CLUSTER_ROLES, parse_rule_line
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.nodepods import NodePods, pod_references
from tiphys.apiserver.pipeline import Authorizer, Decision
from tiphys.apiserver.rbac import ALLOWED, DENIED, Rule, parse_rule
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import NODES, User

__all__ = ["NODE_PREFIX", "AuthorizerChain", "NodeAuthorizer", "pod_references"]

NODE_PREFIX = "system:node:"
_BY_REFERENCE = frozenset({"secrets", "configmaps", "persistentvolumeclaims"})


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

    def standing(self, user: User) -> int | None:
        total = 0
        for authorizer in self._authorizers:
            one = authorizer.standing(user)
            if one is None:
                return None
            total += one
        return total


class NodeAuthorizer:
    """See the module's docstring. `kind_of(plural)` returns a Kind of the core group."""

    def __init__(self, cache: WatchCache, kind_of: Callable[[str], Kind]) -> None:
        self._pods = NodePods(cache.resource(kind_of("pods").storage_prefix()))
        self._rules: tuple[Rule, ...] = tuple(
            parse_rule(parse_rule_line(line)) for line in CLUSTER_ROLES["system:node"]
        )

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

    def standing(self, user: User) -> int | None:
        """A node's rights change with every pod; others have none here."""
        return None if NODES in user.groups else 0

    def _by_reference(self, node: str, info: RequestInfo) -> Decision:
        if not info.name:
            if info.verb in ("list", "watch"):
                return Decision(False, f"can only read {info.resource} by name, with a metadata.name field selector")
            return DENIED
        if self._pods.refer(node, (info.resource, info.namespace, info.name)):
            return ALLOWED
        return Decision(False, f"no relationship found between node '{node}' and this object")
