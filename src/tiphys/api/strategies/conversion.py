"""How a CustomResourceDefinition says that its versions are converted: `spec.conversion`.

Read by extension.py. Paths are those that upstream tells, whose inner form of the definition has other names than v1.

Spec: Kubernetes documentation, "Versions in CustomResourceDefinitions", "Webhook conversion".
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from tiphys.api import names
from tiphys.api.causes import forbidden, invalid_value, required
from tiphys.api.kind import JsonObject
from tiphys.api.strategies.fields import check_enum
from tiphys.base.errors import Cause

_PATH = "spec.conversion"
_CONFIG = f"{_PATH}.webhookClientConfig"
_STRATEGIES = ("None", "Webhook")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_FORM = "; desired format: https://host[/path]"


def check_conversion(causes: list[Cause], conversion: JsonObject) -> None:
    """Add the causes of a conversion that cannot work."""
    strategy = conversion.get("strategy") or ""
    webhook: JsonObject = conversion.get("webhook") or {}
    config: JsonObject | None = webhook.get("clientConfig")
    versions: Sequence[str] = webhook.get("conversionReviewVersions") or ()
    check_enum(causes, f"{_PATH}.strategy", strategy, _STRATEGIES)
    if strategy == "Webhook":
        if config is None:
            causes.append(required(_CONFIG, "required when strategy is set to Webhook"))
        else:
            _check_client_config(causes, config)
        _check_review_versions(causes, versions)
        return
    detail = "should not be set when strategy is not set to Webhook"
    if config is not None:
        causes.append(forbidden(_CONFIG, detail))
    if versions:
        causes.append(forbidden(f"{_PATH}.conversionReviewVersions", detail))


def _check_review_versions(causes: list[Cause], versions: Sequence[str]) -> None:
    path = f"{_PATH}.conversionReviewVersions"
    if not versions:
        causes.append(required(path))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(invalid_value(f"{path}[{index}]", version, "duplicate version"))
            continue
        for complaint in names.validate_dns_1035_label(version):
            causes.append(invalid_value(f"{path}[{index}]", version, complaint))
    if not set(versions) & set(_REVIEW_VERSIONS):
        detail = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        causes.append(invalid_value(path, list(versions), detail))


def _check_client_config(causes: list[Cause], config: JsonObject) -> None:
    url: str | None = config.get("url")
    service: JsonObject | None = config.get("service")
    if (url is None) == (service is None):
        causes.append(required(_CONFIG, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(causes, url)
    elif service is not None:
        _check_service(causes, service)


def _check_url(causes: list[Cause], url: str) -> None:
    path = f"{_CONFIG}.url"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        causes.append(required(path, f"url must be a valid URL: {error}{_FORM}"))
        return
    if parts.scheme != "https":
        causes.append(invalid_value(path, parts.scheme, "'https' is the only allowed URL scheme" + _FORM))
    host = parts.netloc.rpartition("@")[2]
    if not host:
        causes.append(invalid_value(path, host, "host must be specified" + _FORM))
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        causes.append(invalid_value(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        causes.append(invalid_value(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        causes.append(invalid_value(path, parts.query, "query parameters are not permitted in the URL"))


def _check_service(causes: list[Cause], service: JsonObject) -> None:
    path = f"{_CONFIG}.service"
    for field in ("name", "namespace"):
        if not service.get(field):
            causes.append(required(f"{path}.{field}", f"service {field} is required"))
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        causes.append(invalid_value(f"{path}.port", port, "port is not valid: " + names.range_message(1, 65535)))
    route = service.get("path")
    if route is not None:
        _check_route(causes, route, f"{path}.path")


def _check_route(causes: list[Cause], route: str, path: str) -> None:
    if route in ("", "/"):
        return
    if route == "//":
        causes.append(invalid_value(path, route, "segment[0] may not be empty"))
        return
    if not route.startswith("/"):
        causes.append(invalid_value(path, route, "must start with a '/'"))
    for index, step in enumerate(route[1:].removesuffix("/").split("/")):
        if not step:
            causes.append(invalid_value(path, route, f"segment[{index}] may not be empty"))
            continue
        for complaint in names.validate_dns_subdomain(step):
            causes.append(invalid_value(path, route, f"segment[{index}]: {complaint}"))
