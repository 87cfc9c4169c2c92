"""MutatingAdmissionPolicy: changes objects as policies say, before they are validated.

Policies run in the order of their names, bindings and parameters within; mutations of one policy one after another, each
on what the last one left, with defaults filled after each. A change makes all mutating plugins run once more; in that
second round those policies run again that ask for it (reinvocationPolicy IfNeeded) and whose object was changed after
them. Both rounds see the same policies.

Spec: Kubernetes documentation, "Mutating Admission Policy"; KEP-3962 (reinvocation).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from tiphys.api.admissionexpressions import POLICY_LIMIT
from tiphys.api.causes import go_quote
from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.policies.compile import MutatingPolicy, Mutation
from tiphys.apiserver.policies.conditions import ConditionsFailed, conditions_match
from tiphys.apiserver.policies.evaluation import QUICK_LIMIT, Evaluation, OutOfBudget
from tiphys.apiserver.policies.invocation import Convert, Invocation, Invocations, Problem
from tiphys.apiserver.policies.metrics import NO_ERROR, PolicyMetrics, error_type
from tiphys.apiserver.policies.patches import PatchFailed, apply_configuration, json_patch
from tiphys.apiserver.policies.validating import name_of, shown
from tiphys.apiserver.policies.variables import Inputs
from tiphys.base.errors import ApiError, forbidden, service_unavailable

_NAME = "MutatingAdmissionPolicy"
Key = tuple[str, str, str, str]


class Rounds:
    """What this plugin keeps of one write between the rounds of mutation."""

    __slots__ = ("again", "left", "mutated", "ran")

    def __init__(self) -> None:
        self.left = b""
        """The object as the last policy left it."""
        self.ran: set[Key] = set()
        """Invocations that ask to be run again, and before which nothing changed since."""
        self.again: set[Key] = set()
        """Those after which the object was changed."""
        self.mutated = False
        """Whether any policy changed the object."""

    def changed(self) -> None:
        """Note that the object is another one than those that ran saw."""
        self.again |= self.ran
        self.ran = set()


class MutatingDispatcher:
    """`namespaces` is the cache of Namespaces; `convert` brings objects into the version that a policy matched, and
    back."""

    def __init__(
        self,
        invocations: Invocations[MutatingPolicy],
        namespaces: ResourceCache,
        authorizer: Authorizer,
        kinds: Kinds,
        convert: Convert,
        metrics: PolicyMetrics,
    ) -> None:
        self._invocations = invocations
        self._kinds = kinds
        self._namespaces = namespaces
        self._authorizer = authorizer
        self._convert = convert
        self._metrics = metrics

    async def mutate(self, attributes: Attributes) -> None:
        """Change the object under admission. Raises ApiError if a policy cannot be applied and must be."""
        reinvocation = attributes.reinvoked()
        rounds: Rounds = reinvocation.states.setdefault(_NAME, Rounds())
        if reinvocation.second_round and rounds.left != _encoded(attributes.obj):
            rounds.changed()
        problems: list[str] = []
        failures: list[str] = []
        for invocation in await self._invocations.of(attributes):
            if isinstance(invocation, Problem):
                if invocation.policy.fail:
                    problems.append(_refusal(invocation, invocation.message))
            elif not reinvocation.second_round or invocation.key in rounds.again:
                errors = await self._run(attributes, invocation, rounds)
                if invocation.policy.fail:
                    failures += [_refusal(invocation, error) for error in errors]
        rounds.left = _encoded(attributes.obj)
        reinvocation.again = reinvocation.again or rounds.mutated
        if problems or failures:
            raise _denied(attributes, [*problems, *failures], "Forbidden" if problems else "Invalid")

    async def _run(
        self, attributes: Attributes, invocation: Invocation[MutatingPolicy], rounds: Rounds
    ) -> Sequence[str]:
        """Let one policy change the object. Return what failed of it."""
        compiled = invocation.policy.compiled
        inputs = await self._inputs(attributes, invocation)
        try:
            if not await conditions_match(
                compiled.conditions,
                inputs.bindings(invocation.params),
                compiled.variables,
                fail=invocation.policy.fail,
            ):
                return ()
        except ConditionsFailed as error:
            return [str(error)]
        before, errors = _encoded(attributes.obj), []
        for number, mutation in enumerate(compiled.mutations):
            started_s, told = self._metrics.now_s(), NO_ERROR
            try:
                if number:
                    inputs = await self._inputs(attributes, invocation)
                result = await self._mutate(attributes, invocation, mutation, inputs)
                await self._put_back(attributes, result, invocation.matched)
            except (PatchFailed, OutOfBudget) as error:
                errors.append(str(error))
                told = error_type(errors[-1])
            self._metrics.mutated(invocation.policy.name, invocation.binding.name, told, started_s)
        if _encoded(attributes.obj) != before:
            rounds.changed()
            rounds.mutated = True
        if compiled.reinvoked:
            rounds.ran.add(invocation.key)
        return errors

    async def _inputs(self, attributes: Attributes, invocation: Invocation[MutatingPolicy]) -> Inputs:
        obj, old = await shown(attributes, invocation.matched, self._convert)
        return Inputs(attributes, invocation.matched, obj, old, self._namespaces, self._authorizer, mutating=True)

    async def _mutate(
        self, attributes: Attributes, invocation: Invocation[MutatingPolicy], mutation: Mutation, inputs: Inputs
    ) -> JsonObject:
        """Return the object after one mutation, in the version that the policy matched."""
        evaluation = Evaluation(inputs.bindings(invocation.params), invocation.policy.compiled.variables, POLICY_LIMIT)
        value, error = await evaluation.evaluate(mutation.expression)
        if error:
            raise PatchFailed(error)
        if POLICY_LIMIT - evaluation.left > QUICK_LIMIT:
            await asyncio.sleep(0)
        patch = json_patch if mutation.patch_type == "JSONPatch" else apply_configuration
        assert inputs.base is not None, "only objects are mutated"
        return patch(self._kind_of_object(attributes, invocation.matched), inputs.base, value)

    def _kind_of_object(self, attributes: Attributes, matched: Kind) -> Kind:
        """Return the kind of what is changed, whose schema says how. Raises ApiError(503)."""
        body = attributes.body
        if body is None:
            return matched
        kind = self._kinds.by_kind(*body)
        if kind is None:
            raise service_unavailable(
                f"Resource kind {body.group}/{body.version}, Kind={body.kind} not found. There can be a delay between "
                "when CustomResourceDefinitions are created and when they are available."
            )
        return kind

    async def _put_back(self, attributes: Attributes, changed: JsonObject, matched: Kind) -> None:
        """Make the changed object the one under admission, with its defaults."""
        obj = attributes.obj
        assert obj is not None
        if changed is obj:
            return
        if attributes.body is None and matched.api_version != attributes.kind.api_version:
            changed = await self._convert(matched, changed, attributes.kind)
        obj.clear()
        obj.update(changed)
        if attributes.body is None:
            attributes.kind.strategy.default(obj)


def _encoded(obj: JsonObject | None) -> bytes:
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)


def _refusal(source: Invocation[MutatingPolicy] | Problem, message: str) -> str:
    if source.binding is None:
        return f"policy {go_quote(source.policy.name)} denied request: {message}"
    return f"policy '{source.policy.name}' with binding '{source.binding.name}' denied request: {message}"


def _denied(attributes: Attributes, messages: Sequence[str], reason: str) -> ApiError:
    """Return the error that a client gets: the first message, and each as a cause. Upstream keeps the code 403 even
    where the reason is Invalid."""
    kind = attributes.requested_kind
    details = forbidden(kind.group, kind.plural, name_of(attributes), "").details or {}
    return ApiError(
        403, reason, messages[0], details={**details, "causes": [{"message": message} for message in messages]}
    )
