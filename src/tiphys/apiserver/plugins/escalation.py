"""Nobody grants more than he may do: writes of roles and bindings are measured against their writer's own rules.

A rule is broken into its smallest parts (one verb on one resource, one name, one URL); each must be covered by some
rule that the writer has at that scope. The verbs `escalate` (roles) and `bind` (bindings) lift this.

Spec: Kubernetes documentation, "Using RBAC Authorization": privilege escalation prevention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import orjson

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.rbac import RbacAuthorizer, Rule
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.errors import forbidden

GROUP = "rbac.authorization.k8s.io"
_ROLES = ("roles", "clusterroles")


class Escalation(Plugin):
    """`roles` and `cluster_roles` are the caches of both."""

    resources = tuple((GROUP, plural) for plural in (*_ROLES, "rolebindings", "clusterrolebindings"))

    def __init__(
        self, rbac: RbacAuthorizer, authorizer: Authorizer, roles: ResourceCache, cluster_roles: ResourceCache
    ) -> None:
        self._rbac = rbac
        self._authorizer = authorizer
        self._roles = roles
        self._cluster_roles = cluster_roles

    async def validate(self, attributes: Attributes) -> None:
        obj, user = attributes.obj, attributes.user
        if obj is None or MASTERS in user.groups or not _grants_anew(attributes):
            return
        if attributes.kind.plural in _ROLES:
            name = attributes.name
            granted: Sequence[JsonObject] = obj.get("rules") or ()
            may = self._may(user, "escalate", attributes.kind.plural, name, attributes.namespace)
        else:
            reference = obj.get("roleRef") or {}
            plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
            name = str(reference.get("name") or "")
            granted = self._rules_of(plural, name, attributes.namespace)
            may = self._may(user, "bind", plural, name, attributes.namespace)
        if may:
            return
        held = [rule for grant in self._rbac.grants(user, attributes.namespace) for rule in grant.rules]
        missing = uncovered(granted, held)
        if missing:
            groups = " ".join(orjson.dumps(group).decode() for group in user.groups)
            why = (
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
                + "\n".join(missing)
            )
            raise forbidden(GROUP, attributes.kind.plural, attributes.name, why)

    def _may(self, user: User, verb: str, plural: str, name: str, namespace: str) -> bool:
        info = RequestInfo(True, verb, "", GROUP, "v1", namespace, plural, name)
        return self._authorizer.authorize(user, info).allowed

    def _rules_of(self, plural: str, name: str, namespace: str) -> Sequence[JsonObject]:
        cached = self._cluster_roles.get("", name) if plural == "clusterroles" else self._roles.get(namespace, name)
        return () if cached is None else orjson.loads(cached.body).get("rules") or ()


def _grants_anew(attributes: Attributes) -> bool:
    """An update that leaves rules, subjects and role as they were grants nothing."""
    new, old = attributes.obj, attributes.old
    if old is None or new is None:
        return True
    return any(new.get(field) != old.get(field) for field in ("rules", "subjects", "roleRef", "aggregationRule"))


def uncovered(granted: Iterable[JsonObject], held: Sequence[Rule]) -> list[str]:
    """Return the parts of the granted rules that no held rule covers, as upstream writes them, sorted."""
    parts: dict[tuple[str, ...], list[str]] = {}
    for rule in granted:
        for key, verb in _parts(rule):
            if not any(_covers(other, key, verb) for other in held):
                verbs = parts.setdefault(key, [])
                if verb not in verbs:
                    verbs.append(verb)
    return sorted(_describe(key, verbs) for key, verbs in parts.items())


def _parts(rule: JsonObject) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield ((group, resource[, name]) or (url,), verb)."""
    verbs = rule.get("verbs") or ()
    names: Sequence[str | None] = rule.get("resourceNames") or (None,)
    for group, resource, name, verb in product(rule.get("apiGroups") or (), rule.get("resources") or (), names, verbs):
        yield ((group, resource) if name is None else (group, resource, name)), verb
    for url, verb in product(rule.get("nonResourceURLs") or (), verbs):
        yield (url,), verb


def _covers(rule: Rule, key: tuple[str, ...], verb: str) -> bool:
    if "*" not in rule.verbs and verb not in rule.verbs:
        return False
    if len(key) == 1:
        url = key[0]
        return any(
            have in ("*", url) or (have.endswith("*") and url.rstrip("*").startswith(have[:-1])) for have in rule.urls
        )
    group, resource = key[0], key[1]
    if "*" not in rule.groups and group not in rule.groups:
        return False
    if rule.names and (len(key) < 3 or key[2] not in rule.names):
        return False
    subresource = resource.partition("/")[2]
    return (
        "*" in rule.resources
        or resource in rule.resources
        or (bool(subresource) and f"*/{subresource}" in rule.resources)
    )


def _describe(key: tuple[str, ...], verbs: list[str]) -> str:
    def listed(*items: Any) -> str:
        return "[" + " ".join(orjson.dumps(item).decode() for item in items) + "]"

    if len(key) == 1:
        return f"{{NonResourceURLs:{listed(*key)}, Verbs:{listed(*verbs)}}}"
    names = f", ResourceNames:{listed(key[2])}" if len(key) > 2 else ""
    return f"{{APIGroups:{listed(key[0])}, Resources:{listed(key[1])}{names}, Verbs:{listed(*verbs)}}}"
