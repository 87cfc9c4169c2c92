"""The options of a request for a container's log: read, checked, and written for the kubelet. Pure.

Spec: Kubernetes API reference, PodLogOptions (Pod v1 core, "read log").
"""

from __future__ import annotations

import re

from tiphys.api.causes import forbidden, go_quote, invalid_value, not_supported
from tiphys.base.errors import Cause, bad_request, invalid
from tiphys.wire.message import Request

STREAMS = ("All", "Stderr", "Stdout")
_NUMBERS = ("sinceSeconds", "tailLines", "limitBytes")
_FLAGS = ("follow", "previous", "timestamps")
_PASSED = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
_UNSET = frozenset({"0", "false"})
_INTEGER = r"[+-]?\d+"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"


def is_set(request: Request, name: str) -> bool:
    """Tell whether a flag of a query is set: by any value but a false one, or by none at all."""
    return name in request.query and request.param(name).lower() not in _UNSET


def log_query(request: Request, pod: str) -> list[tuple[str, str]]:
    """Return the query for the kubelet. Raises ApiError: 400 for what is no value, 422 for a value not allowed."""
    given = {name: request.param(name) for name in _PASSED if request.param(name)}
    numbers = {name: _integer(given[name]) for name in _NUMBERS if name in given}
    time = given.get("sinceTime")
    if time is not None and not re.fullmatch(_TIME, time):
        layout = '"2006-01-02T15:04:05Z07:00"'
        raise bad_request(f'parsing time {go_quote(time)} as {layout}: cannot parse {go_quote(time)} as "2006"')
    causes = _validate(numbers, time, given.get("stream"))
    if causes:
        raise invalid("", "PodLogOptions", pod, causes)
    values = [(name, given[name]) for name in _PASSED if name in given and name not in _FLAGS]
    return [*values, *((name, "true") for name in _FLAGS if is_set(request, name))]


def _integer(text: str) -> int:
    if not re.fullmatch(_INTEGER, text):
        raise bad_request(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    return int(text)


def _validate(numbers: dict[str, int], time: str | None, stream: str | None) -> list[Cause]:
    causes: list[Cause] = []
    tail, limit, since = (numbers.get(name) for name in ("tailLines", "limitBytes", "sinceSeconds"))
    if tail is not None and tail < 0:
        causes.append(invalid_value("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        causes.append(invalid_value("limitBytes", limit, "must be greater than 0"))
    if since is not None and time is not None:
        causes.append(forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since is not None and since < 1:
        causes.append(invalid_value("sinceSeconds", since, "must be greater than 0"))
    if stream is not None and stream not in STREAMS:
        causes.append(not_supported("stream", stream, STREAMS))
    if stream is not None and stream != "All" and tail is not None:
        causes.append(forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"))
    return causes
