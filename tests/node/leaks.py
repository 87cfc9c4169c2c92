"""Tells what a test left behind on the machine: processes, mounts, namespaces, links, rules, cgroups.

`before = snapshot("marker")`, run, `assert_no_leaks(before, snapshot("marker"))`. The marker (a temporary directory or a
cluster's name that no other test uses) picks what is ours, because other tests run at the same time; "" takes all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Snapshot:
    """What stands; each item says enough to find it by hand."""

    processes: frozenset[str]
    mounts: frozenset[str]
    network_namespaces: frozenset[str]
    links: frozenset[str]
    nftables: frozenset[str]
    cgroups: frozenset[str]


def snapshot(marker: str = "") -> Snapshot:
    """Return what stands now and names the marker (in a command line, cgroup, mount point, link or table name)."""
    return Snapshot(
        processes=frozenset(_processes(marker)),
        mounts=frozenset(_mounts(marker)),
        network_namespaces=frozenset(_network_namespaces(marker)),
        links=frozenset(name for name in os.listdir("/sys/class/net") if marker in name),
        nftables=frozenset(_tables(marker)),
        cgroups=frozenset(_cgroups(marker)),
    )


def assert_no_leaks(before: Snapshot, after: Snapshot) -> None:
    """Fail with a list of everything that is there now and was not before."""
    left = [
        f"{field.name}: {item}"
        for field in fields(Snapshot)
        for item in sorted(getattr(after, field.name) - getattr(before, field.name))
    ]
    assert not left, "left behind:\n" + "\n".join(left)


def _processes(marker: str) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            cgroup = (entry / "cgroup").read_text()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and (marker in command or marker in cgroup):
            yield f"{entry.name} {command}"


def _mounts(marker: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if marker in line:
            yield f"{words[4]} ({words[words.index('-') + 1]})"


def _network_namespaces(marker: str) -> Iterator[str]:
    named = Path("/run/netns")
    if named.is_dir():
        yield from (f"/run/netns/{entry.name}" for entry in named.iterdir() if marker in entry.name)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[3].startswith("net:[") and marker in words[4]:
            yield f"{words[3]} held by {words[4]}"


def _tables(marker: str) -> Iterator[str]:
    if not shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        return
    listed = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True)
    if listed.returncode:
        return
    for item in json.loads(listed.stdout)["nftables"]:
        table = item.get("table")
        if table and marker in table["name"]:
            yield f"{table['family']} {table['name']}"


def _cgroups(marker: str) -> Iterator[str]:
    for directory, _, _ in os.walk(CGROUP_ROOT):
        if marker in directory:
            yield directory
