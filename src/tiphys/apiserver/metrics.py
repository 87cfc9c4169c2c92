"""What /metrics tells: upstream's metric names for what this server knows without counting on the hot path.

Spec: Kubernetes documentation, "Kubernetes Metrics Reference"; Prometheus text format 0.0.4.
"""

from __future__ import annotations

import os
import resource

from tiphys.apiserver.cache import WatchCache
from tiphys.store.interface import Store


def format_metrics(cache: WatchCache, store: Store) -> bytes:
    """Return the metrics in Prometheus' text format."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    lines = [
        "# HELP apiserver_storage_objects Number of stored objects, by resource.",
        "# TYPE apiserver_storage_objects gauge",
    ]
    for item in cache.resources():
        group, plural = item.prefix.strip("/").split("/")[1:3]
        name = plural if group == "core" else f"{plural}.{group}"
        lines.append(f'apiserver_storage_objects{{resource="{name}"}} {item.count()}')
    lines += [
        "# HELP etcd_debugging_mvcc_current_revision The newest revision of the store.",
        "# TYPE etcd_debugging_mvcc_current_revision gauge",
        f"etcd_debugging_mvcc_current_revision {store.current_revision()}",
        "# HELP process_cpu_seconds_total CPU time of this process in seconds.",
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}",
        "# HELP process_resident_memory_bytes Resident memory of this process in bytes.",
        "# TYPE process_resident_memory_bytes gauge",
        f"process_resident_memory_bytes {resident}",
        "",
    ]
    return "\n".join(lines).encode()
