"""Starts that must fail with a word about what to do, and stops that must lose nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from apiserver_process import ApiServerProcess, Reply, Wire

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ApiServerProcess]:
    made = ApiServerProcess(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def started(process: ApiServerProcess) -> ApiServerProcess:
    process.start()
    return process


def assert_refused(process: ApiServerProcess, *words: str) -> None:
    """A start that ends with a failure, whose last line tells the file, the trouble and what to do."""
    start = process.log.stat().st_size if process.log.exists() else 0
    process.start(expect_ready=False)
    assert process.process is not None
    assert process.process.wait(20) == 1
    text = process.log.read_bytes()[start:].decode()
    assert "Traceback" not in text, text
    last = text.strip().splitlines()[-1]
    for word in (str(process.store), *words):
        assert word in last, last


def _alter(process: ApiServerProcess, statement: str) -> None:
    connection = sqlite3.connect(process.store)
    with connection:
        connection.execute(statement)
    connection.close()


def test_a_store_of_a_newer_schema_is_left_alone(started: ApiServerProcess) -> None:
    assert started.stop() == 0
    _alter(started, "PRAGMA user_version = 99")
    before = started.store.read_bytes()
    assert_refused(started, "newer", "99", "use that version, or another data directory")
    assert started.store.read_bytes() == before


def test_a_file_of_another_program_is_left_alone(started: ApiServerProcess) -> None:
    assert started.stop() == 0
    _alter(started, "PRAGMA application_id = 5")
    assert_refused(started, "another program")


@pytest.mark.parametrize("offset", [0, 4096 * 2 + 100], ids=["header", "page"])
def test_a_damaged_file_says_to_restore_a_snapshot(started: ApiServerProcess, offset: int) -> None:
    assert started.stop() == 0
    with started.store.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(offset)
        file.write(os.urandom(min(size - offset, 200_000)))
    assert_refused(started, "restore a snapshot")


def test_a_cut_file_says_to_restore_a_snapshot(started: ApiServerProcess) -> None:
    assert started.stop() == 0
    os.truncate(started.store, started.store.stat().st_size // 2)
    assert_refused(started, "restore a snapshot")


def test_a_directory_in_the_place_of_the_store_says_to_check_it(process: ApiServerProcess) -> None:
    process.store.mkdir(parents=True)
    assert_refused(process, "check the directory and its owner")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_store_that_may_not_be_opened_says_to_check_its_owner(started: ApiServerProcess) -> None:
    assert started.stop() == 0
    started.store.chmod(0)
    started.root.chmod(0o500)
    assert_refused(started, "check the directory and its owner")
    started.root.chmod(0o700)


def test_the_files_of_the_store_are_the_owners_alone(started: ApiServerProcess) -> None:
    for file in started.root.glob("store.db*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_second_server_on_the_same_store_is_refused(started: ApiServerProcess) -> None:
    second = ApiServerProcess(started.home, log_path=started.home / "second.log")
    try:
        assert_refused(second, "another process uses this store", "stop it first")
    finally:
        second.close()


async def _post(wire: Wire, name: str) -> Reply | None:
    """Send one write in full; return its whole answer, None when the connection ended before an answer began."""
    body = b'{"metadata":{"name":"%b"}}' % name.encode()
    head = f"POST {CONFIGMAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    await wire.send(head + body)
    return await wire.reply()


async def _names(wire: Wire, revision: str, seen: dict[str, str], until: str = "") -> None:
    """Watch from a revision until the server ends the watch cleanly, or until a name is seen."""
    await wire.send(f"GET {CONFIGMAPS}?watch=1&resourceVersion={revision} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await wire.head() or (0, {}))[0] == 200
    async with aclosing(wire.events()) as events:  # ends with the last chunk, or this raises
        async for event in events:
            metadata = event["object"]["metadata"]
            seen[metadata["name"]] = metadata["resourceVersion"]
            if metadata["name"] == until:
                return
    assert not until
    assert await wire.end() == b""


async def test_sigterm_answers_what_runs_ends_watches_and_exits_with_0(started: ApiServerProcess) -> None:
    names = [f"late{i}" for i in range(40)]
    seen: dict[str, str] = {}
    answered: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        watching, idle, *wires = [await stack.enter_async_context(started.wire()) for _ in range(len(names) + 2)]
        first = (await idle.request("GET", CONFIGMAPS)).json["metadata"]["resourceVersion"]
        watch = asyncio.create_task(_names(watching, first, seen))
        writes = [asyncio.create_task(_post(wire, name)) for wire, name in zip(wires, names, strict=True)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        assert await asyncio.to_thread(started.stop) == 0
        for name, reply in zip(names, await asyncio.gather(*writes), strict=True):
            if reply is not None:  # None: its connection was closed before the request was begun
                assert reply.status == 201
                answered[name] = reply.json["metadata"]["resourceVersion"]
        await watch
        assert await idle.end() == b""
    assert answered and not started.complaints()
    started.start()
    async with started.wire() as wire, started.wire() as watching:
        assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "last"}})).status == 201
        items = (await wire.request("GET", CONFIGMAPS)).json["items"]
        await _names(watching, max([first, *seen.values()], key=int), seen, until="last")
    found = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}
    assert answered.items() <= found.items()
    assert found == seen
