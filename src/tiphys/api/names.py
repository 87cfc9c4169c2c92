"""Rules for names, label keys and values, and the other short texts that have a grammar.

Pure: a text goes in, a list of complaints comes out (empty: it is fine), in upstream's words; metadata.py and the
kinds' validation wrap them into causes. Lengths count bytes of UTF-8.

Spec: Kubernetes documentation, "Object names and IDs", "Labels and selectors"; RFC 1035 and RFC 1123 for DNS names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + "(\\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_WILDCARD = "\\*\\." + _SUBDOMAIN
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"

SUBDOMAIN_MAX_BYTES = 253
LABEL_MAX_BYTES = 63
PORT_NAME_MAX_BYTES = 15
ANNOTATIONS_MAX_BYTES = 256 * 1024

_label_re = re.compile(_LABEL)
_subdomain_re = re.compile(_SUBDOMAIN)
_label_1035_re = re.compile(_LABEL_1035)
_qualified_re = re.compile(_QUALIFIED)
_wildcard_re = re.compile(_WILDCARD)
_label_value_re = re.compile(_LABEL_VALUE)
_config_key_re = re.compile(_CONFIG_KEY)
_env_name_re = re.compile(_ENV_NAME)
_header_re = re.compile(_HEADER)
_percent_re = re.compile(_PERCENT)

EMPTY = "must be non-empty"


def max_length_message(max_bytes: int) -> str:
    return f"must be no more than {max_bytes} bytes"


def range_message(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def regex_message(message: str, regex: str, *examples: str) -> str:
    """Return a complaint that shows the grammar and, if given, texts that obey it."""
    if not examples:
        return f"{message} (regex used for validation is '{regex}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{regex}')"


_SUBDOMAIN_MESSAGE = regex_message(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_MESSAGE = regex_message(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_LABEL_1035_MESSAGE = regex_message(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_WILDCARD_MESSAGE = regex_message(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_QUALIFIED_MESSAGE = regex_message(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_LABEL_VALUE_MESSAGE = regex_message(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY_MESSAGE = regex_message(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_ENV_NAME_MESSAGE = regex_message(
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
    "and must not start with a digit",
    _ENV_NAME,
    "my.env-name",
    "MY_ENV.NAME",
    "MyEnvName1",
)
_HEADER_MESSAGE = regex_message(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
)
_PERCENT_MESSAGE = regex_message(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)


def byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check(text: str, regex: re.Pattern[str], message: str, max_bytes: int) -> list[str]:
    complaints = []
    if byte_length(text) > max_bytes:
        complaints.append(max_length_message(max_bytes))
    if not regex.fullmatch(text):
        complaints.append(message)
    return complaints


def validate_dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: what most object names are."""
    return _check(text, _subdomain_re, _SUBDOMAIN_MESSAGE, SUBDOMAIN_MAX_BYTES)


@lru_cache(maxsize=4096)
def _dns_label(text: str) -> tuple[str, ...]:
    return tuple(_check(text, _label_re, _LABEL_MESSAGE, LABEL_MAX_BYTES))


def validate_dns_label(text: str) -> list[str]:
    """RFC 1123 label: namespaces, port names of some kinds, container names."""
    return list(_dns_label(text))


def validate_dns_1035_label(text: str) -> list[str]:
    """RFC 1035 label: Services."""
    return _check(text, _label_1035_re, _LABEL_1035_MESSAGE, LABEL_MAX_BYTES)


def validate_wildcard_subdomain(text: str) -> list[str]:
    """Wildcard hosts of Ingress rules."""
    return _check(text, _wildcard_re, _WILDCARD_MESSAGE, SUBDOMAIN_MAX_BYTES)


def validate_path_segment(text: str) -> list[str]:
    """A name that only has to survive inside a URL path: RBAC kinds."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{char}'" for char in ("/", "%") if char in text]


def validate_path_segment_prefix(text: str) -> list[str]:
    """The same for a generateName, to which a suffix will be added."""
    return [f"may not contain '{char}'" for char in ("/", "%") if char in text]


_RULES: dict[str, Callable[[str], list[str]]] = {
    "dns-subdomain": validate_dns_subdomain,
    "pod": validate_dns_subdomain,
    "dns-label": validate_dns_label,
    "dns-1035-label": validate_dns_1035_label,
    "path-segment": validate_path_segment,
}


def validate_name(rule: str, name: str, prefix: bool = False) -> list[str]:
    """Return the complaints about an object's name under a rule of `Strategy.name_rule`.

    `prefix` True checks a generateName: a dash at its end is fine because a suffix follows.
    """
    return list(_prefix(rule, name)) if prefix else _RULES[rule](name)


@lru_cache(maxsize=1024)
def _prefix(rule: str, prefix: str) -> tuple[str, ...]:
    if rule == "path-segment":
        return tuple(validate_path_segment_prefix(prefix))
    if len(prefix) > 1 and prefix.endswith("-"):
        prefix = prefix[:-2] + "a"
    return tuple(_RULES[rule](prefix))


@lru_cache(maxsize=4096)
def _qualified_name(text: str) -> tuple[str, ...]:
    parts = text.split("/")
    if len(parts) > 2:
        return (
            f"a qualified name {_QUALIFIED_MESSAGE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')",
        )
    complaints = []
    if len(parts) == 2:
        if not parts[0]:
            complaints.append(f"prefix part {EMPTY}")
        else:
            complaints += [f"prefix part {c}" for c in validate_dns_subdomain(parts[0])]
    name = parts[-1]
    if not name:
        complaints.append(f"name part {EMPTY}")
    elif byte_length(name) > LABEL_MAX_BYTES:
        complaints.append(f"name part {max_length_message(LABEL_MAX_BYTES)}")
    if not _qualified_re.fullmatch(name):
        complaints.append(f"name part {_QUALIFIED_MESSAGE}")
    return tuple(complaints)


def validate_qualified_name(text: str) -> list[str]:
    """A name with an optional DNS prefix: label and annotation keys, finalizers, taint keys, resource names."""
    return list(_qualified_name(text))


@lru_cache(maxsize=4096)
def _label_value(text: str) -> tuple[str, ...]:
    return tuple(_check(text, _label_value_re, _LABEL_VALUE_MESSAGE, LABEL_MAX_BYTES))


def validate_label_value(text: str) -> list[str]:
    return list(_label_value(text))


@lru_cache(maxsize=4096)
def is_good_label(key: str, value: str) -> bool:
    """Tell whether nothing is wrong with a label: most are those of many objects."""
    return not (_qualified_name(key) or _label_value(value))


def _dot_dot(text: str) -> list[str]:
    if text == ".":
        return ["must not be '.'"]
    if text == "..":
        return ["must not be '..'"]
    return ["must not start with '..'"] if text.startswith("..") else []


def validate_config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret: it becomes a file name."""
    return _check(text, _config_key_re, _CONFIG_KEY_MESSAGE, SUBDOMAIN_MAX_BYTES) + _dot_dot(text)


def validate_env_var_name(text: str) -> list[str]:
    """The strict rule, which Kubernetes used up to 1.31."""
    return ([] if _env_name_re.fullmatch(text) else [_ENV_NAME_MESSAGE]) + _dot_dot(text)


def validate_relaxed_env_var_name(text: str) -> list[str]:
    """The rule since Kubernetes 1.32: any printable ASCII but "="."""
    complaints = [] if text else [f"environment variable name {EMPTY}"]
    if any(not " " <= char <= "~" or char == "=" for char in text):
        complaints.append(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        )
    return complaints


def validate_http_header_name(text: str) -> list[str]:
    return [] if _header_re.fullmatch(text) else [_HEADER_MESSAGE]


def validate_percent(text: str) -> list[str]:
    return [] if _percent_re.fullmatch(text) else [_PERCENT_MESSAGE]


def validate_port_name(text: str) -> list[str]:
    """A named port of a container (IANA service name)."""
    complaints = []
    if byte_length(text) > PORT_NAME_MAX_BYTES:
        complaints.append(max_length_message(PORT_NAME_MAX_BYTES))
    if not re.fullmatch("[-a-z0-9]+", text):
        complaints.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        complaints.append("must contain at least one letter (a-z)")
    if "--" in text:
        complaints.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        complaints.append("must not begin or end with a hyphen")
    return complaints


def validate_ip(text: str) -> list[str]:
    """An IPv4 or IPv6 address, without zone."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return [] if "%" not in text else ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
