"""The SQLite file: its schema, how it is opened, and the statements over its log.

One table `log` holds each change as a row. The row id is `revision << 16 | place in the commit`, so rows are appended
in order and every question about history is a range of row ids. There is no index by key: the newest entries are in
memory, and `previous` (the revision that a row replaced, 0 for a creation) leads to older ones. That halves the cost of
a commit. `meta` holds `compacted` (history up to there may be gone) and `cleaned` (superseded rows up to there are).

Invariant: a row with a revision above `compacted`, and the row that it replaced, are in the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from tiphys.store.interface import Compacted, Entry, Event, StoreFailed
from tiphys.store.ledger import FIRST_REVISION, Change, prefix_end

SCHEMA_VERSION = 1
APPLICATION_ID = 0x74697068  # "tiph"
PLACE_BITS = 16
REPLAY_ROWS = 1_000
"""Rows that a replay reads at once."""
CLEAN_ROWS = 500
"""Rows that one step of compaction looks at; bounds how long a commit waits for it."""
VACUUM_PAGES = 256
INSERT_ROWS = 64
"""Rows of one INSERT. Many rows in one statement mean one release of the interpreter lock instead of many."""

_SCHEMA = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL, previous INTEGER NOT NULL
);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_REPLACED = f"""p.id BETWEEN n.previous << {PLACE_BITS} AND (n.previous << {PLACE_BITS}) + {(1 << PLACE_BITS) - 1}
    AND p.key = n.key AND n.previous > 0"""

Row = tuple[int, str, bytes | None, int, int]


def first_id(revision: int) -> int:
    """Return the id below which all rows are of older revisions."""
    return revision << PLACE_BITS


def rows_of(changes: Sequence[Change], revision: int) -> list[Row]:
    """Return the rows of one commit."""
    base = revision << PLACE_BITS
    return [
        (
            base + place,
            key,
            new.value if new else None,
            new.create_revision if new else 0,
            old.revision if old else 0,
        )
        for place, (key, new, old) in enumerate(changes)
    ]


def open_file(path: str, *, max_bytes: int = 0) -> sqlite3.Connection:
    """Open the file for writing, making it (0600) if it is not there. Raises StoreFailed."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    except (OSError, sqlite3.Error) as error:
        raise StoreFailed(f"cannot open the store {path}: {error}; check the directory and its owner") from error
    try:
        _prepare(connection, path)
        if max_bytes:
            page_size = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(max_bytes // page_size, 8)}")
    except sqlite3.Error as error:
        connection.close()
        raise StoreFailed(f"cannot use the store {path}: {error}; restore a snapshot if it is damaged") from error
    except StoreFailed:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and application != APPLICATION_ID:
        raise StoreFailed(f"{path} is a SQLite file of another program; give another path")
    if version > SCHEMA_VERSION:
        raise StoreFailed(
            f"{path} was written by a newer Tiphys (schema {version}, this one reads up to {SCHEMA_VERSION}); "
            "use that version, or another data directory"
        )
    if empty:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    if empty:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )


def open_reader(path: str) -> sqlite3.Connection:
    """Open the file for reading beside the writer."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = 1")
    return connection


def read_meta(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row else 0


def write_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def recover(connection: sqlite3.Connection) -> tuple[dict[str, Entry], int, int]:
    """Return the newest entries, the newest revision and the compacted one."""
    entries: dict[str, Entry] = {}
    newest = 0
    for row_id, key, value, created in connection.execute(
        "SELECT id, key, value, create_revision FROM log ORDER BY id"
    ):
        newest = row_id
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = Entry(key, value, row_id >> PLACE_BITS, created)
    compacted = read_meta(connection, "compacted")
    return entries, max(newest >> PLACE_BITS, compacted, FIRST_REVISION), compacted


def insert_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Append rows; all or none. A group of up to INSERT_ROWS is one statement and so its own transaction."""
    if len(rows) <= INSERT_ROWS:
        _insert(connection, rows)
        return
    connection.execute("BEGIN IMMEDIATE")
    for start in range(0, len(rows), INSERT_ROWS):
        _insert(connection, rows[start : start + INSERT_ROWS])
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    values = "(?,?,?,?,?)," * len(rows)
    parameters = [cell for row in rows for cell in row]
    connection.execute(f"INSERT INTO log VALUES {values[:-1]}", parameters)


def clean_step(connection: sqlite3.Connection, revision: int) -> bool:
    """Remove some superseded rows up to `revision`, in one transaction. Returns whether more are left."""
    cleaned = read_meta(connection, "cleaned")
    low, high = first_id(cleaned + 1), first_id(revision + 1)
    last = connection.execute(
        "SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?", (low, high, CLEAN_ROWS)
    ).fetchone()
    reached = last[0] >> PLACE_BITS if last else revision
    span = (low, first_id(reached + 1))
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        f"DELETE FROM log WHERE id IN (SELECT p.id FROM log n JOIN log p ON {_REPLACED} WHERE n.id >= ? AND n.id < ?)",
        span,
    )
    connection.execute("DELETE FROM log WHERE id >= ? AND id < ? AND value IS NULL", span)
    write_meta(connection, "cleaned", reached)
    connection.execute("COMMIT")
    return reached < revision


def vacuum_step(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system. Returns whether more are left."""
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return free > 0


def read_before(connection: sqlite3.Connection, prefix: str, revision: int, current: int) -> dict[str, Entry | None]:
    """Return, for each key changed after `revision` up to `current`, its entry at `revision`. Raises Compacted."""
    with _Snapshot(connection, revision):
        rows = connection.execute(
            f"""SELECT n.key, min(n.id), p.id, p.value, p.create_revision FROM log n LEFT JOIN log p ON {_REPLACED}
            WHERE n.id >= ? AND n.id < ? AND n.key >= ? AND n.key < ? GROUP BY n.key""",
            (first_id(revision + 1), first_id(current + 1), prefix, prefix_end(prefix) if prefix else "\U0010ffff"),
        ).fetchall()
    return {
        key: Entry(key, value, row_id >> PLACE_BITS, created) if row_id is not None else None
        for key, _, row_id, value, created in rows
    }


def read_events(connection: sqlite3.Connection, prefix: str, after: int, current: int) -> tuple[list[Event], int]:
    """Return some events after a revision and the revision up to which they are complete. Raises Compacted."""
    low, high = first_id(after + 1), first_id(current + 1)
    with _Snapshot(connection, after):
        last = connection.execute(
            "SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?", (low, high, REPLAY_ROWS)
        ).fetchone()
        reached = last[0] >> PLACE_BITS if last else current
        rows = connection.execute(
            f"""SELECT n.id, n.key, n.value, p.value FROM log n LEFT JOIN log p ON {_REPLACED}
            WHERE n.id >= ? AND n.id < ? AND n.key >= ? AND n.key < ? ORDER BY n.id""",
            (low, first_id(reached + 1), prefix, prefix_end(prefix) if prefix else "\U0010ffff"),
        ).fetchall()
    return [Event(key, row_id >> PLACE_BITS, value, previous) for row_id, key, value, previous in rows], reached


class _Snapshot:
    """A read transaction in which history after `revision` is certainly there."""

    def __init__(self, connection: sqlite3.Connection, revision: int) -> None:
        self._connection = connection
        self._revision = revision

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")
        compacted = read_meta(self._connection, "compacted")
        if self._revision < compacted:
            self._connection.execute("COMMIT")
            raise Compacted(self._revision, compacted)

    def __exit__(self, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
