"""Events, old and new: the core group and events.k8s.io store the same objects.

Spec: Kubernetes API reference, core/v1 and events.k8s.io/v1 Event.
"""

from __future__ import annotations

from tiphys.api.causes import immutable, invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_qualified_name
from tiphys.api.strategies.fields import check_enum, check_text
from tiphys.base.errors import Cause

_FIXED = ("involvedObject", "regarding", "reason", "type", "eventTime", "action", "related")


def default(event: JsonObject) -> None:
    """The core form always tells its times and its source, null and empty where unknown."""
    if event.get("apiVersion") == "v1":
        for field in ("firstTimestamp", "lastTimestamp"):
            event.setdefault(field, None)
        event.setdefault("source", {})
        event.setdefault("reportingComponent", "")
        event.setdefault("reportingInstance", "")
        event.setdefault("eventTime", None)


def validate(event: JsonObject, context: Context) -> list[Cause]:
    """Check an event; new-style ones have an eventTime and must be complete."""
    causes: list[Cause] = []
    namespace = (event.get("metadata") or {}).get("namespace") or ""
    subject = event.get("involvedObject") or event.get("regarding") or {}
    home = subject.get("namespace") or ""
    if (home and home != namespace) or (not home and namespace not in ("", "default", "kube-system")):
        causes.append(invalid_value("involvedObject.namespace", home, "does not match event.namespace"))
    if event.get("eventTime"):
        _check_complete(causes, event)
    return causes


def _check_complete(causes: list[Cause], event: JsonObject) -> None:
    controller = event.get("reportingComponent") or event.get("reportingController") or ""
    if not controller:
        causes.append(required("reportingController"))
    else:
        check_text(causes, "reportingController", controller, validate_qualified_name)
    for field in ("reportingInstance", "action", "reason"):
        value = event.get(field) or ""
        if not value:
            causes.append(required(field))
        elif len(value) > 128:
            causes.append(invalid_value(field, "", "can have at most 128 characters"))
    message = event.get("message") or event.get("note") or ""
    if len(message) > 1024:
        causes.append(invalid_value("message", "", "can have at most 1024 characters"))
    check_enum(causes, "type", event.get("type"), ("Normal", "Warning"))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """A new-style event only counts up."""
    if not new.get("eventTime") or old.get("apiVersion") != new.get("apiVersion"):
        return []
    return [immutable(field, new.get(field)) for field in _FIXED if new.get(field) != old.get(field)]


EVENT = Strategy(default=default, validate=validate, validate_update=validate_update, allow_create_on_update=True)
