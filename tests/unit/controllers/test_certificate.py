"""Which requests the cluster signs, what is in the certificate, and when old requests go."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tiphys.api.views.meta import decode_view
from tiphys.base.clock import format_time
from tiphys.controllers.certificate import Plan, SigningRequest, plan_request
from tiphys.controllers.signing import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Wish, objection, sign
from tiphys.wire.tls import create_ca

NOW_S = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
USAGES = ("client auth", "digital signature")
SERVING = ("server auth", "digital signature")


def pem(name: str = "jane", group: str = "", dns: str = "") -> bytes:
    parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
    if group:
        parts.append(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, group))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish(pem(), CLIENT, USAGES), ""),
        (Wish(pem(), CLIENT, ("server auth",)), "usages did not match"),
        (Wish(b"rubbish", LEGACY, USAGES), "unable to parse the request"),
        (Wish(pem(), LEGACY, ("server auth",)), ""),
        (Wish(pem("system:node:n1", "system:nodes"), KUBELET_CLIENT, USAGES), ""),
        (Wish(pem("jane", "system:nodes"), KUBELET_CLIENT, USAGES), "does not begin with system:node:"),
        (Wish(pem("system:node:n1"), KUBELET_CLIENT, USAGES), "organization is not system:nodes"),
        (
            Wish(pem("system:node:n1", "system:nodes", "n1"), KUBELET_CLIENT, USAGES),
            "alternative names are not allowed",
        ),
        (Wish(pem("system:node:n1", "system:nodes", "n1"), KUBELET_SERVING, SERVING), ""),
        (Wish(pem("system:node:n1", "system:nodes"), KUBELET_SERVING, SERVING), "subjectAltName is required"),
    ],
)
def test_each_signer_has_its_rules(wish: Wish, told: str) -> None:
    assert told in objection(wish) and bool(told) == bool(objection(wish))


def test_a_certificate_says_what_was_asked_for_and_ends_in_time() -> None:
    authority = create_ca("test")
    wish = Wish(pem("system:node:n1", "system:nodes", "n1"), KUBELET_SERVING, SERVING, 3600)
    data = sign(wish, authority.certificate, authority.key, NOW_S)
    certificate = x509.load_pem_x509_certificate(data)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert certificate.not_valid_after_utc.timestamp() == NOW_S + 3600
    assert certificate.subject.rfc4514_string() == "O=system:nodes,CN=system:node:n1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [usage.dotted_string for usage in usages] == ["1.3.6.1.5.5.7.3.1"]


def request(*conditions: str, age_s: float = 0.0, signer: str = CLIENT, certificate: str = "") -> SigningRequest:
    time = format_time(NOW_S - age_s)
    obj: dict[str, Any] = {
        "metadata": {"name": "r", "creationTimestamp": time},
        "spec": {"signerName": signer},
        "status": {"conditions": [{"type": kind, "lastUpdateTime": time} for kind in conditions]},
    }
    obj["status"] |= {"certificate": certificate} if certificate else {}
    return decode_view(orjson.dumps(obj), SigningRequest)


def test_only_approved_requests_of_our_signers_are_signed_and_once() -> None:
    assert plan_request(request("Approved"), NOW_S).action == "sign"
    for other in (
        request(),
        request("Denied"),
        request("Approved", "Failed"),
        request("Approved", signer="example.com/x"),
        request("Approved", certificate="YQ=="),
    ):
        assert plan_request(other, NOW_S).action == ""


def test_old_requests_are_removed() -> None:
    assert plan_request(request("Approved", certificate="YQ==", age_s=60), NOW_S) == Plan("", 3540.0)
    assert plan_request(request("Denied", age_s=3600), NOW_S).action == "remove"
    assert plan_request(request(age_s=3600), NOW_S) == Plan("", 23 * 3600.0)
    assert plan_request(request(age_s=24 * 3600), NOW_S).action == "remove"
