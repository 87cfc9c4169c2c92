"""The URL library: absolute URLs and absolute paths, taken apart.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes URL library"; RFC 3986.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qs, quote

from tiphys.api.cellibrary.costs import CHEAP, PARSED, TRAVERSED
from tiphys.api.uri import BadUri, parse_uri
from tiphys.cel import types
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type

URL = types.opaque("kubernetes.URL")
_PATH_CHARACTERS = "/:@!$&'()*+,;=~%[]"


@dataclass(frozen=True, slots=True)
class URLValue:
    """A URL in an expression."""

    text: str
    parts: SplitResult
    cel_type: ClassVar[Type] = URL


def _url(text: str) -> URLValue:
    try:
        return URLValue(text, parse_uri(text))
    except BadUri as error:
        raise EvaluationError(f"URL parse error during conversion from string: {error}") from None


def _is_url(text: str) -> bool:
    try:
        parse_uri(text)
    except BadUri:
        return False
    return True


def _host(url: URLValue) -> str:
    return url.parts.netloc.rpartition("@")[2]


def _split_host(url: URLValue) -> tuple[str, str]:
    """Return host name (without brackets) and port."""
    host = _host(url)
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def _query(url: URLValue) -> dict[str, list[str]]:
    pairs = "&".join(pair for pair in url.parts.query.split("&") if ";" not in pair)
    return parse_qs(pairs, keep_blank_values=True)


def _getter(name: str, overload: str, result: Type, call: Callable[[URLValue], Any]) -> Function:
    return Function(name, (Overload(overload, (URL,), result, call, member=True, cost=CHEAP),))


_S = types.STRING

LIBRARY: Library = (
    Function("url", (Overload("string_to_url", (_S,), URL, _url, cost=TRAVERSED),)),
    Function("isURL", (Overload("is_url_string", (_S,), types.BOOL, _is_url, cost=PARSED),)),
    _getter("getScheme", "url_get_scheme", _S, lambda url: url.parts.scheme),
    _getter("getHost", "url_get_host", _S, _host),
    _getter("getHostname", "url_get_hostname", _S, lambda url: _split_host(url)[0]),
    _getter("getPort", "url_get_port", _S, lambda url: _split_host(url)[1]),
    _getter("getEscapedPath", "url_get_escaped_path", _S, lambda url: quote(url.parts.path, _PATH_CHARACTERS)),
    _getter("getQuery", "url_get_query", types.map_of(_S, types.list_of(_S)), _query),
)
