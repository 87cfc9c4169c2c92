"""Reads image archives: what images are in a tar or directory, by which names, and where their blobs are.

Two forms: an OCI image layout (index.json; nested indexes are followed to this machine's platform) and a `docker save`
tar (manifest.json). Output goes to images.py. Digests of layers are checked there, by their diff ids.

Spec: OCI image layout 1.0; the `docker save` format 1.2.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tiphys.base.errors import TiphysError


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive. `layers` are names for `Archive.open`; `digest` is "" when no manifest has one."""

    names: list[str]
    config: bytes
    layers: list[str]
    size_bytes: int
    digest: str = ""


class Archive:
    """An open archive: a directory, or a tar (compressed or not)."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self._path = path
        self._tar = tar

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the archive. Raises TiphysError when it is missing."""
        try:
            if self._tar is None:
                return open(self._path / name, "rb")
            file = self._tar.extractfile(name)
        except (KeyError, OSError) as error:
            raise TiphysError(f"{self._path}: the archive lacks {name}") from error
        if file is None:
            raise TiphysError(f"{self._path}: {name} in the archive is not a file")
        return file

    def images(self, architecture: str) -> Iterator[ArchivedImage]:
        """Yield every image that runs on this machine."""
        docker = self._read_json("manifest.json", missing_ok=True)
        if docker is not None:
            for entry in docker:
                layers = list(entry["Layers"])
                yield ArchivedImage(
                    list(entry.get("RepoTags") or []),
                    self._read(entry["Config"]),
                    layers,
                    sum(self._size(layer) for layer in layers),
                )
            return
        index = self._read_json("index.json", missing_ok=True)
        if index is None:
            raise TiphysError(f"{self._path} holds neither index.json nor manifest.json: it is not an image archive")
        for descriptor in index.get("manifests", ()):
            yield from self._follow(descriptor, [], architecture)

    def _follow(self, descriptor: dict[str, Any], names: list[str], architecture: str) -> Iterator[ArchivedImage]:
        annotations = descriptor.get("annotations") or {}
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
        names = names or ([name] if name else [])
        platform = descriptor.get("platform") or {}
        if platform.get("architecture", architecture) != architecture or platform.get("os", "linux") != "linux":
            return
        manifest = self._read_json(_blob(descriptor["digest"]))
        if "manifests" in manifest:
            for inner in manifest["manifests"]:
                yield from self._follow(inner, names, architecture)
            return
        yield ArchivedImage(
            names,
            self._read(_blob(manifest["config"]["digest"])),
            [_blob(layer["digest"]) for layer in manifest["layers"]],
            manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"]),
            descriptor["digest"],
        )

    def _read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def _size(self, name: str) -> int:
        if self._tar is None:
            return (self._path / name).stat().st_size
        return self._tar.getmember(name).size

    def _read_json(self, name: str, *, missing_ok: bool = False) -> Any:
        try:
            return json.loads(self._read(name))
        except ValueError as error:
            raise TiphysError(f"{self._path}: {name} in the archive is not JSON: {error}") from error
        except TiphysError:
            if missing_ok:
                return None
            raise


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive. Raises TiphysError when it cannot be read."""
    if path.is_dir():
        yield Archive(path, None)
        return
    try:
        tar = tarfile.open(path, "r:*")  # noqa: SIM115 - the with below closes it
    except (OSError, tarfile.TarError) as error:
        raise TiphysError(f"cannot read the image archive {path}: {error}") from error
    with tar:
        yield Archive(path, tar)


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not value.isalnum():
        raise TiphysError(f"unknown digest {digest}: only sha256 is known")
    return f"blobs/sha256/{value}"
