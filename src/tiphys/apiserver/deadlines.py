"""How long a request may take, and which ones may take as long as they like.

Decides the deadline of a request (the server's maximum, or less by `?timeout=`), and ends what runs past it with a 504.
Input is the request and what it asks for; the pipeline wraps the handling in `within`. Invariant: a request that never
suspends costs no timer, so reads from the cache pay nothing; a cancellation that comes from outside stays one.

Spec: Kubernetes API server flags, "--request-timeout", "--min-request-timeout"; API concepts, "timeout".
"""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from tiphys.api.causes import go_quote
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.base.errors import bad_request, gateway_timeout
from tiphys.wire.message import Request
from tiphys.wire.step import resumed

T = TypeVar("T")

REQUEST_TIMEOUT_S = 60.0
LONG_RUNNING_VERBS = frozenset({"watch", "proxy"})
LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
LATE = "Timeout: request did not complete within the allotted timeout"

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"[0-9]*\.?[0-9]*")
_UNIT = re.compile(r"[^0-9.]*")
_LONGEST_S = 2**63 / 1e9


def is_long_running(info: RequestInfo) -> bool:
    """Return whether a request lasts as long as its client wants: watches and streams to and from pods."""
    return info.verb in LONG_RUNNING_VERBS or info.subresource in LONG_RUNNING_SUBRESOURCES


def timeout_of(request: Request, maximum_s: float) -> float:
    """Return the seconds that a request may take. Raises ApiError(400) for a `timeout` that is no duration."""
    if "timeout=" not in request.raw_query:
        return maximum_s
    text = request.param("timeout")
    if not text:
        return maximum_s
    try:
        wanted_s = parse_go_duration(text)
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None
    return wanted_s if 0 < wanted_s < maximum_s else maximum_s


def parse_go_duration(text: str) -> float:
    """Return the seconds of a duration such as `1h15m30.5s`. Raises ValueError in the words of Go's parser."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    bad = ValueError(f"time: invalid duration {go_quote(text)}")
    if not rest:
        raise bad
    total_s = 0.0
    while rest:
        number = _NUMBER.match(rest)
        digits = number.group() if number else ""
        if digits in ("", "."):
            raise bad
        rest = rest[len(digits) :]
        unit_match = _UNIT.match(rest)
        unit = unit_match.group() if unit_match else ""
        if not unit:
            raise ValueError(f"time: missing unit in duration {go_quote(text)}")
        if unit not in _UNITS_S:
            raise ValueError(f"time: unknown unit {go_quote(unit)} in duration {go_quote(text)}")
        rest = rest[len(unit) :]
        total_s += float(digits) * _UNITS_S[unit]
        if total_s > _LONGEST_S:
            raise bad
    return -total_s if text[0] == "-" else total_s


@types.coroutine
def within(coroutine: Coroutine[Any, Any, T], timeout_s: float) -> Generator[Any, Any, T]:
    """Run a coroutine; cancel it after `timeout_s` and raise ApiError(504). No timer if it never suspends."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as stop:
        done: T = stop.value
        return done
    return (yield from _supervised(coroutine, waits_for, timeout_s))


@types.coroutine
def _supervised(coroutine: Coroutine[Any, Any, T], waits_for: Any, timeout_s: float) -> Generator[Any, Any, T]:
    task = asyncio.current_task()
    assert task is not None, "requests run in tasks, or in what stands in for one"
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, expire)
    try:
        result: T = yield from resumed(coroutine, waits_for)
        if late:
            task.uncancel()
        return result
    except asyncio.CancelledError:
        if late and task.uncancel() == 0:
            raise gateway_timeout(LATE) from None
        raise
    finally:
        timer.cancel()
