"""Metrics that cost nothing until they are asked for: objects, store, process, checks, what other parts counted.

`publish_state` adds collectors to a `Metrics`; they read what is there at the moment of the scrape. `MeasuredStore`
stands before a store and takes the time of what goes to the medium.

Spec: Kubernetes documentation, "Kubernetes Metrics Reference"; Prometheus client conventions for `process_*`.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol, runtime_checkable

from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.health import Health
from tiphys.apiserver.reads import Reads
from tiphys.base.clock import Clock
from tiphys.base.metrics import Labels, Metrics, Sample, Series, histogram_lines
from tiphys.store.interface import Entry, Event, Operation, Page, Store

STORE_DURATIONS_S = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CLUSTER = "etcd-0"
"""How upstream numbers its stores; there is one."""


@runtime_checkable
class Measurable(Protocol):
    """A store that knows how much space it takes."""

    def size_bytes(self) -> int: ...


def publish_state(
    metrics: Metrics, cache: WatchCache, store: Store, reads: Reads, health: Health, version: tuple[int, int]
) -> None:
    """Publish what is read at each scrape."""

    def objects() -> Iterable[Sample]:
        for item in cache.resources():
            group, plural = item.prefix.strip("/").split("/")[1:3]
            yield ((plural if group == "core" else f"{plural}.{group}",), item.count())

    def resource_objects() -> Iterable[Sample]:
        for item in cache.resources():
            group, plural = item.prefix.strip("/").split("/")[1:3]
            yield (("" if group == "core" else group, plural), item.count())

    def size() -> Iterable[Sample]:
        return [((CLUSTER,), store.size_bytes())] if isinstance(store, Measurable) else []

    tell = metrics.collect
    tell("gauge", "apiserver_storage_objects", "Stored objects by resource.", ("resource",), objects)
    tell("gauge", "apiserver_resource_objects", "Stored objects by resource.", ("group", "resource"), resource_objects)
    tell("gauge", "apiserver_storage_size_bytes", "Size of the store's files.", ("storage_cluster_id",), size)
    tell(
        "gauge",
        "etcd_debugging_mvcc_current_revision",
        "The newest revision of the store.",
        (),
        lambda: [((), store.current_revision())],
    )
    tell(
        "gauge",
        "kubernetes_healthcheck",
        "Whether a check of an endpoint is well (1) or not (0).",
        ("name", "type"),
        lambda: [((name, endpoint), int(well)) for name, endpoint, well in health.results()],
    )
    watched = ("group", "version", "resource")
    tell(
        "counter",
        "apiserver_watch_events_total",
        "Events sent to watches.",
        watched,
        lambda: [(labels, sum(series.counts)) for labels, series in _watched(reads)],
    )
    metrics.add(_EventSizes(reads, watched))
    major, minor = version
    labels = ("major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler")
    values = (
        str(major),
        str(minor),
        f"v{major}.{minor}.0",
        "",
        "",
        "",
        f"python{platform.python_version()}",
        "cpython",
    )
    machine = platform.machine()
    where = f"linux/{_ARCHITECTURES.get(machine, machine)}"
    tell(
        "gauge",
        "kubernetes_build_info",
        "The version that is served; always 1.",
        (*labels, "platform"),
        lambda: [((*values, where), 1)],
    )


def _watched(reads: Reads) -> Iterable[tuple[Labels, Series]]:
    for fanout in reads.fanouts():
        group, plural = fanout.resource.prefix.strip("/").split("/")[1:3]
        for version, series in fanout.sent.items():
            yield ("" if group == "core" else group, version, plural), series


class _EventSizes:
    """Sizes of the events that watches were sent."""

    kind = "histogram"
    name = "apiserver_watch_events_sizes"
    help = "Sizes of the events sent to watches in bytes."

    def __init__(self, reads: Reads, labels: Labels) -> None:
        self.labels = labels
        self._reads = reads

    def lines(self) -> Iterable[str]:
        for values, series in _watched(self._reads):
            yield from histogram_lines(self.name, self.labels, values, series.bounds, series.counts, series.total)


def publish_process(metrics: Metrics, started_s: float) -> None:
    """Publish what every process tells of itself. `started_s` is wall time."""

    def cpu() -> Iterable[Sample]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [((), round(usage.ru_utime + usage.ru_stime, 3))]

    def pages(field: int) -> Iterable[Sample]:
        with open("/proc/self/statm") as file:
            return [((), int(file.read().split()[field]) * os.sysconf("SC_PAGE_SIZE"))]

    tell = metrics.collect
    tell("counter", "process_cpu_seconds_total", "CPU time of this process in seconds.", (), cpu)
    tell("gauge", "process_virtual_memory_bytes", "Virtual memory of this process.", (), lambda: pages(0))
    tell("gauge", "process_resident_memory_bytes", "Resident memory of this process.", (), lambda: pages(1))
    tell(
        "gauge", "process_open_fds", "Open files of this process.", (), lambda: [((), len(os.listdir("/proc/self/fd")))]
    )
    tell(
        "gauge",
        "process_max_fds",
        "How many files this process may open.",
        (),
        lambda: [((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])],
    )
    tell(
        "gauge",
        "process_start_time_seconds",
        "When this process was started, in seconds since 1970.",
        (),
        lambda: [((), round(started_s, 2))],
    )


class MeasuredStore:
    """A store with its times taken, by operation and resource."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._now_s = clock.monotonic_s
        labels = ("operation", "type")
        self._durations = metrics.histogram(
            "etcd_request_duration_seconds", "Time of requests to the store in seconds.", labels, STORE_DURATIONS_S
        )
        self._errors = metrics.counter("etcd_request_errors_total", "Requests that the store refused.", labels)
        metrics.collect(
            "counter",
            "etcd_requests_total",
            "Requests to the store.",
            labels,
            lambda: [(labels, sum(series.counts)) for labels, series in self._durations.series.items()],
        )
        self._types: dict[str, str] = {}

    def _observe(self, operation: str, key: str, began_s: float, *, failed: bool) -> None:
        end = key.find("/", key.find("/", 10) + 1)
        prefix = key[:end] if end > 0 else key
        kind = self._types.get(prefix)
        if kind is None:
            kind = self._types[prefix] = _type_of(prefix)
        self._durations.of((operation, kind)).observe(self._now_s() - began_s)
        if failed:
            self._errors.inc((operation, kind))

    async def start(self) -> None:
        await self._store.start()

    async def stop(self) -> None:
        await self._store.stop()

    def current_revision(self) -> int:
        return self._store.current_revision()

    def compacted_revision(self) -> int:
        return self._store.compacted_revision()

    async def get(self, key: str) -> Entry | None:
        began_s, failed = self._now_s(), True
        try:
            found = await self._store.get(key)
            failed = False
            return found
        finally:
            self._observe("get", key, began_s, failed=failed)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 0, revision: int = 0) -> Page:
        began_s, failed = self._now_s(), True
        try:
            page = await self._store.list(prefix, start_after=start_after, limit=limit, revision=revision)
            failed = False
            return page
        finally:
            self._observe("list", prefix, began_s, failed=failed)

    async def commit(self, operations: Sequence[Operation]) -> int:
        began_s, failed = self._now_s(), True
        try:
            revision = await self._store.commit(operations)
            failed = False
            return revision
        finally:
            if operations:
                first = operations[0]
                verb = "delete" if first.value is None else "update" if first.expected else "create"
                self._observe(verb, first.key, began_s, failed=failed)

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        return self._store.watch(prefix, after_revision)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def snapshot(self, path: str) -> int:
        return await self._store.snapshot(path)


def _type_of(prefix: str) -> str:
    """Return `deployments.apps` for /registry/apps/deployments."""
    parts = prefix.strip("/").split("/")
    if len(parts) < 3:
        return prefix
    return parts[2] if parts[1] == "core" else f"{parts[2]}.{parts[1]}"
