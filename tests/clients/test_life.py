"""The life of a cluster with simulated nodes: it starts, starts again, dies in parts, and goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from life_support import Life, connected, kill, living, rolled_out, wait_for
from life_support import deployment as make_deployment

from tiphys.client.resources import CONFIGMAPS, DEPLOYMENTS
from tiphys.cluster.pidfiles import start_time


@pytest.fixture
def life() -> Iterator[Life]:
    with living() as made:
        yield made


def test_up_status_and_down(life: Life) -> None:
    said = life("up", "--simulated")
    assert "is ready after" in said and str(life.root / "admin.kubeconfig") in said
    status = json.loads(life("status", "-o", "json"))
    assert {p["name"] for p in status["processes"]} == {"guardian", "apiserver", "controllers", "node"}
    assert (status["api"], status["nodes_ready"], status["problems"]) == ("ok", 1, [])
    assert all(p["memory_bytes"] > 1 << 20 for p in status["processes"])
    assert "running already" in life("up"), "a second start is no failure"
    assert "Ready" in life("node", "list")
    path = life("kubeconfig", "--path").strip()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert yaml.safe_load(life("kubeconfig")) == yaml.safe_load(Path(path).read_text())
    own = yaml.safe_load(life.kubeconfig.read_text())
    assert own["current-context"] == f"tiphys-{life.name}"
    pids = life.pids()
    assert "is gone" in life("down")
    assert not life.home.exists() and not life.kubeconfig.exists()
    assert not any(start_time(pid) for pid in pids.values())
    assert "no trace" in life("down")


def test_a_kubeconfig_of_the_user_keeps_what_it_had(life: Life) -> None:
    mine = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mine", "cluster": {"server": "https://example.test"}}],
        "contexts": [{"name": "mine", "context": {"cluster": "mine", "user": "me"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "current-context": "mine",
    }
    life.kubeconfig.write_text(yaml.safe_dump(mine))
    life("up", "--simulated")
    assert [c["name"] for c in yaml.safe_load(life.kubeconfig.read_text())["clusters"]] == [
        "mine",
        f"tiphys-{life.name}",
    ]
    life("down")
    left = yaml.safe_load(life.kubeconfig.read_text())
    assert {**left, "current-context": "mine"} == mine


async def test_what_was_written_is_there_after_every_process_was_killed(life: Life) -> None:
    life("up", "--simulated")
    async with connected(life) as client:
        await client.create(CONFIGMAPS, "default", {"metadata": {"name": "kept"}, "data": {"a": "1"}})
        await client.create(DEPLOYMENTS, "default", make_deployment("app:1", 3))
        await wait_for(client, DEPLOYMENTS, "life", rolled_out)
    pids = life.pids()
    kill(pids.pop("guardian"))
    for pid in pids.values():
        kill(pid)
    assert "not running: guardian" in life.run("status", "--name", life.name).stdout
    assert life.run("status", "--name", life.name).returncode == 1
    life("up")
    async with connected(life) as client:
        kept = msgspec.json.decode(await client.get(CONFIGMAPS, "default", "kept"))
        assert kept["data"] == {"a": "1"}
        await client.patch(DEPLOYMENTS, "default", "life", {"spec": {"replicas": 5}})
        await wait_for(client, DEPLOYMENTS, "life", rolled_out)


def test_a_killed_guardian_takes_its_children_along_and_the_next_start_waits_for_them(life: Life) -> None:
    life("up", "--simulated")
    before = life.pids()
    kill(before["guardian"])
    life("up")
    after = life.pids()
    assert set(after) == set(before) and not set(after.values()) & set(before.values())


@pytest.mark.parametrize("damage", ["no cluster.json", "broken cluster.json", "no pki", "no files", "killed guardian"])
def test_down_works_on_whatever_is_left(life: Life, damage: str) -> None:
    life("up", "--simulated")
    pids = life.pids()
    if damage == "no cluster.json":
        (life.root / "cluster.json").unlink()
    elif damage == "broken cluster.json":
        (life.root / "cluster.json").write_text('{"name": "lif')
        assert f"tiphys down --name {life.name}" in life.refuse("up")
    elif damage == "no pki":
        shutil.rmtree(life.root / "pki")
    elif damage == "no files":
        for path in life.root.iterdir():
            if path.name not in ("run", "log"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        kill(pids["guardian"])
    life("down")
    assert not life.home.exists()
    assert not any(start_time(pid) for pid in pids.values())


def test_what_cannot_be_started_is_told_with_the_next_step(life: Life) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    with taken:
        assert f"cannot listen on 127.0.0.1:{port}" in life.refuse("up", "--simulated", "--port", port)
    assert "1.25 to 1.37" in life.refuse("up", "--simulated", "--kubernetes-version", "1.24")
    assert "`tiphys up --name" in life.refuse("status")
    too_long = life.run("up", "--name", "averylongname")
    assert too_long.returncode == 1 and "1 to 9 small letters" in too_long.stderr
    life("up", "--simulated", "--kubernetes-version", "1.31")
    assert "exists with Kubernetes version 1.31, not 1.37" in life.refuse("up", "--kubernetes-version", "1.37")


def test_a_store_of_another_version_is_told_not_touched(life: Life) -> None:
    life.root.mkdir(parents=True)
    with sqlite3.connect(life.root / "store.db") as database:
        database.execute("CREATE TABLE other (x)")
        database.execute("PRAGMA user_version = 99")
    database.close()
    said = life.refuse("up", "--simulated")
    assert "apiserver cannot run" in said and "store.db" in said


def test_a_full_disk_is_told_before_anything_starts(life: Life) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT ROOT: a small file system cannot be mounted")
    life.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "life", str(life.home)], check=True)
    try:
        assert "free some space and run the command again" in life.refuse("up", "--simulated")
        life("down")
    finally:
        subprocess.run(["umount", str(life.home)], check=True)


def test_two_clusters_live_beside_each_other(life: Life) -> None:
    life("up", "--simulated")
    with living() as other:
        other("up", "--simulated", "--nodes", "3")
        assert json.loads(other("status", "-o", "json"))["nodes_ready"] == 3
        mine, others = (json.loads(each("status", "-o", "json"))["url"] for each in (life, other))
        assert mine != others
    assert life.run("status", "--name", life.name).returncode == 0
