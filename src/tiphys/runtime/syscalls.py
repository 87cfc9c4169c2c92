"""The few system calls that Python 3.11 lacks, through libc. Each raises OSError with the path or what was tried."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 0x4000
MNT_DETACH = 2
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
OPTIONS_LIMIT_BYTES = 4000
"""mount(2) takes one page of options."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """Detach a mount and what is below it. Nothing happens where none is."""
    if _libc.umount2(target.encode(), MNT_DETACH) < 0:
        number = ctypes.get_errno()
        if number not in (22, 2):
            raise OSError(number, f"unmount {target}: {os.strerror(number)}")


def mount_overlay_read_only(target: str, lower: list[str]) -> None:
    """Mount two or more directories, the highest first, as one that nobody can write to."""
    mount("overlay", target, "overlay", MS_RDONLY, f"lowerdir={':'.join(lower)}")


def mount_overlay(target: str, lower: list[str], upper: str, work: str) -> None:
    """Mount an overlay; `lower` is highest first. Many layers go one by one, which needs Linux 6.8."""
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
    if len(options) < OPTIONS_LIMIT_BYTES:
        mount("overlay", target, "overlay", 0, options)
        return
    fs = _check(_libc.syscall(_SYS_FSOPEN, b"overlay", 1), "open overlay filesystem")
    try:
        pairs = [("lowerdir+", path) for path in lower] + [("upperdir", upper), ("workdir", work)]
        for key, value in pairs:
            result = _libc.syscall(_SYS_FSCONFIG, fs, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
            _check(result, f"overlay {key} {value}")
        _check(_libc.syscall(_SYS_FSCONFIG, fs, _FSCONFIG_CMD_CREATE, None, None, 0), f"make overlay for {target}")
        made = _check(_libc.syscall(_SYS_FSMOUNT, fs, 1, 0), f"make overlay for {target}")
        try:
            moved = _libc.syscall(_SYS_MOVE_MOUNT, made, b"", -100, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
            _check(moved, f"mount overlay on {target}")
        finally:
            os.close(made)
    finally:
        os.close(fs)


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own."""
    _check(_libc.unshare(flags), "make namespaces")


def setns(fd: int, kind: int) -> None:
    """Let the calling thread enter a namespace."""
    _check(_libc.setns(fd, kind), "enter namespace")


def sethostname(name: str) -> None:
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), f"set hostname {name}")
