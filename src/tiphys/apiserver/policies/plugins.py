"""The plugins of admission policies: what an API server loads and asks while there are no policies.

They decide only whether any policy may be about a write; CEL, and with it validating.py and mutating.py, is imported
when the first one is. Which plugins there are depends on the kinds that the server's version has.

Spec: Kubernetes documentation, "Validating Admission Policy", "Mutating Admission Policy" (versions).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from tiphys.api.kind import Context, JsonObject, Kind, Kinds
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import CachedObject, ResourceCache, WatchCache
from tiphys.apiserver.cached import in_version
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.policies.access import GROUP, POLICY_OF, PolicyParamAccess
from tiphys.apiserver.policies.invocation import Invocations
from tiphys.apiserver.policies.metrics import PolicyMetrics
from tiphys.apiserver.policies.params import Params
from tiphys.apiserver.policies.source import PolicySource
from tiphys.apiserver.rulematching import Equivalents, Matcher

if TYPE_CHECKING:
    from tiphys.apiserver.policies.compile import MutatingPolicy, ValidatingPolicy
    from tiphys.apiserver.policies.mutating import MutatingDispatcher
    from tiphys.apiserver.policies.validating import ValidatingDispatcher

C = TypeVar("C")
D = TypeVar("D")

_LOADED_WITH_POLICIES = (
    "tiphys.apiserver.policies.validating",
    "tiphys.apiserver.policies.mutating",
    "tiphys.apiserver.policies.typecheck",
    "tiphys.api.strategies.admissionpolicy",
)


FEW_EXPRESSIONS = 10
"""What a policy may have of them to be compiled in the event loop: 3 ms."""


async def load_expressions() -> None:
    """Import what policies need, in a thread: it would hold the event loop for a tenth of a second."""
    if _LOADED_WITH_POLICIES[0] not in sys.modules:
        await asyncio.to_thread(_import_all)


def _import_all() -> None:
    from tiphys.api.cellibrary import AVAILABLE_FROM, libraries

    libraries(max(AVAILABLE_FROM.values()))
    for name in _LOADED_WITH_POLICIES:
        import_module(name)


class _PolicyPlugin(Plugin, Generic[C, D]):
    """`load` makes the dispatcher, when first needed."""

    sees_bodies = True

    def __init__(self, invocations: Invocations[C], load: Callable[[Invocations[C]], D]) -> None:
        self._invocations = invocations
        self._load = load
        self._dispatcher: D | None = None

    def is_active(self) -> bool:
        return not self._invocations.empty

    async def dispatcher(self, attributes: Attributes) -> D | None:
        """Return who decides, None if no policy can be about the write."""
        if not self._invocations.concern(attributes):
            return None
        if self._dispatcher is None:
            await load_expressions()
            self._dispatcher = self._load(self._invocations)
        return self._dispatcher


class MutatingAdmissionPolicies(_PolicyPlugin["MutatingPolicy", "MutatingDispatcher"]):
    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is not None and (dispatcher := await self.dispatcher(attributes)) is not None:
            await dispatcher.mutate(attributes)


class ValidatingAdmissionPolicies(_PolicyPlugin["ValidatingPolicy", "ValidatingDispatcher"]):
    async def validate(self, attributes: Attributes) -> None:
        if (dispatcher := await self.dispatcher(attributes)) is not None:
            await dispatcher.validate(attributes)


class PolicyLoader(Plugin):
    """Has CEL ready before the first policy is validated, and many expressions compiled, beside the event loop."""

    resources = tuple((GROUP, plural) for plural in POLICY_OF.values())

    def __init__(self, kubernetes_version: tuple[int, int]) -> None:
        self._context = Context("", "", kubernetes_version=kubernetes_version)

    async def mutate(self, attributes: Attributes) -> None:
        await load_expressions()
        policy = attributes.obj
        if policy is not None and orjson.dumps(policy.get("spec")).lower().count(b'expression":') > FEW_EXPRESSIONS:
            copy: JsonObject = orjson.loads(orjson.dumps(policy))
            # what it finds is told when the policy is validated; the programs are kept until then
            await asyncio.to_thread(attributes.kind.strategy.validate, copy, self._context)


class PolicyPlugins:
    """Makes the plugins from the parts of a server."""

    def __init__(
        self, cache: WatchCache, kinds: Kinds, converter: Converter, authorizer: Authorizer, metrics: PolicyMetrics
    ) -> None:
        self._cache = cache
        self._kinds = kinds
        self._converter = converter
        self._authorizer = authorizer
        self._metrics = metrics
        namespaces = kinds.resource("", "v1", "namespaces")
        assert namespaces is not None, "namespaces are served by every version"
        self._namespaces = cache.resource(namespaces.storage_prefix())
        self._equivalents = Equivalents(kinds)
        self._matcher = Matcher(self._equivalents, self._namespaces)
        self._params = Params(cache, kinds, self._open)

    def mutating(self) -> list[Plugin]:
        """Return the plugins that come before mutating webhooks."""
        invocations = self._invocations("mutatingadmissionpolicybindings", self._compile_mutating)
        loader: list[Plugin] = [PolicyLoader(self._kinds.kubernetes_version)]
        if invocations is None:
            return loader
        return [*loader, MutatingAdmissionPolicies(invocations, self._mutating_dispatcher)]

    def validating(self) -> list[Plugin]:
        """Return the plugins that come before validating webhooks."""
        invocations = self._invocations("validatingadmissionpolicybindings", self._compile_validating)
        if invocations is None:
            return []
        policies = {plural: cache for plural in POLICY_OF.values() if (cache := self._objects(plural)) is not None}
        return [
            ValidatingAdmissionPolicies(invocations, self._validating_dispatcher),
            PolicyParamAccess(self._kinds, self._authorizer, policies),
        ]

    def _invocations(self, plural: str, compile_spec: Callable[[JsonObject], C]) -> Invocations[C] | None:
        bindings, policies = self._objects(plural), self._objects(POLICY_OF[plural])
        if bindings is None or policies is None:
            return None
        source = PolicySource(policies, bindings, self._kinds, self._equivalents, compile_spec)
        return Invocations(source, self._matcher, self._kinds, self._params)

    def _objects(self, plural: str) -> ResourceCache | None:
        kind = self._kinds.resource(GROUP, "v1", plural)
        return None if kind is None else self._cache.resource(self._kinds.stored(kind).storage_prefix())

    # What is loaded when there is a policy

    def _compile_mutating(self, spec: JsonObject) -> MutatingPolicy:
        from tiphys.apiserver.policies.compile import compile_mutating

        return compile_mutating(spec, self._kinds.kubernetes_version)

    def _compile_validating(self, spec: JsonObject) -> ValidatingPolicy:
        from tiphys.apiserver.policies.compile import compile_validating

        return compile_validating(spec, self._kinds.kubernetes_version)

    def _mutating_dispatcher(self, invocations: Invocations[Any]) -> MutatingDispatcher:
        from tiphys.apiserver.policies.mutating import MutatingDispatcher

        return MutatingDispatcher(
            invocations, self._namespaces, self._authorizer, self._kinds, self._convert, self._metrics
        )

    def _validating_dispatcher(self, invocations: Invocations[Any]) -> ValidatingDispatcher:
        from tiphys.apiserver.policies.validating import ValidatingDispatcher

        return ValidatingDispatcher(invocations, self._namespaces, self._authorizer, self._convert, self._metrics)

    # Objects in other versions

    async def _open(self, kind: Kind, cached: CachedObject) -> JsonObject:
        await self._converter.prepare(kind, (cached,))
        rendered = in_version(kind, cached)
        obj: JsonObject = orjson.loads(rendered) if rendered is not None else cached.decode()
        obj["metadata"]["resourceVersion"] = str(cached.revision)
        return obj

    async def _convert(self, kind: Kind, obj: JsonObject, wanted: Kind) -> JsonObject:
        copy: JsonObject = orjson.loads(orjson.dumps(obj))
        if kind.conversion is not None:
            return await self._converter.convert(kind, copy, wanted.api_version)
        if kind.convert is not None:
            return kind.convert(copy, kind.api_version, wanted.api_version)
        return dict(copy, apiVersion=wanted.api_version, kind=wanted.kind)
