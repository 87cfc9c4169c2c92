"""Links of answers that went through a proxy path: they are made to lead through that path again. Pure.

A backend knows nothing of the path that it is reached by, so its absolute links (`/style.css`) would miss it. Redirects
and the links of HTML pages get the proxy's path in front; links to other hosts and relative ones stay.

Spec: Kubernetes documentation, "Access Services Running on Clusters" (proxy paths); HTML standard, attributes that hold
URLs.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from html import escape, unescape
from posixpath import normpath
from urllib.parse import urlsplit, urlunsplit

_LINKS = {
    "a": ("href",), "applet": ("codebase",), "area": ("href",), "audio": ("src",), "base": ("href",),
    "blockquote": ("cite",), "body": ("background",), "button": ("formaction",), "command": ("icon",),
    "del": ("cite",), "embed": ("src",), "form": ("action",), "frame": ("longdesc", "src"), "head": ("profile",),
    "html": ("manifest",), "iframe": ("longdesc", "src"), "img": ("longdesc", "src", "usemap"),
    "input": ("src", "formaction", "usemap"), "ins": ("cite",), "link": ("href",),
    "object": ("classid", "codebase", "data", "usemap"), "q": ("cite",), "script": ("src",), "source": ("src",),
    "video": ("poster", "src"),
}  # fmt: skip
"""Tags and their attributes that hold URLs."""

_PIECES = re.compile(
    r"<!--.*?-->|(?P<raw><(?P<name>script|style|textarea|title)\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>)"
    r"(?P<text>.*?)(?=</(?P=name)\b|\Z)|<[a-zA-Z](?:[^>\"']|\"[^\"]*\"|'[^']*')*>",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"""(\s)([^\s=/>"']+)(\s*=\s*)(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_NAME = re.compile(r"<([a-zA-Z][^\s/>]*)")


@dataclass(frozen=True, slots=True)
class Links:
    """`prefix` is the proxy's own path without a slash at its end; the hosts are those of the client's request and of
    the backend (with ports)."""

    prefix: str
    request_host: str
    backend_host: str

    def rewrite(self, link: str) -> str:
        """Return the link as the client must follow it."""
        try:
            parts = urlsplit(link)
        except ValueError:
            return link
        elsewhere = parts.netloc not in ("", self.backend_host, self.request_host)
        if elsewhere or not parts.path.startswith("/"):
            return link
        scheme, host = parts.scheme, parts.netloc
        if host != self.request_host:
            scheme = host = ""
        path = parts.path
        if not path.startswith(self.prefix):
            slash = "/" if path.endswith("/") else ""
            path = normpath(f"{self.prefix}/{path.lstrip('/')}").rstrip("/") + slash
        return urlunsplit((scheme, host, path, parts.query, parts.fragment))

    def rewrite_page(self, page: bytes) -> bytes:
        """Return an HTML page with its links rewritten and everything else as it is."""
        text = _PIECES.sub(self._piece, page.decode("latin-1"))
        return text.encode("latin-1", "xmlcharrefreplace")

    def _piece(self, match: re.Match[str]) -> str:
        if match["raw"] is not None:
            return self._tag(match["raw"]) + match["text"]
        text = match[0]
        return text if text.startswith("<!--") else self._tag(text)

    def _tag(self, text: str) -> str:
        name = _NAME.match(text)
        attributes = _LINKS.get(name[1].lower()) if name is not None else None
        if attributes is None:
            return text

        def replace(match: re.Match[str]) -> str:
            if match[2].lower() not in attributes:
                return match[0]
            value = next(group for group in match.group(4, 5, 6) if group is not None)
            link = unescape(value)
            rewritten = self.rewrite(link)
            if rewritten == link:
                return match[0]
            return f'{match[1]}{match[2]}{match[3]}"{escape(rewritten)}"'

        return _ATTRIBUTE.sub(replace, text)


def rewrite_body(links: Links, body: bytes, encoding: str) -> bytes | None:
    """Return an HTML body, compressed as it was, with its links rewritten; None if its encoding is not known."""
    if encoding in ("", "identity"):
        return links.rewrite_page(body)
    wbits = {"gzip": 31, "deflate": -15}.get(encoding)
    if wbits is None:
        return None
    try:
        page = zlib.decompressobj(wbits).decompress(body)
    except zlib.error:
        return None
    compressor = zlib.compressobj(1, zlib.DEFLATED, wbits)
    return compressor.compress(links.rewrite_page(page)) + compressor.flush()
