"""AdmissionReviews: the question that a webhook is asked, and what its answer may be.

Pure: a write's attributes in, bytes out; a decoded answer in, an `Outcome` or a `BadReview` out. v1 is strict; of
v1beta1 upstream checks neither kind nor uid.

Spec: API reference, AdmissionReview v1 admission.k8s.io; Kubernetes documentation, "Dynamic Admission Control" (webhook
request and response).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.admission import Attributes
from tiphys.base.errors import ApiError, TiphysError, bad_request

GROUP = "admission.k8s.io"
_SYSTEM_METADATA = ("uid", "creationTimestamp", "generation", "selfLink")


class BadReview(TiphysError):
    """An answer that is no valid review. The text is what follows `received invalid webhook response: `."""


class Outcome(msgspec.Struct, frozen=True):
    """What a webhook answered, of either version."""

    allowed: bool
    status: Mapping[str, Any] | None = None
    patch: bytes = b""
    patch_type: str = ""
    warnings: Sequence[str] = ()
    audit_annotations: Mapping[str, str] = {}


class _Response(msgspec.Struct, rename="camel"):
    uid: str = ""
    allowed: bool = False
    status: dict[str, Any] | None = None
    patch: str | None = None
    patch_type: str | None = None
    warnings: list[str] | None = None
    audit_annotations: dict[str, str] | None = None


def shown_object(obj: JsonObject | None, attributes: Attributes, *, mutating: bool, is_old: bool) -> JsonObject | None:
    """Return an object as a webhook sees it: with its resourceVersion, and while it is being made without what the
    server gives it only later."""
    if obj is None or attributes.body is not None:
        return obj
    metadata = obj.get("metadata") or {}
    if attributes.revision and (is_old or attributes.operation == "UPDATE"):
        return {**obj, "metadata": {**metadata, "resourceVersion": str(attributes.revision)}}
    if mutating and attributes.operation == "CREATE":
        hidden = (*_SYSTEM_METADATA, "name") if attributes.name_is_generated else _SYSTEM_METADATA
        return {**obj, "metadata": {key: value for key, value in metadata.items() if key not in hidden}}
    return obj


def encode_review(
    version: str, uid: str, attributes: Attributes, matched: Kind, obj: bytes, old: bytes, *, mutating: bool
) -> bytes:
    """Return the review that asks about a write. `obj` and `old` are JSON in the version of `matched`, or `null`."""
    from tiphys.apiserver.policies.variables import request_value

    told = request_value(attributes, matched)
    if mutating and attributes.name_is_generated:
        told.pop("name", None)
    request: JsonObject = {"uid": uid, **told}
    request |= {"object": orjson.Fragment(obj), "oldObject": orjson.Fragment(old)}
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": f"{GROUP}/{version}", "request": request})


def read_review(answer: JsonObject, version: str, uid: str, *, mutating: bool) -> Outcome:
    """Return what a webhook decided. Raises BadReview."""
    api_version, kind = answer.get("apiVersion"), answer.get("kind")
    if answer.get("response") is None:
        raise BadReview("webhook response was absent")
    try:
        response = msgspec.convert(answer["response"], _Response)
    except msgspec.ValidationError as error:
        raise BadReview(f"couldn't decode response: {error}") from error
    if version == "v1":
        if response.uid != uid:
            raise BadReview(f'expected response.uid="{uid}", got "{response.uid}"')
        wanted, got = f"{GROUP}/v1, Kind=AdmissionReview", f"{api_version}, Kind={kind}"
        if got != wanted:
            raise BadReview(f"expected webhook response of {wanted}, got {got}")
        _check_patch(response, mutating=mutating)
    patch = response.patch if mutating and response.patch else ""
    try:
        decoded = b64decode(patch, validate=True)
    except ValueError as error:
        raise BadReview(f"response.patch is not base64: {error}") from error
    patch_type = "JSONPatch" if version != "v1" and decoded else response.patch_type or ""
    annotations = response.audit_annotations or {}
    return Outcome(response.allowed, response.status, decoded, patch_type, response.warnings or (), annotations)


def _check_patch(response: _Response, *, mutating: bool) -> None:
    if not mutating:
        if response.patch:
            raise BadReview("validating webhook may not return response.patch")
        if response.patch_type is not None:
            raise BadReview("validating webhook may not return response.patchType")
        return
    if response.patch and response.patch_type is None:
        raise BadReview("webhook returned response.patch but not response.patchType")
    if not response.patch and response.patch_type is not None:
        raise BadReview("webhook returned response.patchType but not response.patch")
    if response.patch and not response.patch_type:
        raise BadReview('webhook returned invalid response.patchType of ""')


def refusal(name: str, status: Mapping[str, Any] | None) -> ApiError:
    """Return the error of a write that a webhook did not allow, with the code and reason that it chose."""
    given = status or {}
    code, reason, message = given.get("code"), given.get("reason"), given.get("message")
    code = code if isinstance(code, int) and code >= 400 else 400
    reason = reason if isinstance(reason, str) else ""
    denied = f'admission webhook "{name}" denied the request'
    text = message if isinstance(message, str) and message else reason
    details = given.get("details")
    return ApiError(
        code,
        reason,
        f"{denied}: {text}" if text else f"{denied} without explanation",
        details=details if isinstance(details, dict) else None,
    )


def dry_run_unsupported(name: str) -> ApiError:
    """Return the error of a dry run that a webhook with side effects would have to be asked about."""
    return bad_request(f'admission webhook "{name}" does not support dry run')
