"""CertificateSigningRequests.

The request is fixed once made; approval and the certificate come through subresources. Spec: Kubernetes documentation,
"Certificates and Certificate Signing Requests".
"""

from __future__ import annotations

from tiphys.api.causes import immutable, invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import find_duplicates, spec_of
from tiphys.base.errors import Cause

_MIN_EXPIRATION_S = 600


def default(request: JsonObject) -> None:
    spec = request.setdefault("spec", {})
    if not spec.get("usages"):
        spec["usages"] = ["digital signature", "key encipherment"]


def prepare_for_create(request: JsonObject, context: Context) -> None:
    """The requester is who asks, not who they say they are."""
    request["status"] = {}
    request["spec"]["username"] = context.user


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Only the approval and status subresources touch the status, each its part."""
    before = old.get("status") or {}
    new["spec"] = old["spec"]
    if context.subresource == "approval":
        status = dict(before)
        conditions = (new.get("status") or {}).get("conditions") or []
        kept = [c for c in before.get("conditions") or () if c.get("type") not in ("Approved", "Denied")]
        status["conditions"] = kept + [c for c in conditions if c.get("type") in ("Approved", "Denied")]
        new["status"] = status
    else:
        new["status"] = before


def prepare_for_status_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    if context.subresource == "approval":
        prepare_for_update(new, old, context)
        return
    new["spec"] = old["spec"]


def validate(request: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(request)
    if not spec.get("request"):
        causes.append(required("spec.request"))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages"))
    for index, usage in find_duplicates(usages):
        causes.append(invalid_value(f"spec.usages[{index}]", usage, "duplicate usage"))
    signer = spec.get("signerName") or ""
    if not signer:
        causes.append(required("spec.signerName"))
    elif "/" not in signer or "." not in signer.partition("/")[0]:
        causes.append(
            invalid_value(
                "spec.signerName",
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            )
        )
    expiration_s = spec.get("expirationSeconds")
    if expiration_s is not None and expiration_s < _MIN_EXPIRATION_S:
        detail = f"may not specify a duration less than {_MIN_EXPIRATION_S} seconds (10 minutes)"
        causes.append(invalid_value("spec.expirationSeconds", expiration_s, detail))
    return causes


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    before = (old.get("status") or {}).get("certificate")
    now = (new.get("status") or {}).get("certificate")
    if before and now != before:
        causes.append(immutable("status.certificate", now))
    kinds = {c.get("type") for c in (new.get("status") or {}).get("conditions") or ()}
    if {"Approved", "Denied"} <= kinds:
        causes.append(
            invalid_value("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive")
        )
    return causes


CERTIFICATE_SIGNING_REQUEST = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=prepare_for_status_update,
    validate=validate,
    validate_status_update=validate_status_update,
    name_rule="path-segment",
)
