"""Makes the support module of this folder importable; both clients over one small API."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tiphys.client.http import HttpClient
from tiphys.client.interface import Client
from tiphys.client.local import LocalClient
from tiphys.wire.server import HttpServer

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from mini_api import MiniApi


@pytest.fixture
def api() -> MiniApi:
    from mini_api import MiniApi

    return MiniApi()


@pytest.fixture(params=["http", "local"])
async def client(request: pytest.FixtureRequest, api: MiniApi) -> AsyncIterator[Client]:
    if request.param == "local":
        local = LocalClient(api.handle, "tester", ["system:masters"])
        yield local
        await local.close()
        return
    server = HttpServer(api.handle)
    port = await server.start("127.0.0.1", 0)
    http = HttpClient(f"http://127.0.0.1:{port}", token="secret")
    yield http
    await http.close()
    await server.stop(0)
