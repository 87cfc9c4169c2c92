"""Which FlowSchema a request belongs to: compiled rules, and the search in order of precedence.

Pure: a FlowSchema object in, a `Schema` out; `find` takes who asks and what for. Invariant: the mandatory catch-all is
last and matches everybody, so something is always found.

Spec: Kubernetes documentation, "API Priority and Fairness: FlowSchema"; flowcontrol.apiserver.k8s.io/v1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tiphys.api.kind import JsonObject
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import SERVICE_ACCOUNT_PREFIX, User

BY_USER, BY_NAMESPACE = "ByUser", "ByNamespace"
DURATIONS_S = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
QUICK_S = DURATIONS_S[1]


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """One resource rule; "*" in a set stands for all."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    namespaces: frozenset[str]
    cluster_scope: bool

    def matches(self, info: RequestInfo) -> bool:
        resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        return (
            self._is_in_place(info.namespace)
            and ("*" in self.verbs or info.verb in self.verbs)
            and ("*" in self.groups or info.group in self.groups)
            and ("*" in self.resources or resource in self.resources)
        )

    def _is_in_place(self, namespace: str) -> bool:
        if not namespace:
            return self.cluster_scope
        return "*" in self.namespaces or namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class PathRule:
    """One non-resource rule; a path that ends in "/*" stands for what begins so."""

    verbs: frozenset[str]
    exact: frozenset[str]
    prefixes: tuple[str, ...]

    def matches(self, info: RequestInfo) -> bool:
        if "*" not in self.verbs and info.verb not in self.verbs:
            return False
        return "*" in self.exact or info.path in self.exact or info.path.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class Rule:
    """Subjects, and what of theirs is meant."""

    users: frozenset[str]
    groups: frozenset[str]
    accounts: tuple[tuple[str, str], ...]
    """(namespace, name or "*")"""
    resources: tuple[ResourceRule, ...]
    paths: tuple[PathRule, ...]

    def matches(self, user: User, info: RequestInfo) -> bool:
        if not self._is_about(user):
            return False
        rules: Sequence[ResourceRule | PathRule] = self.resources if info.is_resource else self.paths
        return any(rule.matches(info) for rule in rules)

    def _is_about(self, user: User) -> bool:
        if "*" in self.users or user.name in self.users or "*" in self.groups:
            return True
        if not self.groups.isdisjoint(user.groups):
            return True
        if not self.accounts or not user.name.startswith(SERVICE_ACCOUNT_PREFIX):
            return False
        namespace, _, name = user.name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
        return any(ns == namespace and wanted in ("*", name) for ns, wanted in self.accounts)


@dataclass(slots=True, eq=False)
class Schema:
    """A FlowSchema as it is applied."""

    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    """ByUser, ByNamespace or "": how requests are told apart as flows."""
    rules: tuple[Rule, ...]
    counts: SchemaCounts = field(default_factory=lambda: SchemaCounts())

    def matches(self, user: User, info: RequestInfo) -> bool:
        return any(rule.matches(user, info) for rule in self.rules)

    def distinguish(self, user: User, info: RequestInfo) -> str:
        """Return what tells the request's flow from others of this schema."""
        if self.distinguisher == BY_USER:
            return user.name
        return info.namespace if self.distinguisher == BY_NAMESPACE else ""


class SchemaCounts:
    """What was done with the requests of a schema; kept over changes of its spec."""

    __slots__ = ("durations", "queued", "quick", "rejected", "total_s", "waited_s", "waits")

    def __init__(self) -> None:
        self.quick = 0
        """Executed in less than QUICK_S: nearly all; the others are in `durations`."""
        self.durations = [0] * (len(DURATIONS_S) + 1)
        self.total_s = 0.0
        self.rejected: dict[str, int] = {}
        """By reason."""
        self.queued = 0
        """Requests that wait now."""
        self.waits = [0] * (len(DURATIONS_S) + 1)
        """Of dispatched requests that had to wait."""
        self.waited_s = 0.0

    def executed(self, duration_s: float) -> None:
        """Count a request that was let through."""
        self.total_s += duration_s
        if duration_s < QUICK_S:
            self.quick += 1
        else:
            self.durations[bisect_left(DURATIONS_S, duration_s)] += 1

    def by_duration(self) -> list[int]:
        """Return how many requests are in each bucket of DURATIONS_S alone."""
        return [self.durations[0], self.durations[1] + self.quick, *self.durations[2:]]


def parse_schema(obj: JsonObject) -> Schema:
    """Return a FlowSchema object, compiled."""
    spec = obj.get("spec") or {}
    return Schema(
        obj["metadata"]["name"],
        obj["metadata"].get("uid", ""),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        int(spec.get("matchingPrecedence") or 0),
        (spec.get("distinguisherMethod") or {}).get("type", ""),
        tuple(_parse_rule(rule) for rule in spec.get("rules") or ()),
    )


def _parse_rule(rule: JsonObject) -> Rule:
    subjects = rule.get("subjects") or []

    def named(kind: str, field_name: str) -> Iterable[JsonObject]:
        return (s.get(field_name) or {} for s in subjects if s.get("kind") == kind)

    return Rule(
        frozenset(s.get("name", "") for s in named("User", "user")),
        frozenset(s.get("name", "") for s in named("Group", "group")),
        tuple((s.get("namespace", ""), s.get("name", "")) for s in named("ServiceAccount", "serviceAccount")),
        tuple(
            ResourceRule(
                frozenset(r.get("verbs") or ()),
                frozenset(r.get("apiGroups") or ()),
                frozenset(r.get("resources") or ()),
                frozenset(r.get("namespaces") or ()),
                bool(r.get("clusterScope")),
            )
            for r in rule.get("resourceRules") or ()
        ),
        tuple(_parse_path_rule(r) for r in rule.get("nonResourceRules") or ()),
    )


def _parse_path_rule(rule: JsonObject) -> PathRule:
    urls = rule.get("nonResourceURLs") or ()
    prefixes = tuple(url[:-1] for url in urls if url.endswith("/*"))
    return PathRule(frozenset(rule.get("verbs") or ()), frozenset(urls), prefixes)


def order(schemas: Iterable[Schema]) -> list[Schema]:
    """Return schemas as they are tried: by precedence, then by name."""
    return sorted(schemas, key=lambda schema: (schema.precedence, schema.name))


def find(schemas: Sequence[Schema], user: User, info: RequestInfo) -> Schema:
    """Return the first schema that matches; the last when none does."""
    return next((schema for schema in schemas if schema.matches(user, info)), schemas[-1])
