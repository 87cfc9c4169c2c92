"""Volumes, hosts file and termination log on a real disk, with a kubelet whose containers are simulated."""
# ruff: noqa: ASYNC110, ASYNC240  (a test looks at the disk until it shows what it should)

from __future__ import annotations

import asyncio
import base64
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "kubelet"))

from kubelet_support import MemoryCluster, Node, pod_object

from tiphys.base.clock import LoopClock
from tiphys.client.resources import CONFIGMAPS, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, SECRETS
from tiphys.kubelet.directory import PodDirectory
from tiphys.runtime.interface import ContainerConfig

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to try volumes"),
]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    cluster = MemoryCluster()
    async with Node(cluster, files=PodDirectory(str(tmp_path / "kubelet"), cluster, LoopClock())) as running:
        yield running


def volume(tmp_path: Path, pod: str, name: str, node: Node) -> Path:
    uid = node.cluster.pod(pod)["metadata"]["uid"]
    return tmp_path / "kubelet" / "pods" / uid / "volumes" / name


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.01)


def config_of(node: Node, name: str) -> ContainerConfig:
    containers: Any = node.runtime._containers
    return next(c.config for c in containers.values() if c.config.name == name)


async def test_config_maps_are_mounted_and_follow_their_object(node: Node, tmp_path: Path) -> None:
    await node.cluster.create(CONFIGMAPS, "default", {"metadata": {"name": "cfg"}, "data": {"a": "1", "b": "x"}})
    volumes = [{"name": "v", "configMap": {"name": "cfg", "defaultMode": 0o440}}]
    mounts = [{"name": "v", "mountPath": "/etc/cfg"}]
    await node.run_pod(pod_object("web", [{"name": "web", "image": "nginx", "volumeMounts": mounts}], volumes=volumes))
    await node.until_phase("web", "Running")
    place = volume(tmp_path, "web", "v", node)
    assert (place / "a").read_text() == "1"
    assert os.readlink(place / "a") == "..data/a"
    assert stat.S_IMODE(os.stat(place / "a").st_mode) == 0o440
    mount = next(m for m in config_of(node, "web").mounts if m.container_path == "/etc/cfg")
    assert mount.readonly and mount.host_path == str(place)
    await node.cluster.patch(CONFIGMAPS, "default", "cfg", {"data": {"a": "2", "b": None}})
    await until(lambda: (place / "a").read_text() == "2" and not (place / "b").exists())
    hidden = [name for name in os.listdir(place) if name.startswith("..") and name != "..data"]
    assert len(hidden) == 1


async def test_a_pod_waits_for_its_config_map_and_starts_when_it_comes(node: Node, tmp_path: Path) -> None:
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    await node.run_pod(pod_object("web", volumes=volumes))
    recorder = node.kubelet.context.recorder
    await until(lambda: bool(node.cluster.events("web")))
    await recorder.flush()
    assert node.cluster.events("web")[0] == (
        "FailedMount",
        'MountVolume.SetUp failed for volume "v" : configmap "late" not found',
    )
    await node.cluster.create(CONFIGMAPS, "default", {"metadata": {"name": "late"}, "data": {"k": "v"}})
    await node.until_phase("web", "Running")


async def test_secrets_tokens_and_downward_files_share_a_projected_volume(node: Node, tmp_path: Path) -> None:
    secret = {"metadata": {"name": "s"}, "data": {"key": base64.b64encode(b"hidden").decode()}}
    await node.cluster.create(SECRETS, "default", secret)
    sources = [
        {"secret": {"name": "s", "items": [{"key": "key", "path": "deep/key", "mode": 0o400}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    pod = pod_object(
        "web", volumes=[{"name": "v", "projected": {"sources": sources}}], metadata={"labels": {"app": "web"}}
    )
    await node.run_pod(pod)
    await node.until_phase("web", "Running")
    place = volume(tmp_path, "web", "v", node)
    assert (place / "deep" / "key").read_bytes() == b"hidden"
    assert stat.S_IMODE(os.stat(place / "deep" / "key").st_mode) == 0o400
    assert (place / "token").read_text().startswith("token-")
    assert (place / "labels").read_text() == 'app="web"'
    await node.cluster.patch(PODS, "default", "web", {"metadata": {"labels": {"app": "new"}}})
    await until(lambda: (place / "labels").read_text() == 'app="new"')


async def test_empty_dirs_go_with_the_pod_also_those_in_memory(node: Node, tmp_path: Path) -> None:
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    mounts = [{"name": "disk", "mountPath": "/d", "subPath": "below/it"}, {"name": "ram", "mountPath": "/r"}]
    container = {"name": "web", "image": "nginx", "volumeMounts": mounts}
    await node.run_pod(pod_object("web", [container], volumes=volumes, securityContext={"fsGroup": 2000}))
    await node.until_phase("web", "Running")
    ram, disk = volume(tmp_path, "web", "ram", node), volume(tmp_path, "web", "disk", node)
    assert os.path.ismount(ram) and os.statvfs(ram).f_blocks * os.statvfs(ram).f_frsize == 1 << 20
    assert (disk / "below" / "it").is_dir()
    assert os.stat(disk).st_gid == 2000 and os.stat(disk).st_mode & stat.S_ISGID
    await node.cluster.delete(PODS, "default", "web")
    await until(lambda: not node.cluster.has_pod("web"))
    assert os.listdir(tmp_path / "kubelet" / "pods") == []
    assert str(ram) not in Path("/proc/self/mountinfo").read_text()
    await until(lambda: os.listdir(tmp_path / "kubelet" / "logs") == [])


async def test_a_sub_path_that_leaves_its_volume_is_refused(node: Node, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(outside)
    volumes = [{"name": "v", "hostPath": {"path": str(shared), "type": "Directory"}}]
    mounts = [{"name": "v", "mountPath": "/d", "subPath": "link/new"}]
    await node.run_pod(pod_object("web", [{"name": "web", "image": "nginx", "volumeMounts": mounts}], volumes=volumes))

    def waiting() -> str:
        statuses = node.cluster.pod("web")["status"].get("containerStatuses") or [{"state": {}}]
        return (statuses[0]["state"].get("waiting") or {}).get("reason", "")

    await until(lambda: waiting() == "CreateContainerConfigError")
    assert os.listdir(outside) == []


async def test_a_claim_leads_to_the_path_of_its_volume(node: Node, tmp_path: Path) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}}
    await node.cluster.create(PERSISTENTVOLUMECLAIMS, "default", claim)
    spec = {"hostPath": {"path": str(tmp_path / "disk1")}}
    await node.cluster.create(PERSISTENTVOLUMES, "", {"metadata": {"name": "pv1"}, "spec": spec})
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "v", "mountPath": "/data"}]
    await node.run_pod(pod_object("web", [{"name": "web", "image": "nginx", "volumeMounts": mounts}], volumes=volumes))
    await node.until_phase("web", "Running")
    mount = next(m for m in config_of(node, "web").mounts if m.container_path == "/data")
    assert mount.host_path == str(tmp_path / "disk1")


async def test_hosts_file_and_termination_message(node: Node, tmp_path: Path) -> None:
    pod = pod_object(
        "web",
        restartPolicy="Never",
        hostAliases=[{"ip": "10.0.0.9", "hostnames": ["a", "b"]}],
        hostname="me",
        subdomain="sub",
        metadata={"annotations": {"tiphys.dev/simulate-exit": "3 after 0.3s"}},
    )
    await node.run_pod(pod)
    await until(lambda: bool(node.runtime._containers))
    mounts = {m.container_path: m.host_path for m in config_of(node, "web").mounts}
    text = Path(mounts["/etc/hosts"]).read_text()
    address = (await node.runtime.list_pod_sandboxes())[0].addresses[0]
    assert f"{address}\tme.sub.default.svc.cluster.local\tme\n" in text
    assert text.endswith("# Entries added by HostAliases.\n10.0.0.9\ta\tb\n")
    Path(mounts["/dev/termination-log"]).write_text("out of luck")
    status = await node.until_phase("web", "Failed")
    end = status["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["message"]) == (3, "out of luck")
