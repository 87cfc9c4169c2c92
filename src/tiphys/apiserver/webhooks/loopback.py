"""A webhook that the API server itself answers: extension API servers review admissions behind the aggregator.

Such a webhook names the Service `kubernetes` and a path of an aggregated group. Nothing is dialled: the handler is
called in the process, as the API server's own user.

Spec: Kubernetes documentation, "Dynamic Admission Control" (authenticate API servers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tiphys.apiserver.user import API_SERVER
from tiphys.wire.http_client import AnswerTooLarge, WholeAnswer
from tiphys.wire.message import Handler, Peer, Request, Response, Stream

HTTPS_PORT = 443


def is_own(config: Mapping[str, Any]) -> bool:
    """Tell whether a clientConfig leads to the API server itself."""
    service = config.get("service") or {}
    port = service.get("port") or HTTPS_PORT
    return service.get("namespace") == "default" and service.get("name") == "kubernetes" and port == HTTPS_PORT


async def ask_self(
    handler: Handler, target: str, headers: Mapping[str, str], body: bytes, limit_bytes: int
) -> WholeAnswer:
    """Return the server's answer to a POST. Raises AnswerTooLarge, and ConnectionError for an upgrade."""
    path, _, query = target.partition("?")
    peer = Peer("local", trusted_user=(API_SERVER.name, API_SERVER.groups))
    answer = await handler(Request("POST", path, query, headers, body, peer))
    if isinstance(answer, Response):
        return WholeAnswer(answer.status, {"content-type": answer.content_type}, answer.body_bytes())
    if not isinstance(answer, Stream):
        raise ConnectionError("the API server answered with another protocol")
    sink = _WholeBody(limit_bytes)
    stop = answer.start(sink)
    try:
        return WholeAnswer(answer.status, {"content-type": answer.content_type}, await sink.whole)
    finally:
        stop()


class _WholeBody:
    """Collects a stream up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._left_bytes = limit_bytes
        self._parts: list[bytes] = []

    def send(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes >= 0:
            self._parts.append(data)
        elif not self.whole.done():
            self.whole.set_exception(AnswerTooLarge("the answer of an extension server is too long"))

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        if not self.whole.done():
            self.whole.set_result(b"".join(self._parts))
