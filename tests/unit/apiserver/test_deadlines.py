"""Deadlines: durations as Go reads them, and what a request that is too slow leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from tiphys.apiserver.deadlines import is_long_running, parse_go_duration, timeout_of, within
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.base.errors import ApiError
from tiphys.base.virtualloop import run_virtual
from tiphys.wire.message import Request


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("1h15m30.918s", 4530.918), ("-1.5m", -90), ("0", 0), ("+5ms", 0.005), (".5s", 0.5), ("1µs", 1e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", ".", "1", "1 s", "1x", "--1s", "1s2", "9999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse_go_duration(text)


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", 60),
        ("timeout=5s", 5),
        ("timeout=0s", 60),
        ("timeout=-1s", 60),
        ("timeout=2h", 60),
        ("timeoutSeconds=3", 60),
    ],
)
def test_a_client_may_ask_for_less_than_the_servers_maximum(query: str, seconds: float) -> None:
    assert timeout_of(Request("GET", "/", query), 60) == seconds


def test_watches_and_streams_are_long_running() -> None:
    assert is_long_running(RequestInfo(True, "watch", "/api/v1/pods"))
    assert is_long_running(RequestInfo(True, "get", "/x", subresource="log"))
    assert not is_long_running(RequestInfo(True, "list", "/api/v1/pods"))


def test_a_slow_request_is_cancelled_and_told_so() -> None:
    ended: list[str] = []

    async def slow() -> str:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("cleaned")
        return "late"

    async def main() -> None:
        with pytest.raises(ApiError) as caught:
            await within(slow(), 60)
        assert caught.value.code == 504
        assert caught.value.message == "Timeout: request did not complete within the allotted timeout"
        assert ended == ["cleaned"]
        assert asyncio.get_running_loop().time() < 61
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run_virtual(main())


def test_a_client_that_goes_away_cancels_and_is_no_timeout() -> None:
    async def main() -> None:
        task = asyncio.create_task(_run(within(asyncio.sleep(100), 60)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())


def test_what_ends_in_time_returns_its_value_and_its_errors() -> None:
    async def answer() -> int:
        await asyncio.sleep(1)
        return 42

    async def fail() -> int:
        await asyncio.sleep(1)
        raise ValueError("no")

    async def main() -> None:
        assert await within(answer(), 60) == 42
        with pytest.raises(ValueError, match="no"):
            await within(fail(), 60)

    run_virtual(main())


async def _run(awaitable: object) -> object:
    return await awaitable  # type: ignore[misc]
