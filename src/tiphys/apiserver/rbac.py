"""Role-based access control: may this user do this?

Reads Roles, ClusterRoles and their bindings from the watch cache, arranged by subject once for each change of any of
them, and remembers decisions until then. Purely additive: no rule denies.

Spec: Kubernetes documentation, "Using RBAC Authorization".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tiphys.api.kind import Kind
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.pipeline import Decision
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import MASTERS, SERVICE_ACCOUNT_PREFIX, User

REMEMBERED_DECISIONS = 10_000
ALLOWED = Decision(True)
DENIED = Decision(False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule. "*" in a set means everything."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    def allows(self, info: RequestInfo) -> bool:
        """Tell whether the rule covers the request, wherever its role is bound."""
        if info.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not info.is_resource:
            return any(_url_matches(url, info.path) for url in self.urls)
        if info.group not in self.groups and "*" not in self.groups:
            return False
        if self.names and info.name not in self.names:
            return False
        resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        if resource in self.resources or "*" in self.resources:
            return True
        return bool(info.subresource) and f"*/{info.subresource}" in self.resources


def parse_rule(rule: dict[str, Any]) -> Rule:
    """Return the rule of a role object."""
    return Rule(
        frozenset(rule.get("verbs") or ()),
        frozenset(rule.get("apiGroups") or ()),
        frozenset(rule.get("resources") or ()),
        frozenset(rule.get("resourceNames") or ()),
        tuple(rule.get("nonResourceURLs") or ()),
    )


def _url_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


@dataclass(frozen=True, slots=True)
class Grant:
    """Rules that a subject has in one namespace; "" means in all and at the cluster scope."""

    namespace: str
    rules: tuple[Rule, ...]
    rule_objects: tuple[dict[str, Any], ...]
    """The same rules as the API shows them, for SelfSubjectRulesReview."""
    why: str = ""
    """Which binding gives it to whom, as reviews and the audit log tell it."""


class RbacAuthorizer:
    """See the module's docstring. `kind_of(plural)` returns the Kind of an rbac.authorization.k8s.io resource."""

    def __init__(self, cache: WatchCache, kind_of: Callable[[str], Kind]) -> None:
        names = ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
        self._roles, self._role_bindings, self._cluster_roles, self._cluster_role_bindings = (
            cache.resource(kind_of(name).storage_prefix()) for name in names
        )
        self._version = -1
        """Sum of the revisions of the four resources' last changes: each only grows, so it stands if they all do."""
        self._grants: dict[tuple[str, str], list[Grant]] = {}
        self._decisions: dict[tuple[str, tuple[str, ...], RequestInfo], Decision] = {}

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        if MASTERS in user.groups:
            return ALLOWED
        self._refresh()
        key = (user.name, user.groups, info)
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._decide(user, info)
            if len(self._decisions) >= REMEMBERED_DECISIONS:
                self._decisions.clear()
            self._decisions[key] = decision
        return decision

    def standing(self, user: User) -> int:
        """Return a number that changes before any decision about a user does."""
        return 0 if MASTERS in user.groups else self._changed_at()

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """Yield what the user may do in a namespace, cluster-wide grants included."""
        self._refresh()
        for subject in _subjects_of(user):
            for grant in self._grants.get(subject, ()):
                if not grant.namespace or grant.namespace == namespace:
                    yield grant

    def _decide(self, user: User, info: RequestInfo) -> Decision:
        namespace = info.namespace if info.is_resource else ""
        for grant in self.grants(user, namespace):
            if any(rule.allows(info) for rule in grant.rules):
                return Decision(True, grant.why)
        return DENIED

    def _changed_at(self) -> int:
        return (
            self._roles.changed_at
            + self._role_bindings.changed_at
            + self._cluster_roles.changed_at
            + self._cluster_role_bindings.changed_at
        )

    def _refresh(self) -> None:
        version = self._changed_at()
        if version == self._version:
            return
        self._version = version
        self._decisions.clear()
        self._grants = {}
        for item in self._cluster_role_bindings.objects():
            self._add_binding(orjson.loads(item.body), "")
        for item in self._role_bindings.objects():
            self._add_binding(orjson.loads(item.body), item.namespace)

    def _add_binding(self, binding: dict[str, Any], namespace: str) -> None:
        ref = binding.get("roleRef") or {}
        if ref.get("kind") == "ClusterRole":
            role = self._cluster_roles.get("", ref.get("name", ""))
        else:
            role = self._roles.get(namespace, ref.get("name", "")) if namespace else None
        if role is None:
            return
        rules = tuple(orjson.loads(role.body).get("rules") or ())
        parsed = tuple(map(parse_rule, rules))
        for subject in binding.get("subjects") or ():
            grant = Grant(namespace, parsed, rules, _explain(binding, namespace, ref, subject))
            self._grants.setdefault(_subject_key(subject, namespace), []).append(grant)


def _explain(binding: dict[str, Any], namespace: str, ref: dict[str, Any], subject: dict[str, Any]) -> str:
    """Return the sentence that tells by which binding something is allowed."""
    name = binding["metadata"]["name"]
    told = f'RoleBinding "{name}/{namespace}"' if namespace else f'ClusterRoleBinding "{name}"'
    whom = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        whom = f"{whom}/{subject.get('namespace') or namespace}"
    return f'RBAC: allowed by {told} of {ref.get("kind", "")} "{ref.get("name", "")}" to {subject.get("kind")} "{whom}"'


def _subject_key(subject: dict[str, Any], namespace: str) -> tuple[str, str]:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "ServiceAccount":
        return ("User", f"{SERVICE_ACCOUNT_PREFIX}{subject.get('namespace') or namespace}:{name}")
    return (kind, name)


def _subjects_of(user: User) -> Iterable[tuple[str, str]]:
    yield ("User", user.name)
    for group in user.groups:
        yield ("Group", group)
