"""Makes what an OCI runtime starts a container from: the mounted root, config.json, and the container's record.

Input is the kubelet's config, the image and the pod's sandbox; embedded.py runs the result. Ordering: the record comes
last, so a crash leaves a directory without one, which is half made and removed at the next start. Everything blocks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tiphys.runtime import syscalls
from tiphys.runtime.embeddedstate import ContainerEntry, SandboxEntry, save_container, write_record
from tiphys.runtime.images import ImageStore
from tiphys.runtime.interface import Container, ContainerConfig, ContainerState, Mount, RuntimeFailed
from tiphys.runtime.layer import resolve_in_root
from tiphys.runtime.references import status_names
from tiphys.runtime.spec import ALL_CAPABILITIES, Machine, Place, plan_spec
from tiphys.runtime.users import make_working_directory, resolve_user

log = logging.getLogger(__name__)


def make_bundle(
    images: ImageStore,
    machine: Machine,
    sandbox: SandboxEntry,
    directory: Path,
    config: ContainerConfig,
    now_s: float,
    target_pid: int = 0,
) -> ContainerEntry:
    """Mount the container's root, write its spec and record. Raises RuntimeFailed, OSError; then `remove_bundle`."""
    container_id = directory.name
    record = images.find(config.image)
    if record is None:
        raise RuntimeFailed("CreateContainerError", f'failed to resolve image "{config.image}": not found')
    image = images.run_config(record.id)
    directory.mkdir(mode=0o700)
    rootfs = directory / "rootfs"
    for name in ("rootfs", "upper", "work"):
        (directory / name).mkdir(mode=0o755)
    lower = images.layer_directories(record)[::-1] or [str(_empty_layer(directory))]
    os.chmod(directory / "upper", os.stat(lower[0]).st_mode & 0o7777)
    syscalls.mount_overlay(str(rootfs), lower, str(directory / "upper"), str(directory / "work"))
    config = replace(config, mounts=tuple(_prepare_mount(images, directory, n, m) for n, m in enumerate(config.mounts)))
    user = resolve_user(str(rootfs), image.user, config.security)
    pod = sandbox.config
    place = Place(
        rootfs=str(rootfs),
        cgroup=f"{sandbox.cgroup}/{container_id}",
        namespaces=plan_namespaces(sandbox, config, machine, target_pid),
        shm="" if pod.host_ipc else str(sandbox.directory / "shm"),
        resolv_conf=str(sandbox.directory / "resolv.conf"),
        hostname_file=str(sandbox.directory / "hostname"),
    )
    spec = plan_spec(config, pod, image, user, place, machine)
    make_working_directory(str(rootfs), spec["process"]["cwd"], user)
    (directory / "config.json").write_text(json.dumps(spec))
    log_path = os.path.join(pod.log_directory, config.log_path) if pod.log_directory and config.log_path else ""
    name, digest = status_names(config.image, record.id, record.tags, record.digests)
    status = Container(
        id=container_id,
        sandbox_id=sandbox.status.id,
        name=config.name,
        attempt=config.attempt,
        state=ContainerState.CREATED,
        image=name,
        image_id=record.id,
        image_ref=digest,
        uid=user.uid,
        gid=user.gid,
        groups=tuple(user.groups),
        created_at_s=now_s,
        log_path=log_path,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
    )
    entry = ContainerEntry(status, directory, place.cgroup, parse_signal(config.stop_signal or image.stop_signal))
    write_record(
        directory / "streams.json", {"tty": config.tty, "stdin": config.stdin, "stdin_once": config.stdin_once}
    )
    save_container(entry)
    return entry


def plan_namespaces(
    sandbox: SandboxEntry, config: ContainerConfig, machine: Machine, target_pid: int = 0
) -> Mapping[str, str]:
    """Return OCI namespace type -> path, "" for a new one; types that are missing are the host's."""
    pod = sandbox.config
    namespaces = {"mount": "", **{kind: path for kind, path in sandbox.namespaces.items() if kind != "pid"}}
    if machine.unified_cgroups:
        namespaces["cgroup"] = ""
    if target_pid:
        return namespaces | {"pid": f"/proc/{target_pid}/ns/pid"}
    if config.security.pid_mode == "NODE" or pod.host_pid:
        return namespaces
    if config.security.pid_mode == "POD" or pod.share_process_namespace:
        return namespaces | {"pid": sandbox.namespaces.get("pid", "")}
    return namespaces | {"pid": ""}


def _prepare_mount(images: ImageStore, directory: Path, number: int, mount: Mount) -> Mount:
    """Make what a mount needs on this side: a missing directory, or the files of an image."""
    if not mount.image:
        if not os.path.exists(mount.host_path):
            os.makedirs(mount.host_path, mode=0o755)
        return mount
    record = images.find(mount.image)
    if record is None:
        raise RuntimeFailed("CreateContainerError", f'failed to resolve image "{mount.image}": not found')
    place = directory / "images" / str(number)
    place.mkdir(parents=True)
    lower = [*images.layer_directories(record)[::-1], str(_empty_layer(directory))]
    syscalls.mount_overlay_read_only(str(place), lower)
    source = resolve_in_root(str(place), mount.image_sub_path.split("/")) if mount.image_sub_path else str(place)
    if not os.path.exists(source):
        why = f'failed to mount image volume: subpath "{mount.image_sub_path}" not found in image "{mount.image}"'
        raise RuntimeFailed("CreateContainerError", why)
    return replace(mount, host_path=source, readonly=True)


def _empty_layer(directory: Path) -> Path:
    """Return the lower directory of an image without layers."""
    path = directory.parent.parent / "empty"
    path.mkdir(exist_ok=True)
    return path


def remove_bundle(directory: Path) -> None:
    """Unmount and remove a container's directory. Idempotent."""
    if directory.exists():
        syscalls.unmount(str(directory / "rootfs"))
        for place in (directory / "images").glob("*"):
            syscalls.unmount(str(place))
        shutil.rmtree(directory, ignore_errors=True)


def observe_machine(unified: bool, seccomp_directory: str) -> Machine:
    """Return what this process may give to containers."""
    status = Path("/proc/self/status").read_text()
    capabilities = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
    floor = -1000
    if not capabilities >> ALL_CAPABILITIES.index("CAP_SYS_RESOURCE") & 1:
        floor = int(Path("/proc/self/oom_score_adj").read_text())
        log.info("without CAP_SYS_RESOURCE no container gets an oom_score_adj below %d", floor)
    return Machine(capabilities, floor, unified, seccomp_directory)


def parse_signal(text: str) -> int:
    """Return the number of an image's STOPSIGNAL; SIGTERM when it has none or an unknown one."""
    if text.isdigit():
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name.startswith("SIGRTMIN+"):
        return signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN+"))
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else int(signal.SIGTERM)


def measure_directory(path: Path) -> int:
    """Return the bytes that files below a directory take on disk."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total
