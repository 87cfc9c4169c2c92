"""Decides a container's system call filter.

`RuntimeDefault` refuses what a container has no business with: loading kernels and modules, the clock, swap, quotas,
mounts and namespaces, other processes' memory, the kernel's keyring, BPF and performance counters.
DIFFERS: the common runtimes list what is allowed and refuse the rest; this lists what is refused, so that a system
call newer than the list goes through. The capability checks of the kernel stand behind both.
"""

from __future__ import annotations

import json
import os
from typing import Any

from tiphys.runtime.interface import RuntimeFailed

EPERM = 1
REFUSED = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
    "vhangup",
]
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def seccomp_profile(name: str, directory: str) -> dict[str, Any] | None:
    """Return the OCI form of a profile, None for no filter. Raises RuntimeFailed("CreateContainerError")."""
    if name in ("", "Unconfined", "unconfined"):
        return None
    if name.startswith("Localhost/"):
        return _read_local(name.removeprefix("Localhost/"), directory)
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": [{"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}],
    }


def _read_local(path: str, directory: str) -> dict[str, Any]:
    full = os.path.normpath(os.path.join(directory, path.lstrip("/"))) if not path.startswith("/") else path
    try:
        with open(full, "rb") as file:
            profile = json.load(file)
    except (OSError, ValueError) as error:
        raise RuntimeFailed(
            "CreateContainerError", f'failed to load local seccomp profile "{path}": {error}'
        ) from error
    return dict(profile)
