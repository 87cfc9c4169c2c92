"""Makes small images on the spot, as OCI archives: for the demo and the tests, where no registry can be reached.

`build_image` writes an archive from layers of files; `build_busybox_image` makes one from the machine's static busybox
with a link for every applet. The same input gives the same bytes, so digests are stable.

Spec: OCI image layout and image specification 1.0.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tiphys.base.errors import TiphysError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a layer. With `link` it is a symbolic link; a layer's key that ends in / is a directory."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image's config tells a runtime."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    working_dir: str = ""
    ports: tuple[str, ...] = ()
    """e.g. 80/tcp."""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


Layer = Mapping[str, File]


def architecture() -> str:
    """Return this machine's architecture as images name it."""
    import platform

    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(machine, machine)


def pack_layer(files: Layer) -> bytes:
    """Return the uncompressed tar of a layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in files.items():
            info = tarfile.TarInfo(path.strip("/"))
            info.mode, info.uid, info.gid = file.mode, file.uid, file.gid
            if path.endswith("/"):
                info.type = tarfile.DIRTYPE
                info.mode = file.mode if file.mode != 0o644 else 0o755
                tar.addfile(info)
            elif file.link:
                info.type = tarfile.SYMTYPE
                info.linkname = file.link
                tar.addfile(info)
            else:
                info.size = len(file.data)
                tar.addfile(info, io.BytesIO(file.data))
    return out.getvalue()


def build_image(path: Path, references: Sequence[str], layers: Sequence[Layer], config: ImageConfig) -> str:
    """Write an OCI archive (a tar of an image layout) to `path`; return the manifest's digest."""
    blobs: dict[str, bytes] = {}

    def add(data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    diff_ids = []
    descriptors = []
    for layer in layers:
        tar = pack_layer(layer)
        packed = gzip.compress(tar, 1, mtime=0)
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        descriptors.append({"mediaType": LAYER_TYPE, "digest": add(packed), "size": len(packed)})
    body = json.dumps(_format_config(config, diff_ids)).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": add(body), "size": len(body)},
            "layers": descriptors,
        }
    ).encode()
    digest = add(manifest)
    entries = [
        {
            "mediaType": MANIFEST_TYPE,
            "digest": digest,
            "size": len(manifest),
            "annotations": {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference},
        }
        for reference in references
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).encode()
    files = {"oci-layout": File(b'{"imageLayoutVersion":"1.0.0"}'), "index.json": File(index)}
    files |= {f"blobs/sha256/{name.removeprefix('sha256:')}": File(data) for name, data in blobs.items()}
    path.write_bytes(pack_layer(files))
    return digest


def _format_config(config: ImageConfig, diff_ids: Sequence[str]) -> dict[str, object]:
    return {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": list(config.entrypoint) or None,
            "Cmd": list(config.cmd) or None,
            "Env": list(config.env),
            "User": config.user,
            "WorkingDir": config.working_dir,
            "ExposedPorts": {port: {} for port in config.ports},
            "StopSignal": config.stop_signal,
            "Volumes": {volume: {} for volume in config.volumes},
            "Labels": dict(config.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [],
    }


def busybox_layer() -> dict[str, File]:
    """Return a layer with the machine's static busybox and a link for each applet. Raises TiphysError without one."""
    binary = next((Path(path) for path in BUSYBOX_PATHS if Path(path).exists()), None)
    if binary is None:
        raise TiphysError("no busybox on this machine: install the package busybox-static")
    listed = subprocess.run([str(binary), "--list"], capture_output=True, check=True, text=True)
    files = {f"{name}/": File(mode=0o755) for name in ("bin", "etc", "home", "root", "usr", "usr/bin", "var", "www")}
    files["tmp/"] = File(mode=0o1777)
    files["bin/busybox"] = File(binary.read_bytes(), 0o755)
    for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
        files[f"bin/{applet}"] = File(link="busybox")
    files["usr/bin/env"] = File(link="../../bin/busybox")
    files["etc/passwd"] = File(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
    files["etc/group"] = File(b"root:x:0:\nnobody:x:65534:\n")
    return files


def build_busybox_image(
    path: Path,
    references: Sequence[str] = ("docker.io/library/busybox:latest",),
    files: Layer | None = None,
    config: ImageConfig | None = None,
) -> str:
    """Write a busybox image to `path`, with `files` as a second layer. Return the manifest's digest."""
    layers = [busybox_layer()]
    if files:
        layers.append(dict(files))
    return build_image(path, references, layers, config or ImageConfig(cmd=("sh",)))
