"""Why a server's certificate was not believed, as Go's verifier words it: its names, or its dates, are told.

Only after a failed handshake: the certificate is fetched once more without believing it, and nothing else is said to
that server. `cryptography` is imported here when it is needed.

Spec: RFC 6125, RFC 5280; the texts are behaviour that clients see.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tiphys.base.clock import SystemClock, format_time

if TYPE_CHECKING:
    from cryptography import x509

_OUT_OF_TIME = frozenset({9, 10})
_WRONG_NAME = frozenset({62, 64})


async def explain(error: ssl.SSLCertVerificationError, address: tuple[str, int], server_name: str) -> str:
    """Return what follows `x509: ` for a name or a date that does not fit; "" when that is not what is wrong, or the
    certificate cannot be had. The caller limits the time."""
    if error.verify_code not in _OUT_OF_TIME | _WRONG_NAME:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=server_name)
    except OSError:
        return ""
    try:
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not encoded:
        return ""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(encoded)
    if error.verify_code in _OUT_OF_TIME:
        return describe_dates(certificate, SystemClock().now_s())
    return describe_names(certificate, server_name)


def describe_dates(certificate: x509.Certificate, now_s: float) -> str:
    """Return how a certificate's validity misses the time."""
    begin = "certificate has expired or is not yet valid"
    now = datetime.fromtimestamp(now_s, UTC)
    if now < certificate.not_valid_before_utc:
        relation, limit = "before", certificate.not_valid_before_utc
    else:
        relation, limit = "after", certificate.not_valid_after_utc
    return f"{begin}: current time {format_time(now_s)} is {relation} {format_time(limit.timestamp())}"


def describe_names(certificate: x509.Certificate, server_name: str) -> str:
    """Return how a certificate's names miss the one that was called."""
    dns_names, addresses = _alternative_names(certificate)
    try:
        address = str(ipaddress.ip_address(server_name))
    except ValueError:
        pass
    else:
        if not addresses:
            return f"cannot validate certificate for {address} because it doesn't contain any IP SANs"
        return f"certificate is valid for {', '.join(addresses)}, not {address}"
    if dns_names:
        return f"certificate is valid for {', '.join(dns_names)}, not {server_name}"
    if not addresses and _has_common_name(certificate):
        return "certificate relies on legacy Common Name field, use SANs instead"
    return f"certificate is not valid for any names, but wanted to match {server_name}"


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return [], []
    names = extension.value
    return names.get_values_for_type(x509.DNSName), [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]


def _has_common_name(certificate: x509.Certificate) -> bool:
    from cryptography.x509.oid import NameOID

    return bool(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
