"""From a write to the policies that are to be evaluated for it: one `Invocation` for each policy, binding and parameter.

Both plugins ask `Invocations.of`; what cannot be evaluated because something that a policy or binding refers to is
missing comes back as a `Problem`, for failurePolicy to decide.

Spec: Kubernetes documentation, "Validating Admission Policy" (policies, bindings, parameter resources).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.policies.params import Misconfigured, Params, param_kind
from tiphys.apiserver.policies.source import Binding, Policy, PolicySource
from tiphys.apiserver.rulematching import Matcher, namespace_of
from tiphys.base.errors import ApiError

C = TypeVar("C")

Convert = Callable[[Kind, JsonObject, Kind], Awaitable[JsonObject]]
"""(kind of the object, object, wanted kind of the same resource) -> the object in the wanted version."""


class Problem(NamedTuple):
    """A policy or (if it is one's fault) binding that cannot be evaluated, in words for the client."""

    policy: Policy[Any]
    binding: Binding | None
    message: str


class Invocation(Generic[C]):
    """A policy to evaluate, by a binding, with one parameter (None for none), in the version that matched."""

    __slots__ = ("binding", "matched", "params", "policy")

    def __init__(self, policy: Policy[C], binding: Binding, matched: Kind, params: JsonObject | None) -> None:
        self.policy = policy
        self.binding = binding
        self.matched = matched
        self.params = params

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what is the same in both rounds of mutation: names of policy, binding and parameter."""
        metadata = (self.params or {}).get("metadata") or {}
        return self.policy.name, self.binding.name, metadata.get("namespace", ""), metadata.get("name", "")


class Invocations(Generic[C]):
    """See the module's docstring. One for each plugin."""

    def __init__(self, source: PolicySource[C], matcher: Matcher, kinds: Kinds, params: Params) -> None:
        self._source = source
        self._matcher = matcher
        self._kinds = kinds
        self._params = params

    @property
    def empty(self) -> bool:
        """Tell whether no policy is in force at all."""
        return self._source.empty

    def concern(self, attributes: Attributes) -> bool:
        """Tell quickly whether any policy may be about a write."""
        return bool(self._source.candidates(attributes))

    async def of(self, attributes: Attributes) -> list[Invocation[C] | Problem]:
        """Return what is to be evaluated, in the order of names, and what cannot be: all as the object is now."""
        found: list[Invocation[C] | Problem] = []
        for policy in self._source.candidates(attributes):
            try:
                matched = self._matcher.match(policy.matching, attributes)
                kind = None if matched is None else param_kind(self._kinds, policy.param_kind)
            except (ApiError, Misconfigured) as error:
                found.append(Problem(policy, None, f"failed to configure policy: {error}"))
                continue
            if matched is None:
                continue
            for binding in policy.bindings:
                try:
                    if binding.matching is not None and self._matcher.match(binding.matching, attributes) is None:
                        continue
                    params = await self._params.collect(kind, binding.param_ref, namespace_of(attributes))
                except (ApiError, Misconfigured) as error:
                    found.append(Problem(policy, binding, f"failed to configure binding: {error}"))
                    continue
                found += [Invocation(policy, binding, matched, each) for each in params]
        return found
