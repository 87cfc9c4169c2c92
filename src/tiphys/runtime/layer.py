"""Unpacks one image layer into a directory in overlayfs form, and hashes what it read.

Whiteouts become 0/0 devices, opaque directories get the xattr that overlayfs reads. Nothing is ever written outside
the directory: names with `..` are clamped, and a symbolic link on the way to a file is followed inside the directory
only. Invariant: when `unpack_layer` returns, the directory holds the whole layer and the digest is the tar's.

Spec: OCI image specification, layer changesets; overlayfs documentation, "whiteouts and opaque directories".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO, cast

from tiphys.base.errors import TiphysError

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
SYMLINK_LIMIT = 40


class HashingReader:
    """A file that feeds what is read from it to a hash."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data

    def drain(self) -> str:
        """Read the rest; return `sha256:...`."""
        while self.read(1 << 20):
            pass
        return f"sha256:{self.digest.hexdigest()}"


def unpack_layer(tar_stream: IO[bytes], directory: Path) -> str:
    """Unpack an uncompressed tar; return its digest (the layer's diff id)."""
    reader = HashingReader(tar_stream)
    _Unpacker(directory).run(reader)
    return reader.drain()


class _Unpacker:
    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._real: dict[str, str] = {"": self._root}
        """Directory name in the tar to its place on disk; emptied when a directory or link is replaced."""
        self._times: list[tuple[str, float]] = []

    def run(self, reader: HashingReader) -> None:
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|", errorlevel=2) as tar:
                for member in tar:
                    self._add(tar, member)
        except (tarfile.TarError, EOFError) as error:
            raise TiphysError(f"the layer is not a readable tar archive: {error}") from error
        for path, mtime in reversed(self._times):
            os.utime(path, (mtime, mtime))

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _clean_parts(member.name)
        if not parts:
            if member.isdir():
                self._set_owner(self._root, member)
            return
        parent = self._directory(parts[:-1])
        name = parts[-1]
        if name == OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
            return
        if name.startswith(WHITEOUT):
            target = os.path.join(parent, name.removeprefix(WHITEOUT))
            self._clear(target)
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
            return
        path = os.path.join(parent, name)
        self._make(tar, member, path)
        if not member.islnk():
            self._set_owner(path, member)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if member.isdir():
            if os.path.islink(path) or not os.path.isdir(path):
                self._clear(path)
                os.mkdir(path)
            return
        self._clear(path)
        if member.isreg():
            source = tar.extractfile(member)
            assert source is not None
            with source, open(path, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            target = _clean_parts(member.linkname)
            os.link(
                os.path.join(self._directory(target[:-1]), target[-1] if target else ""), path, follow_symlinks=False
            )
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        elif member.isfifo():
            os.mkfifo(path)

    def _clear(self, path: str) -> None:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
            self._real = {"": self._root}
        else:
            if stat.S_ISLNK(mode):
                self._real = {"": self._root}
            os.unlink(path)

    def _set_owner(self, path: str, member: tarfile.TarInfo) -> None:
        os.lchown(path, member.uid, member.gid)
        if member.issym():
            return
        os.chmod(path, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                with contextlib.suppress(OSError):
                    os.setxattr(path, key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape"))
        if member.isdir():
            self._times.append((path, member.mtime))
        else:
            os.utime(path, (member.mtime, member.mtime))

    def _directory(self, parts: list[str]) -> str:
        """Return the real directory for a path in the tar, made if missing, never outside the root."""
        key = "/".join(parts)
        known = self._real.get(key)
        if known is None:
            known = resolve_in_root(self._root, parts, make=True)
            self._real[key] = known
        return known


def resolve_in_root(root: str, parts: list[str], *, make: bool = False) -> str:
    """Return the path of `parts` below `root`, following links as if `root` were /. With `make`, missing directories
    are made. Raises TiphysError on a loop."""
    pending = list(reversed(parts))
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if resolved:
                resolved.pop()
            continue
        path = os.path.join(root, *resolved, part)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            if make:
                os.mkdir(path, 0o755)
            resolved.append(part)
            continue
        except NotADirectoryError as error:
            raise TiphysError(f"{'/'.join(parts)} goes through a file") from error
        if stat.S_ISLNK(mode):
            links += 1
            if links > SYMLINK_LIMIT:
                raise TiphysError(f"too many symbolic links in {'/'.join(parts)}")
            target = os.readlink(path)
            if target.startswith("/"):
                resolved = []
            pending.extend(reversed(target.split("/")))
            continue
        resolved.append(part)
    return os.path.join(root, *resolved)


def _clean_parts(name: str) -> list[str]:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts
