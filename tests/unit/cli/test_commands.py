"""The commands as a person meets them: help, errors in one line, tables."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tiphys import __version__
from tiphys.cli.main import main
from tiphys.cli.text import format_bytes, format_table
from tiphys.cluster.config import Files, write_config
from tiphys.cluster.up import Wishes, choose_config
from tiphys.runtime.imagebuild import File, ImageConfig, build_image


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIPHYS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return tmp_path


@pytest.fixture
def cluster() -> None:
    config = choose_config(Wishes("tiphys"))
    Files.of("tiphys").make()
    write_config(config)


def run(*words: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, words, input=stdin, prog_name="tiphys")
    return result.exit_code, result.stdout, result.stderr


COMMANDS = [
    ("up",), ("down",), ("status",), ("kubeconfig",), ("image", "load"), ("image", "list"), ("node", "list"), ("version",)
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids="-".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    code, said, _ = run(*words, "--help")
    assert code == 0 and f"Usage: tiphys {' '.join(words)}" in said
    assert len(said.splitlines()) < 30, "on one screen"
    assert run(*words, "-h")[1] == said


def test_the_first_help_shows_the_way() -> None:
    code, said, _ = run("--help")
    assert code == 0
    for word in ("tiphys up", "kubectl get nodes", "tiphys down"):
        assert word in said


def test_version_tells_both() -> None:
    assert f"tiphys {__version__}\nKubernetes 1.37" in run("version")[1]
    assert json.loads(run("version", "-o", "json")[1])["tiphys"] == __version__


@pytest.mark.parametrize("words", [("status",), ("kubeconfig",), ("node", "list"), ("image", "list")], ids="-".join)
def test_without_a_cluster_the_next_step_is_told(words: tuple[str, ...]) -> None:
    code, _, error = run(*words)
    assert code == 1 and "`tiphys up` makes one" in error and error.count("\n") == 1


def test_a_bad_version_is_a_usage_error() -> None:
    code, _, error = run("up", "--kubernetes-version", "latest")
    assert code == 2 and "is not a Kubernetes version such as 1.37" in error


def test_a_full_disk_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(wishes: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/store.db")

    monkeypatch.setattr("tiphys.cli.up.run_up", full)
    code, _, error = run("up")
    assert code == 1
    assert error == (
        "Error: No space left on device: /somewhere/store.db; free some space on that disk and run the command again\n"
    )


@pytest.mark.usefixtures("cluster")
def test_status_of_a_cluster_that_does_not_run_fails_and_says_how_to_start_it() -> None:
    code, said, _ = run("status")
    assert code == 1
    assert "problem: not running: guardian, apiserver, node, controllers; `tiphys up` starts the cluster again" in said


@pytest.mark.usefixtures("cluster")
def test_images_are_loaded_from_files_and_standard_input(home: Path) -> None:
    archive = home / "image.tar"
    build_image(archive, ["example.test/app:1"], [{"hello": File(b"hello")}], ImageConfig(cmd=("/hello",)))
    assert "loaded example.test/app:1" in run("image", "load", str(archive))[1]
    assert "loaded example.test/app:1" in run("image", "load", "-", stdin=archive.read_bytes())[1]
    assert "example.test/app:1" in run("image", "list")[1]
    listed = json.loads(run("image", "list", "-o", "json")[1])
    assert [image["tags"] for image in listed] == [["example.test/app:1"]]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["text", "empty", "tar of something else", "half"])
def test_what_is_no_archive_of_images_is_told(home: Path, kind: str) -> None:
    path = home / "image.tar"
    if kind == "tar of something else":
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    elif kind == "half":
        build_image(path, ["example.test/app:1"], [{"hello": File(b"x" * 100_000)}], ImageConfig())
        path.write_bytes(path.read_bytes()[:700])
    else:
        path.write_text("" if kind == "empty" else "hello")
    code, _, error = run("image", "load", str(path))
    assert code == 1 and str(path) in error and error.count("\n") == 1


def test_tables_line_up() -> None:
    assert format_table(("A", "BB"), [("long", "x"), ("s", "")]) == "A      BB\nlong   x\ns"
    assert (format_bytes(1 << 20), format_bytes(3 << 30)) == ("1.0 MiB", "3.0 GiB")
