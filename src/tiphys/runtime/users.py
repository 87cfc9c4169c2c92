"""Decides which user and groups a container's process has, from its security settings and the image's own files.

Spec: CRI v1, LinuxContainerSecurityContext; OCI image config, "User".
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tiphys.runtime.interface import RuntimeFailed, SecurityContext
from tiphys.runtime.layer import resolve_in_root


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve_user(rootfs: str, image_user: str, security: SecurityContext) -> User:
    """Return the user. Raises RuntimeFailed("CreateContainerError") for a name that the image does not know."""
    name, _, group = image_user.partition(":")
    if security.run_as_user is not None:
        name, group = str(security.run_as_user), ""
    elif security.run_as_username:
        name, group = security.run_as_username, ""
    name = name or "0"
    passwd = _read_entries(rootfs, "etc/passwd", 6)
    entry = next((row for row in passwd if row[0] == name or (name.isdigit() and row[2] == name)), None)
    if entry is None and not name.isdigit():
        raise RuntimeFailed("CreateContainerError", f"unable to find user {name}: no matching entries in passwd file")
    uid = int(entry[2]) if entry else int(name)
    gid = int(entry[3]) if entry and entry[3].isdigit() else 0
    groups = _read_entries(rootfs, "etc/group", 3)
    if group:
        row = next((row for row in groups if row[0] == group), None)
        if row is None and not group.isdigit():
            raise RuntimeFailed(
                "CreateContainerError", f"unable to find group {group}: no matching entries in group file"
            )
        gid = int(row[2]) if row else int(group)
    if security.run_as_group is not None:
        gid = security.run_as_group
    own = {gid, *security.supplemental_groups}
    if entry and not security.has_strict_groups:
        own |= {int(row[2]) for row in groups if len(row) > 3 and entry[0] in row[3].split(",")}
    return User(uid, gid, tuple(sorted(own)), entry[5] if entry and len(entry) > 5 else "/")


def _read_entries(rootfs: str, path: str, columns: int) -> list[list[str]]:
    try:
        with open(resolve_in_root(rootfs, path.split("/")), encoding="utf-8", errors="replace") as file:
            rows = [line.rstrip("\n").split(":") for line in file]
    except (OSError, ValueError):
        return []
    return [row for row in rows if len(row) >= columns and row[2].isdigit()]


def make_working_directory(rootfs: str, path: str, user: User) -> None:
    """Make the working directory if the image lacks it."""
    directory = resolve_in_root(rootfs, path.split("/"))
    if not os.path.lexists(directory):
        resolve_in_root(rootfs, path.split("/"), make=True)
        os.chown(directory, user.uid, user.gid)
