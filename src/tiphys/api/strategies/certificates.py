"""CertificateSigningRequests: what a request may ask, who it says asked, and which subresource decides what about it.

In: the object as a client sent it, with the user of the request. A stored request is parsed, signed by its own key, and
in the name of who made it; only `approval` gives or takes Approved and Denied, only `status` gives the certificate, once.

Spec: Kubernetes documentation, "Certificates and Certificate Signing Requests"; API reference of the kind.
"""

from __future__ import annotations

import base64
import binascii

from tiphys.api.causes import duplicate, forbidden, go_quote, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import find_duplicates, spec_of
from tiphys.api.strategies.trust import check_signer, pem_blocks
from tiphys.base.errors import Cause

_MIN_EXPIRATION_S = 600
_LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
_APPROVALS = ("Approved", "Denied")
_FINAL = ("Approved", "Denied", "Failed")
"""Conditions that are True where they are, and stay."""
_STATUSES = ("False", "True", "Unknown")
USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)


def _conditions(request: JsonObject, *kinds: str) -> list[JsonObject]:
    """Return the conditions, or those of some types."""
    found: list[JsonObject] = (request.get("status") or {}).get("conditions") or []
    return [c for c in found if c.get("type") in kinds] if kinds else found


def prepare_for_create(request: JsonObject, context: Context) -> None:
    """The requester is who asks, not who they say they are; nothing is approved from the start."""
    request["status"] = {}
    spec, requester = request.setdefault("spec", {}), context.requester
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    if requester is None:
        spec["username"] = context.user
        return
    known = {
        "username": requester.name,
        "uid": requester.uid,
        "groups": list(requester.groups),
        "extra": {key: list(values) for key, values in requester.extra.items()},
    }
    spec.update((field, value) for field, value in known.items() if value)


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Nothing but metadata changes outside of the subresources."""
    new["spec"] = old["spec"]
    new["status"] = old.get("status") or {}


def prepare_for_status_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """`approval` writes the conditions, `status` all but what an approval says."""
    new["spec"] = old["spec"]
    if context.subresource == "approval":
        given = _conditions(new)
        new["status"] = dict(old.get("status") or {})
        if given:
            new["status"]["conditions"] = given
        else:
            new["status"].pop("conditions", None)
    else:
        for kind in _APPROVALS:
            _keep_conditions(new, old, kind)
    _fill_times(new, old, context.now)


def _keep_conditions(new: JsonObject, old: JsonObject, kind: str) -> None:
    """Take conditions of a type from the old object, if there are as many: a change in number is refused later."""
    before, now = _conditions(old, kind), _conditions(new, kind)
    if len(before) == len(now):
        kept = iter(before)
        all_of_them = _conditions(new)
        all_of_them[:] = [next(kept) if c.get("type") == kind else c for c in all_of_them]


def _fill_times(new: JsonObject, old: JsonObject, now: str) -> None:
    transitions = {
        (c.get("type"), c.get("status")): c["lastTransitionTime"]
        for c in reversed(_conditions(old))
        if c.get("lastTransitionTime")
    }
    for condition in _conditions(new):
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now
        if not condition.get("lastTransitionTime"):
            known = transitions.get((condition.get("type"), condition.get("status")))
            condition["lastTransitionTime"] = known or now


def _request_problem(data: str) -> str:
    """Return why a request cannot be read or is not signed by its own key, "" for nothing."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        blocks = pem_blocks(base64.b64decode(data))
    except binascii.Error as error:
        return str(error)
    if not blocks or blocks[0][0] != "CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        request = x509.load_der_x509_csr(base64.b64decode(b"".join(blocks[0][1].split()), validate=True))
        return "" if request.is_signature_valid else "x509: signature does not verify with the key of the request"
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        return f"x509: {error}"


def _certificate_problem(data: str) -> str:
    """Return why the status's certificate is none, "" for nothing."""
    from cryptography import x509

    try:
        blocks = pem_blocks(base64.b64decode(data))
    except binascii.Error as error:
        return str(error)
    for label, body in blocks:
        if label != "CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {go_quote(label)}"
        if b":" in body:
            return "no PEM block headers are permitted"
        try:
            x509.load_der_x509_certificate(base64.b64decode(b"".join(body.split()), validate=True))
        except (ValueError, binascii.Error) as error:
            return f"x509: {error}"
    return "" if blocks else "must contain at least one CERTIFICATE PEM block"


def validate(request: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(request)
    if context.creating:  # it never changes
        data = spec.get("request") or ""
        problem = _request_problem(data)
        if problem:
            causes.append(invalid_value("spec.request", data, problem))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in USAGES:
            causes.append(not_supported(f"spec.usages[{index}]", usage, USAGES))
    for index, usage in find_duplicates(usages):
        causes.append(duplicate(f"spec.usages[{index}]", usage))
    signer = spec.get("signerName") or ""
    if signer == _LEGACY_SIGNER:
        detail = "the legacy signerName is not allowed via this API version"
        causes.append(invalid_value("spec.signerName", signer, detail))
    else:
        check_signer(causes, "spec.signerName", signer)
    expiration_s = spec.get("expirationSeconds")
    if expiration_s is not None and expiration_s < _MIN_EXPIRATION_S:
        detail = f"may not specify a duration less than {_MIN_EXPIRATION_S} seconds (10 minutes)"
        causes.append(invalid_value("spec.expirationSeconds", expiration_s, detail))
    return causes


def _check_conditions(causes: list[Cause], new: JsonObject, old: JsonObject) -> None:
    """What the stored object already does wrong is not held against an update."""
    before = _conditions(old)
    kinds_before = [c.get("type") or "" for c in before]
    both_before = all(kind in kinds_before for kind in _APPROVALS)
    twice_before = len(set(kinds_before)) < len(kinds_before)
    seen: set[str] = set()
    for index, condition in enumerate(_conditions(new)):
        at, kind, status = f"status.conditions[{index}]", condition.get("type") or "", condition.get("status") or ""
        if not kind and "" not in kinds_before:
            causes.append(required(f"{at}.type"))
        allowed = ("True",) if kind in _FINAL else _STATUSES
        if not status:
            causes.append(required(f"{at}.status"))
        elif status not in allowed:
            causes.append(not_supported(f"{at}.status", status, allowed))
        if not both_before and kind in _APPROVALS and any(other in seen for other in _APPROVALS if other != kind):
            detail = "Approved and Denied conditions are mutually exclusive"
            causes.append(invalid_value("status.conditions", kind, detail))
        if kind in seen and not twice_before:
            causes.append(duplicate(f"{at}.type", kind))
        seen.add(kind)


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_conditions(causes, new, old)
    before, now = ((thing.get("status") or {}).get("certificate") or "" for thing in (old, new))
    if now and now != before:
        problem = _certificate_problem(now)
        if problem:
            causes.append(invalid_value("status.certificate", "<certificate data>", problem))
    for kind in _FINAL:
        if len(_conditions(new, kind)) < len(_conditions(old, kind)):
            detail = f"updates may not remove a condition of type {go_quote(kind)}"
            causes.append(forbidden("status.conditions", detail))
    if context.subresource != "approval":
        for kind in _APPROVALS:
            if len(_conditions(new, kind)) > len(_conditions(old, kind)):
                detail = f"updates may not add a condition of type {go_quote(kind)}"
                causes.append(forbidden("status.conditions", detail))
        if before and now != before:
            causes.append(forbidden("status.certificate", "updates may not modify existing certificate content"))
    return causes


CERTIFICATE_SIGNING_REQUEST = Strategy(
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=prepare_for_status_update,
    validate=validate,
    validate_status_update=validate_status_update,
    name_rule="path-segment",
)
