"""The seam between the kubelet and what a pod has on the node's disk.

Implementations: directory.py (real volumes, hosts file, logs) and `NoFiles` below (simulated nodes). worker.py calls
it; the runtime gets the paths in mounts.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tiphys.base.errors import TiphysError
from tiphys.kubelet.downward import Surroundings
from tiphys.kubelet.pod import BoundPod, Specced
from tiphys.kubelet.sandbox import Resolver
from tiphys.runtime.interface import Container, Mount


class VolumeFailed(TiphysError):
    """A volume is not ready yet: FailedMount, and another try later. The message is the event's."""


@dataclass(frozen=True, slots=True)
class ContainerFiles:
    """What one container gets from the node's disk."""

    mounts: tuple[Mount, ...] = ()
    log_path: str = ""
    """Relative to the pod's log directory."""
    annotations: Mapping[str, str] | None = None
    """To find the files again from the container's record."""


class PodFiles(Protocol):
    """All calls are idempotent; `mount` called again brings content up to date."""

    async def mount(self, pod: BoundPod, around: Surroundings, changed: Callable[[], None]) -> None:
        """Set up the pod's volumes. `changed` is called when content has to be brought up to date: the worker then
        calls `mount` again. Raises VolumeFailed."""
        ...

    async def unmount(self, uid: str) -> None:
        """Take away all that `mount` and `container_files` made, but for logs."""
        ...

    async def container_files(
        self, pod: BoundPod, container: Specced, attempt: int, envs: Mapping[str, str], addresses: Sequence[str]
    ) -> ContainerFiles:
        """Make hosts file, termination log and log directory of one instance. Raises VolumeFailed."""
        ...

    def log_directory(self, pod: BoundPod) -> str: ...

    def termination_message(self, pod: BoundPod, spec: Specced, container: Container) -> str:
        """Return what an exited container left: its file, or the end of its log if it failed and asked for that."""
        ...

    def host_resolver(self) -> Resolver: ...

    async def orphans(self, known: frozenset[str]) -> Sequence[str]:
        """Return the uids of pods that have files here and are not in `known`."""
        ...

    async def remove_logs(self, uid: str) -> None: ...

    async def volume_bytes(self, uid: str, volume: str) -> int:
        """Return what a volume takes on disk."""
        ...

    def log_bytes(self, container: Container) -> int:
        """Return the size of a container's log."""
        ...

    def disk_root(self) -> str:
        """Return the directory whose disk image garbage collection looks at, or ""."""
        ...

    async def close(self) -> None:
        """End what runs in the background; files stay."""
        ...

    async def volume_renewal_s(self, uid: str) -> float | None:
        """Return the wall time at which `mount` has to be called again (tokens), or None."""
        ...


class NoFiles:
    """The files of a simulated node: none, but for logs if a root directory for them is given."""

    def __init__(self, log_root: str = "") -> None:
        self._log_root = log_root

    async def mount(self, pod: BoundPod, around: Surroundings, changed: Callable[[], None]) -> None:
        return None

    async def unmount(self, uid: str) -> None:
        return None

    async def container_files(
        self, pod: BoundPod, container: Specced, attempt: int, envs: Mapping[str, str], addresses: Sequence[str]
    ) -> ContainerFiles:
        if not self._log_root:
            return ContainerFiles()
        os.makedirs(f"{self.log_directory(pod)}/{container.name}", exist_ok=True)
        return ContainerFiles(log_path=f"{container.name}/{attempt}.log")

    def log_directory(self, pod: BoundPod) -> str:
        return log_directory(self._log_root, pod) if self._log_root else ""

    def termination_message(self, pod: BoundPod, spec: Specced, container: Container) -> str:
        return ""

    def host_resolver(self) -> Resolver:
        return Resolver()

    async def orphans(self, known: frozenset[str]) -> Sequence[str]:
        return ()

    async def remove_logs(self, uid: str) -> None:
        if self._log_root:
            for place in glob.glob(f"{glob.escape(self._log_root)}/*_{uid}"):
                shutil.rmtree(place, ignore_errors=True)

    async def volume_bytes(self, uid: str, volume: str) -> int:
        return 0

    def log_bytes(self, container: Container) -> int:
        return 0

    def disk_root(self) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def volume_renewal_s(self, uid: str) -> float | None:
        return None


def log_directory(root: str, pod: BoundPod) -> str:
    """Return the directory of a pod's logs: `<namespace>_<name>_<uid>` below `root`."""
    return f"{root}/{pod.metadata.namespace}_{pod.metadata.name}_{pod.metadata.uid}"
