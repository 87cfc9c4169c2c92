"""Bytes of HTTP/1.1 answers and requests: heads, chunks, compression. Pure functions over records of message.py.

Invariant: no value of a header can end its line, so a handler cannot split an answer.

Spec: RFC 9110 (semantics), RFC 9112 section 6 (body length) and 7.1 (chunks).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

import orjson

from tiphys.base.errors import ApiError
from tiphys.wire.message import IncomingBody, Response

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
GZIP_FROM_BYTES = 128 * 1024
_GZIP_WBITS = 31
_PHRASES = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 101: "Switching Protocols",
    301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    412: "Precondition Failed", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
    422: "Unprocessable Entity", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip
"""Written out: importing the standard library's table costs more than the rest of this module."""
_heads: dict[tuple[int, str], bytes] = {}
"""Beginnings of heads by status and content type; bounded because both come from this program's own tables."""
_HEADS_LIMIT = 512


RequestHeaders = Mapping[str, str] | Sequence[tuple[str, str]]
"""Headers to send; in pairs a name may come more than once, and a `Host` among them takes the place of the address."""


class FixedHeaders(tuple[tuple[str, str], ...]):
    """Headers that many answers share: their lines are made once."""

    lines: bytes

    def __new__(cls, headers: Sequence[tuple[str, str]] = ()) -> FixedHeaders:
        made = super().__new__(cls, headers)
        made.lines = _header_lines(headers)
        return made


def encode_head(status: int, content_type: str, headers: Sequence[tuple[str, str]], date: bytes) -> bytes:
    """Return status line and headers, without the length header and the empty line. `date` is a whole header line."""
    start = _heads.get((status, content_type)) or _head_start(status, content_type)
    if not headers:
        return start + date
    return start + date + (headers.lines if isinstance(headers, FixedHeaders) else _header_lines(headers))


def encode_whole(response: Response, body: bytes, date: bytes) -> bytes:
    """Return a whole answer that keeps the connection and has a body."""
    status, content_type, headers = response.status, response.content_type, response.headers
    start = _heads.get((status, content_type)) or _head_start(status, content_type)
    lines = headers.lines if isinstance(headers, FixedHeaders) else _header_lines(headers)
    return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (start, date, lines, len(body), body)


def _head_start(status: int, content_type: str) -> bytes:
    line = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}\r\n"
    if content_type:
        line += f"Content-Type: {_one_line(content_type)}\r\n"
    start = line.encode("latin-1", "replace")
    if len(_heads) < _HEADS_LIMIT:
        _heads[status, content_type] = start
    return start


def _header_lines(headers: Sequence[tuple[str, str]]) -> bytes:
    lines = "".join([f"{_one_line(name)}: {_one_line(value)}\r\n" for name, value in headers])
    return lines.encode("latin-1", "replace")


def encode_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_response(error: ApiError) -> Response:
    """Return the answer that tells an `ApiError`: a Status object."""
    return Response(error.code, orjson.dumps(error.status()), headers=error.headers)


def text_response(status: int, text: str) -> Response:
    """Return a plain text answer, for what is not worth a Status: bytes that are not HTTP."""
    return Response(status, text.encode(), "text/plain; charset=utf-8")


def gzip_body(body: bytes | Sequence[bytes]) -> bytes:
    """Return a body compressed at level 1, as upstream does. Releases the interpreter lock: call it in a thread."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
    parts = [body] if isinstance(body, bytes) else body
    packed = [compressor.compress(part) for part in parts]
    packed.append(compressor.flush())
    return b"".join(packed)


Target = tuple[str, str, str]
"""Decoded path, raw query, raw path."""


def decode_target(target: bytes) -> Target:
    """Return (decoded path, raw query, raw path) of a request target. Raises ValueError when it is malformed.

    Dots and doubled slashes stay as they are: the handler's routing finds nothing there and answers 404, as upstream.
    """
    if not target.startswith(b"/"):
        target = _path_of_absolute(target)
    raw, _, query = target.partition(b"?")
    raw_path = raw.decode("latin-1")
    if b"%" not in raw:
        return raw_path, query.decode("latin-1"), raw_path
    decoded = unquote_to_bytes(raw)
    if raw.count(b"%") != sum(1 for part in raw.split(b"%")[1:] if _is_escape(part[:2])):
        raise ValueError(f"invalid URL escape in {raw_path!r}")
    return decoded.decode("utf-8", "replace"), query.decode("latin-1"), raw_path


def _is_escape(digits: bytes) -> bool:
    return len(digits) == 2 and all(digit in b"0123456789abcdefABCDEF" for digit in digits)


def _path_of_absolute(target: bytes) -> bytes:
    if target == b"*":
        return b"/*"
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise ValueError("the request target is neither a path nor a URL")
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"


def _one_line(value: str) -> str:
    return value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)


def encode_request(
    method: str, target: str, host_line: str, headers: RequestHeaders | None, body: bytes | IncomingBody | None
) -> bytes:
    """Return a request, without its body if that comes as it is read. Raises ValueError for a line break in it."""
    lines = [f"{method} {target} HTTP/1.1\r\n", host_line]
    if isinstance(headers, Mapping):
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    elif headers:
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        if any(name.lower() == "host" for name, _ in headers):
            del lines[1]
    if body is not None and not isinstance(body, bytes):
        told = "Transfer-Encoding: chunked" if body.length is None else f"Content-Length: {body.length}"
        lines.append(f"{told}\r\n")
    elif body is not None or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body or b'')}\r\n")
    lines.append("\r\n")
    head = "".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines):
        raise ValueError("a line break in a request's target or headers")
    encoded = head.encode("latin-1")
    return encoded + body if isinstance(body, bytes) and body else encoded
