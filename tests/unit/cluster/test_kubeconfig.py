"""The user's kubeconfig: only the cluster's own entries come and go."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import ClusterConfig
from tiphys.cluster.kubeconfig import has_entries, merge_kubeconfig, remove_kubeconfig
from tiphys.cluster.pki import Pki

CONFIG = ClusterConfig("one", (1, 37), 6443, 10250, "node", "127.0.0.1", "10.244.0.0/16", "10.96.0.0/16", True)
OTHER = {"clusters": [{"name": "mine", "cluster": {"server": "https://example.test"}}], "x-kept": [1]}


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    for name in ("ca.crt", "admin.crt", "admin.key"):
        (tmp_path / name).write_text(name)
    return Pki(tmp_path)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "of-user" / "config"
    monkeypatch.setenv("KUBECONFIG", f"{file}:{tmp_path / 'second'}")
    return file


def test_a_file_that_only_we_wrote_comes_and_goes(path: Path, pki: Pki) -> None:
    merge_kubeconfig(CONFIG, pki)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert has_entries("one") and not has_entries("two")
    remove_kubeconfig("one")
    assert not path.exists()


def test_merging_twice_changes_nothing(path: Path, pki: Pki) -> None:
    merge_kubeconfig(CONFIG, pki)
    once = path.read_text()
    merge_kubeconfig(CONFIG, pki)
    assert path.read_text() == once


def test_what_others_wrote_stays(path: Path, pki: Pki) -> None:
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(OTHER))
    merge_kubeconfig(CONFIG, pki)
    merged = yaml.safe_load(path.read_text())
    assert merged["current-context"] == "tiphys-one" and len(merged["clusters"]) == 2
    remove_kubeconfig("one")
    left = yaml.safe_load(path.read_text())
    assert left["clusters"] == OTHER["clusters"] and left["x-kept"] == [1] and left["current-context"] == ""


def test_a_link_stays_a_link(path: Path, pki: Pki, tmp_path: Path) -> None:
    path.parent.mkdir()
    target = tmp_path / "elsewhere"
    target.write_text(yaml.safe_dump(OTHER))
    path.symlink_to(target)
    merge_kubeconfig(CONFIG, pki)
    assert path.is_symlink() and "tiphys-one" in target.read_text()


@pytest.mark.parametrize("text", ["{broken", "- a list", "clusters: [text]"])
def test_a_file_that_is_no_kubeconfig_is_told_not_overwritten(path: Path, pki: Pki, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TiphysError, match="set KUBECONFIG to another file"):
        merge_kubeconfig(CONFIG, pki)
    assert path.read_text() == text
