"""Pulls from a real registry (Debian's docker-registry, on loopback) and from one that lies."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiphys.runtime.imagebuild import INDEX_TYPE, MANIFEST_TYPE, File, ImageConfig, architecture, build_image
from tiphys.runtime.images import ImageStore
from tiphys.runtime.interface import ImageAuth, RuntimeFailed
from tiphys.runtime.registry import pull

pytestmark = pytest.mark.node

LAYERS = [
    {"etc/": File(), "etc/one": File(b"1"), "etc/gone": File(b"x")},
    {"etc/.wh.gone": File(), "etc/two": File(b"2")},
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not shutil.which("docker-registry"):
        pytest.skip("no docker-registry: install Debian's package")
    directory = tmp_path_factory.mktemp("registry")
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": host},
    }
    (directory / "config.yml").write_text(json.dumps(config))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://{host}/v2/").close()
            break
        except OSError:
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.02)
    yield host
    process.kill()
    process.wait()


def put(url: str, data: bytes, kind: str, method: str) -> str:
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request) as response:
        return str(response.headers.get("Location", ""))


def push(archive: Path, host: str, repository: str, tag: str, *, in_index: bool = False) -> str:
    """Push an archive of one image; return the digest that the tag stands for."""
    with tarfile.open(archive) as tar:
        blobs = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    descriptor = json.loads(blobs["index.json"])["manifests"][0]
    manifest = blobs["blobs/sha256/" + descriptor["digest"][7:]]
    parsed = json.loads(manifest)
    for digest in {part["digest"] for part in [parsed["config"], *parsed["layers"]]}:
        place = put(f"http://{host}/v2/{repository}/blobs/uploads/", b"", "", "POST")
        data = blobs["blobs/sha256/" + digest[7:]]
        put(f"{place}&digest={digest}", data, "application/octet-stream", "PUT")
    if not in_index:
        put(f"http://{host}/v2/{repository}/manifests/{tag}", manifest, MANIFEST_TYPE, "PUT")
        return str(descriptor["digest"])
    put(f"http://{host}/v2/{repository}/manifests/{descriptor['digest']}", manifest, MANIFEST_TYPE, "PUT")
    entry = {"mediaType": MANIFEST_TYPE, "digest": descriptor["digest"], "size": len(manifest)}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [entry | {"platform": {"os": "linux", "architecture": architecture()}}],
        }
    ).encode()
    put(f"http://{host}/v2/{repository}/manifests/{tag}", index, INDEX_TYPE, "PUT")
    return f"sha256:{hashlib.sha256(index).hexdigest()}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    build_image(path, ["app:1"], LAYERS, ImageConfig(cmd=("/app",), user="5"))
    return path


@pytest.mark.parametrize("in_index", [False, True])
def test_pull_by_tag_and_by_digest(registry: str, archive: Path, tmp_path: Path, in_index: bool) -> None:
    repository = f"team/app{in_index}".lower()
    digest = push(archive, registry, repository, "1", in_index=in_index)
    store = ImageStore(tmp_path / "images")
    image_id = pull(store, f"{registry}/{repository}:1")
    image = store.status(f"{registry}/{repository}:1")
    assert image is not None
    assert (image.id, image.user) == (image_id, "5")
    assert image.digests == (f"{registry}/{repository}@{digest}",)
    top = Path(store.layer_directories(store.find(image_id))[1])  # type: ignore[arg-type]
    assert (top / "etc/two").read_text() == "2"
    assert (top / "etc/gone").is_char_device()
    other = ImageStore(tmp_path / "other")
    assert pull(other, f"{registry}/{repository}@{digest}") == image_id
    assert other.status(f"{registry}/{repository}@{digest}") is not None


def test_what_is_not_there(registry: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with pytest.raises(RuntimeFailed) as failure:
        pull(store, f"{registry}/none:1")
    assert failure.value.reason == "ErrImagePull"
    assert f"{registry}/none:1: not found" in str(failure.value)


class Liar(http.server.BaseHTTPRequestHandler):
    """Serves one image with token authentication; `damage` changes what it answers."""

    blobs: dict[str, bytes] = {}
    manifest = b""
    damage = ""

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            wanted = "Basic " + base64.b64encode(b"user:secret").decode()
            self.answer(*((200, b'{"token":"t1"}') if self.headers.get("Authorization") == wanted else (401, b"{}")))
        elif self.headers.get("Authorization") != "Bearer t1":
            realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="s",scope="repository:app:pull"'
            self.answer(401, b"{}", {"WWW-Authenticate": realm})
        elif "/manifests/" in self.path:
            self.answer(200, self.manifest, {"Content-Type": MANIFEST_TYPE})
        else:
            data = self.blobs[self.path.rpartition(":")[2]]
            is_layer = data[:2] == b"\x1f\x8b"
            if is_layer and self.damage == "cut":
                self.answer(200, data[:-40], length=len(data))
            elif is_layer and self.damage == "flip":
                self.answer(200, data[:-30] + b"0123456789" + data[-20:])
            elif not is_layer and self.damage == "config":
                self.answer(200, data + b" ")
            else:
                self.answer(200, data)

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None, length: int = -1) -> None:
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length if length >= 0 else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def liar(archive: Path) -> Iterator[str]:
    with tarfile.open(archive) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    Liar.blobs = {name.rpartition("/")[2]: data for name, data in files.items()}
    Liar.manifest = Liar.blobs[json.loads(files["index.json"])["manifests"][0]["digest"][7:]]
    Liar.damage = ""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_token_authentication(liar: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "i")
    assert pull(store, f"{liar}/app:1", ImageAuth("user", "secret")).startswith("sha256:")
    with pytest.raises(RuntimeFailed) as failure:
        pull(store, f"{liar}/app:1", ImageAuth("user", "wrong"))
    assert "pull access denied" in str(failure.value)


@pytest.mark.parametrize("damage", ["cut", "flip", "config"])
def test_damaged_content_leaves_nothing(liar: str, tmp_path: Path, damage: str) -> None:
    Liar.damage = damage
    store = ImageStore(tmp_path / "i")
    with pytest.raises(RuntimeFailed) as failure:
        pull(store, f"{liar}/app:1", ImageAuth("user", "secret"))
    assert failure.value.reason == "ErrImagePull"
    assert store.images() == []
    assert not list((tmp_path / "i/tmp").iterdir())
    store.clean()
    assert not list((tmp_path / "i/l").iterdir())
