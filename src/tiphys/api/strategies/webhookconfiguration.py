"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration: defaults and validation, match conditions included.

A rule that came later does not hold an object up that broke it before: side effects, review versions, repeated names and
match conditions are checked by an update only where the old object kept it.

Spec: Kubernetes documentation, "Dynamic Admission Control"; API reference, admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.admissionrules import check_rule
from tiphys.api.strategies.clientconfig import REVIEW_VERSIONS, check_client_config, check_review_versions
from tiphys.api.strategies.fields import fill
from tiphys.base.errors import Cause

_FAILURE_POLICIES = ("Fail", "Ignore")
_MATCH_POLICIES = ("Equivalent", "Exact")
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_SIDE_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")
_REINVOCATION = ("IfNeeded", "Never")
_SELECTORS = ("namespaceSelector", "objectSelector")
TIMEOUT_MAX_S = 30


@dataclass(frozen=True, slots=True)
class _Options:
    """What is asked of a configuration; an update asks less where the old object was already so."""

    unique_names: bool = True
    no_side_effects: bool = True
    recognized_versions: bool = True
    match_conditions: bool = True


def default_webhooks(configuration: JsonObject) -> None:
    for webhook in configuration.get("webhooks") or ():
        fill(webhook, "failurePolicy", "Fail")
        fill(webhook, "matchPolicy", "Equivalent")
        for field in _SELECTORS:
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
    """Check a new configuration; an update is `validate_webhooks_update`'s."""
    return _validate(_webhooks(configuration), context, _Options()) if context.creating else []


def validate_webhooks_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    before, after = _webhooks(old), _webhooks(new)
    known = [webhook.get("name") for webhook in before]
    unchanged = len(before) == len(after) and all(
        _conditions(one) == _conditions(other) for one, other in zip(before, after, strict=True)
    )
    options = _Options(
        unique_names=len(set(known)) == len(known),
        no_side_effects=all(webhook.get("sideEffects") in _NO_SIDE_EFFECTS for webhook in before),
        recognized_versions=all(_recognizes_version(webhook) for webhook in before),
        match_conditions=not unchanged,
    )
    return _validate(after, context, options)


def _webhooks(configuration: JsonObject) -> Sequence[JsonObject]:
    return configuration.get("webhooks") or ()


def _conditions(webhook: JsonObject) -> list[JsonObject]:
    return webhook.get("matchConditions") or []


def _recognizes_version(webhook: JsonObject) -> bool:
    return bool(set(webhook.get("admissionReviewVersions") or ()) & set(REVIEW_VERSIONS))


def _validate(webhooks: Sequence[JsonObject], context: Context, options: _Options) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, webhook in enumerate(webhooks):
        path = f"webhooks[{index}]"
        _check_webhook(causes, webhook, path, context, options)
        versions, where = webhook.get("admissionReviewVersions") or (), f"{path}.admissionReviewVersions"
        if versions:
            check_review_versions(causes, versions, where, recognized=options.recognized_versions)
        else:
            causes.append(required(where, f"must specify one of {', '.join(REVIEW_VERSIONS)}"))
        name = webhook.get("name") or ""
        if options.unique_names and name:
            if name in seen:
                causes.append(duplicate(f"{path}.name", name))
            seen.add(name)
    return causes


def _check_webhook(causes: list[Cause], webhook: JsonObject, path: str, context: Context, options: _Options) -> None:
    _check_qualified(causes, webhook.get("name") or "", f"{path}.name")
    for index, rule in enumerate(webhook.get("rules") or ()):
        check_rule(causes, rule, f"{path}.rules[{index}]")
    _check_optional(causes, webhook, "failurePolicy", _FAILURE_POLICIES, path)
    _check_optional(causes, webhook, "matchPolicy", _MATCH_POLICIES, path)
    allowed = _NO_SIDE_EFFECTS if options.no_side_effects else _SIDE_EFFECTS
    if webhook.get("sideEffects") is None:
        causes.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(allowed)}"))
    _check_optional(causes, webhook, "sideEffects", allowed, path)
    timeout_s = webhook.get("timeoutSeconds")
    if timeout_s is not None and not 1 <= timeout_s <= TIMEOUT_MAX_S:
        detail = f"the timeout value must be between 1 and {TIMEOUT_MAX_S} seconds"
        causes.append(invalid_value(f"{path}.timeoutSeconds", timeout_s, detail))
    for field in _SELECTORS:
        causes += validate_label_selector(webhook.get(field), f"{path}.{field}")
    _check_optional(causes, webhook, "reinvocationPolicy", _REINVOCATION, path)
    check_client_config(causes, webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    if options.match_conditions and _conditions(webhook):
        _check_conditions(causes, webhook, path, context)


def _check_conditions(causes: list[Cause], webhook: JsonObject, path: str, context: Context) -> None:
    from tiphys.api.admissionexpressions import Expressions, Scope
    from tiphys.api.strategies.admissionpolicy import check_match_conditions

    expressions = Expressions(context.kubernetes_version)
    check_match_conditions(causes, _conditions(webhook), expressions, Scope(), f"{path}.matchConditions")


def _check_optional(causes: list[Cause], holder: JsonObject, field: str, allowed: tuple[str, ...], path: str) -> None:
    value = holder.get(field)
    if value is not None and value not in allowed:
        causes.append(not_supported(f"{path}.{field}", value, allowed))


def _check_qualified(causes: list[Cause], name: str, path: str) -> None:
    """A name with at least three segments, such as `a.example.com`."""
    if not name:
        causes.append(required(path))
        return
    complaints = names.validate_dns_subdomain(name)
    if complaints:
        causes.append(invalid_value(path, name, ",".join(complaints)))
    elif len(name.split(".")) < 3:
        causes.append(invalid_value(path, name, "should be a domain with at least three segments separated by dots"))


VALIDATING_WEBHOOKS = Strategy(
    default=default_webhooks,
    validate=validate_webhooks,
    validate_update=validate_webhooks_update,
    generation=True,
    allow_unconditional_update=False,
)
MUTATING_WEBHOOKS = Strategy(
    default=default_mutating,
    validate=validate_webhooks,
    validate_update=validate_webhooks_update,
    generation=True,
    allow_unconditional_update=False,
)
