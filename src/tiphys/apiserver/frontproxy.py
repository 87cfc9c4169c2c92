"""Requests made on behalf of somebody: the headers by which one API server tells another who asks.

Both directions are here. As the server behind a front proxy: a client certificate of the front-proxy authority may name
the user of each request in headers. As the front proxy of aggregated API servers: `identity_headers` tells them the
user, and `trust_data` is what they read in kube-system/extension-apiserver-authentication to believe it.

Invariant: these headers mean something only beside a certificate of that authority; nobody else's are ever read, and
none that a client sent is passed on (`is_identity_header`).

Spec: Kubernetes documentation, "Authenticating: Authenticating Proxy", "Configure the Aggregation Layer".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from tiphys.apiserver.user import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User

USER_HEADER = "X-Remote-User"
UID_HEADER = "X-Remote-Uid"
GROUP_HEADER = "X-Remote-Group"
EXTRA_PREFIX = "X-Remote-Extra-"
_LOWER_EXTRA = EXTRA_PREFIX.lower()
_LOWER = frozenset({USER_HEADER.lower(), UID_HEADER.lower(), GROUP_HEADER.lower()})
_TOKEN = "!#$&'*+-.^_`|~"
"""What a header name may hold besides letters and digits; everything else of an extra's key is escaped."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """Who may be a front proxy of this server, and with what this server goes to the servers behind it."""

    issuer: str
    """Common name of the front-proxy authority."""
    ca_pem: str
    """Its certificate: what other servers check this one's client certificate with."""
    client_ca_pem: str
    """Authority of ordinary client certificates, told to other servers as well."""
    certificate: Path
    key: Path
    """The client certificate that this server shows to others, of the front-proxy authority."""
    allowed_names: tuple[str, ...] = ("front-proxy-client",)
    """Common names of certificates that may speak for others; () means any of the authority."""


def trust_data(proxy: FrontProxy) -> dict[str, str]:
    """Return the data of the ConfigMap that aggregated API servers configure themselves with."""
    return {
        "client-ca-file": proxy.client_ca_pem,
        "requestheader-allowed-names": _listed(*proxy.allowed_names),
        "requestheader-client-ca-file": proxy.ca_pem,
        "requestheader-extra-headers-prefix": _listed(EXTRA_PREFIX),
        "requestheader-group-headers": _listed(GROUP_HEADER),
        "requestheader-uid-headers": _listed(UID_HEADER),
        "requestheader-username-headers": _listed(USER_HEADER),
    }


def _listed(*values: str) -> str:
    return json.dumps(values, separators=(",", ":"))


def is_identity_header(name: str) -> bool:
    """Tell whether a header (in lower case) says who asks: only a front proxy may set it."""
    return name in _LOWER or name.startswith(_LOWER_EXTRA)


def identity_headers(user: User) -> list[tuple[str, str]]:
    """Return the headers that tell an aggregated server who asks; repeated names stand for lists."""
    headers = [(USER_HEADER, user.name)]
    if user.uid:
        headers.append((UID_HEADER, user.uid))
    headers += [(GROUP_HEADER, group) for group in user.groups]
    for key, values in user.extra.items():
        headers += [(EXTRA_PREFIX + quote(key, safe=_TOKEN), value) for value in values]
    # names are UTF-8 on the wire, where headers are written and read as Latin-1
    return [(name, value.encode().decode("latin-1")) for name, value in headers]


def remote_user(headers: Mapping[str, str]) -> User | None:
    """Return the user that a front proxy names, None if it names nobody. Header names are in lower case."""
    name = _read(headers.get(USER_HEADER.lower(), ""))
    if not name:
        return None
    groups = _split(headers.get(GROUP_HEADER.lower(), ""))
    if name != ANONYMOUS and AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups = (*groups, AUTHENTICATED)
    extra = {
        unquote(key.removeprefix(_LOWER_EXTRA)).lower(): _split(value)
        for key, value in headers.items()
        if key.startswith(_LOWER_EXTRA)
    }
    return User(name, groups, _read(headers.get(UID_HEADER.lower(), "")), extra)


def _read(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def _split(text: str) -> tuple[str, ...]:
    """Repeated headers come joined by the connection (wire/connection.py)."""
    return tuple(_read(part) for part in text.split(", ") if part)
