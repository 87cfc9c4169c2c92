"""Validation of what the kubelet calls on a container: probes and lifecycle hooks.

Spec: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes", "Container Lifecycle Hooks".
"""

from __future__ import annotations

from tiphys.api import names
from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.strategies.fields import NOT_NEGATIVE, POSITIVE, check_port, check_port_or_name, check_text
from tiphys.base.errors import Cause

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_SCHEMES = ("HTTP", "HTTPS")
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def check_lifecycle(causes: list[Cause], lifecycle: JsonObject, grace_s: int, path: str) -> None:
    for hook in ("postStart", "preStop"):
        handler = lifecycle.get(hook)
        if handler is not None:
            check_handler(causes, handler, grace_s, f"{path}.{hook}")


def check_probes(causes: list[Cause], container: JsonObject, grace_s: int, path: str) -> None:
    """Check the three probes of a container, as far as they are there."""
    probe = container.get("livenessProbe")
    if probe is not None:
        probe_path = f"{path}.livenessProbe"
        _check_probe(causes, probe, grace_s, probe_path)
        _check_single_success(causes, probe, probe_path)
    probe = container.get("readinessProbe")
    if probe is not None:
        probe_path = f"{path}.readinessProbe"
        _check_probe(causes, probe, grace_s, probe_path)
        if probe.get("terminationGracePeriodSeconds") is not None:
            causes.append(
                invalid_value(
                    f"{probe_path}.terminationGracePeriodSeconds",
                    probe["terminationGracePeriodSeconds"],
                    "must not be set for readinessProbes",
                )
            )
    probe = container.get("startupProbe")
    if probe is not None:
        probe_path = f"{path}.startupProbe"
        _check_probe(causes, probe, grace_s, probe_path)
        _check_single_success(causes, probe, probe_path)


def _check_single_success(causes: list[Cause], probe: JsonObject, path: str) -> None:
    threshold = probe.get("successThreshold", 1)
    if threshold != 1:
        causes.append(invalid_value(f"{path}.successThreshold", threshold, "must be 1"))


def _check_probe(causes: list[Cause], probe: JsonObject, grace_s: int, path: str) -> None:
    check_handler(causes, probe, grace_s, path)
    for field in _COUNTS:
        if probe.get(field, 0) < 0:
            causes.append(invalid_value(f"{path}.{field}", probe[field], NOT_NEGATIVE))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        causes.append(invalid_value(f"{path}.terminationGracePeriodSeconds", grace, POSITIVE))


def check_handler(causes: list[Cause], handler: JsonObject, grace_s: int, path: str) -> None:
    """Check that a probe or hook has exactly one action, and the action."""
    kinds = [kind for kind in _HANDLERS if handler.get(kind) is not None]
    if not kinds:
        causes.append(required(path, "must specify a handler type"))
        return
    kind = kinds[0]
    action = handler[kind]
    action_path = f"{path}.{kind}"
    if kind == "exec":
        if not action.get("command"):
            causes.append(required(f"{action_path}.command"))
    elif kind == "httpGet":
        _check_http_get(causes, action, action_path)
    elif kind == "tcpSocket":
        check_port_or_name(causes, f"{action_path}.port", action.get("port"))
    elif kind == "grpc":
        check_port(causes, f"{action_path}.port", action.get("port") or 0)
    else:
        _check_sleep(causes, action, grace_s, action_path)
    for other in kinds[1:]:
        causes.append(forbidden(f"{path}.{other}", "may not specify more than 1 handler type"))


def _check_http_get(causes: list[Cause], action: JsonObject, path: str) -> None:
    if not action.get("path"):
        causes.append(required(f"{path}.path"))
    check_port_or_name(causes, f"{path}.port", action.get("port"))
    scheme = action.get("scheme", "")
    if scheme not in _SCHEMES:
        causes.append(not_supported(f"{path}.scheme", scheme, _SCHEMES))
    for header in action.get("httpHeaders") or ():
        check_text(causes, f"{path}.httpHeaders", header.get("name", ""), names.validate_http_header_name)


def _check_sleep(causes: list[Cause], action: JsonObject, grace_s: int, path: str) -> None:
    seconds = action.get("seconds") or 0
    if not 0 <= seconds <= grace_s:
        causes.append(
            invalid_value(
                path,
                seconds,
                f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})",
            )
        )
