"""Writes the OCI runtime spec of a container: pure, from records to the JSON that crun and runc read.

Spec: OCI runtime specification 1.0; defaults (capabilities, masked and read-only paths) are those that containers get
from the common runtimes, which users rely on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.runtime.images import RunConfig
from tiphys.runtime.interface import ContainerConfig, RuntimeFailed, SandboxConfig, SecurityContext
from tiphys.runtime.seccomp import seccomp_profile
from tiphys.runtime.users import User

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
ALL_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]
"""In the kernel's order: the index is the capability's number."""
MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
NAMED_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine shapes a spec."""

    capabilities: int
    """Bit set of what this process may give (CapBnd)."""
    oom_score_adj_floor: int
    """The lowest value that this process may give."""
    unified_cgroups: bool
    seccomp_directory: str
    """Where Localhost profiles are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container's parts are."""

    rootfs: str
    cgroup: str
    namespaces: Mapping[str, str]
    """OCI namespace type -> path; "" for a new one. A type that is missing is the host's."""
    shm: str
    """The pod's /dev/shm; "" for the host's."""
    resolv_conf: str
    hostname_file: str


def plan_command(config: ContainerConfig, image: RunConfig) -> list[str]:
    """Return the command line. Raises RuntimeFailed("CreateContainerError") when there is none."""
    command = [*config.command, *config.args] if config.command else [*image.entrypoint, *(config.args or image.cmd)]
    if not command:
        raise RuntimeFailed(
            "CreateContainerError",
            'failed to generate container spec: no command specified: set "command" or use an image that has one',
        )
    return command


def plan_capabilities(security: SecurityContext, machine: Machine) -> list[str]:
    if security.privileged:
        names = set(ALL_CAPABILITIES)
    else:
        names = set(DEFAULT_CAPABILITIES)
        added = {_capability(name) for name in security.add_capabilities}
        dropped = {_capability(name) for name in security.drop_capabilities}
        if "CAP_ALL" in added:
            names |= set(ALL_CAPABILITIES)
        if "CAP_ALL" in dropped:
            names = set()
        names = (names | (added - {"CAP_ALL"})) - (dropped - {"CAP_ALL"})
    unknown = names - set(ALL_CAPABILITIES)
    if unknown:
        raise RuntimeFailed("CreateContainerError", f"unknown capability {sorted(unknown)[0]} to add")
    return [
        name for number, name in enumerate(ALL_CAPABILITIES) if name in names and machine.capabilities >> number & 1
    ]


def _capability(name: str) -> str:
    name = name.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def plan_environment(config: ContainerConfig, image: RunConfig, hostname: str) -> list[str]:
    """Return the image's variables with the container's over them."""
    merged: dict[str, str] = {}
    for entry in (DEFAULT_PATH, *image.env):
        key, _, value = entry.partition("=")
        merged[key] = value
    merged["HOSTNAME"] = hostname
    if config.tty:
        merged["TERM"] = "xterm"
    merged.update(config.envs)
    return [f"{key}={value}" for key, value in merged.items()]


def plan_process(
    config: ContainerConfig, image: RunConfig, user: User, hostname: str, machine: Machine
) -> dict[str, Any]:
    capabilities = plan_capabilities(config.security, machine)
    sets: dict[str, list[str]] = {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
    if config.security.privileged or config.security.add_capabilities:
        sets["inheritable"] = []
    environment = plan_environment(config, image, hostname)
    if not any(entry.startswith("HOME=") for entry in environment):
        environment.append(f"HOME={user.home}")
    return {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": plan_command(config, image),
        "env": environment,
        "cwd": config.working_dir or image.working_dir or "/",
        "capabilities": sets,
        "noNewPrivileges": not config.security.allow_privilege_escalation,
        "oomScoreAdj": max(config.resources.oom_score_adj, machine.oom_score_adj_floor),
    }


def plan_mounts(config: ContainerConfig, place: Place, machine: Machine) -> list[dict[str, Any]]:
    """Return the mounts, the runtime's own first; a mount of the container replaces ours at the same path."""
    security = config.security
    rw = "rw" if security.privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    mounts = [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
        _mount("/sys", "sysfs", "sysfs", [*safe, rw]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", rw]),
        _mount("/dev/shm", "bind", place.shm or "/dev/shm", ["rbind", *safe, "rprivate"]),
    ]
    if "network" not in place.namespaces:
        mounts[4] = _mount("/sys", "bind", "/sys", ["rbind", *safe, rw])
        del mounts[5]
    if place.resolv_conf:
        mounts.append(_mount("/etc/resolv.conf", "bind", place.resolv_conf, ["rbind", "rprivate", "rw"]))
    if place.hostname_file:
        mounts.append(_mount("/etc/hostname", "bind", place.hostname_file, ["rbind", "rprivate", "rw"]))
    given = {mount.container_path.rstrip("/") for mount in config.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in given]
    for mount in sorted(config.mounts, key=lambda mount: mount.container_path.rstrip("/").count("/")):
        options = ["rbind", PROPAGATION.get(mount.propagation, "rprivate"), "ro" if mount.readonly else "rw"]
        if mount.readonly and mount.recursive_readonly in ("Enabled", "IfPossible"):
            options[-1] = "rro"
        mounts.append(_mount(mount.container_path, "bind", mount.host_path, options))
    return mounts


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def plan_spec(
    config: ContainerConfig, pod: SandboxConfig, image: RunConfig, user: User, place: Place, machine: Machine
) -> dict[str, Any]:
    """Return the whole spec."""
    security = config.security
    linux: dict[str, Any] = {
        "cgroupsPath": place.cgroup,
        "namespaces": [
            {"type": kind, "path": path} if path else {"type": kind} for kind, path in place.namespaces.items()
        ],
        "resources": plan_resources(config),
        "devices": [plan_device(d.host_path, d.container_path) for d in config.devices],
    }
    if security.privileged:
        linux["devices"] += _host_devices()
    elif security.masked_paths is None:
        linux["maskedPaths"] = list(MASKED_PATHS)
        linux["readonlyPaths"] = list(READONLY_PATHS)
    elif security.masked_paths:
        linux["maskedPaths"] = list(security.masked_paths)
        linux["readonlyPaths"] = list(READONLY_PATHS)
    seccomp = None
    if not security.privileged:
        capabilities = plan_capabilities(security, machine)
        seccomp = seccomp_profile(security.seccomp_profile, machine.seccomp_directory, capabilities)
    if seccomp:
        linux["seccomp"] = seccomp
    propagations = {mount.propagation for mount in config.mounts}
    if "Bidirectional" in propagations:
        linux["rootfsPropagation"] = "rshared"
    elif "HostToContainer" in propagations:
        linux["rootfsPropagation"] = "rslave"
    return {
        "ociVersion": "1.0.2",
        "process": plan_process(config, image, user, pod.hostname, machine),
        "root": {"path": place.rootfs, "readonly": security.readonly_rootfs},
        "mounts": plan_mounts(config, place, machine),
        "annotations": {},
        "linux": linux,
    }


def plan_resources(config: ContainerConfig) -> dict[str, Any]:
    resources = config.resources
    planned: dict[str, Any] = {"devices": [{"allow": config.security.privileged, "access": "rwm"}]}
    if not config.security.privileged:
        for device in config.devices:
            made = plan_device(device.host_path, device.container_path)
            planned["devices"].append(
                {
                    "allow": True,
                    "type": made["type"],
                    "major": made["major"],
                    "minor": made["minor"],
                    "access": device.permissions or "rwm",
                }
            )
    cpu: dict[str, int] = {}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpu_quota_us:
        cpu |= {"quota": resources.cpu_quota_us, "period": resources.cpu_period_us or 100_000}
    if cpu:
        planned["cpu"] = cpu
    if resources.memory_limit_bytes:
        planned["memory"] = {"limit": resources.memory_limit_bytes}
    if resources.pids_limit > 0:
        planned["pids"] = {"limit": resources.pids_limit}
    return planned


def plan_device(host_path: str, container_path: str) -> dict[str, Any]:
    try:
        status = os.stat(host_path)
    except OSError as error:
        raise RuntimeFailed(
            "CreateContainerError", f'error gathering device information for "{host_path}": {error}'
        ) from error
    return {
        "path": container_path or host_path,
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _host_devices() -> list[dict[str, Any]]:
    found = []
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "fd")]
        for name in files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                continue
            if (os.major(status.st_rdev), os.minor(status.st_rdev)) not in NAMED_DEVICES and name != "console":
                found.append(plan_device(path, path))
    return found
