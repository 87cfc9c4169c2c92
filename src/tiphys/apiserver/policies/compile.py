"""Policies compiled: what validating.py and mutating.py evaluate, made from the spec of a policy.

An expression that does not compile (the policy was stored under other rules) stays in its place with its error, so that
failurePolicy decides. Pure.

Spec: API reference, ValidatingAdmissionPolicySpec and MutatingAdmissionPolicySpec v1 admissionregistration.k8s.io.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tiphys.api.admissionexpressions import ANNOTATION, CONDITION, MESSAGE, Compiled, Expressions, Scope, patch_results
from tiphys.apiserver.policies.evaluation import Variables


class Validation(NamedTuple):
    """One entry of validations."""

    condition: Compiled
    message_expression: Compiled | None
    message: str
    reason: str
    """Of the Status of a refusal; "" for Invalid."""


class Mutation(NamedTuple):
    """One entry of mutations."""

    patch_type: str
    expression: Compiled


class ValidatingPolicy(NamedTuple):
    conditions: tuple[Compiled, ...]
    variables: Variables
    validations: tuple[Validation, ...]
    annotations: tuple[tuple[str, Compiled], ...]
    """(key, expression) of each audit annotation."""


class MutatingPolicy(NamedTuple):
    conditions: tuple[Compiled, ...]
    variables: Variables
    mutations: tuple[Mutation, ...]
    reinvoked: bool
    """reinvocationPolicy is IfNeeded."""


def compile_validating(spec: Mapping[str, Any], version: tuple[int, int]) -> ValidatingPolicy:
    """Compile the spec of a ValidatingAdmissionPolicy."""
    expressions, scope, variables, conditions = _common(spec, version)
    messages = scope._replace(authorizer=False)

    def message(text: str) -> Compiled | None:
        return expressions.compile(text, messages, MESSAGE) if text.strip() else None

    validations = tuple(
        Validation(
            expressions.compile(given.get("expression") or "", scope, CONDITION),
            message(given.get("messageExpression") or ""),
            (given.get("message") or "").strip(),
            given.get("reason") or "",
        )
        for given in spec.get("validations") or ()
    )
    annotations = tuple(
        (given["key"], expressions.compile((given.get("valueExpression") or "").strip(), scope, ANNOTATION))
        for given in spec.get("auditAnnotations") or ()
    )
    return ValidatingPolicy(conditions, variables, validations, annotations)


def compile_mutating(spec: Mapping[str, Any], version: tuple[int, int]) -> MutatingPolicy:
    """Compile the spec of a MutatingAdmissionPolicy."""
    expressions, scope, variables, conditions = _common(spec, version)
    patches = scope._replace(patches=True)
    mutations = []
    for given in spec.get("mutations") or ():
        patch_type = given.get("patchType") or ""
        patch = given.get("jsonPatch" if patch_type == "JSONPatch" else "applyConfiguration") or {}
        text = (patch.get("expression") or "").strip()
        mutations.append(Mutation(patch_type, expressions.compile(text, patches, patch_results(patch_type))))
    return MutatingPolicy(conditions, variables, tuple(mutations), spec.get("reinvocationPolicy") == "IfNeeded")


def _common(
    spec: Mapping[str, Any], version: tuple[int, int]
) -> tuple[Expressions, Scope, Variables, tuple[Compiled, ...]]:
    expressions, scope = Expressions(version), Scope(params=spec.get("paramKind") is not None)
    variables = tuple(
        (given["name"], expressions.declare(given["name"], given.get("expression") or "", scope))
        for given in spec.get("variables") or ()
    )
    conditions = tuple(
        expressions.compile((given.get("expression") or "").strip(), scope, CONDITION)
        for given in spec.get("matchConditions") or ()
    )
    return expressions, scope, variables, conditions
