from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.base.errors import TiphysError
from tiphys.runtime.imagebuild import File, ImageConfig, build_image, pack_layer
from tiphys.runtime.images import ImageStore, open_tar
from tiphys.runtime.interface import RuntimeFailed
from tiphys.runtime.layer import unpack_layer
from tiphys.runtime.references import parse_reference

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking sets owners: needs root")
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("user/app", "docker.io/user/app:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("a.b/c/d/e:v1", "a.b/c/d/e:v1"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
    ],
)
def test_references_are_normalised(text: str, meaning: str) -> None:
    assert str(parse_reference(text)) == meaning


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "x:", "x@sha256:12", "a//b", "-x", "http://a/b", "x:!"])
def test_bad_references_are_refused(text: str) -> None:
    with pytest.raises(RuntimeFailed) as failure:
        parse_reference(text)
    assert failure.value.reason == "InvalidImageName"


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        assert parse_reference(str(parse_reference(text))) is not None
    except RuntimeFailed as refused:
        assert refused.reason == "InvalidImageName"


def tar_of(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Return a tar of (name, type, link or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = text
                tar.addfile(info)
            else:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    out.seek(0)
    return out


@needs_root
def test_nothing_is_written_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    members = [
        ("../up", tarfile.REGTYPE, "1"),
        ("link", tarfile.SYMTYPE, str(outside)),
        ("link/file", tarfile.REGTYPE, "2"),
        ("relative", tarfile.SYMTYPE, "../../outside"),
        ("relative/file", tarfile.REGTYPE, "3"),
        ("/absolute", tarfile.REGTYPE, "4"),
    ]
    unpack_layer(tar_of(*members), root)
    assert list(outside.iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"root", "outside"}
    assert (root / "up").read_text() == "1"
    assert (root / "absolute").read_text() == "4"


@needs_root
def test_hard_links_links_and_whiteouts(tmp_path: Path) -> None:
    members = [
        ("a", tarfile.REGTYPE, "content"),
        ("b", tarfile.LNKTYPE, "a"),
        ("dir/.wh.gone", tarfile.REGTYPE, ""),
        ("opaque/.wh..wh..opq", tarfile.REGTYPE, ""),
        ("usr/lib/x", tarfile.REGTYPE, "1"),
        ("lib", tarfile.SYMTYPE, "usr/lib"),
        ("lib/y", tarfile.REGTYPE, "2"),
    ]
    unpack_layer(tar_of(*members), tmp_path)
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino
    assert (tmp_path / "dir/gone").is_char_device()
    assert (tmp_path / "dir/gone").stat().st_rdev == 0
    assert os.getxattr(tmp_path / "opaque", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "usr/lib/y").read_text() == "2"


@needs_root
def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"not a tar")
    with pytest.raises(TiphysError, match="cannot read the image archive"):
        ImageStore(tmp_path / "i").load_archive(path)
    path.write_bytes(pack_layer({"hello": File(b"x")}))
    with pytest.raises(TiphysError, match="not an image archive"):
        ImageStore(tmp_path / "i").load_archive(path)


@needs_root
def test_layers_live_as_long_as_an_image_names_them(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "i")
    base = {"base": File(b"1")}
    build_image(tmp_path / "one.tar", ["one"], [base, {"x": File(b"x")}], ImageConfig(cmd=("a",)))
    build_image(tmp_path / "two.tar", ["two"], [base, {"y": File(b"y")}], ImageConfig(cmd=("b",)))
    assert store.load_archive(tmp_path / "one.tar") == ["docker.io/library/one:latest"]
    store.load_archive(tmp_path / "two.tar")
    assert len(list((tmp_path / "i/l").iterdir())) == 3
    store.remove("one")
    assert len(list((tmp_path / "i/l").iterdir())) == 2
    other = ImageStore(tmp_path / "i")
    assert [image.tags for image in other.images()] == [("docker.io/library/two:latest",)]
    other.remove("two")
    assert store.images() == []
    assert not list((tmp_path / "i/l").iterdir())


@needs_root
def test_a_tag_moves_to_the_newer_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "i")
    for number in ("1", "2"):
        build_image(tmp_path / "x.tar", ["app"], [{"x": File(number.encode())}], ImageConfig())
        store.load_archive(tmp_path / "x.tar")
    tags = [image.tags for image in store.images()]
    assert sorted(tags) == [(), ("docker.io/library/app:latest",)]


@needs_root
def test_docker_save_archives_load(tmp_path: Path) -> None:
    layer = pack_layer({"x": File(b"1")})
    import hashlib

    config = json.dumps(
        {
            "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["app:9"], "Layers": ["l/layer.tar"]}]).encode()
    path = tmp_path / "save.tar"
    path.write_bytes(pack_layer({"manifest.json": File(manifest), "c.json": File(config), "l/layer.tar": File(layer)}))
    store = ImageStore(tmp_path / "i")
    assert store.load_archive(path) == ["docker.io/library/app:9"]
    found = store.find("app:9")
    assert found is not None
    assert store.run_config(found.id).cmd == ("/x",)


def test_compressed_streams_of_several_members_are_read_whole() -> None:
    import gzip

    data = os.urandom(300_000)
    packed = gzip.compress(data[:100_000]) + gzip.compress(data[100_000:])
    stream = open_tar(io.BytesIO(packed))
    assert stream.read(-1) == data
    stream.close()
