"""kubectl with real containers: their output, input, files, terminals and ports."""

from __future__ import annotations

import os
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubectl_cli import NEWEST, Kubectl, find_client
from live_cluster import PAGE, LiveCluster

pytestmark = [pytest.mark.node, pytest.mark.clients]

TALKER = """
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: web, image: "testbox:1", command: [sh, -c, "echo one; echo two >&2; httpd -f -p 8080 -h /www"]}
  - {name: shell, image: "testbox:1", command: [sh], stdin: true}
  - {name: ticker, image: "testbox:1", command: [sh, -c, "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.1; done"]}
"""


@pytest.fixture
def real(real_cluster: LiveCluster) -> Iterator[Kubectl]:
    """A kubectl in a namespace of its own, where the pod `talker` runs."""
    plain = Kubectl(find_client(f"kubectl-{NEWEST}"), real_cluster.environment())
    kubectl = plain.within(f"t-{uuid.uuid4().hex[:10]}")
    plain("create", "namespace", kubectl.namespace)
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    kubectl.apply(TALKER)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=60s")
    yield kubectl
    plain("delete", "namespace", kubectl.namespace, "--timeout=60s")


def test_logs_of_real_containers(real: Kubectl) -> None:
    assert sorted(real("logs", "talker", "-c", "web").splitlines()) == ["one", "two"]
    following = real.start("logs", "-f", "talker", "-c", "ticker", "--tail=1")
    assert following.stdout is not None
    first, second = (int(following.stdout.readline().split()[1]) for _ in range(2))
    assert second == first + 1
    following.kill()
    following.communicate()
    assert "[pod/talker/ticker] tick " in real("logs", "talker", "--all-containers", "--prefix", "--since=10s")


@pytest.mark.parametrize("sockets", ["true", "false"])
def test_exec_streams_and_exit_codes(real: Kubectl, sockets: str) -> None:
    script = "cat > /tmp/x; cat /tmp/x; echo problem >&2; exit 4"
    done = real.run(
        "exec", "-i", "talker", "-c", "web", "--", "sh", "-c", script,
        stdin="line\n" * 50_000, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=sockets,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stdout == "line\n" * 50_000
    assert done.stderr == "problem\ncommand terminated with exit code 4\n"


def test_files_are_copied_both_ways(real: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(3_000_000))
    real("cp", str(tmp_path / "sent"), f"{real.namespace}/talker:/tmp/there", "-c", "web")
    real("cp", f"{real.namespace}/talker:/tmp/there", str(tmp_path / "back"), "-c", "web")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    real("cp", f"{real.namespace}/talker:/www", str(tmp_path / "www"), "-c", "web")
    assert (tmp_path / "www" / "index.html").read_text() == PAGE


def test_attach_speaks_with_the_process(real: Kubectl) -> None:
    attached = real.start("attach", "-i", "talker", "-c", "shell")
    assert attached.stdin is not None and attached.stdout is not None
    attached.stdin.write("echo answer $((6*7))\n")
    attached.stdin.flush()
    while (line := attached.stdout.readline()) and "answer 42" not in line:
        pass
    assert "answer 42" in line
    attached.kill()
    attached.communicate()
    assert real(
        "run", "-i", "--rm", "once", "--image=testbox:1", "--restart=Never", "--", "cat", stdin="piped\n"
    ).startswith("piped\n")


@pytest.mark.parametrize("target", ["pod/talker", "service/talker"])
def test_ports_are_forwarded(real: Kubectl, target: str) -> None:
    real("expose", "pod", "talker", "--port=80", "--target-port=8080")
    port = "8080" if target.startswith("pod") else "80"
    forwarding = real.start("port-forward", target, f":{port}")
    assert forwarding.stdout is not None
    local = int(forwarding.stdout.readline().split(":")[1].split()[0])
    for _ in range(5):
        with urllib.request.urlopen(f"http://127.0.0.1:{local}/index.html", timeout=10) as answer:
            assert answer.read().decode() == PAGE
    forwarding.kill()
    forwarding.communicate()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", local), timeout=1)


def test_services_and_proxy_paths_reach_the_pod(real: Kubectl) -> None:
    real("expose", "pod", "talker", "--port=80", "--target-port=8080", "--type=NodePort")
    real(
        "wait",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=talker",
        "--for=jsonpath={.endpoints[0].conditions.ready}=true",
    )
    name = f"talker.{real.namespace}.svc.cluster.local"
    assert real("exec", "talker", "-c", "ticker", "--", "wget", "-q", "-O", "-", f"http://{name}/index.html") == PAGE
    base = f"/api/v1/namespaces/{real.namespace}"
    assert real("get", "--raw", f"{base}/pods/talker:8080/proxy/index.html") == PAGE
    assert real("get", "--raw", f"{base}/services/talker:80/proxy/index.html") == PAGE


def test_a_crash_and_a_debugger(real: Kubectl) -> None:
    real("run", "crash", "--image=testbox:1", "--command", "--", "sh", "-c", "echo boom; exit 3")
    real("wait", "pod/crash", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=30s")
    assert real("logs", "crash", "--previous") == "boom\n"
    code = real("get", "pod", "crash", "-o", "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}")
    assert code == "3"
    real("debug", "talker", "--image=testbox:1", "-c", "dbg", "--", "sleep", "1000")
    real("wait", "pod/talker", "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.running}", "--timeout=30s")
    assert (
        real("exec", "talker", "-c", "dbg", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html") == PAGE
    )
