"""Write a volume's files so that a reader sees all of the old ones or all of the new ones.

Layout: content in a hidden directory `..<time>`, `..data` a symlink to it, and one symlink for each top-level name
through `..data`. Replacing `..data` by rename(2) is the moment of change. Invariant: whenever this crashes, `..data`
leads to a complete directory; the next call removes what is left over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from tiphys.base.errors import TiphysError
from tiphys.kubelet.payload import File

DATA = "..data"
DATA_NEW = "..data_tmp"


def write_files(directory: str, files: Mapping[str, File], stamp: str, group: int | None = None) -> bool:
    """Make the directory hold exactly these files. Return False when it did already.

    `stamp` names the hidden directory and must differ between calls. `group` (fsGroup) owns the files and may read
    them. Raises TiphysError for a path that would leave the directory.
    """
    for path in files:
        if path.startswith(("/", "..")) or ".." in path.split("/") or not path:
            raise TiphysError(f"path {path!r} of a volume file would leave its volume; use a relative path without ..")
    data = os.path.join(directory, DATA)
    old = os.readlink(data) if os.path.islink(data) else ""
    if old and _holds(os.path.join(directory, old), files):
        return False
    name = f"..{stamp}"
    _write_new(os.path.join(directory, name), files, group)
    _swap(directory, DATA_NEW, DATA, name)
    tops = {path.split("/", 1)[0] for path in files}
    for top in tops:
        place = os.path.join(directory, top)
        if not os.path.islink(place):
            os.symlink(f"{DATA}/{top}", place)
    for entry in os.listdir(directory):
        if entry.startswith(".."):
            if entry not in (DATA, name):
                _remove(os.path.join(directory, entry))
        elif entry not in tops:
            _remove(os.path.join(directory, entry))
    return True


def _swap(directory: str, new: str, place: str, target: str) -> None:
    temporary = os.path.join(directory, new)
    if os.path.islink(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, os.path.join(directory, place))


def _write_new(root: str, files: Mapping[str, File], group: int | None) -> None:
    os.mkdir(root, 0o755)
    os.chmod(root, 0o755)
    for path, file in files.items():
        place = os.path.join(root, path)
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(file.content)
        mode = file.mode
        if group is not None:
            mode |= 0o440
            os.chown(place, -1, group)
        if file.owner is not None:
            os.chown(place, file.owner, -1)
        os.chmod(place, mode)


def _holds(root: str, files: Mapping[str, File]) -> bool:
    """Tell whether a directory holds exactly these files."""
    found: set[str] = set()
    for where, _, names in os.walk(root):
        for name in names:
            path = os.path.relpath(os.path.join(where, name), root)
            file = files.get(path)
            if file is None:
                return False
            with open(os.path.join(root, path), "rb") as source:
                if source.read() != file.content:
                    return False
            if os.stat(os.path.join(root, path)).st_mode & 0o200 != file.mode & 0o200:
                return False
            found.add(path)
    return os.path.isdir(root) and found == set(files)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
