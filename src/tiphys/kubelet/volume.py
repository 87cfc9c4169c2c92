"""Volumes that are more than files from the API: emptyDir, hostPath, claims; and paths inside volumes.

Invariant: a subPath never leads out of its volume, also through links that a container made. Spec: Kubernetes docs,
"Volumes", "Persistent Volumes" (hostPath and local), "Configure volume permission change policy".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from tiphys.api.quantity import memory_bytes
from tiphys.api.views.meta import ObjectMeta, View
from tiphys.api.views.pod import HostPathVolumeSource, Volume
from tiphys.client.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from tiphys.kubelet.objects import Objects
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.podfiles import VolumeFailed
from tiphys.runtime.syscalls import mount, unmount

MS_NOSUID_NODEV = 2 | 4


class ClaimSpec(View, frozen=True):
    volume_name: str = ""


class ClaimStatus(View, frozen=True):
    phase: str = ""


class Claim(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class LocalVolumeSource(View, frozen=True):
    path: str = ""


class PersistentVolumeSpec(View, frozen=True):
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None


class PersistentVolume(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeSpec = PersistentVolumeSpec()


def _failed(volume: Volume, why: str) -> VolumeFailed:
    return VolumeFailed(f'MountVolume.SetUp failed for volume "{volume.name}" : {why}')


def make_empty_dir(volume: Volume, place: str, group: int | None) -> str:
    """Make the directory, on tmpfs for medium Memory. An existing one is left as it is."""
    source = volume.empty_dir
    assert source is not None
    if os.path.isdir(place) and (source.medium != "Memory" or os.path.ismount(place)):
        return place
    os.makedirs(place, exist_ok=True)
    if source.medium == "Memory":
        limit = memory_bytes(source.size_limit) if source.size_limit else 0
        _mount_tmpfs(volume, place, limit)
    os.chmod(place, 0o777 if source.mode is None else source.mode)
    if group is not None:
        own_by_group(place, group)
    return place


def _mount_tmpfs(volume: Volume, place: str, limit_bytes: int) -> None:
    options = f"mode=0777,size={limit_bytes}" if limit_bytes else "mode=0777"
    try:
        mount("tmpfs", place, "tmpfs", MS_NOSUID_NODEV, options)
    except OSError as error:
        raise _failed(volume, f"mounting tmpfs failed: {error.strerror}; the kubelet needs CAP_SYS_ADMIN") from error


def unmount_below(place: str) -> None:
    """Unmount everything at and below a path, the deepest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split()[4].replace("\\040", " ") for line in table]
    for point in sorted(points, key=len, reverse=True):
        if point == place or point.startswith(place + "/"):
            unmount(point)


_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "FileOrCreate": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket file"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


def make_host_path(volume: Volume) -> str:
    """Return the path, made or checked as its type says."""
    source = volume.host_path
    assert source is not None
    path = source.path
    if source.type == "DirectoryOrCreate":
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif source.type == "FileOrCreate" and not os.path.exists(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        except OSError as error:
            raise _failed(volume, f"open {path}: {(error.strerror or '').lower()}") from error
    check = _CHECKS.get(source.type)
    if check is not None:
        fits, otherwise = check
        try:
            mode = os.stat(path).st_mode
        except OSError:
            mode = 0
        if not fits(mode):
            raise _failed(volume, f"hostPath type check failed: {path} {otherwise}")
    elif not source.type and not os.path.exists(path):
        # Without a type the container runtime makes a missing directory.
        os.makedirs(path, mode=0o755, exist_ok=True)
    return path


async def claim_path(objects: Objects, pod: BoundPod, volume: Volume, group: int | None, policy: str) -> str:
    """Return the path behind a bound claim. Raises VolumeFailed while it is not bound."""
    source = volume.persistent_volume_claim
    assert source is not None
    name = source.claim_name
    claim = await objects.read(PERSISTENTVOLUMECLAIMS, pod.metadata.namespace, name, Claim)
    if claim is None:
        raise _failed(volume, f'persistentvolumeclaim "{name}" not found')
    if not claim.spec.volume_name or claim.status.phase != "Bound":
        raise _failed(volume, f"PVC {pod.metadata.namespace}/{name} is not bound")
    persistent = await objects.read(PERSISTENTVOLUMES, "", claim.spec.volume_name, PersistentVolume)
    if persistent is None:
        raise _failed(volume, f'persistentvolume "{claim.spec.volume_name}" not found')
    if persistent.spec.host_path is not None:
        os.makedirs(persistent.spec.host_path.path, mode=0o777, exist_ok=True)
        return persistent.spec.host_path.path
    if persistent.spec.local is not None:
        return _local_path(volume, persistent.spec.local.path, group, policy)
    raise _failed(volume, f"volume {claim.spec.volume_name} is of a kind that this node does not know")


def _local_path(volume: Volume, path: str, group: int | None, policy: str) -> str:
    if not os.path.exists(path):
        raise _failed(volume, f'path "{path}" does not exist')
    if group is not None and not (policy == "OnRootMismatch" and os.stat(path).st_gid == group):
        own_by_group(path, group)
    return path


def own_by_group(place: str, group: int) -> None:
    """Give a tree to a group: it may read and write everything, and new files belong to it."""
    for where, _, names in os.walk(place):
        os.chown(where, -1, group)
        os.chmod(where, stat.S_IMODE(os.stat(where).st_mode) | 0o2070)
        for name in names:
            path = os.path.join(where, name)
            os.chown(path, -1, group, follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o060)


def ensure_subpath(volume_path: str, sub_path: str, container: str) -> str:
    """Return the real path of a subPath, made as a directory if it is missing. Raises VolumeFailed if it leaves."""
    refused = VolumeFailed(f'failed to prepare subPath for volumeMount "{sub_path}" of container "{container}"')
    if os.path.isabs(sub_path) or ".." in sub_path.split("/"):
        raise refused
    root = os.path.realpath(volume_path)
    wanted = os.path.realpath(os.path.join(root, sub_path))
    if wanted != root and not wanted.startswith(root + "/"):
        raise refused
    if not os.path.exists(wanted):
        mode = stat.S_IMODE(os.stat(root).st_mode)
        place = root
        for part in os.path.relpath(wanted, root).split("/"):
            place = os.path.join(place, part)
            if not os.path.isdir(place):
                try:
                    os.mkdir(place)
                except OSError as error:
                    raise refused from error
                os.chmod(place, mode)
        if os.path.realpath(wanted) != wanted:
            raise refused
    return wanted
