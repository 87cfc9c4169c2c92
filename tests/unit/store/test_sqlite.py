"""What only the SQLite store promises: durability, one file, space, and clear refusals."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tiphys.store.interface import Operation, StoreFailed
from tiphys.store.sqlite import SqliteStore

WRITER = """
import asyncio, sys
from tiphys.store.interface import Operation
from tiphys.store.sqlite import SqliteStore

async def write(store, worker):
    number = 0
    while True:
        number += 1
        key = f"/{worker}/{number % 20}"
        value = f"{worker}-{number}"
        revision = await store.commit([Operation(key, value.encode()), Operation(key + "/twin", value.encode())])
        sys.stdout.write(f"{revision} {key} {value}\\n")
        sys.stdout.flush()
        if worker == 0 and number % 25 == 0:
            asyncio.ensure_future(store.compact(revision - 10))

async def main():
    store = SqliteStore(sys.argv[1])
    await store.start()
    await asyncio.gather(*(write(store, worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


async def reopened(path: str) -> SqliteStore:
    store = SqliteStore(path)
    await store.start()
    return store


def acknowledged_before_kill(path: str, count: int) -> list[str]:
    """Let a child write until it told `count` commits, kill it, and return all that it told."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(count)]
    os.kill(child.pid, signal.SIGKILL)
    lines += [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    child.stdout.close()
    child.wait()
    return lines


@pytest.mark.parametrize("lines_before_kill", [40, 400])
async def test_kill_9_loses_no_acknowledged_write(path: str, lines_before_kill: int) -> None:
    lines = acknowledged_before_kill(path, lines_before_kill)
    store = await reopened(path)
    newest: dict[str, tuple[int, str]] = {}
    for line in lines:
        revision, key, value = line.split()
        newest[key] = max(newest.get(key, (0, "")), (int(revision), value))
    for key, (revision, value) in newest.items():
        entry = await store.get(key)
        twin = await store.get(key + "/twin")
        assert entry is not None and entry.revision >= revision
        assert twin is not None and (twin.value, twin.revision) == (entry.value, entry.revision), "half a commit"
        assert entry.revision > revision or entry.value.decode() == value
    assert store.current_revision() >= max(revision for revision, _ in newest.values())
    await store.stop()


async def test_a_restart_keeps_revisions_history_and_compaction(path: str) -> None:
    store = await reopened(path)
    for number in range(5):
        await store.commit([Operation("/a", b"%d" % number)])
    await store.commit([Operation("/a", None)])
    await store.compact(4)
    await store.stop()
    store = await reopened(path)
    assert (store.current_revision(), store.compacted_revision()) == (7, 4)
    assert [e.value for e in (await store.list("/", revision=5)).entries] == [b"3"]
    await store.compact(7)
    await store.stop()
    store = await reopened(path)
    assert store.current_revision() == 7, "compacting the newest deletion does not turn revisions back"
    assert await store.commit([Operation("/a", b"x", 0)]) == 8
    await store.stop()


async def test_an_interrupted_compaction_goes_on_at_the_next_start(path: str) -> None:
    store = await reopened(path)
    for number in range(10):
        await store.commit([Operation("/a", b"%d" % number)])
    await store.stop()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta VALUES ('compacted', 9)")
    connection.commit()
    connection.close()
    store = await reopened(path)
    await store.compact(11)
    await store.stop()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (1,)
    connection.close()


async def test_the_file_and_its_companions_are_private(path: str) -> None:
    store = await reopened(path)
    await store.commit([Operation("/a", b"1")])
    await store.snapshot(path + ".snapshot")
    for suffix in ("", "-wal", "-shm", ".lock", ".snapshot"):
        assert os.stat(path + suffix).st_mode & 0o777 == 0o600, suffix
    await store.stop()


async def test_compaction_gives_the_space_back_while_commits_go_on(path: str) -> None:
    store = await reopened(path)
    for _ in range(8):
        await asyncio.gather(*(store.commit([Operation(f"/{key}", os.urandom(4000))]) for key in range(250)))
    compacting = asyncio.ensure_future(store.compact(store.current_revision()))
    commits = 0
    while not compacting.done():
        await store.commit([Operation("/live", b"x")])
        commits += 1
    await compacting
    await store.stop()
    assert commits > 3
    assert os.stat(path).st_size < 2_500_000


async def test_a_full_medium_fails_commits_and_recovers(path: str) -> None:
    store = SqliteStore(path, max_bytes=1_000_000)
    await store.start()
    revision = await store.commit([Operation("/a", b"x" * 500_000)])
    results = await asyncio.gather(
        *(store.commit([Operation("/a", b"y" * 300_000)]) for _ in range(4)), return_exceptions=True
    )
    failed = [result for result in results if isinstance(result, StoreFailed)]
    assert failed and "free space" in str(failed[0])
    assert store.current_revision() == revision + 4 - len(failed)
    entry = await store.get("/a")
    assert entry is not None and entry.revision == store.current_revision()
    assert await store.commit([Operation("/small", b"1")]) == store.current_revision()
    await store.compact(store.current_revision())
    assert await store.commit([Operation("/a", b"z" * 300_000)]) == store.current_revision()
    await store.stop()


async def test_a_second_process_is_kept_away(path: str) -> None:
    store = await reopened(path)
    with pytest.raises(StoreFailed, match="another process"):
        await SqliteStore(path).start()
    await store.stop()


async def test_newer_foreign_and_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    newer = str(tmp_path / "newer.db")
    store = await reopened(newer)
    await store.stop()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreFailed, match=r"newer\.db was written by a newer Tiphys \(schema 9"):
        await SqliteStore(newer).start()

    foreign = str(tmp_path / "foreign.db")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(StoreFailed, match="another program"):
        await SqliteStore(foreign).start()

    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreFailed, match="damaged"):
        await SqliteStore(str(damaged)).start()
    with pytest.raises(StoreFailed, match="cannot make"):
        await SqliteStore(str(tmp_path / "missing" / "store.db")).start()


async def test_a_writer_that_ended_is_told_and_not_waited_for(path: str) -> None:
    store = await reopened(path)
    await store.commit([Operation("/a", b"1")])
    writer = store._writer
    assert writer is not None
    writer._stopping = True  # as after a programmer error: the thread ends without being asked to
    with pytest.raises(StoreFailed, match="restart the server"):
        for _ in range(3):
            await store.commit([Operation("/b", b"1")])
    await store.stop()
