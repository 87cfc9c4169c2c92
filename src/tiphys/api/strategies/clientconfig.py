"""How a webhook is reached, as configurations and definitions say it: a URL or a Service, and review versions.

The functions get the path of what they check: `webhooks[0].clientConfig`, `spec.conversion.webhookClientConfig`.

Spec: API reference, WebhookClientConfig v1 admissionregistration.k8s.io and apiextensions.k8s.io.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from tiphys.api import names
from tiphys.api.causes import go_quote, invalid_value, required
from tiphys.api.kind import JsonObject
from tiphys.base.errors import Cause

REVIEW_VERSIONS = ("v1", "v1beta1")
_FORM = "; desired format: https://host[/path]"


def check_client_config(causes: list[Cause], config: JsonObject, path: str) -> None:
    """Append the causes of a clientConfig that leads nowhere."""
    url: str | None = config.get("url")
    service: JsonObject | None = config.get("service")
    if (url is None) == (service is None):
        causes.append(required(path, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(causes, url, f"{path}.url")
    elif service is not None:
        _check_service(causes, service, f"{path}.service")


def check_review_versions(causes: list[Cause], versions: Sequence[str], path: str, *, recognized: bool = True) -> None:
    """Append the causes of review versions, of which there must be some. `recognized`: one of them is known here."""
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(invalid_value(f"{path}[{index}]", version, "duplicate version"))
            continue
        for complaint in names.validate_dns_1035_label(version):
            causes.append(invalid_value(f"{path}[{index}]", version, complaint))
    if recognized and not set(versions) & set(REVIEW_VERSIONS):
        detail = f"must include at least one of {', '.join(REVIEW_VERSIONS)}"
        causes.append(invalid_value(path, list(versions), detail))


def _check_url(causes: list[Cause], url: str, path: str) -> None:
    try:
        parts = urlsplit(url)
        problem = _port_problem(parts.netloc.rpartition("@")[2])
    except ValueError as error:
        problem = str(error)
    if problem:
        causes.append(required(path, f"url must be a valid URL: parse {go_quote(url)}: {problem}{_FORM}"))
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


def _port_problem(host: str) -> str:
    port = host.rpartition("]")[2].partition(":")[2]
    return f'invalid port ":{port}" after host' if port and not (port.isascii() and port.isdigit()) else ""


def _check_service(causes: list[Cause], service: JsonObject, path: str) -> None:
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
