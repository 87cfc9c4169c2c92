"""Trust bundles and pod certificate requests: what is no certificate is refused with its place."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tiphys.api.kind import Context
from tiphys.api.strategies.trust import (
    validate_bundle,
    validate_bundle_update,
    validate_request,
    validate_request_status,
)

CONTEXT = Context("me", "2026-01-01T00:00:00Z")
KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(*, authority: bool = True) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(7).not_valid_before(BEGIN).not_valid_after(BEGIN + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


AUTHORITY = certificate()


def bundle(text: str, name: str = "anchors", signer: str = "") -> dict[str, Any]:
    spec = {"trustBundle": text, **({"signerName": signer} if signer else {})}
    return {"metadata": {"name": name}, "spec": spec}


def causes(obj: dict[str, Any]) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in validate_bundle(obj, CONTEXT)]


def test_a_bundle_of_an_authority_is_good() -> None:
    assert causes(bundle(AUTHORITY)) == []
    assert causes(bundle(f"words before\n{AUTHORITY}", "example.com:ca:one", "example.com/ca")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "at least one trust anchor must be provided"),
        (AUTHORITY * 2, "duplicate trust anchor (indices [0 1])"),
        (AUTHORITY + certificate(authority=False), "entry 1 does not have the CA bit set"),
        (AUTHORITY.replace("CERTIFICATE", "PRIVATE KEY"), "entry 0 has bad block type: PRIVATE KEY"),
        ("-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n", "entry 0 does not parse as X.509"),
        ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", "entry 0 does not parse as X.509"),
    ],
    ids=["nothing", "twice", "no authority", "a key", "no certificate", "no text"],
)
def test_what_is_no_authority_is_refused(text: str, expected: str) -> None:
    (told,) = causes(bundle(text))
    assert told.startswith("spec.trustBundle: ") and expected in told


def test_the_name_goes_with_the_signer() -> None:
    assert "must be named with prefix example.com:ca:" in causes(bundle(AUTHORITY, "else", "example.com/ca"))[0]
    assert 'must not have ":" in its name' in causes(bundle(AUTHORITY, "a:b"))[0]
    assert "fully qualified domain and path" in causes(bundle(AUTHORITY, "plain:", "plain"))[0]
    old, new = bundle(AUTHORITY, "example.com:ca:x", "example.com/ca"), bundle(AUTHORITY, "example.com:ca:x")
    assert [c.field for c in validate_bundle_update(new, old, CONTEXT)] == ["spec.signerName"]


def stub(key: Any = KEY) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()


def request(**spec: Any) -> dict[str, Any]:
    good = {
        "signerName": "example.com/pods",
        "podName": "web",
        "podUID": "u1",
        "serviceAccountName": "default",
        "serviceAccountUID": "u2",
        "nodeName": "n1",
        "nodeUID": "u3",
        "maxExpirationSeconds": 86400,
        "stubPKCS10Request": stub(),
    }
    return {"metadata": {"name": "r"}, "spec": {**good, **spec}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, None),
        ({"signerName": "nowhere"}, "spec.signerName"),
        ({"podName": "UPPER"}, "spec.podName"),
        ({"nodeUID": ""}, "spec.nodeUID"),
        ({"maxExpirationSeconds": 60}, "spec.maxExpirationSeconds"),
        ({"maxExpirationSeconds": 7862401}, "spec.maxExpirationSeconds"),
        ({"maxExpirationSeconds": 86401, "signerName": "kubernetes.io/own"}, "spec.maxExpirationSeconds"),
        ({"stubPKCS10Request": "YQ=="}, "spec.stubPKCS10Request"),
        ({"unverifiedUserAnnotations": {"plain": "x"}}, "spec.unverifiedUserAnnotations"),
    ],
)
def test_a_request_says_for_whom_and_how_long(spec: dict[str, Any], field: str | None) -> None:
    assert [cause.field for cause in validate_request(request(**spec), CONTEXT)] == ([field] if field else [])


def test_a_key_that_no_signer_takes_is_refused() -> None:
    weak = rsa.generate_private_key(65537, 2048)
    (cause,) = validate_request(request(stubPKCS10Request=stub(weak)), CONTEXT)
    assert "must be one of RSA3072" in cause.message


def status(kind: str = "", **fields: Any) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True"}] if kind else []
    return {**request(), "status": {"conditions": conditions, **fields}}


def test_an_issued_request_has_the_certificate_and_its_times() -> None:
    times = {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z"}
    good = {"certificateChain": AUTHORITY, "beginRefreshAt": "2026-01-01T12:00:00Z", **times}
    assert validate_request_status(status("Issued", **good), request(), CONTEXT) == []

    def fields(new: dict[str, Any], old: dict[str, Any] | None = None) -> list[str | None]:
        return [cause.field for cause in validate_request_status(new, old or request(), CONTEXT)]

    assert fields(status("Issued", **{**good, "notAfter": "2027-01-01T00:00:00Z"})) == ["status.notAfter"]
    assert fields(status("Denied", certificateChain=AUTHORITY)) == ["status.certificateChain"]
    assert fields(status("Strange")) == ["status.conditions[0].type"]
    assert fields(status("Denied"), status("Issued", **good)) == ["status"]
