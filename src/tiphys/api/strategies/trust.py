"""ClusterTrustBundles and PodCertificateRequests: trust anchors of a signer, and what a node asks one to sign for a pod.

Certificates and requests are parsed, so that nobody reads garbage later. Spec: Kubernetes documentation, "Certificates
and Certificate Signing Requests" (cluster trust bundles, pod certificates).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tiphys.api.causes import forbidden, go_quote, immutable, invalid_value, not_supported, required, too_long
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_label, validate_dns_subdomain, validate_qualified_name
from tiphys.api.strategies.fields import (
    Complaints,
    check_required_text,
    check_text,
    clear_status,
    fill,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause

if TYPE_CHECKING:
    from cryptography import x509

DNS_SUBDOMAIN_LIMIT = 253
SIGNER_LIMIT = 571
"""Characters: a domain of 253, a slash, a path of 317."""
BUNDLE_LIMIT = 1 << 20
_HOUR_S = 3600
_DEFAULT_LIFETIME_S = 24 * _HOUR_S
_LONGEST_LIFETIME_S = 91 * 24 * _HOUR_S
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(.*?)-----END ([A-Z0-9 ]+)-----", re.DOTALL)
_FINAL = ("Denied", "Failed", "Issued")
_ISSUED_FIELDS = ("certificateChain", "notBefore", "notAfter", "beginRefreshAt")


def check_signer(causes: list[Cause], path: str, signer: str) -> None:
    """Append what is wrong with the name of a signer: a domain and a path of domain-like words."""
    if not signer:
        causes.append(required(path))
    domain, slash, rest = signer.partition("/")
    if not slash or "/" in rest:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        causes.append(invalid_value(path, signer, detail))
        return
    if len(domain) > DNS_SUBDOMAIN_LIMIT:
        causes.append(too_long(path, DNS_SUBDOMAIN_LIMIT))
    labels = domain.split(".")
    _check_labels(causes, path, domain, labels, validate_dns_label)
    if len(labels) < 2:
        causes.append(invalid_value(path, domain, "should be a domain with at least two segments separated by dots"))
    _check_labels(causes, path, rest, rest.split("."), validate_dns_subdomain)
    if len(signer) > SIGNER_LIMIT:
        causes.append(too_long(path, SIGNER_LIMIT))


def _check_labels(causes: list[Cause], path: str, part: str, labels: list[str], rule: Complaints) -> None:
    for label in labels:
        for complaint in rule(label):
            causes.append(invalid_value(path, part, f"validating label {go_quote(label)}: {complaint}"))


def pem_blocks(data: bytes) -> list[tuple[str, bytes]]:
    """Return the label and the body (headers and base64) of each PEM block; what is between them is passed over."""
    return [(match[1].decode(), match[2]) for match in _BLOCK.finditer(data)]


def parse_certificates(text: str) -> tuple[list[x509.Certificate], str]:
    """Return the certificates of a PEM text, and what is wrong with it ("" for nothing)."""
    from cryptography import x509

    found: list[x509.Certificate] = []
    for index, (label, body) in enumerate(pem_blocks(text.encode())):
        if label != "CERTIFICATE":
            return [], f"entry {index} has bad block type: {label}"
        if b":" in body:
            return [], f"entry {index} has PEM block headers, which are not allowed"
        try:
            found.append(x509.load_der_x509_certificate(base64.b64decode(b"".join(body.split()), validate=True)))
        except (ValueError, binascii.Error) as error:
            return [], f"entry {index} does not parse as X.509: {error}"
    return found, ""


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check_bundle(causes: list[Cause], text: str) -> None:
    path = "spec.trustBundle"
    if len(text) > BUNDLE_LIMIT:
        causes.append(too_long(path, BUNDLE_LIMIT))
        return
    certificates, problem = parse_certificates(text)
    shown = "<value omitted>"
    if problem:
        causes.append(invalid_value(path, shown, problem))
    elif not certificates:
        causes.append(invalid_value(path, shown, "at least one trust anchor must be provided"))
    seen: dict[bytes, int] = {}
    for index, certificate in enumerate(certificates):
        first = seen.setdefault(certificate.tbs_certificate_bytes, index)
        if first != index:
            causes.append(invalid_value(path, shown, f"duplicate trust anchor (indices [{first} {index}])"))
        elif not _is_authority(certificate):
            causes.append(invalid_value(path, shown, f"entry {index} does not have the CA bit set"))


def validate_bundle(bundle: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec, name = spec_of(bundle), str((bundle.get("metadata") or {}).get("name") or "")
    signer = spec.get("signerName") or ""
    prefix = signer.replace("/", ":") + ":"
    if signer and not name.startswith(prefix):
        detail = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        causes.append(invalid_value("metadata.name", name, detail))
    elif not signer and ":" in name:
        detail = 'ClusterTrustBundle without signer name must not have ":" in its name'
        causes.append(invalid_value("metadata.name", name, detail))
    if signer:
        check_signer(causes, "spec.signerName", signer)
    _check_bundle(causes, spec.get("trustBundle") or "")
    return causes


def validate_bundle_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    now, before = spec_of(new).get("signerName"), spec_of(old).get("signerName")
    return [] if is_same(now, before) else [immutable("spec.signerName", now)]


CLUSTER_TRUST_BUNDLE = Strategy(
    validate=validate_bundle, validate_update=validate_bundle_update, name_rule="path-segment"
)


def default_request(request: JsonObject) -> None:
    fill(request.setdefault("spec", {}), "maxExpirationSeconds", _DEFAULT_LIFETIME_S)


def _check_lifetime(causes: list[Cause], spec: JsonObject) -> None:
    path, lifetime_s = "spec.maxExpirationSeconds", spec.get("maxExpirationSeconds") or 0
    if lifetime_s < _HOUR_S:
        causes.append(invalid_value(path, lifetime_s, f"must be in the range [{_HOUR_S}, {_LONGEST_LIFETIME_S}]"))
        return
    own = str(spec.get("signerName") or "").startswith("kubernetes.io/")
    longest_s = _DEFAULT_LIFETIME_S if own else _LONGEST_LIFETIME_S
    if lifetime_s > longest_s:
        causes.append(invalid_value(path, lifetime_s, f"must be in the range [{_HOUR_S}, {longest_s}]"))


def _check_stub(causes: list[Cause], text: str) -> None:
    """The stub request must parse, be signed by its key, and have a key of a kind that signers know."""
    path = "spec.stubPKCS10Request"
    if not text:
        causes.append(required(path))
        return
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        stub = x509.load_der_x509_csr(base64.b64decode(text, validate=True))
        key = stub.public_key()
        signed = stub.is_signature_valid
    except (ValueError, binascii.Error) as error:
        causes.append(invalid_value(path, text, f"must be a valid PKCS#10 certificate signing request: {error}"))
        return
    if isinstance(key, rsa.RSAPublicKey):
        known = key.key_size in (3072, 4096)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        known = key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
    else:
        known = isinstance(key, ed25519.Ed25519PublicKey)
    if not known:
        detail = "the public key must be one of RSA3072, RSA4096, ECDSAP256, ECDSAP384, ECDSAP521 or ED25519"
        causes.append(invalid_value(path, text, detail))
    elif not signed:
        causes.append(invalid_value(path, text, "the signature does not verify with the request's public key"))


def validate_request(request: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(request)
    if not spec.get("signerName"):
        causes.append(required("spec.signerName"))
    else:
        check_signer(causes, "spec.signerName", spec["signerName"])
    for field in ("podName", "serviceAccountName", "nodeName"):
        check_required_text(causes, f"spec.{field}", spec.get(field), validate_dns_subdomain)
    for field in ("podUID", "serviceAccountUID", "nodeUID"):
        uid = spec.get(field) or ""
        if not uid:
            causes.append(required(f"spec.{field}", "must not be empty"))
        elif len(uid) > 128:
            causes.append(too_long(f"spec.{field}", 128))
    _check_lifetime(causes, spec)
    _check_stub(causes, spec.get("stubPKCS10Request") or "")
    for key in spec.get("unverifiedUserAnnotations") or {}:
        path = "spec.unverifiedUserAnnotations"
        check_text(causes, path, key, validate_qualified_name)
        if "/" not in key:
            causes.append(invalid_value(path, key, "keys must be domain-prefixed"))
    return causes


def validate_request_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    return [] if is_same(new.get("spec"), old.get("spec")) else [immutable("spec", new.get("spec"))]


def _conditions(request: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = (request.get("status") or {}).get("conditions") or []
    return found


def validate_request_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status, before = new.get("status") or {}, old.get("status") or {}
    final = [c for c in _conditions(new) if c.get("type") in _FINAL]
    if len(final) > 1:
        detail = 'at most one condition of "Denied", "Failed" and "Issued" may be present'
        causes.append(invalid_value("status.conditions", [c["type"] for c in final], detail))
    for index, condition in enumerate(_conditions(new)):
        at = f"status.conditions[{index}]"
        if condition.get("type") not in _FINAL:
            causes.append(not_supported(f"{at}.type", condition.get("type") or "", _FINAL))
        elif condition.get("status") != "True":
            causes.append(invalid_value(f"{at}.status", condition.get("status"), 'must be "True"'))
    if any(c.get("type") in _FINAL for c in _conditions(old)) and not is_same(status, before):
        causes.append(forbidden("status", "a request that was issued, denied or failed may not change any more"))
        return causes
    issued = any(c.get("type") == "Issued" for c in final)
    _check_issued(causes, status, issued)
    return causes


def _check_issued(causes: list[Cause], status: JsonObject, issued: bool) -> None:
    """An issued certificate has all its times, and they are those of the certificate; another request has none."""
    if not issued:
        for field in _ISSUED_FIELDS:
            if status.get(field):
                causes.append(forbidden(f"status.{field}", "may only be set when the Issued condition is"))
        return
    for field in _ISSUED_FIELDS:
        if not status.get(field):
            causes.append(required(f"status.{field}"))
    certificates, problem = parse_certificates(status.get("certificateChain") or "")
    if status.get("certificateChain") and (problem or not certificates):
        detail = problem or "at least one certificate must be provided"
        causes.append(invalid_value("status.certificateChain", "<value omitted>", detail))
        return
    if not certificates:
        return
    times: tuple[tuple[str, Callable[[x509.Certificate], Any]], ...] = (
        ("notBefore", lambda c: c.not_valid_before_utc),
        ("notAfter", lambda c: c.not_valid_after_utc),
    )
    for field, read in times:
        wanted = read(certificates[0]).strftime("%Y-%m-%dT%H:%M:%SZ")
        if status.get(field) and status[field] != wanted:
            causes.append(invalid_value(f"status.{field}", status[field], f"must be that of the certificate: {wanted}"))


POD_CERTIFICATE_REQUEST = Strategy(
    default=default_request,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_request,
    validate_update=validate_request_update,
    validate_status_update=validate_request_status,
)
