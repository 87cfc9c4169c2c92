"""Large objects are worked on beside the loop, and come out the same."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import orjson
import pytest
from assembled_server import running_server

from tiphys.apiserver.heavy import HEAVY_BYTES, Heavy
from tiphys.base.errors import ApiError, bad_request

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


async def test_small_work_stays_in_the_loop_and_large_work_leaves_it_one_at_a_time() -> None:
    heavy, here = Heavy(), threading.get_ident()
    assert await heavy.run(HEAVY_BYTES - 1, threading.get_ident) == here
    others = await asyncio.gather(*(heavy.run(HEAVY_BYTES, threading.get_ident) for _ in range(3)))
    assert len(set(others)) == 1 and others[0] != here

    def refuse() -> None:
        raise bad_request("no")

    with pytest.raises(ApiError):
        await heavy.run(HEAVY_BYTES, refuse)
    heavy.close()
    heavy.close()


async def test_large_objects_are_written_as_small_ones_are() -> None:
    data = {f"key-{number}": "x" for number in range(5000)}
    async with running_server() as server:
        made = await server.made(MAPS, {"metadata": {"name": "a"}, "data": data})
        assert made["data"] == data
        status, answer = await server.call("PATCH", f"{MAPS}/a", {"data": {"key-1": "y"}}, content_type=MERGE)
        assert status == 200 and answer["data"]["key-1"] == "y" and len(answer["data"]) == 5000
        status, same = await server.call("PUT", f"{MAPS}/a", answer)
        assert status == 200 and same["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]
        applied: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": data}
        for _ in range(2):
            status, answer = await server.call(
                "PATCH",
                f"{MAPS}/b?fieldManager=m",
                orjson.dumps(applied),
                content_type="application/apply-patch+yaml",
            )
            assert status in (200, 201) and answer["data"] == data
        status, answer = await server.call("POST", MAPS, {"metadata": {"name": "c"}, "data": dict(data, bad=1)})
        assert status == 400
        status, answer = await server.call("POST", MAPS, {"metadata": {"name": "c"}, "data": {**data, "a b": "x"}})
        assert status == 422 and answer["details"]["causes"][0]["field"] == "data[a b]"
        assert (await server.call("DELETE", f"{MAPS}/a"))[0] == 200


async def test_others_are_answered_while_a_large_object_is_worked_on() -> None:
    data = {f"key-{number}": "x" for number in range(20_000)}
    async with running_server() as server:
        writing = asyncio.create_task(server.made(MAPS, {"metadata": {"name": "a"}, "data": data}))
        answered = 0
        while not writing.done():
            await server.named("/api/v1/namespaces/default")
            await asyncio.sleep(0)
            answered += not writing.done()
        await writing
        assert answered > 1
