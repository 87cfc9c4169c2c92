"""URIs as requests have them: absolute, or an absolute path. What is wrong with others is told as Go's parser does.

Read by the format `uri` of schemas and by the URL library of expressions.

Spec: RFC 3986.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult

from tiphys.api.causes import go_quote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
_BAD_IN_HOST = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:\[\]%\"<>\x80-\U0010ffff]")


class BadUri(ValueError):
    """The text is no URI; the message is that of Go's parser."""


def _refuse(text: str, why: str) -> BadUri:
    return BadUri(f"parse {go_quote(text)}: {why}")


def parse_uri(text: str) -> SplitResult:
    """Return the parts of a URI, with its scheme in lower case. Raises BadUri."""
    if not text:
        raise _refuse(text, "empty url")
    if any(char < " " or char == "\x7f" for char in text):
        raise _refuse(text, "net/url: invalid control character in URL")
    scheme, rest = _scheme(text)
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return SplitResult(scheme, "", "", query, fragment)
        raise _refuse(text, "invalid URI for request")
    host, path = "", rest
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        host, slash, path = rest[2:].partition("/")
        path = slash + path
        _check_host(text, host.rpartition("@")[2])
    bad = _BAD_ESCAPE.search(path)
    if bad is not None:
        raise _refuse(text, f"invalid URL escape {go_quote(bad[0])}")
    return SplitResult(scheme, host, path, query, fragment)


def _scheme(text: str) -> tuple[str, str]:
    """Return the scheme in lower case, "" if there is none, and what follows."""
    head, colon, rest = text.partition(":")
    if not colon or "/" in head or "?" in head or "#" in head:
        return "", text
    if not head:
        raise _refuse(text, "missing protocol scheme")
    if _SCHEME.fullmatch(head) is None:
        if head[0].isascii() and head[0].isalpha():
            return "", text
        raise _refuse(text, "first path segment in URL cannot contain colon")
    return head.lower(), rest


def _check_host(text: str, host: str) -> None:
    bad = _BAD_IN_HOST.search(host)
    if bad is not None:
        raise _refuse(text, f"invalid character {go_quote(bad[0])} in host name")
    port = host
    if host.startswith("["):
        if "]" not in host:
            raise _refuse(text, "missing ']' in host")
        port = host.rpartition("]")[2]
        if not port:
            return
    elif ":" not in host:
        return
    port = port[port.find(":") :] if ":" in port else port
    if not port.startswith(":") or not (port[1:] == "" or port[1:].isdigit()):
        raise _refuse(text, f"invalid port {go_quote(port)} after host")
