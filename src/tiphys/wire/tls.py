"""Keys and certificates: a small authority, what it issues, and TLS contexts made from files.

Decides algorithm (EC P-256), lifetimes and file modes. The cluster package creates the authority at the first start;
every server and client takes its context from here. Invariant: a private key never stands in a file that others may
read, not even for a moment.

`cryptography` is imported inside the functions that make keys: a start that finds its files does not pay for it.

Spec: RFC 5280; Kubernetes "PKI certificates and requirements" (common name is the user, organizations are its groups).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiphys.base.clock import SystemClock

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS = 3650
CERTIFICATE_DAYS = 365
FILES_AT_ONCE = 128
"""Files that are open at the same time while they are written."""
BACKDATE = timedelta(minutes=5)
"""Certificates are valid from a little before now, for machines whose clock is behind."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, certificate_path: str | os.PathLike[str], key_path: str | os.PathLike[str]) -> None:
        """Write both files, mode 0600, each replaced as a whole; the key first."""
        write_private_files([(key_path, self.key), (certificate_path, self.certificate)])

    @classmethod
    def read(cls, certificate_path: str | os.PathLike[str], key_path: str | os.PathLike[str]) -> KeyPair:
        return cls(Path(certificate_path).read_bytes(), Path(key_path).read_bytes())


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that only its owner can read, in one step. Raises OSError."""
    write_private_files([(path, data)])


def write_private_files(files: Sequence[tuple[str | os.PathLike[str], bytes]]) -> None:
    """Write files that only their owner can read, each in one step and in this order. Raises OSError.

    Many are written before the first is waited for, so that the disk takes them together.
    """
    for start in range(0, len(files), FILES_AT_ONCE):
        _write_private_files(files[start : start + FILES_AT_ONCE])


def _write_private_files(files: Sequence[tuple[str | os.PathLike[str], bytes]]) -> None:
    written: list[tuple[int, Path, Path]] = []
    try:
        for path, data in files:
            target = Path(path)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            written.append((descriptor, temporary, target))
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
        for descriptor, _, _ in written:
            os.fsync(descriptor)
    finally:
        for descriptor, _, _ in written:
            os.close(descriptor)
    for _, temporary, target in written:
        os.replace(temporary, target)


def create_ca(name: str, *, days: int = CA_DAYS) -> KeyPair:
    """Return a new self-signed authority."""
    from cryptography import x509

    key = _new_key()
    subject = _subject(name, ())
    builder = _builder(subject, subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return _signed(builder.add_extension(identifier, critical=False), key, key)


def issue(
    ca: KeyPair,
    common_name: str,
    organizations: Sequence[str] = (),
    *,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    server: bool = False,
    client: bool = False,
    days: int = CERTIFICATE_DAYS,
) -> KeyPair:
    """Return a certificate signed by the authority, for the usages that are asked for."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority = x509.load_pem_x509_certificate(ca.certificate)
    authority_key = load_pem_private_key(ca.key, None)
    assert isinstance(authority_key, EllipticCurvePrivateKey)
    key = _new_key()
    builder = _builder(_subject(common_name, organizations), authority.subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    # Without its own identifier, a certificate whose subject equals the authority's would pass for self-signed.
    own_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(own_identifier, critical=False)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, key, authority_key)


def create_signing_key() -> tuple[bytes, bytes]:
    """Return (private, public) PEM of a new EC P-256 key, for signing service-account tokens (ES256)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _new_key()
    return _key_pem(key), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signing_key_id(public: Any) -> str:
    """Return the key id of an EC P-256 public key: its thumbprint (RFC 7638)."""
    import base64
    import hashlib

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    numbers = public.public_numbers()
    x, y = (text(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return text(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())


def server_context(
    certificate_path: str | os.PathLike[str],
    key_path: str | os.PathLike[str],
    client_ca_path: str | os.PathLike[str] | None = None,
    *more_client_ca_paths: str | os.PathLike[str],
) -> ssl.SSLContext:
    """Return a context for a server. With `client_ca_path`, clients may present a certificate of that authority, or of
    one of those that follow.

    DIFFERS: a client certificate of another authority ends the handshake, where upstream answers 401.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate_path, key_path)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca_path is not None:
        for path in (client_ca_path, *more_client_ca_paths):
            context.load_verify_locations(path)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: str | os.PathLike[str] | bytes | None = None,
    certificate_path: str | os.PathLike[str] | None = None,
    key_path: str | os.PathLike[str] | None = None,
    *,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return a context for a client. `ca` is a path or PEM; None trusts the machine's authorities.

    `verify` False accepts any server, for `insecure-skip-tls-verify` in a kubeconfig.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs()
    elif isinstance(ca, bytes):
        context.load_verify_locations(cadata=ca.decode("ascii"))
    else:
        context.load_verify_locations(ca)
    if certificate_path is not None:
        context.load_cert_chain(certificate_path, key_path)
    return context


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.fromtimestamp(SystemClock().now_s(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey, authority_key: EllipticCurvePrivateKey
) -> KeyPair:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = builder.sign(authority_key, hashes.SHA256())
    return KeyPair(certificate.public_bytes(Encoding.PEM), _key_pem(key))
