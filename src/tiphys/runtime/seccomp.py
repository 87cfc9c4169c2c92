"""Decides a container's system call filter.

`RuntimeDefault` refuses what a container has no business with: loading kernels and modules, the clock, swap, quotas,
mounts and namespaces, other processes' memory, the kernel's keyring, BPF and performance counters.
DIFFERS: the common runtimes list what is allowed and refuse the rest; this lists what is refused, so that a system
call newer than the list goes through. The capability checks of the kernel stand behind both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any

from tiphys.runtime.interface import RuntimeFailed

EPERM = 1
# Refused unless the container has the capability (None: always).
REFUSED: dict[str | None, str] = {
    None: (
        "add_key create_module get_kernel_syms keyctl kexec_file_load kexec_load nfsservctl query_module request_key "
        "sysfs uselib userfaultfd ustat vm86 vm86old"
    ),
    "CAP_SYS_ADMIN": (
        "bpf fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount name_to_handle_at open_tree "
        "perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns swapoff swapon umount umount2 "
        "unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind move_pages set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
}
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def seccomp_profile(name: str, directory: str, capabilities: Collection[str]) -> dict[str, Any] | None:
    """Return the OCI form of a profile, None for no filter. Raises RuntimeFailed("CreateContainerError")."""
    if name in ("", "Unconfined", "unconfined"):
        return None
    if name.startswith("Localhost/"):
        return _read_local(name.removeprefix("Localhost/"), directory)
    refused = [
        call for capability, calls in REFUSED.items() if capability not in capabilities for call in calls.split()
    ]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": [{"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}],
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
