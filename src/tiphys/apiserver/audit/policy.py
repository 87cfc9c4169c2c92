"""The audit policy: which requests are told, in how much detail, at which stages. Pure.

A policy file is parsed once (`parse_policy` raises with every mistake that it finds); `Policy.find` takes who asks and
what for and returns the first rule that matches. What no rule matches is not told.

Spec: Kubernetes documentation, "Auditing: Audit policy"; audit.k8s.io/v1 Policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.errors import TiphysError

NONE, METADATA, REQUEST, REQUEST_RESPONSE = range(4)
LEVELS = {"None": NONE, "Metadata": METADATA, "Request": REQUEST, "RequestResponse": REQUEST_RESPONSE}
LEVEL_NAMES = tuple(LEVELS)
RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"
STAGES = (RECEIVED, STARTED, COMPLETE, PANIC)
_VERSIONS = ("audit.k8s.io/v1",)
_LISTS = ("users", "userGroups", "verbs", "namespaces", "nonResourceURLs", "omitStages", "resources")


class BadPolicy(TiphysError):
    """An audit policy that cannot be used; the message tells every mistake."""


@dataclass(frozen=True, slots=True)
class ResourceMatch:
    """One entry of a rule's `resources`."""

    group: str
    resources: tuple[str, ...]
    names: frozenset[str]

    def matches(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        for wanted in self.resources:
            if wanted in ("*", whole):
                return True
            if wanted.startswith("*/") and info.subresource and wanted[2:] == info.subresource:
                return True
            if wanted.endswith("/*") and wanted[:-2] == info.resource:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Rule:
    """What is told of the requests that match."""

    level: int
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    resources: tuple[ResourceMatch, ...] = ()
    namespaces: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    omitted_stages: frozenset[str] = frozenset()
    omits_managed_fields: bool = False

    def matches(self, user: User, info: RequestInfo) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return info.is_resource and self._matches_resource(info)
        if self.urls:
            return not info.is_resource and any(_matches_url(url, info.path) for url in self.urls)
        return True

    def _matches_resource(self, info: RequestInfo) -> bool:
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(resource.matches(info) for resource in self.resources)


UNTOLD = Rule(NONE)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order."""

    rules: tuple[Rule, ...] = field(default_factory=tuple)

    def find(self, user: User, info: RequestInfo) -> Rule:
        """Return the rule for a request."""
        return next((rule for rule in self.rules if rule.matches(user, info)), UNTOLD)


def _matches_url(pattern: str, path: str) -> bool:
    if pattern == "*":
        return True
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path.rstrip("/") == pattern.rstrip("/")


def load_policy(path: str) -> Policy:
    """Return the policy of a YAML file. Raises BadPolicy, OSError."""
    import yaml

    with open(path, encoding="utf-8") as file:
        try:
            data = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise BadPolicy(f"the audit policy {path} is not YAML: {error}") from None
    try:
        return parse_policy(data)
    except BadPolicy as error:
        raise BadPolicy(f"the audit policy {path} cannot be used: {error}") from None


def parse_policy(data: Any) -> Policy:
    """Return a policy object, compiled. Raises BadPolicy."""
    if not isinstance(data, dict) or data.get("kind") != "Policy" or data.get("apiVersion") not in _VERSIONS:
        raise BadPolicy(f"it must be an object of apiVersion {_VERSIONS[0]} and kind Policy")
    rules = data.get("rules")
    if not isinstance(rules, list) or not rules:
        raise BadPolicy("rules: it has no rules; the last one may be `level: None`")
    mistakes = _mistakes_in_stages(data.get("omitStages") or (), "omitStages")
    for index, rule in enumerate(rules):
        mistakes += _mistakes(rule, f"rules[{index}]")
    if mistakes:
        raise BadPolicy("; ".join(mistakes))
    omitted = frozenset(data.get("omitStages") or ())
    managed = bool(data.get("omitManagedFields"))
    return Policy(tuple(_parse_rule(rule, omitted, managed) for rule in rules))


def _mistakes(rule: Any, path: str) -> list[str]:
    if not isinstance(rule, dict):
        return [f"{path}: it must be an object"]
    found = [
        f"{path}.{name}: it must be a list"
        for name in _LISTS
        if rule.get(name) is not None and not isinstance(rule[name], list)
    ]
    if rule.get("level") not in LEVELS:
        found.append(f"{path}.level: {rule.get('level')!r} is none of {', '.join(LEVELS)}")
    if found:
        return found
    if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
        found.append(f"{path}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs")
    for url in rule.get("nonResourceURLs") or ():
        if url != "*" and not str(url).startswith("/"):
            found.append(f"{path}.nonResourceURLs: {url!r} must begin with a slash")
        if "*" in str(url)[:-1]:
            found.append(f"{path}.nonResourceURLs: {url!r} may have a * at its end only")
    for each in rule.get("resources") or ():
        if not isinstance(each, dict) or "/" in str(each.get("group") or ""):
            found.append(f"{path}.resources: each is an object with a group (without version) and resources")
        elif each.get("resourceNames") and not each.get("resources"):
            found.append(f"{path}.resources: resourceNames needs at least one resource")
    return found + _mistakes_in_stages(rule.get("omitStages") or (), f"{path}.omitStages")


def _mistakes_in_stages(stages: Sequence[Any], path: str) -> list[str]:
    return [f"{path}: {stage!r} is none of {', '.join(STAGES)}" for stage in stages if stage not in STAGES]


def _parse_rule(rule: Mapping[str, Any], omitted: frozenset[str], omits_managed: bool) -> Rule:
    managed = rule.get("omitManagedFields")
    return Rule(
        LEVELS[rule["level"]],
        frozenset(rule.get("users") or ()),
        frozenset(rule.get("userGroups") or ()),
        frozenset(rule.get("verbs") or ()),
        tuple(
            ResourceMatch(
                each.get("group") or "", tuple(each.get("resources") or ()), frozenset(each.get("resourceNames") or ())
            )
            for each in rule.get("resources") or ()
        ),
        frozenset(rule.get("namespaces") or ()),
        tuple(rule.get("nonResourceURLs") or ()),
        omitted | frozenset(rule.get("omitStages") or ()),
        omits_managed if managed is None else bool(managed),
    )
