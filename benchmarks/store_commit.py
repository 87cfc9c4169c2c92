"""CPU time and latency of durable commits into the SQLite store; prints JSON.

    python benchmarks/store_commit.py [--commits 20000] [--writers 64] [--bytes 1000] [--directory DIR]

Each writer has one commit on its way at a time, as API requests do, so groups are as large as there are writers. Half
of the commits create a key, half update one with its expected revision. CPU is that of the whole process, user and
system, in milliseconds a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from typing import Any

import uvloop

from tiphys.store.interface import ABSENT, Operation
from tiphys.store.sqlite import SqliteStore


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def write(store: SqliteStore, writer: int, commits: int, value: bytes, latencies_s: list[float]) -> None:
    revision = 0
    for number in range(commits):
        key = f"/registry/core/configmaps/default/{writer}-{number // 2}"
        start = time.perf_counter()
        revision = await store.commit([Operation(key, value, revision if number % 2 else ABSENT)])
        latencies_s.append(time.perf_counter() - start)


async def follow(store: SqliteStore) -> None:
    async for _ in store.watch("", store.current_revision()):
        pass


async def measure(options: argparse.Namespace, directory: str) -> dict[str, Any]:
    path = os.path.join(directory, "bench.db")
    store = SqliteStore(path)
    await store.start()
    following = asyncio.create_task(follow(store))
    await asyncio.sleep(0)
    value = os.urandom(options.bytes // 2).hex().encode()
    latencies_s: list[float] = []
    each = options.commits // options.writers
    cpu, start = cpu_s(), time.perf_counter()
    await asyncio.gather(*(write(store, writer, each, value, latencies_s) for writer in range(options.writers)))
    cpu, elapsed_s = cpu_s() - cpu, time.perf_counter() - start
    size_before = os.stat(path).st_size
    compact_cpu, compact_start = cpu_s(), time.perf_counter()
    await store.compact(store.current_revision())
    compact_cpu, compact_s = cpu_s() - compact_cpu, time.perf_counter() - compact_start
    await store.stop()
    await following
    latencies_s.sort()
    count = len(latencies_s)
    return {
        "benchmark": "store_commit",
        "commits": count,
        "writers": options.writers,
        "value_bytes": len(value),
        "cpu_ms_per_commit": round(cpu / count * 1000, 4),
        "commits_per_s": round(count / elapsed_s),
        "latency_ms": {
            name: round(latencies_s[int(count * part)] * 1000, 2)
            for name, part in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
        },
        "compaction": {
            "s": round(compact_s, 3),
            "cpu_ms_per_commit": round(compact_cpu / count * 1000, 4),
            "file_bytes_before": size_before,
            "file_bytes_after": os.stat(path).st_size,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure durable commits of the SQLite store.")
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--bytes", type=int, default=1_000, help="size of a value")
    parser.add_argument("--directory", default=None, help="where to put the file (default: the temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        print(json.dumps(uvloop.run(measure(options, directory))))


if __name__ == "__main__":
    main()
