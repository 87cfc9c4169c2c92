"""Finds an OCI runtime binary that works here, makes its command lines and words its errors as users know them.

crun is tried first: it is quicker. It refuses a cgroup v2 mount beside v1 hierarchies, so there `hide` names that
mount and the supervisor starts crun without it. Errors are told as containerd with runc tells them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.runtime.cgroups import Cgroups, detect_cgroups

VERSION_TIMEOUT_S = 10.0
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = re.compile(r"executable file [`\"']?(?P<name>[^`\"']+)[`\"']? not found(?: in \$PATH)?")


@dataclass(frozen=True, slots=True)
class OciBinary:
    """One OCI runtime. `state` is where it keeps its own state."""

    name: str
    path: str
    version: str
    state: Path
    hide: str = ""

    def command(self, log: Path, *words: str) -> list[str]:
        return [self.path, "--root", str(self.state), "--log", str(log), "--log-format", "json", *words]

    def run(self, bundle: Path, container_id: str, *, tty: bool) -> list[str]:
        console = ("--console-socket", "{console}") if tty else ()
        return self.command(
            bundle / "oci.log",
            "run",
            "--detach",
            "--bundle",
            str(bundle),
            "--pid-file",
            str(bundle / "pid"),
            *console,
            container_id,
        )

    def exec(self, directory: Path, container_id: str, *, tty: bool) -> list[str]:
        console = ("--console-socket", "{console}") if tty else ()
        return self.command(
            directory / "oci.log",
            "exec",
            "--detach",
            "--process",
            str(directory / "process.json.spec"),
            "--pid-file",
            str(directory / "pid"),
            *console,
            container_id,
        )


def find_oci_binary(state: Path) -> OciBinary:
    """Return the runtime to use. Raises TiphysError with what to do when none works."""
    cgroups = detect_cgroups()
    if cgroups is None:
        raise TiphysError("cgroups are not mounted on /sys/fs/cgroup: real containers need them")
    path = f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"
    for name in ("crun", "runc"):
        found = shutil.which(name, path=path)
        if not found:
            continue
        try:
            said = subprocess.run(
                [found, "--version"], capture_output=True, text=True, check=True, timeout=VERSION_TIMEOUT_S
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        version = said.split("\n", 1)[0].rpartition(" ")[2]
        return OciBinary(name, found, version, state, _hidden(name, cgroups))
    raise TiphysError("no OCI runtime on this machine: install the package crun (or runc)")


def _hidden(name: str, cgroups: Cgroups) -> str:
    return cgroups.hybrid_mount if name == "crun" and not cgroups.unified else ""


def read_error(log: Path, output: str, command: str) -> str:
    """Return the last error of an OCI runtime's log, in the words of `containerd` with runc."""
    message = ""
    try:
        for line in log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                message = line
                continue
            if entry.get("level", "error") in ("error", "fatal"):
                message = entry.get("msg", message)
    except OSError:
        pass
    return translate_error(message or output.strip() or "the OCI runtime failed without a message", command)


def translate_error(message: str, command: str) -> str:
    """Return the cause as runc words it: crun says it otherwise, runc wraps it once or twice."""
    message = message.rpartition("unable to start container process: ")[2]
    if _NOT_FOUND.search(message) or ("executable" in message and "No such file or directory" in message):
        why = (
            "executable file not found in $PATH" if "/" not in command else f"stat {command}: no such file or directory"
        )
        return f'exec: "{command}": {why}'
    if "Permission denied" in message and ("exec" in message or "open executable" in message):
        return f'exec: "{command}": permission denied'
    if "Exec format error" in message:
        return f"exec {command}: exec format error"
    return message
