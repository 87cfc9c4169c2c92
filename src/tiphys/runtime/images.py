"""The image store: which images this machine has, and their layers unpacked for overlayfs.

    <root>/lock             taken (flock) around every change, so that `tiphys image load` may run beside the node agent
    <root>/images.json      id -> record, reference -> id; replaced by rename
    <root>/configs/<hex>    image configs; the id is the digest of the config
    <root>/l/<16 hex>       one unpacked layer, named after its diff id, shared by all images that have it
    <root>/tmp              half-done work, named after the process; what a dead one left is removed at start

Writes go layers, then config, then images.json: an image is there only when all of it is. Files come from archives
(`load_archive`) and from a registry (registry.py). Layers that no image names are removed with the last image.
All functions block; the runtime calls them in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from tiphys.base.errors import TiphysError
from tiphys.runtime.imagebuild import architecture
from tiphys.runtime.interface import Image
from tiphys.runtime.layer import unpack_layer
from tiphys.runtime.references import parse_reference

if TYPE_CHECKING:
    from tiphys.runtime.archive import Archive

CONFIG_LIMIT_BYTES = 8 << 20


@dataclass(slots=True)
class ImageRecord:
    """One image as images.json holds it."""

    id: str
    layers: list[str]
    """Diff ids, lowest first."""
    size_bytes: int
    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    user: str = ""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The part of an image's config that a container needs."""

    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    working_dir: str
    stop_signal: str
    volumes: tuple[str, ...]


class ImageStore:
    """See the module's docstring. One object a process; several processes may share the directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records: dict[str, ImageRecord] = {}
        self._stamp: tuple[int, int] | None = None
        for name in ("configs", "l", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # Reading
    def images(self) -> list[Image]:
        return [self._image(record) for record in self._read().values()]

    def find(self, reference: str) -> ImageRecord | None:
        """Return the image of an id or reference. Raises RuntimeFailed("InvalidImageName")."""
        records = self._read()
        if reference in records:
            return records[reference]
        if reference.startswith("sha256:"):
            return None
        parsed = parse_reference(reference)
        name = str(parsed)
        for record in records.values():
            if name in (record.digests if parsed.digest else record.tags):
                return record
        return None

    def status(self, reference: str) -> Image | None:
        record = self.find(reference)
        return self._image(record) if record else None

    def run_config(self, image_id: str) -> RunConfig:
        config = json.loads((self._root / "configs" / _hex(image_id)).read_bytes()).get("config") or {}
        return RunConfig(
            entrypoint=tuple(config.get("Entrypoint") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            env=tuple(config.get("Env") or ()),
            user=config.get("User") or "",
            working_dir=config.get("WorkingDir") or "",
            stop_signal=config.get("StopSignal") or "",
            volumes=tuple(config.get("Volumes") or ()),
        )

    def layer_directories(self, record: ImageRecord) -> list[str]:
        """Return the unpacked layers, lowest first."""
        return [str(self.layer_path(diff_id)) for diff_id in record.layers]

    def layer_path(self, diff_id: str) -> Path:
        return self._root / "l" / _hex(diff_id)[:16]

    # Changing
    def clean(self) -> None:
        """Remove what a crash left half-done."""
        with self._lock():
            for entry in (self._root / "tmp").iterdir():
                if not Path("/proc", entry.name.partition("-")[0]).exists():
                    _remove(entry)
            self._remove_unreferenced(self._read())

    def add_layer(self, diff_id: str, open_tar: Callable[[], IO[bytes]]) -> None:
        """Unpack a layer unless it is there. The tar's digest must be `diff_id`. Safe to call at once from many."""
        target = self.layer_path(diff_id)
        if target.exists():
            return
        work = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._root / "tmp"))
        try:
            tree = work / "tree"
            tree.mkdir(mode=0o755)
            with contextlib.closing(open_tar()) as stream:
                actual = unpack_layer(stream, tree)
            if actual != diff_id:
                raise TiphysError(f"layer {diff_id} is damaged: its content has the digest {actual}; get it again")
            try:
                tree.rename(target)
            except OSError:
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def add_image(self, config: bytes, size_bytes: int, tags: Sequence[str], digests: Sequence[str]) -> ImageRecord:
        """Name an image whose layers are all there. A tag moves away from the image that had it."""
        image_id = "sha256:" + hashlib.sha256(config).hexdigest()
        parsed = parse_config(config)
        layers = parsed["rootfs"]["diff_ids"]
        user = (parsed.get("config") or {}).get("User") or ""
        with self._lock():
            records = self._read()
            missing = [diff_id for diff_id in layers if not self.layer_path(diff_id).exists()]
            if missing:
                raise TiphysError(f"image {image_id} lacks its layer {missing[0]}; load or pull it again")
            path = self._root / "configs" / _hex(image_id)
            _replace(path, config)
            record = records.setdefault(image_id, ImageRecord(image_id, layers, size_bytes, user=user))
            for other in records.values():
                other.tags = [tag for tag in other.tags if tag not in tags]
            record.tags += [tag for tag in tags if tag not in record.tags]
            record.digests += [digest for digest in digests if digest not in record.digests]
            self._write(records)
        return record

    def remove(self, reference: str, in_use: Sequence[str] = ()) -> None:
        """Take a reference away, or with an id the image. Layers that nothing names any more go, except those of the
        image ids `in_use`."""
        with self._lock():
            records = self._read()
            record = self.find(reference)
            if record is None:
                return
            if reference == record.id:
                records.pop(record.id)
            else:
                name = str(parse_reference(reference))
                record.tags = [tag for tag in record.tags if tag != name]
                record.digests = [digest for digest in record.digests if digest != name]
                if not record.tags:
                    records.pop(record.id)
            if record.id in in_use and record.id not in records:
                record.tags, record.digests = [], []
                records[record.id] = record
            self._write(records)
            self._remove_unreferenced(records)

    def load_archive(self, path: Path, name: str = "") -> list[str]:
        """Load an OCI layout (a tar or a directory) or a `docker save` tar; return the references that it names.
        `name` names an image that has no name in the archive."""
        from tiphys.runtime.archive import open_archive

        references: list[str] = []
        with open_archive(path) as archive:
            for entry in archive.images(architecture()):
                diff_ids = parse_config(entry.config)["rootfs"]["diff_ids"]
                if len(diff_ids) != len(entry.layers):
                    raise TiphysError(
                        f"{path}: the image's config names {len(diff_ids)} layers, not {len(entry.layers)}"
                    )
                tags = [parse_reference(tag).tagged for tag in entry.names or ([name] if name else [])]
                digests = [f"{parse_reference(tag).name}@{entry.digest}" for tag in tags if entry.digest]
                with self.pin(diff_ids):
                    for diff_id, blob in zip(diff_ids, entry.layers, strict=True):
                        self.add_layer(diff_id, partial(_open_layer, archive, blob))
                    record = self.add_image(entry.config, entry.size_bytes, tags, digests)
                references += tags or [record.id]
        return references

    # Insides
    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        fd = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read(self) -> dict[str, ImageRecord]:
        path = self._root / "images.json"
        try:
            status = path.stat()
        except FileNotFoundError:
            return {}
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            loaded = json.loads(path.read_bytes())
            self._records = {record["id"]: ImageRecord(**record) for record in loaded["images"]}
            self._stamp = stamp
        return {key: _copy(record) for key, record in self._records.items()}

    def _write(self, records: dict[str, ImageRecord]) -> None:
        rows = [asdict(record) for record in records.values()]
        _replace(self._root / "images.json", json.dumps({"images": rows}, indent=1).encode())

    def _remove_unreferenced(self, records: dict[str, ImageRecord]) -> None:
        layers = {_hex(diff_id)[:16] for record in records.values() for diff_id in record.layers}
        configs = {_hex(image_id) for image_id in records}
        for entry in (self._root / "l").iterdir():
            if entry.name not in layers and not _is_pinned(self._root, entry.name):
                shutil.rmtree(entry, ignore_errors=True)
        for entry in (self._root / "configs").iterdir():
            if entry.name not in configs:
                entry.unlink(missing_ok=True)

    @contextlib.contextmanager
    def pin(self, diff_ids: Sequence[str]) -> Iterator[None]:
        """Keep layers from removal while an image that will name them is being put together."""
        pins = [self._root / "tmp" / f"{os.getpid()}-pin-{id(diff_ids)}-{_hex(d)[:16]}" for d in diff_ids]
        try:
            for path in pins:
                path.touch()
            yield
        finally:
            for path in pins:
                path.unlink(missing_ok=True)

    @staticmethod
    def _image(record: ImageRecord) -> Image:
        return Image(record.id, tuple(record.tags), tuple(record.digests), record.size_bytes, record.user)


def parse_config(config: bytes) -> dict[str, Any]:
    """Return an image's config. Raises TiphysError when it is not one."""
    try:
        parsed = json.loads(config)
        if not all(diff_id.startswith("sha256:") for diff_id in parsed["rootfs"]["diff_ids"]):
            raise ValueError("unknown digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TiphysError(f"not an image config: {error}") from error
    return cast("dict[str, Any]", parsed)


def _open_layer(archive: Archive, name: str) -> IO[bytes]:
    return open_tar(archive.open(name))


def open_tar(stream: IO[bytes]) -> IO[bytes]:
    """Return the uncompressed form of a stream that may be gzip or zstd (by its first bytes)."""
    head = stream.read(4)
    source = _Prefixed(head, stream)
    if head[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", _Gunzip(source))
    if head == b"\x28\xb5\x2f\xfd":
        return cast("IO[bytes]", _ZstdPipe(source))
    return cast("IO[bytes]", source)


class _Prefixed:
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._rest.read(size)

    def close(self) -> None:
        self._rest.close()


class _Gunzip:
    """Inflates a gzip stream of one or more members; quicker than gzip.GzipFile for tar's small reads."""

    def __init__(self, source: _Prefixed) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(31)
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._buffer) < size):
            raw = self._inflate.unused_data or self._source.read(1 << 18)
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(31)
                if not raw.strip(b"\0"):
                    raw = b""
            if not raw:
                self._ended = True
                break
            try:
                self._buffer += self._inflate.decompress(raw)
            except zlib.error as error:
                raise TiphysError(f"the layer's gzip data is damaged: {error}") from error
        if size < 0:
            size = len(self._buffer)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def close(self) -> None:
        self._source.close()


class _ZstdPipe:
    """Runs the zstd program: Python 3.11 has no zstd and few images use it."""

    def __init__(self, source: _Prefixed) -> None:
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        shutil.copyfileobj(cast("IO[bytes]", source), self._spool)
        source.close()
        self._spool.seek(0)
        try:
            self._process = subprocess.Popen(["zstd", "-dcq"], stdin=self._spool, stdout=subprocess.PIPE)
        except FileNotFoundError as error:
            self._spool.close()
            raise TiphysError("the image has zstd layers: install the package zstd") from error

    def read(self, size: int = -1) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()
        self._spool.close()


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _copy(record: ImageRecord) -> ImageRecord:
    return replace(record, layers=list(record.layers), tags=list(record.tags), digests=list(record.digests))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_pinned(root: Path, layer: str) -> bool:
    return any((root / "tmp").glob(f"*-pin-*-{layer}"))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
