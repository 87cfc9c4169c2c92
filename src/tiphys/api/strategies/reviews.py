"""Questions that are answered and not stored: who am I, may I.

Spec: Kubernetes API reference, authentication.k8s.io/v1 and authorization.k8s.io/v1.
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import spec_of
from tiphys.base.errors import Cause

_ONE = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


def _check_attributes(causes: list[Cause], spec: JsonObject) -> None:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        causes.append(
            invalid_value(
                "spec.nonResourceAttributes", other, "cannot be specified in combination with resourceAttributes"
            )
        )
    elif resource is None and other is None:
        causes.append(invalid_value("spec.resourceAttributes", None, _ONE))


def _check_metadata(causes: list[Cause], review: JsonObject, *allowed: str) -> None:
    """A question has no name: nothing is kept of it."""
    metadata = review.get("metadata") or {}
    if any(value and field not in ("managedFields", *allowed) for field, value in metadata.items()):
        detail = "must be empty except for namespace" if allowed else "must be empty"
        causes.append(invalid_value("metadata", metadata, detail))


def _check_subject(causes: list[Cause], spec: JsonObject) -> None:
    if not spec.get("user") and not spec.get("groups"):
        causes.append(
            invalid_value("spec.user", spec.get("user") or "", "at least one of user or group must be specified")
        )


def validate_access_review(review: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(review)
    _check_attributes(causes, spec)
    _check_subject(causes, spec)
    _check_metadata(causes, review)
    return causes


def validate_self_access_review(review: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_attributes(causes, spec_of(review))
    _check_metadata(causes, review)
    return causes


def validate_local_access_review(review: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(review)
    _check_attributes(causes, spec)
    _check_subject(causes, spec)
    _check_metadata(causes, review, "namespace")
    namespace = (review.get("metadata") or {}).get("namespace") or ""
    attributes = spec.get("resourceAttributes") or {}
    if spec.get("resourceAttributes") is not None and attributes.get("namespace") != namespace:
        causes.append(
            invalid_value(
                "spec.resourceAttributes.namespace",
                attributes.get("namespace") or "",
                "must match metadata.namespace",
            )
        )
    if spec.get("nonResourceAttributes") is not None:
        causes.append(
            invalid_value(
                "spec.nonResourceAttributes", spec["nonResourceAttributes"], "disallowed on this kind of request"
            )
        )
    return causes


SUBJECT_ACCESS_REVIEW = Strategy(validate=validate_access_review)
SELF_SUBJECT_ACCESS_REVIEW = Strategy(validate=validate_self_access_review)
LOCAL_SUBJECT_ACCESS_REVIEW = Strategy(validate=validate_local_access_review)
