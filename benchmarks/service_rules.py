"""Measures the service rules: a full load and single updates with many Services, in a network namespace of its own.

    sudo python benchmarks/service_rules.py --services 10000 --endpoints 3

Prints JSON. "update" is a whole `ServiceProxy.update` of one Service whose endpoints change, from the call until the
kernel has it; CPU is that of the whole process, kernel work included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import time

from tiphys.network.interface import Endpoint, ServicePort
from tiphys.network.nftables import NftablesProxy
from tiphys.runtime import syscalls


def services(count: int, endpoints: int, shift: int = 0) -> list[ServicePort]:
    def address(second: int, number: int) -> str:
        return f"10.{second + number // 65536}.{number // 256 % 256}.{number % 256}"

    return [
        ServicePort(
            namespace="default",
            name=f"service-{i}",
            port_name="",
            protocol="TCP",
            port=80,
            cluster_ips=(address(96, i),),
            endpoints=tuple(Endpoint(address(128, i * endpoints + j + shift), 8080) for j in range(endpoints)),
        )
        for i in range(count)
    ]


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(count: int, endpoints: int, updates: int) -> dict[str, object]:
    proxy = NftablesProxy("tiphys-bench", "10.128.0.0/9", "ti-bench")
    ports, moved = services(count, endpoints), services(count, endpoints, shift=1)
    started_s, started_cpu_s = time.perf_counter(), cpu_s()
    await proxy.sync(ports)
    load_s, load_cpu_s = time.perf_counter() - started_s, cpu_s() - started_cpu_s
    times_ms = []
    started_cpu_s = cpu_s()
    for i in range(updates):
        port = moved[i * (count // updates)]
        started_s = time.perf_counter()
        await proxy.update({(port.namespace, port.name): [port]})
        times_ms.append((time.perf_counter() - started_s) * 1000)
    update_cpu_ms = (cpu_s() - started_cpu_s) * 1000 / updates
    await proxy.stop(remove=True)
    times_ms.sort()
    return {
        "services": count,
        "endpoints_each": endpoints,
        "load_s": round(load_s, 3),
        "load_cpu_s": round(load_cpu_s, 3),
        "update_ms_median": round(statistics.median(times_ms), 3),
        "update_ms_p99": round(times_ms[int(len(times_ms) * 0.99)], 3),
        "update_cpu_ms": round(update_cpu_ms, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--endpoints", type=int, default=3)
    parser.add_argument("--updates", type=int, default=500)
    arguments = parser.parse_args()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    result = asyncio.run(measure(arguments.services, arguments.endpoints, arguments.updates))
    print(json.dumps({"benchmark": "service_rules", **result}, indent=1))


if __name__ == "__main__":
    main()
