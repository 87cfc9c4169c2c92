"""Which requests a webhook or an admission policy is about: rules, names, selectors, equivalent versions.

`parse_matching` makes a record of what an object says, once for each change of it; `Matcher.match` answers for one
request with the version of its resource that matched, in which the object is to be shown. `Index` finds among many
records those whose rules may match a resource at all, so that configurations for other resources cost a write nothing.

Invariant: `Index.candidates` leaves out no record that `Matcher.match` would match.

Spec: Kubernetes documentation, "Dynamic Admission Control" (matching requests: rules, objectSelector,
namespaceSelector, matchPolicy); API reference, MatchResources v1 admissionregistration.k8s.io.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from tiphys.api.kind import Kind, Kinds
from tiphys.api.selectors import EVERYTHING, LabelSelector, selector_of
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import not_found

_ANY = "*"


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One RuleWithOperations. "*" in a set means everything; `names` empty means all names."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    """(resource, subresource), each possibly "*"."""
    scope: str = _ANY
    names: frozenset[str] = frozenset()

    def covers(self, operation: str, kind: Kind, subresource: str) -> bool:
        """Tell whether it is about this operation on this version of a resource."""
        return (
            (operation in self.operations or _ANY in self.operations)
            and (kind.group in self.groups or _ANY in self.groups)
            and (kind.version in self.versions or _ANY in self.versions)
            and (self.scope == _ANY or (self.scope == "Namespaced") == kind.namespaced)
            and any(parent in (_ANY, kind.plural) and child in (_ANY, subresource) for parent, child in self.resources)
        )


class Matching(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What one webhook, policy or binding matches. No rules at all match every resource (bindings)."""

    rules: tuple[Rule, ...] = ()
    excluded: tuple[Rule, ...] = ()
    exact: bool = False
    """Only the very version that the request names; else also equivalent ones."""
    namespaces: LabelSelector = EVERYTHING
    objects: LabelSelector = EVERYTHING


def parse_rule(rule: Mapping[str, Any]) -> Rule:
    """Return the record of a rule of the API."""
    resources = (resource.partition("/") for resource in rule.get("resources") or ())
    return Rule(
        frozenset(rule.get("operations") or ()),
        frozenset(rule.get("apiGroups") or ()),
        frozenset(rule.get("apiVersions") or ()),
        tuple((parent, child) for parent, _, child in resources),
        rule.get("scope") or _ANY,
        frozenset(rule.get("resourceNames") or ()),
    )


def parse_matching(resources: Mapping[str, Any] | None, rules: str = "resourceRules") -> Matching:
    """Return the record of a MatchResources, or (with `rules` as "rules") of a webhook. None matches everything.

    Raises ApiError for a selector that validation would have refused.
    """
    given = resources or {}
    return Matching(
        tuple(map(parse_rule, given.get(rules) or ())),
        tuple(map(parse_rule, given.get("excludeResourceRules") or ())),
        given.get("matchPolicy") == "Exact",
        selector_of(given.get("namespaceSelector") or {}),
        selector_of(given.get("objectSelector") or {}),
    )


class Equivalents:
    """Other versions, and groups, of the same stored resource. Follows the table of kinds."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._revision = -1
        self._by_prefix: dict[str, tuple[Kind, ...]] = {}

    def of(self, kind: Kind) -> tuple[Kind, ...]:
        """Return all kinds of a resource, the given one among them."""
        if self._revision != self._kinds.revision:
            self._revision = self._kinds.revision
            self._by_prefix.clear()
        prefix = kind.storage_prefix()
        found = self._by_prefix.get(prefix)
        if found is None:
            found = tuple(k for k in self._kinds.all() if k.storage_prefix() == prefix) or (kind,)
            self._by_prefix[prefix] = found
        return found


class Matcher:
    """Decides for single requests. `namespaces` is the cache of Namespaces."""

    def __init__(self, equivalents: Equivalents, namespaces: ResourceCache) -> None:
        self._equivalents = equivalents
        self._namespaces = namespaces

    def match(self, matching: Matching, attributes: Attributes) -> Kind | None:
        """Return the version of the request's resource that matches, None if none does.

        Raises ApiError(404) when the rules match and the namespace, whose labels decide, is not there.
        """
        selected = self._namespace_selected(matching.namespaces, attributes)
        if selected is False:
            return None
        if not matching.objects.empty and not _labels_match(matching.objects, attributes):
            return None
        if matching.excluded and self._covered(matching.excluded, matching.exact, attributes) is not None:
            return None
        requested = attributes.requested_kind
        matched = self._covered(matching.rules, matching.exact, attributes) if matching.rules else requested
        if matched is not None and selected is None:
            raise not_found("", "namespaces", attributes.namespace)
        return matched

    def _covered(self, rules: Sequence[Rule], exact: bool, attributes: Attributes) -> Kind | None:
        requested, name = attributes.requested_kind, attributes.told_name
        for rule in rules:
            if _is_named(rule, name) and rule.covers(attributes.operation, requested, attributes.subresource):
                return requested
        if exact:
            return None
        for rule in rules:
            if not _is_named(rule, name):
                continue
            for kind in self._equivalents.of(requested):
                if kind is not requested and rule.covers(attributes.operation, kind, attributes.subresource):
                    return kind
        return None

    def _namespace_selected(self, selector: LabelSelector, attributes: Attributes) -> bool | None:
        """Tell whether the labels of the object's namespace are selected; None if that namespace is not there.

        What is in no namespace is always selected; a Namespace is in itself.
        """
        namespace = namespace_of(attributes)
        if selector.empty or not namespace:
            return True
        obj = attributes.obj
        if is_namespace(attributes) and obj is not None and not attributes.subresource:
            return selector.matches(obj["metadata"].get("labels"))  # as it will be, not as it is
        cached = self._namespaces.get("", namespace)
        return None if cached is None else selector.matches(cached.labels)


def is_namespace(attributes: Attributes) -> bool:
    """Tell whether a request is about a Namespace object."""
    return attributes.kind.plural == "namespaces" and not attributes.kind.group


def namespace_of(attributes: Attributes) -> str:
    """Return the namespace of a request as webhooks and policies are told it: that of a Namespace object is itself."""
    return attributes.name if is_namespace(attributes) else attributes.namespace


def _is_named(rule: Rule, name: str) -> bool:
    return not rule.names or name in rule.names


def _labels_match(selector: LabelSelector, attributes: Attributes) -> bool:
    """Either state of the object may match; a body without metadata (options of a CONNECT) does not."""
    states = (obj.get("metadata") for obj in (attributes.obj, attributes.old) if obj is not None)
    return any(isinstance(metadata, dict) and selector.matches(metadata.get("labels")) for metadata in states)


T = TypeVar("T")


class Index(Generic[T]):
    """Records by what their rules may match. Records are given once; a change of any makes a new index."""

    def __init__(self, records: Iterable[tuple[Matching, T]], kinds: Kinds, equivalents: Equivalents) -> None:
        self._records = tuple(records)
        self._kinds = kinds
        self._equivalents = equivalents
        self._revision = kinds.revision
        self._found: dict[tuple[str, str, str], tuple[T, ...]] = {}

    @property
    def empty(self) -> bool:
        return not self._records

    def candidates(self, attributes: Attributes) -> tuple[T, ...]:
        """Return the records, in their order, of which some rule names the request's operation and resource, in the
        request's version or an equivalent one."""
        if not self._records:
            return ()
        if self._revision != self._kinds.revision:
            self._revision = self._kinds.revision
            self._found.clear()
        kind = attributes.requested_kind
        key = (attributes.operation, kind.storage_prefix(), attributes.subresource)
        found = self._found.get(key)
        if found is None:
            kinds = self._equivalents.of(kind)
            found = self._found[key] = tuple(
                record for matching, record in self._records if _may_match(matching, attributes, kinds)
            )
        return found


def _may_match(matching: Matching, attributes: Attributes, kinds: Sequence[Kind]) -> bool:
    if not matching.rules:
        return True
    return any(
        rule.covers(attributes.operation, kind, attributes.subresource) for rule in matching.rules for kind in kinds
    )
