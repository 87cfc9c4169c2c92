"""What the cluster's own signers sign: rules of a request by its signer, and the certificate itself.

In: the PEM of a request with the usages and lifetime that its CertificateSigningRequest names. Out: what forbids it, or
the certificate's PEM. Nothing here reads the cluster; the loop is in certificate.py.

Spec: Kubernetes documentation, "Certificates and Certificate Signing Requests" (Kubernetes signers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
LONGEST_S = 365 * 24 * 3600
SHORTEST_S = 600
BACKDATE_S = 300
_CLIENT_USAGES = {"digital signature", "key encipherment", "client auth"}
_SERVER_USAGES = {"digital signature", "key encipherment", "server auth"}
_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "data encipherment": "data_encipherment",
    "key agreement": "key_agreement",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
}
_EXTENDED_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a CertificateSigningRequest asks for. `lifetime_s` 0 leaves it to the signer."""

    request: bytes
    signer: str
    usages: tuple[str, ...]
    lifetime_s: int = 0


def is_ours(signer: str) -> bool:
    """Return whether the cluster itself signs for a signer."""
    return signer in (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)


def objection(wish: Wish) -> str:
    """Return why a signer does not sign this, "" for nothing."""
    from cryptography import x509

    try:
        request = x509.load_pem_x509_csr(wish.request)
        if not request.is_signature_valid:
            return "the request is not signed by its own key"
    except ValueError as error:
        return f"unable to parse the request: {error}"
    usages = set(wish.usages)
    match wish.signer:
        case "kubernetes.io/kube-apiserver-client":
            return _usages_objection(usages, _CLIENT_USAGES, "client auth")
        case "kubernetes.io/kube-apiserver-client-kubelet":
            if _alternative_names(request):
                return "subject alternative names are not allowed"
            return _node_objection(request) or _usages_objection(usages, _CLIENT_USAGES, "client auth")
        case "kubernetes.io/kubelet-serving":
            if not _alternative_names(request):
                return "DNS or IP subjectAltName is required"
            return _node_objection(request) or _usages_objection(usages, _SERVER_USAGES, "server auth")
    return ""


def _usages_objection(usages: set[str], allowed: set[str], needed: str) -> str:
    if needed in usages and "digital signature" in usages and usages <= allowed:
        return ""
    return f"usages did not match {sorted(allowed)}"


def _node_objection(request: x509.CertificateSigningRequest) -> str:
    from cryptography.x509.oid import NameOID

    organizations = [part.value for part in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    names = [str(part.value) for part in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if organizations != ["system:nodes"]:
        return "subject organization is not system:nodes"
    if len(names) != 1 or not names[0].startswith("system:node:"):
        return "subject common name does not begin with system:node: "
    return ""


def _alternative_names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    from cryptography import x509

    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def sign(wish: Wish, authority_pem: bytes, authority_key_pem: bytes, now_s: float) -> bytes:
    """Return the certificate's PEM. The wish must have no objection. It never outlives the authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    request = x509.load_pem_x509_csr(wish.request)
    authority = x509.load_pem_x509_certificate(authority_pem)
    key = load_pem_private_key(authority_key_pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    now = datetime.fromtimestamp(int(now_s), UTC)
    lifetime_s = min(max(wish.lifetime_s or LONGEST_S, SHORTEST_S), LONGEST_S)
    builder = x509.CertificateBuilder(authority.subject, request.subject, request.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(seconds=BACKDATE_S))
    builder = builder.not_valid_after(min(now + timedelta(seconds=lifetime_s), authority.not_valid_after_utc))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = _with_usages(builder, wish.usages)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    names = _alternative_names(request)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _with_usages(builder: x509.CertificateBuilder, usages: Sequence[str]) -> x509.CertificateBuilder:
    from cryptography import x509

    wanted = {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}
    if wanted:
        flags = {name: name in wanted for name in _KEY_USAGES.values()}
        builder = builder.add_extension(x509.KeyUsage(**flags, encipher_only=False, decipher_only=False), critical=True)
    extended = list(dict.fromkeys(_EXTENDED_USAGES[usage] for usage in usages if usage in _EXTENDED_USAGES))
    if extended:
        identifiers = [x509.ObjectIdentifier(text) for text in extended]
        builder = builder.add_extension(x509.ExtendedKeyUsage(identifiers), critical=False)
    return builder
