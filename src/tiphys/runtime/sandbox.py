"""Makes and unmakes a pod sandbox's namespaces and files: no process holds them, bind mounts do.

    <dir>/ns/{net,ipc,uts,pid}   namespace files; those missing are the host's (or each container's own, for pid)
    <dir>/shm                    the pod's /dev/shm (tmpfs)
    <dir>/resolv.conf, hostname  mounted into its containers
    <dir>/cgroup                 the pod's cgroup, written first
    <dir>/sandbox.json           the record, written last: a directory without it is half made and is removed

A thread of its own enters the new namespaces and ends, so no other code ever sees them. All functions block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from tiphys.runtime import syscalls
from tiphys.runtime.interface import RuntimeFailed, SandboxConfig

SHM_SIZE = "65536k"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""Inside a pod's own network nothing is gained by keeping low ports and ping from other users than root."""


def make_namespaces(directory: Path, config: SandboxConfig) -> dict[str, str]:
    """Make everything but the network's links; return OCI namespace type -> path. Raises RuntimeFailed."""
    (directory / "ns").mkdir()
    (directory / "resolv.conf").write_text(format_resolv_conf(config))
    (directory / "hostname").write_text(f"{config.hostname}\n")
    if not config.host_ipc:
        (directory / "shm").mkdir()
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("shm", str(directory / "shm"), "tmpfs", flags, f"mode=1777,size={SHM_SIZE}")
    wanted: dict[str, tuple[str, int]] = {}
    if not config.host_network:
        wanted |= {"network": ("net", syscalls.CLONE_NEWNET), "uts": ("uts", syscalls.CLONE_NEWUTS)}
    if not config.host_ipc:
        wanted["ipc"] = ("ipc", syscalls.CLONE_NEWIPC)
    paths = {kind: str(directory / "ns" / name) for kind, (name, _) in wanted.items()}
    if wanted:

        def work() -> None:
            flags = 0
            for _, flag in wanted.values():
                flags |= flag
            syscalls.unshare(flags)
            if "uts" in wanted and config.hostname:
                syscalls.sethostname(config.hostname)
            if "network" in wanted:
                _set_loopback_up()
            _set_sysctls(config, own_network="network" in wanted)
            for kind, (name, _) in wanted.items():
                Path(paths[kind]).touch()
                syscalls.mount(f"/proc/thread-self/ns/{name}", paths[kind], "", syscalls.MS_BIND)

        run_in_own_thread(work)
    return paths


def bind_pid_namespace(directory: Path, pid: int) -> str:
    """Hold the PID namespace whose first process is `pid`; return its path."""
    path = directory / "ns" / "pid"
    path.touch()
    syscalls.mount(f"/proc/{pid}/ns/pid", str(path), "", syscalls.MS_BIND)
    return str(path)


def remove_namespaces(directory: Path) -> None:
    """Let go of the namespaces and /dev/shm. Idempotent."""
    for path in (*(directory / "ns" / name for name in ("net", "ipc", "uts", "pid")), directory / "shm"):
        if path.exists():
            syscalls.unmount(str(path))


def remove_directory(directory: Path) -> None:
    remove_namespaces(directory)
    shutil.rmtree(directory, ignore_errors=True)


def namespaces_stand(directory: Path) -> bool:
    """Say whether a sandbox's namespaces survived (they do not survive a reboot)."""
    return all(path.stat().st_dev != directory.stat().st_dev for path in (directory / "ns").iterdir())


def format_resolv_conf(config: SandboxConfig) -> str:
    """Return resolv.conf; with no DNS settings at all the host's own."""
    if not (config.dns_servers or config.dns_searches or config.dns_options):
        with contextlib.suppress(OSError):
            return Path("/etc/resolv.conf").read_text()
        return ""
    lines = []
    if config.dns_searches:
        lines.append(f"search {' '.join(config.dns_searches)}")
    lines += [f"nameserver {server}" for server in config.dns_servers]
    if config.dns_options:
        lines.append(f"options {' '.join(config.dns_options)}")
    return "".join(f"{line}\n" for line in lines)


def connect_socket(netns: str) -> socket.socket:
    """Return a non-blocking TCP socket that lives in a network namespace ("" for the host's)."""
    made: list[socket.socket] = []

    def work() -> None:
        if netns:
            fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd, syscalls.CLONE_NEWNET)
            finally:
                os.close(fd)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))

    run_in_own_thread(work)
    return made[0]


def run_in_own_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that ends with it; raise what it raised."""
    failed: list[OSError | RuntimeFailed] = []

    def run() -> None:
        try:
            work()
        except (OSError, RuntimeFailed) as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="namespaces")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))


def _set_sysctls(config: SandboxConfig, *, own_network: bool) -> None:
    if own_network:
        for name, value in DEFAULT_SYSCTLS.items():
            with contextlib.suppress(OSError):
                _sysctl_path(name).write_text(value)
    for name, value in config.sysctls.items():
        try:
            _sysctl_path(name).write_text(value)
        except OSError as error:
            raise RuntimeFailed("CreatePodSandboxError", f"cannot set sysctl {name}={value}: {error}") from error


def _sysctl_path(name: str) -> Path:
    """Return the file of a sysctl. `/proc/sys/net` is the calling thread's network's."""
    path = name if "/" in name else name.replace(".", "/")
    if ".." in path.split("/"):
        raise RuntimeFailed("CreatePodSandboxError", f"{name} is not a sysctl")
    return Path("/proc/sys", path)
