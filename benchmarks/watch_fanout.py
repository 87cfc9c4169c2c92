"""CPU of the API server for each watch event that it delivers, over TLS, with many watchers of one writer.

Two ways of writing: `single`, where the writer waits until every watcher has an event before it makes the next one
(no two events can share a TLS record), and `burst`, where many writers write at once. Prints one JSON line for each:
events delivered, CPU microseconds each, time from the write's start until a watcher has its event. The watchers'
own CPU is not counted, but they share the machine.

Run: python benchmarks/watch_fanout.py [--watchers 1000] [--events 60] [--accept TYPE]
     python benchmarks/watch_fanout.py --url https://127.0.0.1:6443 --token T --pids apiserver=123
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import time
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

import uvloop
from benchmark_cluster import Target, add_target_options, insecure, open_target
from idle_memory import cpu_s

NAMESPACE = "watch-fanout"
COLLECTION = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
WRITERS = 32
"""Connections that write at once in a burst."""
PATIENCE_S = 60.0
_SENT = re.compile(rb'sent(?:":"|\x12.)(\d+)(?=\D)', re.DOTALL)
"""The time in an event, in JSON or in protobuf."""
_TAIL_BYTES = 40


class Tally:
    """What all watchers have seen together."""

    def __init__(self) -> None:
        self.expected = 0
        self.delivered = 0
        self.latencies_ms: list[float] = []
        self._reached = asyncio.Event()

    def expect(self, count: int) -> None:
        self.expected += count
        self._reached.clear()

    def add(self, sent_ns: Sequence[bytes]) -> None:
        now_ns = time.perf_counter_ns()
        self.latencies_ms += [(now_ns - int(text)) / 1e6 for text in sent_ns]
        self.delivered += len(sent_ns)
        if self.delivered >= self.expected:
            self._reached.set()

    async def until_all(self) -> None:
        """Wait until every watcher has every event."""
        try:
            await asyncio.wait_for(self._reached.wait(), PATIENCE_S)
        except TimeoutError:
            raise RuntimeError(
                f"only {self.delivered} of {self.expected} events arrived in {PATIENCE_S:.0f} s"
            ) from None


class Watcher(asyncio.Protocol):
    """One watch: a request, then events until the end."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            if not data.startswith(b"HTTP/1.1 200"):
                self.opened.set_exception(RuntimeError(f"the watch was refused: {data[:300]!r}"))
                return
            self.opened.set_result(None)
        data = self._rest + data
        last = 0
        found = []
        for match in _SENT.finditer(data):
            found.append(match[1])
            last = match.end()
        self._rest = data[max(last, len(data) - _TAIL_BYTES) :]
        if found:
            self._tally.add(found)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError(f"the server closed the watch: {error}"))


class Writer:
    """One keep-alive connection that patches one ConfigMap; the patch carries the time at which it was sent."""

    def __init__(self, target: Target, name: str) -> None:
        self._target = target
        self._head = f"PATCH {COLLECTION}/{name} HTTP/1.1\r\n{_common_headers(target)}".encode()

    async def open(self) -> None:
        parts = urlsplit(self._target.url)
        self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=insecure())

    async def write(self) -> None:
        body = b'{"data":{"sent":"%d"}}' % time.perf_counter_ns()
        head = b"%bContent-Type: application/merge-patch+json\r\nContent-Length: %d\r\n\r\n" % (self._head, len(body))
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a write failed: {answer[:200]!r}")
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        assert length is not None
        await self._reader.readexactly(int(length[1]))


def _common_headers(target: Target) -> str:
    return f"Host: {urlsplit(target.url).netloc}\r\nAuthorization: Bearer {target.token}\r\nUser-Agent: bench\r\n"


async def open_watches(target: Target, count: int, tally: Tally, revision: str, accept: str) -> None:
    parts = urlsplit(target.url)
    context = insecure()
    request = (
        f"GET {COLLECTION}?watch=1&resourceVersion={revision}&allowWatchBookmarks=true HTTP/1.1\r\n"
        f"{_common_headers(target)}Accept: {accept}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(32)

    async def one() -> None:
        async with gate:
            _, watcher = await loop.create_connection(
                lambda: Watcher(request, tally), parts.hostname, parts.port, ssl=context
            )
            await watcher.opened

    await asyncio.gather(*(one() for _ in range(count)))


async def run(target: Target, watchers: int, events: int, accept: str) -> None:
    target.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for number in range(WRITERS):
        target.call("POST", COLLECTION, {"metadata": {"name": f"w-{number}"}, "data": {"key": "y" * 200}})
    revision = target.call("GET", COLLECTION)["metadata"]["resourceVersion"]
    tally = Tally()
    await open_watches(target, watchers, tally, revision, accept)
    writers = [Writer(target, f"w-{number}") for number in range(WRITERS)]
    for writer in writers:
        await writer.open()
    for mode in ("single", "burst"):
        tally.latencies_ms.clear()
        delivered, started_s, used_s = tally.delivered, time.perf_counter(), _cpu_s(target)
        if mode == "single":
            for _ in range(events):
                tally.expect(watchers)
                await writers[0].write()
                await tally.until_all()
        else:
            for _ in range(max(1, events * 4 // WRITERS)):
                tally.expect(watchers * WRITERS)
                await asyncio.gather(*(writer.write() for writer in writers))
                await tally.until_all()
        used_s, took_s = _cpu_s(target) - used_s, time.perf_counter() - started_s
        report(f"{mode} {accept}", watchers, tally.delivered - delivered, used_s, took_s, sorted(tally.latencies_ms))
    target.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def _cpu_s(target: Target) -> float:
    return sum(cpu_s(pid) for pid in target.pids.values())


def report(mode: str, watchers: int, delivered: int, used_s: float, took_s: float, latencies: list[float]) -> None:
    print(
        json.dumps(
            {
                "benchmark": "watch_fanout",
                "mode": mode,
                "watchers": watchers,
                "delivered": delivered,
                "cpu_us_per_event": round(used_s * 1e6 / delivered, 2),
                "delivered_per_s": round(delivered / took_s),
                "p50_ms": round(latencies[len(latencies) // 2], 2),
                "p99_ms": round(latencies[len(latencies) * 99 // 100], 2),
            }
        ),
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_target_options(options)
    options.add_argument("--watchers", type=int, default=1000)
    options.add_argument("--accept", default="application/json", help="media type of the watches")
    options.add_argument("--events", type=int, default=60, help="writes one at a time; four times as many in bursts")
    arguments = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open_target(arguments) as target:
        if "apiserver" in target.pids:
            target.pids = {"apiserver": target.pids["apiserver"]}
        uvloop.run(run(target, arguments.watchers, arguments.events, arguments.accept))


if __name__ == "__main__":
    main()
