"""The opaque tokens of paged lists, and the errors about revisions that a client can act on.

A token says at which revision the list is read and behind which key it goes on; revision -1 means "whatever is newest"
(what a client gets offered when its revision is compacted).

Spec: Kubernetes docs, "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from tiphys.base.errors import ApiError, bad_request

_TOKEN_VERSION = "meta.k8s.io/v1"
NEWEST = -1

LIST_TOO_OLD = "The resourceVersion for the provided list is too old."
CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class ContinueExpired(ApiError):
    """410 for a token whose revision is compacted; its status carries a token to go on inconsistently."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", CONTINUE_TOO_OLD)
        self.token = token

    def status(self) -> dict[str, Any]:
        status = super().status()
        status["metadata"] = {"continue": self.token}
        return status


def encode_token(revision: int, after_key: str) -> str:
    """Return the token to go on behind a key (below the listed prefix)."""
    text = orjson.dumps({"v": _TOKEN_VERSION, "rv": revision, "start": after_key + "\0"})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_token(token: str) -> tuple[int, str]:
    """Return (revision, key to go on behind). Raises ApiError 400."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _not_valid(str(error)) from error
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        from tiphys.api.gojson import go_syntax_error

        raise _not_valid(go_syntax_error(text) or str(error)) from error
    if not isinstance(data, dict) or data.get("v") != _TOKEN_VERSION:
        version = data.get("v") if isinstance(data, dict) else ""
        raise _not_valid(f'server does not recognize this encoded version "{version}"')
    revision, start = data.get("rv"), data.get("start")
    if not isinstance(revision, int) or isinstance(revision, bool) or revision == 0:
        raise _not_valid(f"incorrect encoded start resourceVersion (version {_TOKEN_VERSION})")
    if not isinstance(start, str) or not start:
        raise _not_valid(f"encoded start key empty (version {_TOKEN_VERSION})")
    if start.startswith("/") or ".." in start.split("/"):
        raise _not_valid(f"{start}")
    return revision, start.removesuffix("\0")


def _not_valid(why: str) -> ApiError:
    return bad_request(f"invalid continue token: continue key is not valid: {why}")


def too_large_revision(requested: int, current: int) -> ApiError:
    """504 for a revision that this server has not seen yet; clients try again after a second."""
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {requested}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        headers=[("Retry-After", "1")],
    )


def list_too_old() -> ApiError:
    return ApiError(410, "Expired", LIST_TOO_OLD)


def watch_too_old(requested: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {requested} ({oldest})")
