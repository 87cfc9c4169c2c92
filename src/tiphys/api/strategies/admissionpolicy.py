"""Validating and mutating admission policies and their bindings: defaults and validation, CEL included.

An expression that does not compile makes the policy invalid, with the compiler's text in the cause. Whether the writer
may read the parameters that a policy names is checked by a plugin (apiserver/policies/access.py), since it needs an
authorizer. Compilation is imported at the first policy only.

Spec: API reference, admissionregistration.k8s.io/v1; Kubernetes documentation, "Validating Admission Policy",
"Mutating Admission Policy".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required, too_many
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.admissionrules import (
    MUTATING_OPERATIONS,
    check_match_resources,
    check_operations,
    check_param_ref,
    default_match_resources,
)
from tiphys.api.strategies.apiservice import prepare_status_update
from tiphys.api.strategies.fields import (
    check_text,
    clear_status,
    fill,
    find_duplicates,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

if TYPE_CHECKING:
    from tiphys.api.admissionexpressions import Compiled, Expressions, Scope

MATCH_CONDITIONS_MAX = 64
AUDIT_ANNOTATIONS_MAX = 20
VALUE_EXPRESSION_BYTES = 5 * 1024
_FAILURE_POLICIES = ("Fail", "Ignore")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS = ("Audit", "Deny", "Warn")
_PATCH_TYPES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_REINVOCATION = ("IfNeeded", "Never")
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_RESERVED = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|"
    "void|while"
)


def default_policy(policy: JsonObject) -> None:
    spec = policy.setdefault("spec", {})
    fill(spec, "failurePolicy", "Fail")
    default_match_resources(spec.get("matchConstraints"))


def default_binding(binding: JsonObject) -> None:
    default_match_resources(binding.setdefault("spec", {}).get("matchResources"))


def validate_validating_policy(policy: JsonObject, context: Context) -> list[Cause]:
    """Return the causes of a bad ValidatingAdmissionPolicy."""
    spec = spec_of(policy)
    causes, expressions, scope = _validate_common(spec, context)
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        causes += [required("spec.validations", detail), required("spec.auditAnnotations", detail)]
    for index, validation in enumerate(validations):
        _check_validation(causes, validation, expressions, scope, f"spec.validations[{index}]")
    if len(annotations) > AUDIT_ANNOTATIONS_MAX:
        detail = f"must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations"
        causes.append(invalid_value("spec.auditAnnotations", annotations, detail))
    repeated = dict(find_duplicates(annotation.get("key") or "" for annotation in annotations))
    for index, annotation in enumerate(annotations):
        path = f"spec.auditAnnotations[{index}]"
        _check_annotation(causes, policy, annotation, expressions, scope, path)
        if index in repeated:
            causes.append(duplicate(f"{path}.key", repeated[index]))
    return causes


def validate_mutating_policy(policy: JsonObject, context: Context) -> list[Cause]:
    """Return the causes of a bad MutatingAdmissionPolicy."""
    spec = spec_of(policy)
    causes, expressions, scope = _validate_common(spec, context)
    rules = (spec.get("matchConstraints") or {}).get("resourceRules") or []
    check_operations(causes, rules, MUTATING_OPERATIONS, "spec.matchConstraints.resourceRules.operations")
    mutations = spec.get("mutations") or []
    if not mutations:
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(mutations):
        _check_mutation(causes, mutation, expressions, scope, f"spec.mutations[{index}]")
    reinvocation = spec.get("reinvocationPolicy")
    if not reinvocation:
        causes.append(required("spec.reinvocationPolicy"))
    elif reinvocation not in _REINVOCATION:
        causes.append(not_supported("spec.reinvocationPolicy", reinvocation, _REINVOCATION))
    return causes


def _validate_common(spec: JsonObject, context: Context) -> tuple[list[Cause], Expressions, Scope]:
    """Check what both sorts of policy have, and compile their variables."""
    from tiphys.api.admissionexpressions import Expressions, Scope

    causes: list[Cause] = []
    failure = spec.get("failurePolicy")
    if failure is None:
        causes.append(required("spec.failurePolicy"))
    elif failure not in _FAILURE_POLICIES:
        causes.append(not_supported("spec.failurePolicy", failure, _FAILURE_POLICIES))
    param_kind = spec.get("paramKind")
    if param_kind is not None:
        _check_param_kind(causes, param_kind, "spec.paramKind")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        causes.append(required("spec.matchConstraints"))
    else:
        check_match_resources(causes, constraints, "spec.matchConstraints")
        if not constraints.get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
    scope = Scope(params=param_kind is not None)
    conditions = spec.get("matchConditions") or []
    check_match_conditions(causes, conditions, Expressions(context.kubernetes_version), scope, "spec.matchConditions")
    expressions = Expressions(context.kubernetes_version)
    for index, variable in enumerate(spec.get("variables") or ()):
        _check_variable(causes, variable, expressions, scope, f"spec.variables[{index}]")
    return causes, expressions, scope


def _check_param_kind(causes: list[Cause], kind: JsonObject, path: str) -> None:
    api_version = kind.get("apiVersion") or ""
    group, slash, version = api_version.partition("/")
    if not slash:
        group, version = "", api_version
    if not api_version:
        causes.append(required(f"{path}.apiVersion"))
    elif "/" in version and api_version != "/":
        detail = f"unexpected GroupVersion string: {api_version}"
        causes.append(invalid_value(f"{path}.apiVersion", api_version, detail))
    else:
        complaints = names.validate_dns_subdomain(group) if group else []
        if complaints:
            causes.append(invalid_value(f"{path}.apiVersion", group, ",".join(complaints)))
        if not version:
            causes.append(invalid_value(f"{path}.apiVersion", api_version, "version must be specified"))
        elif complaints := names.validate_dns_1035_label(version):
            causes.append(invalid_value(f"{path}.apiVersion", version, ",".join(complaints)))
    name = kind.get("kind") or ""
    if not name:
        causes.append(required(f"{path}.kind"))
    elif complaints := names.validate_dns_1035_label(name.lower()):
        detail = "may have mixed case, but should otherwise match: " + ",".join(complaints)
        causes.append(invalid_value(f"{path}.kind", name, detail))


def check_match_conditions(
    causes: list[Cause], conditions: list[JsonObject], expressions: Expressions, scope: Scope, path: str
) -> None:
    """Append the causes of bad match conditions, of a policy or of a webhook."""
    from tiphys.api.admissionexpressions import CONDITION

    if len(conditions) > MATCH_CONDITIONS_MAX:
        causes.append(too_many(path, len(conditions), MATCH_CONDITIONS_MAX))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where = f"{path}[{index}]"
        text = (condition.get("expression") or "").strip()
        if not text:
            causes.append(required(f"{where}.expression"))
        else:
            _check_compiled(causes, expressions.compile(text, scope, CONDITION), f"{where}.expression")
        name = condition.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
            continue
        check_text(causes, f"{where}.name", name, names.validate_qualified_name)
        if name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)


def _check_compiled(causes: list[Cause], compiled: Compiled, path: str, text: str = "") -> None:
    if compiled.error:
        causes.append(invalid_value(path, text or compiled.text, compiled.error))


def _check_variable(
    causes: list[Cause], variable: JsonObject, expressions: Expressions, scope: Scope, path: str
) -> None:
    name, text = variable.get("name") or "", variable.get("expression") or ""
    if not name.strip():
        causes.append(required(f"{path}.name", "name is not specified"))
    elif not _IDENTIFIER.fullmatch(name) or _RESERVED.fullmatch(name):
        causes.append(invalid_value(f"{path}.name", name, "name is not a valid CEL identifier"))
    if not text.strip():
        causes.append(required(f"{path}.expression", "expression is not specified"))
    else:
        _check_compiled(causes, expressions.declare(name, text, scope), f"{path}.expression")


def _check_validation(
    causes: list[Cause], validation: JsonObject, expressions: Expressions, scope: Scope, path: str
) -> None:
    from tiphys.api.admissionexpressions import CONDITION, MESSAGE

    text: str = validation.get("expression") or ""
    if not text.strip():
        causes.append(required(f"{path}.expression", "expression is not specified"))
    else:
        _check_compiled(causes, expressions.compile(text, scope, CONDITION), f"{path}.expression")
    text = validation.get("messageExpression") or ""
    if text.strip():
        compiled = expressions.compile(text, scope._replace(authorizer=False), MESSAGE)
        _check_compiled(causes, compiled, f"{path}.messageExpression")
    elif text:
        causes.append(invalid_value(f"{path}.messageExpression", text, "must be non-empty if specified"))
    message: str = validation.get("message") or ""
    if message and not message.strip():
        causes.append(invalid_value(f"{path}.message", message, "message must be non-empty if specified"))
    elif "\n" in message.strip() or "\r" in message.strip():
        causes.append(invalid_value(f"{path}.message", message, "message must not contain line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        causes.append(not_supported(f"{path}.reason", reason, _REASONS))


def _check_annotation(
    causes: list[Cause], policy: JsonObject, annotation: JsonObject, expressions: Expressions, scope: Scope, path: str
) -> None:
    from tiphys.api.admissionexpressions import ANNOTATION

    name, key = (policy.get("metadata") or {}).get("name") or "", annotation.get("key") or ""
    if name:
        check_text(causes, f"{path}.key", f"{name}/{key}", names.validate_qualified_name)
    else:
        causes.append(invalid_value(f"{path}.key", key, "requires metadata.name be non-empty"))
    written: str = annotation.get("valueExpression") or ""
    text = written.strip()
    if not text:
        causes.append(required(f"{path}.valueExpression", "valueExpression is not specified"))
    elif len(text.encode()) > VALUE_EXPRESSION_BYTES:
        causes.append(required(f"{path}.valueExpression", f"must not exceed {VALUE_EXPRESSION_BYTES} bytes in length"))
    else:
        compiled = expressions.compile(text, scope, ANNOTATION)
        _check_compiled(causes, compiled, f"{path}.valueExpression", written)


def _check_mutation(
    causes: list[Cause], mutation: JsonObject, expressions: Expressions, scope: Scope, path: str
) -> None:
    from tiphys.api.admissionexpressions import patch_results

    patch_type = mutation.get("patchType") or ""
    if not patch_type:
        causes.append(required(f"{path}.patchType"))
        return
    if patch_type not in _PATCH_TYPES:
        causes.append(not_supported(f"{path}.patchType", patch_type, sorted(_PATCH_TYPES)))
        return
    for name, field in _PATCH_TYPES.items():
        patch: Any = mutation.get(field)
        if name != patch_type:
            if patch is not None:
                detail = f"must not be specified when patchType is {patch_type}"
                causes.append(invalid_value(f"{path}.{field}", f"{{{field}}}", detail))
        elif patch is None:
            causes.append(required(f"{path}.{field}", f"must be specified when patchType is {patch_type}"))
        else:
            text = (patch.get("expression") or "").strip()
            if not text:
                causes.append(required(f"{path}.{field}.expression"))
            else:
                compiled = expressions.compile(text, scope._replace(patches=True), patch_results(patch_type))
                _check_compiled(causes, compiled, f"{path}.{field}.expression")


def validate_validating_binding(binding: JsonObject, context: Context) -> list[Cause]:
    """Return the causes of a bad ValidatingAdmissionPolicyBinding."""
    causes = _validate_binding(binding)
    actions = spec_of(binding).get("validationActions") or []
    repeated = dict(find_duplicates(actions))
    path = "spec.validationActions"
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            causes.append(not_supported(f"{path}[{index}]", action, _ACTIONS))
        if index in repeated:
            causes.append(duplicate(f"{path}[{index}]", action))
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        causes.append(invalid_value(path, actions, detail))
    if not actions:
        causes.append(required(path, "at least one validation action is required"))
    return causes


def validate_mutating_binding(binding: JsonObject, context: Context) -> list[Cause]:
    """Return the causes of a bad MutatingAdmissionPolicyBinding."""
    causes = _validate_binding(binding)
    rules = (spec_of(binding).get("matchResources") or {}).get("resourceRules") or []
    check_operations(causes, rules, MUTATING_OPERATIONS, "spec.matchResources.resourceRules.operations")
    return causes


def _validate_binding(binding: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(binding)
    policy = spec.get("policyName") or ""
    if not policy:
        causes.append(required("spec.policyName"))
    else:
        check_text(causes, "spec.policyName", policy, names.validate_dns_subdomain)
    check_param_ref(causes, spec.get("paramRef"), "spec.paramRef")
    check_match_resources(causes, spec.get("matchResources"), "spec.matchResources")
    return causes


def validate_policy_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Return the causes of a bad status of a ValidatingAdmissionPolicy."""
    causes: list[Cause] = []
    checking = (new.get("status") or {}).get("typeChecking") or {}
    for index, warning in enumerate(checking.get("expressionWarnings") or ()):
        path = f"status.typeChecking.expressionWarnings[{index}]"
        if not warning.get("warning"):
            causes.append(required(f"{path}.warning"))
        if not (warning.get("fieldRef") or "").strip():
            causes.append(required(f"{path}.fieldRef"))
    return causes


VALIDATING_POLICY = Strategy(
    default=default_policy,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=prepare_status_update,
    validate=validate_validating_policy,
    validate_status_update=validate_policy_status,
    generation=True,
    allow_unconditional_update=False,
)
MUTATING_POLICY = Strategy(
    default=default_policy, validate=validate_mutating_policy, generation=True, allow_unconditional_update=False
)
VALIDATING_BINDING = Strategy(
    default=default_binding, validate=validate_validating_binding, generation=True, allow_unconditional_update=False
)
MUTATING_BINDING = Strategy(
    default=default_binding, validate=validate_mutating_binding, generation=True, allow_unconditional_update=False
)
