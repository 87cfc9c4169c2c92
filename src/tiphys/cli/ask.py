"""Asks a cluster's API server something, as its administrator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tiphys.client.http import HttpClient
from tiphys.cluster.config import ClusterConfig, Files
from tiphys.cluster.pki import Pki
from tiphys.wire.tls import client_context

R = TypeVar("R")
TIMEOUT_S = 10.0


def ask(config: ClusterConfig, question: Callable[[HttpClient], Awaitable[R]]) -> R:
    """Return the answer. Raises ConnectionError, TimeoutError or ApiError."""

    async def run() -> R:
        pki = Pki(Files.of(config.name).pki)
        client = HttpClient(config.server_url, client_context(pki.ca, *pki.pair("admin")), user_agent="tiphys")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await question(client)
        finally:
            await client.close()

    return asyncio.run(run())
