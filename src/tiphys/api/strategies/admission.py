"""Webhook configurations and admission policies.

Spec: Kubernetes documentation, "Dynamic Admission Control", "Validating Admission Policy"; API reference,
admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_enum, check_text, clear_status, fill, keep_spec, keep_status, spec_of
from tiphys.base.errors import Cause

_FAILURE = ("Fail", "Ignore")
_MATCH = ("Equivalent", "Exact")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_REINVOCATION = ("IfNeeded", "Never")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_ACTIONS = ("Audit", "Deny", "Warn")


def default_webhooks(configuration: JsonObject) -> None:
    for webhook in configuration.get("webhooks") or ():
        fill(webhook, "failurePolicy", "Fail")
        fill(webhook, "matchPolicy", "Equivalent")
        for field in ("namespaceSelector", "objectSelector"):
            if webhook.get(field) is None:
                webhook[field] = {}
        fill(webhook, "timeoutSeconds", 10)
        service = (webhook.get("clientConfig") or {}).get("service")
        if service is not None:
            fill(service, "port", 443)
        for rule in webhook.get("rules") or ():
            fill(rule, "scope", "*")


def default_mutating(configuration: JsonObject) -> None:
    default_webhooks(configuration)
    for webhook in configuration.get("webhooks") or ():
        fill(webhook, "reinvocationPolicy", "Never")


def validate_webhooks(configuration: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, webhook in enumerate(configuration.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = webhook.get("name") or ""
        _check_webhook(causes, webhook, name, path)
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
    return causes


def _check_webhook(causes: list[Cause], webhook: JsonObject, name: str, path: str) -> None:
    _check_qualified(causes, name, f"{path}.name")
    for index, rule in enumerate(webhook.get("rules") or ()):
        _check_rule(causes, rule, f"{path}.rules[{index}]")
    _check_optional(causes, webhook, "failurePolicy", _FAILURE, path)
    _check_optional(causes, webhook, "matchPolicy", _MATCH, path)
    effects = webhook.get("sideEffects")
    if effects is None:
        causes.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    elif effects not in _SIDE_EFFECTS:
        causes.append(not_supported(f"{path}.sideEffects", effects, _SIDE_EFFECTS))
    timeout_s = webhook.get("timeoutSeconds")
    if timeout_s is not None and not 1 <= timeout_s <= 30:
        causes.append(
            invalid_value(f"{path}.timeoutSeconds", timeout_s, "the timeout value must be between 1 and 30 seconds")
        )
    for field in ("namespaceSelector", "objectSelector"):
        causes += validate_label_selector(webhook.get(field), f"{path}.{field}")
    _check_client_config(causes, webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    versions = webhook.get("admissionReviewVersions") or []
    if not versions:
        detail = "must specify one of " + ", ".join(_REVIEW_VERSIONS)
        causes.append(required(f"{path}.admissionReviewVersions", detail))
    elif not set(versions) & set(_REVIEW_VERSIONS):
        detail = "must include at least one of " + ", ".join(_REVIEW_VERSIONS)
        causes.append(invalid_value(f"{path}.admissionReviewVersions", versions, detail))
    _check_optional(causes, webhook, "reinvocationPolicy", _REINVOCATION, path)


def _check_optional(causes: list[Cause], holder: JsonObject, field: str, allowed: tuple[str, ...], path: str) -> None:
    value = holder.get(field)
    if value is not None and value not in allowed:
        causes.append(not_supported(f"{path}.{field}", value, allowed))


def _check_qualified(causes: list[Cause], name: str, path: str) -> None:
    """A name with at least three segments, such as `a.example.com`."""
    if not name:
        causes.append(required(path))
        return
    check_text(causes, path, name, names.validate_dns_subdomain)
    if len(name.split(".")) < 3:
        causes.append(invalid_value(path, name, "should be a domain with at least three segments separated by dots"))


def _check_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    for field in ("apiGroups", "apiVersions", "resources"):
        values = rule.get(field) or []
        if not values:
            causes.append(required(f"{path}.{field}"))
        elif "*" in values and len(values) > 1 and field != "resources":
            detail = "if '*' is present, must not specify other " + (
                "API groups" if field == "apiGroups" else "API versions"
            )
            causes.append(invalid_value(f"{path}.{field}", values, detail))
    operations = rule.get("operations") or []
    if not operations:
        causes.append(required(f"{path}.operations"))
    elif "*" in operations and len(operations) > 1:
        detail = "if '*' is present, must not specify other operations"
        causes.append(invalid_value(f"{path}.operations", operations, detail))
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            causes.append(not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        causes.append(not_supported(f"{path}.scope", scope, _SCOPES))


def _check_client_config(causes: list[Cause], config: JsonObject, path: str) -> None:
    url: str | None = config.get("url")
    service: JsonObject | None = config.get("service")
    if (url is None) == (service is None):
        causes.append(required(path, "exactly one of url or service is required"))
        return
    if url is not None:
        if not url.startswith("https://"):
            scheme = url.partition(":")[0] if "://" in url else ""
            detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
            causes.append(invalid_value(f"{path}.url", scheme, detail))
        return
    assert service is not None
    for field in ("name", "namespace"):
        if not service.get(field):
            causes.append(required(f"{path}.service.{field}", f"service {field} is required"))
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        causes.append(
            invalid_value(f"{path}.service.port", port, "port is not valid: " + names.range_message(1, 65535))
        )


VALIDATING_WEBHOOKS = Strategy(
    default=default_webhooks, validate=validate_webhooks, generation=True, allow_unconditional_update=False
)
MUTATING_WEBHOOKS = Strategy(
    default=default_mutating, validate=validate_webhooks, generation=True, allow_unconditional_update=False
)


def default_policy(policy: JsonObject) -> None:
    spec = policy.setdefault("spec", {})
    fill(spec, "failurePolicy", "Fail")
    _default_match(spec.get("matchConstraints"))


def default_binding(binding: JsonObject) -> None:
    spec = binding.setdefault("spec", {})
    _default_match(spec.get("matchResources"))


def _default_match(resources: JsonObject | None) -> None:
    if resources is None:
        return
    fill(resources, "matchPolicy", "Equivalent")
    for field in ("namespaceSelector", "objectSelector"):
        if resources.get(field) is None:
            resources[field] = {}
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in resources.get(field) or ():
            fill(rule, "scope", "*")


def validate_policy(policy: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(policy)
    _check_optional(causes, spec, "failurePolicy", _FAILURE, "spec")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        causes.append(required("spec.matchConstraints"))
    else:
        rules: list[Any] = constraints.get("resourceRules") or []
        if not rules:
            causes.append(required("spec.matchConstraints.resourceRules"))
        for index, rule in enumerate(rules):
            _check_rule(causes, rule, f"spec.matchConstraints.resourceRules[{index}]")
    if policy.get("kind") == "ValidatingAdmissionPolicy":
        if not spec.get("validations") and not spec.get("auditAnnotations"):
            detail = "validations or auditAnnotations must be non-empty"
            causes.append(required("spec.validations", f"{detail}"))
        for index, validation in enumerate(spec.get("validations") or ()):
            if not (validation.get("expression") or "").strip():
                causes.append(required(f"spec.validations[{index}].expression", "expression is not specified"))
    return causes


def validate_policy_binding(binding: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(binding)
    if not spec.get("policyName"):
        causes.append(required("spec.policyName"))
    if binding.get("kind") == "ValidatingAdmissionPolicyBinding":
        actions = spec.get("validationActions") or []
        if not actions:
            causes.append(required("spec.validationActions", "at least one validation action is required"))
        for index, action in enumerate(actions):
            check_enum(causes, f"spec.validationActions[{index}]", action, _ACTIONS)
        if "Deny" in actions and "Warn" in actions:
            detail = (
                "must not contain both Deny and Warn (repeating the same validation failure information in the API "
                "response and headers serves no purpose)"
            )
            causes.append(invalid_value("spec.validationActions", actions, detail))
    return causes


VALIDATING_POLICY = Strategy(
    default=default_policy,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_policy,
    generation=True,
    allow_unconditional_update=False,
)
MUTATING_POLICY = Strategy(
    default=default_policy, validate=validate_policy, generation=True, allow_unconditional_update=False
)
POLICY_BINDING = Strategy(
    default=default_binding, validate=validate_policy_binding, generation=True, allow_unconditional_update=False
)
