"""The policies that are in force: those with a binding, arranged by the resources that they are about.

Reads policies and bindings of one sort (validating or mutating) from the watch cache. A change marks the arrangement as
old; the next write makes it anew, parsing only what changed. So a policy is in force for every write after the answer
to its own, and writes in between cost nothing. What is compiled from a policy is kept until the policy changes.

Invariant: `candidates` gives policies in the order of their names, and their bindings so too.

Spec: Kubernetes documentation, "Validating Admission Policy", "Mutating Admission Policy".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from tiphys.api.kind import JsonObject, Kinds
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.rulematching import Equivalents, Index, Matching, parse_matching

_ADMISSION, _AUTHENTICATION, _AUTHORIZATION = (
    "admissionregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
)
EXEMPT = frozenset(
    (
        (_ADMISSION, "validatingadmissionpolicies"),
        (_ADMISSION, "validatingadmissionpolicybindings"),
        (_ADMISSION, "mutatingadmissionpolicies"),
        (_ADMISSION, "mutatingadmissionpolicybindings"),
        (_AUTHENTICATION, "selfsubjectreviews"),
        (_AUTHENTICATION, "tokenreviews"),
        (_AUTHORIZATION, "localsubjectaccessreviews"),
        (_AUTHORIZATION, "selfsubjectaccessreviews"),
        (_AUTHORIZATION, "selfsubjectrulesreviews"),
        (_AUTHORIZATION, "subjectaccessreviews"),
    )
)
"""(group, plural) of what no policy is about: policies themselves, so that none can lock itself in, and reviews, without
which nobody gets in at all."""

C = TypeVar("C")


class Binding:
    """A ValidatingAdmissionPolicyBinding or MutatingAdmissionPolicyBinding."""

    __slots__ = ("actions", "matching", "name", "param_ref", "policy", "revision")

    def __init__(self, cached: CachedObject) -> None:
        spec = cached.decode().get("spec") or {}
        self.name = cached.name
        self.revision = cached.revision
        self.policy: str = spec.get("policyName") or ""
        self.matching: Matching | None = parse_matching(spec["matchResources"]) if spec.get("matchResources") else None
        self.param_ref: JsonObject | None = spec.get("paramRef")
        self.actions: Sequence[str] = spec.get("validationActions") or ()


class Policy(Generic[C]):
    """A policy with its bindings. `compiled` is made when first asked for."""

    __slots__ = ("_compile", "_compiled", "_spec", "bindings", "fail", "matching", "name", "param_kind", "revision")

    def __init__(self, cached: CachedObject, compile_spec: Callable[[JsonObject], C]) -> None:
        self._spec = spec = cached.decode().get("spec") or {}
        self.name = cached.name
        self.revision = cached.revision
        self.matching = parse_matching(spec.get("matchConstraints"))
        self.param_kind: JsonObject | None = spec.get("paramKind")
        self.fail = spec.get("failurePolicy") != "Ignore"
        self.bindings: Sequence[Binding] = ()
        self._compile = compile_spec
        self._compiled: C | None = None

    @property
    def compiled(self) -> C:
        if self._compiled is None:
            self._compiled = self._compile(self._spec)
            self._spec = {}
        return self._compiled


class PolicySource(Generic[C]):
    """See the module's docstring."""

    def __init__(
        self,
        policies: ResourceCache,
        bindings: ResourceCache,
        kinds: Kinds,
        equivalents: Equivalents,
        compile_spec: Callable[[JsonObject], C],
    ) -> None:
        self._caches = (policies, bindings)
        self._kinds = kinds
        self._equivalents = equivalents
        self._compile = compile_spec
        self._policies: dict[str, Policy[C]] = {}
        self._bindings: dict[str, Binding] = {}
        self._index: Index[Policy[C]] | None = None
        for cache in self._caches:
            cache.listeners.add(self._on_change)
            cache.on_reset.add(self._on_change)

    @property
    def empty(self) -> bool:
        """Tell whether no policy is in force."""
        index = self._index
        return (self._arrange() if index is None else index).empty

    def candidates(self, attributes: Attributes) -> Sequence[Policy[C]]:
        """Return the policies that may be about a write."""
        index = self._index
        if index is None:
            index = self._arrange()
        if index.empty:
            return ()
        if (attributes.kind.group, attributes.kind.plural) in EXEMPT:
            return ()
        return index.candidates(attributes)

    def _on_change(self, *events: Any) -> None:
        self._index = None

    def _arrange(self) -> Index[Policy[C]]:
        policies, bindings = self._caches
        self._bindings = {
            cached.name: self._known(self._bindings.get(cached.name), cached) or Binding(cached)
            for cached in bindings.objects()
        }
        bound: dict[str, list[Binding]] = {}
        for name in sorted(self._bindings):
            binding = self._bindings[name]
            bound.setdefault(binding.policy, []).append(binding)
        self._policies = {
            cached.name: self._known(self._policies.get(cached.name), cached) or Policy(cached, self._compile)
            for cached in policies.objects()
            if cached.name in bound
        }
        for name, policy in self._policies.items():
            policy.bindings = bound[name]
        records = [(self._policies[name].matching, self._policies[name]) for name in sorted(self._policies)]
        self._index = Index(records, self._kinds, self._equivalents)
        return self._index

    @staticmethod
    def _known(known: K | None, cached: CachedObject) -> K | None:
        return known if known is not None and known.revision == cached.revision else None


K = TypeVar("K", Binding, Policy[Any])
