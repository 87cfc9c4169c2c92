"""Formats of texts in custom resources' schemas: which are checked, and what fits them.

A format that is not known here, or not yet in the served version, is an annotation and checks nothing, as upstream has
it. Names are compared without dashes: `datetime` is `date-time`.

Spec: Kubernetes documentation, "CustomResourceDefinition validation" (the list of formats); RFC 3339, RFC 1034.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date

from tiphys.api.uri import BadUri, parse_uri

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOSTNAME_MAX = 255
_SINCE_34 = frozenset({"k8sshortname", "k8slongname"})


def fits_format(name: str, text: str, minor: int = 37) -> bool:
    """Return whether a text has a format; True for formats that Kubernetes 1.<minor> does not check."""
    plain = name.replace("-", "")
    check = _CHECKS.get(plain)
    if check is None or (minor < 34 and plain in _SINCE_34):
        return True
    return check(text)


def knows_format(name: str) -> bool:
    """Return whether a format is one that texts are checked for, or any text has."""
    plain = name.replace("-", "")
    return plain in _CHECKS or plain in ("password", "quantity")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == 10


def _is_date_time(text: str) -> bool:
    from tiphys.api.timestamps import canonical_time

    try:
        canonical_time(text.upper())
    except ValueError:
        return False
    return True


def _is_ip(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version and "%" not in text
        except ValueError:
            return False

    return check


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return text.rpartition("/")[2].isdigit() and "/" in text


def _is_uri(text: str) -> bool:
    try:
        parse_uri(text)
    except BadUri:
        return False
    return True


def _is_base64(text: str) -> bool:
    import binascii

    try:
        binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_email(text: str) -> bool:
    from email.utils import parseaddr

    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    return bool(at and local and domain) and " " not in address and (bool(name) or "<" in text or address == text)


def _is_hostname(text: str) -> bool:
    return len(text) <= _HOSTNAME_MAX and _HOSTNAME.fullmatch(text) is not None


_HOSTNAME = re.compile(
    r"[^\W_]((-?[^\W_]{0,62})?)|(?:[^\W_](?:(?:(?:[^\W_]|-){0,61}[^\W_])?)\.)+[^\W\d_]{2,63}",
)
_UNITS = (
    "ns|nano|nanos|nanosecond|nanoseconds|us|µs|μs|micro|micros|microsecond|microseconds|ms|milli|millis|millisecond|"
    "milliseconds|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hour|hours|d|day|days|w|week|weeks"
)
_SPAN = re.compile(
    rf"[+-]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)|([0-9]+ *({_UNITS}) *)+"
)


def _is_duration(text: str) -> bool:
    return _SPAN.fullmatch(text) is not None


def _digits(text: str) -> str:
    return text.replace("-", "").replace(" ", "")


def _is_isbn10(text: str) -> bool:
    digits = _digits(text)
    if re.fullmatch("[0-9]{9}[0-9X]", digits) is None:
        return False
    return sum((10 if char == "X" else int(char)) * (index + 1) for index, char in enumerate(digits)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = _digits(text)
    if re.fullmatch("[0-9]{13}", digits) is None:
        return False
    return sum(int(char) * (3 if index % 2 else 1) for index, char in enumerate(digits)) % 10 == 0


_CARD = re.compile(
    "(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])"
    "[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})"
)


def _is_credit_card(text: str) -> bool:
    digits = re.sub("[^0-9]", "", text)
    if _CARD.fullmatch(digits) is None:
        return False
    doubled = (int(char) * (2 if index % 2 else 1) for index, char in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


_BYTE = "(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_HEX4, _HEX12 = "[0-9a-f]{4}", "[0-9a-f]{12}"
_CHECKS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches("[0-9a-f]{24}"),
    "uri": _is_uri,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": _is_ip(4),
    "ipv6": _is_ip(6),
    "cidr": _is_cidr,
    "mac": _matches(
        r"([0-9a-f]{2}:){5}[0-9a-f]{2}|([0-9a-f]{2}-){5}[0-9a-f]{2}|([0-9a-f]{4}\.){2}[0-9a-f]{4}"
        r"|([0-9a-f]{2}:){7}[0-9a-f]{2}|([0-9a-f]{2}-){7}[0-9a-f]{2}|([0-9a-f]{4}\.){3}[0-9a-f]{4}"
    ),
    "uuid": _matches(rf"[0-9a-f]{{8}}-?{_HEX4}-?{_HEX4}-?{_HEX4}-?{_HEX12}"),
    "uuid3": _matches(rf"[0-9a-f]{{8}}-?{_HEX4}-?3[0-9a-f]{{3}}-?{_HEX4}-?{_HEX12}"),
    "uuid4": _matches(rf"[0-9a-f]{{8}}-?{_HEX4}-?4[0-9a-f]{{3}}-?[89ab][0-9a-f]{{3}}-?{_HEX12}"),
    "uuid5": _matches(rf"[0-9a-f]{{8}}-?{_HEX4}-?5[0-9a-f]{{3}}-?[89ab][0-9a-f]{{3}}-?{_HEX12}"),
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_credit_card,
    "ssn": _matches(r"[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}"),
    "hexcolor": _matches(r"#?([0-9a-f]{3}|[0-9a-f]{6})"),
    "rgbcolor": _matches(rf"rgb\(\s*{_BYTE}\s*,\s*{_BYTE}\s*,\s*{_BYTE}\s*\)"),
    "byte": _is_base64,
    "date": _is_date,
    "duration": _is_duration,
    "datetime": _is_date_time,
    "k8sshortname": lambda text: len(text) <= 63 and re.fullmatch(_LABEL, text) is not None,
    "k8slongname": lambda text: len(text) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", text) is not None,
}
