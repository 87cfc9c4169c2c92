"""Decides whether real containers are possible on this machine: `tiphys up` simulates its nodes where they are not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.runtime import syscalls
from tiphys.runtime.ocibinary import find_oci_binary
from tiphys.runtime.sandbox import run_in_own_thread


def detect(root: Path | None = None) -> tuple[bool, str]:
    """Return whether real containers work here, and the one-line reason when not. `root` is where overlays will be;
    None: the temporary directory. Leaves nothing behind."""
    if os.geteuid() != 0:
        return False, "real containers need root: run it with sudo"
    try:
        find_oci_binary(Path("/run/tiphys-probe"))
    except TiphysError as error:
        return False, str(error)
    try:
        run_in_own_thread(lambda: syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS))
    except OSError as error:
        return False, f"this machine allows no namespaces ({error.strerror}): run it outside a restricted container"
    if root:
        root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="probe", dir=root) as place:
            for name in ("lower", "upper", "work", "merged"):
                Path(place, name).mkdir()
            syscalls.mount_overlay(f"{place}/merged", [f"{place}/lower"], f"{place}/upper", f"{place}/work")
            syscalls.unmount(f"{place}/merged")
    except OSError as error:
        return False, f"overlayfs does not work under {root or tempfile.gettempdir()}: {error.strerror}"
    return True, ""
