"""What a failed HTTPS call is called: errors of sockets and TLS, and refusals, in the words of Go's client.

Pure: exceptions and answers in, text out.
Spec: the texts are behaviour that clients, tests and dashboards see.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping

import orjson

from tiphys.api.causes import go_quote
from tiphys.wire.http_client import AnswerTooLarge, WholeAnswer

CERTIFICATE = "tls: failed to verify certificate: x509: "
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 26, 79})
"""OpenSSL's codes for chains that lead to nobody who is trusted."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "PACKET_LENGTH")

_STATUS_TEXTS: Mapping[int, str] = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_TOLD_BY_SERVER = frozenset({403, 406, 415})
SHOWN_BYTES = 2048
"""How much of a refusal's text an error repeats."""


def describe_failure(error: OSError, address: tuple[str, int]) -> str:
    """Return what went wrong with a call to an address, without the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{CERTIFICATE}{_certificate(error)}"
    if isinstance(error, ssl.SSLError):
        return _tls(error)
    host, port = address
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(error, AnswerTooLarge):
        return f"http: response body too large: {error}"
    if error.errno is not None:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"dial tcp {shown}: connect: {os.strerror(error.errno).lower()}"
    return _broken_off(str(error))


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    """Names and dates are told by certificates.py, which has seen the certificate."""
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "certificate signed by unknown authority"
    return error.verify_message


def _tls(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if any(name in reason for name in _NOT_TLS):
        return "http: server gave HTTP response to HTTPS client"
    if "ALERT" in reason:
        return f"remote error: tls: {reason.rpartition('ALERT_')[2].replace('_', ' ').lower()}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "EOF"
    return f"tls: {reason.replace('_', ' ').lower() or error}"


def _broken_off(text: str) -> str:
    if "not HTTP" in text:
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
    if "reset" in text:
        return f"read tcp: read: {os.strerror(errno.ECONNRESET).lower()}"
    if "in the middle" in text:
        return "unexpected EOF"
    return "EOF"


def describe_status(answer: WholeAnswer) -> str:
    """Return what a client says of an answer that is no success: its Status' message, or a text for the code."""
    status = _status_of(answer)
    if status:
        return status
    text = answer.body[:SHOWN_BYTES].decode("utf-8", "replace").strip() or "unknown"
    if answer.status in _TOLD_BY_SERVER:
        return text
    known = _STATUS_TEXTS.get(answer.status)
    if known is not None:
        return known
    if answer.status >= 500:
        return f"an error on the server ({go_quote(text)}) has prevented the request from succeeding"
    return f"the server responded with the status code {answer.status} but did not return more information"


def _status_of(answer: WholeAnswer) -> str:
    try:
        decoded = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(decoded, dict) or decoded.get("kind") != "Status":
        return ""
    return str(decoded.get("message") or "")
