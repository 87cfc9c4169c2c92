"""Decides where a pod's and a container's cgroups are and what is written into them, on v1, v2 and mixed machines.

A path such as /tiphys-c1/kubepods/pod1 is the same below each controller's root. On a mixed machine (v1 controllers
with a v2 mount at `unified`) the controllers in v1 are used. Removal kills what is left inside.

Spec: kernel documentation, cgroup-v1 and cgroup-v2; shares to weight as the OCI runtimes convert them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys.runtime.interface import Resources, Stats

ROOT = Path("/sys/fs/cgroup")
V2_CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """How this machine's cgroups are mounted."""

    unified: bool
    roots: tuple[Path, ...]
    """One with v2; with v1 one for each hierarchy, the mixed machine's v2 mount among them (runc makes cgroups there)."""
    hybrid_mount: str = ""
    """The v2 mount beside v1 hierarchies, which crun refuses to see."""

    def directory(self, controller: str, path: str) -> Path:
        return (ROOT if self.unified else ROOT / controller) / path.strip("/")

    # Limits
    def make(self, path: str, resources: Resources) -> None:
        """Make a cgroup and its parents, and set limits. Idempotent."""
        if self.unified:
            self._make_unified(path)
        else:
            for controller in ("cpu", "memory", "pids"):
                self.directory(controller, path).mkdir(parents=True, exist_ok=True)
        self.limit(path, resources)

    def _make_unified(self, path: str) -> None:
        place = ROOT
        for part in path.strip("/").split("/"):
            available = (place / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{name}" for name in V2_CONTROLLERS if name in available)
            with contextlib.suppress(OSError):
                (place / "cgroup.subtree_control").write_text(wanted)
            place = place / part
            place.mkdir(exist_ok=True)

    def limit(self, path: str, resources: Resources) -> None:
        """Set limits; those that are 0 stay as they are, and a controller that is missing is passed over."""
        for controller, name, value in plan_limits(resources, unified=self.unified):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                (self.directory(controller, path) / name).write_text(value)

    # Observation
    def oom_file(self, path: str) -> str:
        name = "memory.events" if self.unified else "memory.oom_control"
        return str(self.directory("memory", path) / name)

    def processes(self, path: str) -> list[int]:
        """Return the processes in a cgroup and below it."""
        pids: list[int] = []
        top = self.directory("memory", path)
        for directory, _, _ in os.walk(top):
            with contextlib.suppress(OSError):
                pids += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
        return pids

    def stats(self, path: str) -> Stats:
        """Return the usage of a cgroup, zeros for one that is gone."""
        memory = self.directory("memory", path)
        usage = _read_int(memory / ("memory.current" if self.unified else "memory.usage_in_bytes"))
        key = "inactive_file" if self.unified else "total_inactive_file"
        inactive = _read_field(memory / "memory.stat", key)
        if self.unified:
            cpu_ns = _read_field(memory / "cpu.stat", "usage_usec") * 1000
        else:
            cpu_ns = _read_int(self.directory("cpuacct", path) / "cpuacct.usage")
        pids = _read_int(self.directory("pids", path) / "pids.current")
        return Stats(cpu_ns, max(0, usage - inactive), usage, pids)

    # Removal
    def kill(self, path: str) -> None:
        """Kill every process in a cgroup and below it."""
        for pid in self.processes(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self, path: str) -> bool:
        """Remove a cgroup and what is below it in every hierarchy; say whether all of it went. Busy ones stay."""
        gone = True
        for root in self.roots:
            top = root / path.strip("/")
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError:
                    gone = False
        return gone

    def remove_empty(self, path: str) -> None:
        """Remove a cgroup and its parents as far as they are empty."""
        for root in self.roots:
            place = root / path.strip("/")
            while place not in (root, root.parent):
                try:
                    place.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    break
                place = place.parent


def detect_cgroups(root: Path = ROOT) -> Cgroups | None:
    """Return how cgroups are mounted, None when they are not."""
    if (root / "cgroup.controllers").exists():
        return Cgroups(True, (root,))
    controllers = [entry for entry in sorted(root.glob("*")) if (entry / "cgroup.procs").exists()]
    v1 = [entry for entry in controllers if not (entry / "cgroup.controllers").exists()]
    if not {"cpu", "memory", "pids"} <= {entry.name for entry in v1}:
        return None
    roots: dict[tuple[int, int], Path] = {}
    for entry in controllers:
        status = entry.stat()
        roots.setdefault((status.st_dev, status.st_ino), entry)
    mixed = next((str(entry) for entry in controllers if entry not in v1), "")
    return Cgroups(False, tuple(roots.values()), mixed)


def plan_limits(resources: Resources, *, unified: bool) -> Sequence[tuple[str, str, str]]:
    """Return (controller, file, text) for each limit that is set."""
    plan: list[tuple[str, str, str]] = []
    if resources.cpu_shares:
        if unified:
            plan.append(("cpu", "cpu.weight", str(shares_to_weight(resources.cpu_shares))))
        else:
            plan.append(("cpu", "cpu.shares", str(resources.cpu_shares)))
    if resources.cpu_quota_us:
        period = resources.cpu_period_us or 100_000
        if unified:
            quota = str(resources.cpu_quota_us) if resources.cpu_quota_us > 0 else "max"
            plan.append(("cpu", "cpu.max", f"{quota} {period}"))
        else:
            plan.append(("cpu", "cpu.cfs_period_us", str(period)))
            plan.append(("cpu", "cpu.cfs_quota_us", str(resources.cpu_quota_us)))
    if resources.memory_limit_bytes:
        name = "memory.max" if unified else "memory.limit_in_bytes"
        plan.append(("memory", name, str(resources.memory_limit_bytes)))
    if resources.pids_limit > 0:
        plan.append(("pids", "pids.max", str(resources.pids_limit)))
    return plan


def shares_to_weight(shares: int) -> int:
    """Return the v2 weight (1 to 10000) of v1 shares (2 to 262144)."""
    shares = min(max(shares, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def _read_int(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _read_field(path: Path, key: str) -> int:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
