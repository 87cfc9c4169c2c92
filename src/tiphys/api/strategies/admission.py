"""Webhook configurations.

Spec: Kubernetes documentation, "Dynamic Admission Control"; API reference, admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.admissionrules import check_rule
from tiphys.api.strategies.fields import check_text, fill
from tiphys.base.errors import Cause

_FAILURE = ("Fail", "Ignore")
_MATCH = ("Equivalent", "Exact")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REINVOCATION = ("IfNeeded", "Never")
_REVIEW_VERSIONS = ("v1", "v1beta1")


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
        check_rule(causes, rule, f"{path}.rules[{index}]")
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
