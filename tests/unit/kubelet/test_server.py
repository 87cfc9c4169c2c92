"""The kubelet's API: who may ask, logs, commands, errors."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from kubelet_support import NODE, MemoryCluster, Node, pod_object

from tiphys.base.clock import LoopClock
from tiphys.client.resources import PODS
from tiphys.kubelet.commands import exit_status
from tiphys.kubelet.directory import PodDirectory
from tiphys.kubelet.podfiles import NoFiles
from tiphys.kubelet.server import KubeletApi
from tiphys.wire.message import Peer, Request, Response, Stream
from tiphys.wire.tls import create_ca, issue, server_context

SERVER = Peer("127.0.0.1", "kube-apiserver-kubelet-client", ("system:masters",))


class Collect:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.data += data

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None: ...

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    cluster = MemoryCluster()
    files = PodDirectory(str(tmp_path), cluster, LoopClock())
    async with Node(cluster, files=files) as running:
        yield running


async def ask(node: Node, path: str, peer: Peer = SERVER, **query: str) -> tuple[int, bytes]:
    answer: Any = await KubeletApi(node.kubelet).handle(Request("GET", path, urlencode(query), peer=peer))
    if isinstance(answer, Response):
        return answer.status, answer.body_bytes()
    assert isinstance(answer, Stream)
    sink = Collect()
    end = answer.start(sink)
    async with asyncio.timeout(5):
        await sink.closed.wait()
    end()
    return answer.status, sink.data


async def run_printer(node: Node, text: str = "one", **more: Any) -> str:
    await node.run_pod(pod_object("web", [{"name": "web", "image": "busybox", "args": ["echo", text]}], **more))
    await node.cluster.until(lambda: node.cluster.pod("web")["status"].get("phase") in ("Running", "Succeeded"))
    return (await node.runtime.list_containers())[0].log_path


async def test_only_the_api_server_may_ask(node: Node) -> None:
    assert await ask(node, "/healthz", Peer("1.2.3.4")) == (401, b"Unauthorized")
    status, text = await ask(node, "/healthz", Peer("1.2.3.4", "eve"))
    assert status == 403 and text.startswith(b"Forbidden (user=eve, verb=get, resource=nodes")
    assert await ask(node, "/healthz") == (200, b"ok")


async def test_logs_with_their_options(node: Node) -> None:
    path = Path(await run_printer(node, restartPolicy="Never"))
    path.write_text(
        "2026-01-01T00:00:01.5Z stdout F one\n"
        "2026-01-01T00:00:02.5Z stderr P tw\n"
        "2026-01-01T00:00:02.6Z stderr F o\n"
        "2026-01-01T00:00:03.5Z stdout F three\n"
    )
    logs = "/containerLogs/default/web/web"
    assert await ask(node, logs) == (200, b"one\ntwo\nthree\n")
    assert (await ask(node, logs, tailLines="2"))[1] == b"two\nthree\n"
    assert (await ask(node, logs, tailLines="0"))[1] == b""
    assert (await ask(node, logs, limitBytes="5"))[1] == b"one\nt"
    assert (await ask(node, logs, sinceTime="2026-01-01T00:00:03Z"))[1] == b"three\n"
    assert (await ask(node, logs, stream="Stderr"))[1] == b"two\n"
    assert (await ask(node, logs, timestamps="true", tailLines="1"))[1] == b"2026-01-01T00:00:03.5Z three\n"
    rotated = path.with_name(path.name + ".20251231-000000")
    rotated.write_text("2026-01-01T00:00:00.5Z stdout F zero\n")
    assert (await ask(node, logs))[1] == b"zero\none\ntwo\nthree\n"
    assert (await ask(node, logs, tailLines="4"))[1] == b"zero\none\ntwo\nthree\n"


async def test_following_goes_on_across_a_rotation_and_ends_with_the_container(node: Node) -> None:
    path = Path(await run_printer(node, metadata={"annotations": {"tiphys.dev/simulate-exit": "0 after 0.5s"}}))
    path.write_text("2026-01-01T00:00:01Z stdout F first\n")
    following = asyncio.create_task(ask(node, "/containerLogs/default/web/web", follow="true"))
    await asyncio.sleep(0.05)
    path.rename(path.with_name(path.name + ".20260101-000000"))
    path.write_text("2026-01-01T00:00:02Z stdout F second\n")
    assert await following == (200, b"first\nsecond\n")


async def test_log_errors_are_worded_as_clients_know_them(node: Node) -> None:
    await run_printer(node)
    assert await ask(node, "/containerLogs/default/no/web") == (404, b"pod does not exist")
    assert await ask(node, "/containerLogs/default/web/no") == (404, b'container "no" not found in pod "web"')
    status, text = await ask(node, "/containerLogs/default/web/web", previous="true")
    assert (status, text) == (400, b'previous terminated container "web" in pod "web" not found')
    bad = [{"name": "web", "image": "UPPER//case"}]
    await node.run_pod(pod_object("bad", bad))
    await node.cluster.until(lambda: "InvalidImageName" in str(node.cluster.pod("bad")["status"]))
    status, text = await ask(node, "/containerLogs/default/bad/web")
    assert (status, text) == (400, b'container "web" in pod "bad" is waiting to start: InvalidImageName')


async def test_run_pods_and_stats(node: Node) -> None:
    await node.run_pod(pod_object("web"))
    await node.until_phase("web", "Running")
    status, text = await ask(node, "/run/default/web/web", cmd="echo hi")
    assert (status, text) == (200, b"hi\n")
    status, text = await ask(node, "/pods")
    assert b'"phase":"Running"' in text
    status, text = await ask(node, "/stats/summary")
    assert b'"podRef":{"name":"web"' in text and b'"usageCoreNanoSeconds"' in text
    status, text = await ask(node, "/metrics/resource")
    assert b'container_memory_working_set_bytes{container="web",namespace="default",pod="web"}' in text
    assert (await ask(node, "/exec/default/web/web", command="true"))[0] == 400
    assert (await ask(node, "/no/such"))[0] == 404


def test_a_failed_command_tells_its_exit_code() -> None:
    assert exit_status(["sh", "-c", "exit 3"], 3) == {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }


async def test_the_server_speaks_tls_and_wants_a_certificate(tmp_path: Path) -> None:
    ca = create_ca("test")
    pairs = {
        "server": issue(ca, NODE, ip_addresses=["127.0.0.1"], server=True),
        "api": issue(ca, "kube-apiserver-kubelet-client", client=True),
    }
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    for name, pair in pairs.items():
        pair.write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    context = server_context(tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "ca.crt")
    async with Node(server_tls=context, server_address="127.0.0.1", port=0) as node:
        await node.cluster.until(lambda: ("nodes", "", NODE) in node.cluster.objects, 5)
        status = node.cluster.objects[("nodes", "", NODE)]["status"]
        port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        for certificate, expected in (("api", b"HTTP/1.1 200"), ("", b"HTTP/1.1 401")):
            client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
            if certificate:
                client.load_cert_chain(tmp_path / f"{certificate}.crt", tmp_path / f"{certificate}.key")
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            assert (await reader.readline()).startswith(expected)
            writer.close()
            await writer.wait_closed()


async def test_simulated_nodes_with_a_log_directory_serve_and_remove_logs(tmp_path: Path) -> None:
    async with Node(files=NoFiles(str(tmp_path))) as node:
        await run_printer(node)
        await asyncio.sleep(0.05)
        assert await ask(node, "/containerLogs/default/web/web") == (200, b"one\n")
        await node.cluster.delete(PODS, "default", "web")
        async with asyncio.timeout(5):
            while list(tmp_path.iterdir()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
