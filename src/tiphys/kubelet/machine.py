"""What the node's machine is: the only file here that reads /proc and /etc about it. Simulated nodes make the record."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiphys.api.quantity import Written

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
DISK_SHARE = 0.9
MEMORY_THRESHOLD_BYTES = 100 << 20


@dataclass(frozen=True, slots=True)
class Pressure:
    """What runs short on the machine."""

    memory: bool = False
    disk: bool = False
    pids: bool = False
    memory_available_bytes: int = 0
    """Told when memory is short."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Capacity and identity. Sizes in bytes."""

    cpus: int = 4
    memory_bytes: int = 8 << 30
    disk_bytes: int = 100 << 30
    max_pods: int = 110
    architecture: str = "amd64"
    kernel: str = "6.1.0"
    os_image: str = "simulated"
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    extra_capacity: Mapping[str, Written] = field(default_factory=dict)
    reserved: Mapping[str, Written] = field(default_factory=dict)
    """Resource -> what pods do not get of it."""
    pressure: Callable[[], Pressure] = Pressure


def read_machine(root: str, max_pods: int = 110) -> Machine:
    """Return this machine's record. `root` is the kubelet's directory, whose disk counts."""
    memory = _meminfo().get("MemTotal", 0)
    disk = os.statvfs(root)
    return Machine(
        cpus=os.cpu_count() or 1,
        memory_bytes=memory,
        disk_bytes=disk.f_blocks * disk.f_frsize,
        max_pods=max_pods,
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        os_image=_os_image(),
        machine_id=_text("/etc/machine-id"),
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or _text("/etc/machine-id"),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        pressure=lambda: read_pressure(root),
    )


def read_pressure(root: str) -> Pressure:
    """Return what is short: under 100 MiB of memory, 10% of disk or 5% of inodes, or nearly no process ids."""
    disk = os.statvfs(root)
    inodes_low = disk.f_files > 0 and disk.f_favail < disk.f_files * 0.05
    available_bytes = _meminfo().get("MemAvailable", 1 << 40)
    return Pressure(
        memory=available_bytes < MEMORY_THRESHOLD_BYTES,
        disk=disk.f_bavail < disk.f_blocks * 0.1 or inodes_low,
        pids=False,
        memory_available_bytes=available_bytes,
    )


def _meminfo() -> dict[str, int]:
    values: dict[str, int] = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * 1024
    return values


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return platform.system()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
