"""ValidatingAdmissionPolicy: refuses, warns and annotates as policies and their bindings say.

All policies are evaluated; the first refusal, in the order of names, is what the client is told. What a failed
validation leads to is the binding's validationActions; what a failed evaluation leads to is the policy's failurePolicy.

DIFFERS: a messageExpression is evaluated only when its validation failed, so that those of others cost nothing.

Spec: Kubernetes documentation, "Validating Admission Policy".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from tiphys.api.admissionexpressions import ANNOTATION_BYTES, MESSAGE_BYTES, POLICY_LIMIT
from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.policies.compile import ValidatingPolicy, Validation
from tiphys.apiserver.policies.conditions import ConditionsFailed, conditions_match
from tiphys.apiserver.policies.evaluation import QUICK_LIMIT, Evaluation, OutOfBudget
from tiphys.apiserver.policies.invocation import Convert, Invocation, Invocations, Problem
from tiphys.apiserver.policies.metrics import NO_ERROR, PolicyMetrics, error_type
from tiphys.apiserver.policies.variables import Inputs
from tiphys.base.errors import ApiError, forbidden

FAILURE_ANNOTATION = "validation.policy.admission.k8s.io/validation_failure"
_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}


class Denial(NamedTuple):
    """One validation that failed, or could not be evaluated."""

    number: int
    """Of the validation, from 0."""
    message: str
    reason: str = ""
    failed: bool = False
    """It could not be evaluated."""


class Verdict(NamedTuple):
    """What one invocation came to."""

    denials: Sequence[Denial] = ()
    annotations: Sequence[tuple[str, str]] = ()
    """(key, value) to be told in the audit log."""
    errors: Sequence[str] = ()
    """Audit annotations that could not be evaluated: refusals, whatever the binding's actions."""


class ValidatingDispatcher:
    """`namespaces` is the cache of Namespaces; `convert` shows objects in the version that a policy matched."""

    def __init__(
        self,
        invocations: Invocations[ValidatingPolicy],
        namespaces: ResourceCache,
        authorizer: Authorizer,
        convert: Convert,
        metrics: PolicyMetrics,
    ) -> None:
        self._invocations = invocations
        self._namespaces = namespaces
        self._authorizer = authorizer
        self._convert = convert
        self._metrics = metrics

    async def validate(self, attributes: Attributes) -> None:
        """Raise ApiError if a policy refuses the write."""
        refusal: ApiError | None = None
        inputs: dict[str, Inputs] = {}
        annotations: dict[str, dict[str, None]] = {}
        for invocation in await self._invocations.of(attributes):
            if isinstance(invocation, Problem):
                if invocation.policy.fail and refusal is None:
                    refusal = _refusal(attributes, invocation, invocation.message)
                continue
            version = invocation.matched.api_version
            if version not in inputs:
                inputs[version] = await self._inputs(attributes, invocation.matched)
            started_s = self._metrics.now_s()
            verdict, cost = await judge(invocation, inputs[version])
            if cost > QUICK_LIMIT:
                await asyncio.sleep(0)
            for denied in _act(attributes, invocation, verdict):
                refusal = refusal or denied
            if verdict.denials or verdict.errors:
                self._count(invocation, verdict, started_s)
            for key, value in verdict.annotations:
                annotations.setdefault(f"{invocation.policy.name}/{key}", {})[value] = None
        for key, values in annotations.items():
            attributes.annotate(key, ", ".join(values))
        if refusal is not None:
            raise refusal

    def _count(self, invocation: Invocation[ValidatingPolicy], verdict: Verdict, started_s: float) -> None:
        policy, binding = invocation.policy.name, invocation.binding
        for denial in verdict.denials:
            error = error_type(denial.message) if denial.failed else NO_ERROR
            for action in binding.actions:
                self._metrics.validated(policy, binding.name, error, action.lower(), started_s)
        for message in verdict.errors:
            self._metrics.validated(policy, binding.name, error_type(message), "deny", started_s)

    async def _inputs(self, attributes: Attributes, matched: Kind) -> Inputs:
        obj, old = await shown(attributes, matched, self._convert)
        return Inputs(attributes, matched, obj, old, self._namespaces, self._authorizer)


async def shown(attributes: Attributes, matched: Kind, convert: Convert) -> tuple[JsonObject | None, JsonObject | None]:
    """Return the object and the old object in the version that matched. A body of another kind is as it is."""
    obj, old = attributes.obj, attributes.old
    if attributes.body is None and matched.api_version != attributes.kind.api_version:
        obj = None if obj is None else await convert(attributes.kind, obj, matched)
        old = None if old is None else await convert(attributes.kind, old, matched)
    return obj, old


def _act(attributes: Attributes, invocation: Invocation[ValidatingPolicy], verdict: Verdict) -> Iterator[ApiError]:
    """Warn, annotate, and yield the refusals that the binding's actions ask for."""
    policy, binding = invocation.policy, invocation.binding
    for denial in verdict.denials:
        for action in binding.actions:
            if action == "Deny":
                yield _refusal(attributes, invocation, denial.message, denial.reason)
            elif action == "Warn":
                attributes.warnings.append(
                    f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding "
                    f"'{binding.name}': {denial.message}"
                )
            elif action == "Audit":
                failure = {
                    "message": denial.message,
                    "policy": policy.name,
                    "binding": binding.name,
                    "expressionIndex": denial.number,
                    "validationActions": list(binding.actions),
                }
                attributes.annotate(FAILURE_ANNOTATION, orjson.dumps([failure]).decode())
    for error in verdict.errors:
        yield _refusal(attributes, invocation, error)


async def judge(invocation: Invocation[ValidatingPolicy], inputs: Inputs) -> tuple[Verdict, int]:
    """Evaluate a policy with one parameter, and return what about it cost."""
    policy, compiled = invocation.policy, invocation.policy.compiled
    bindings = inputs.bindings(invocation.params)
    try:
        if compiled.conditions and not await conditions_match(
            compiled.conditions, bindings, compiled.variables, fail=policy.fail
        ):
            return Verdict(), 0
    except ConditionsFailed as error:
        return Verdict([Denial(0, str(error), failed=True)]), 0
    evaluation = Evaluation(bindings, compiled.variables, POLICY_LIMIT)
    try:
        denials = await _denials(invocation, evaluation, bindings)
        cost = POLICY_LIMIT - evaluation.left
        if not compiled.annotations:
            return Verdict(denials), cost
        notes = Evaluation(bindings, compiled.variables, POLICY_LIMIT)
        annotations, errors = await _annotations(invocation, notes)
    except OutOfBudget as error:
        return Verdict([Denial(0, str(error), failed=True)] if policy.fail else ()), POLICY_LIMIT
    return Verdict(denials, annotations, errors), cost + POLICY_LIMIT - notes.left


async def _denials(
    invocation: Invocation[ValidatingPolicy], evaluation: Evaluation, bindings: JsonObject
) -> list[Denial]:
    """Return the validations that are not true. Raises OutOfBudget."""
    policy, compiled = invocation.policy, invocation.policy.compiled
    results = [await evaluation.evaluate(validation.condition) for validation in compiled.validations]
    failed = [index for index, result in enumerate(results) if not result.error and result.value is not True]
    denials = [
        Denial(index, result.error, failed=True) for index, result in enumerate(results) if result.error and policy.fail
    ]
    if not failed:
        return denials
    messages = Evaluation(bindings, compiled.variables, evaluation.left)
    try:
        for index in failed:
            validation = compiled.validations[index]
            denials.append(Denial(index, await _message(validation, messages), validation.reason))
    except OutOfBudget as error:
        if not policy.fail:
            return []
        return [Denial(index, f"failed messageExpression: {error}", failed=True) for index in range(len(results))]
    return sorted(denials)


async def _message(validation: Validation, evaluation: Evaluation) -> str:
    """Return what the client is told: by the message expression if it makes a sound text, else as the policy says.

    Raises OutOfBudget."""
    if validation.message_expression is not None:
        value, error = await evaluation.evaluate(validation.message_expression)
        if not error and isinstance(value, str):
            message = value.strip()
            if message and "\n" not in message and len(message.encode()) <= MESSAGE_BYTES:
                return message
    return validation.message or f"failed expression: {validation.condition.text.strip()}"


async def _annotations(
    invocation: Invocation[ValidatingPolicy], evaluation: Evaluation
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the audit annotations, and the errors that are refusals. Raises OutOfBudget."""
    annotations, errors = [], []
    for key, expression in invocation.policy.compiled.annotations:
        value, error = await evaluation.evaluate(expression)
        if error:
            if invocation.policy.fail:
                errors.append(error)
        elif isinstance(value, str) and (text := value.strip()):
            annotations.append((key, text.encode()[:ANNOTATION_BYTES].decode(errors="ignore")))
    return annotations, errors


def _refusal(
    attributes: Attributes, source: Invocation[ValidatingPolicy] | Problem, message: str, reason: str = ""
) -> ApiError:
    """Return the error that a client gets: worded as a forbidden request, with the reason that the policy gives."""
    who = f"ValidatingAdmissionPolicy '{source.policy.name}'"
    if source.binding is not None:
        who += f" with binding '{source.binding.name}'"
    text = f"{who} denied request: {message}"
    kind = attributes.requested_kind
    error = forbidden(kind.group, kind.plural, name_of(attributes), text)
    error.reason = reason or "Invalid"
    error.code = _CODES.get(error.reason, 422)
    assert error.details is not None
    error.details["causes"] = [{"message": text}]
    return error


def name_of(attributes: Attributes) -> str:
    """Return the name that a refusal tells."""
    metadata = (attributes.obj or {}).get("metadata") or {}
    return attributes.name or metadata.get("name") or metadata.get("generateName") or "Unknown"
