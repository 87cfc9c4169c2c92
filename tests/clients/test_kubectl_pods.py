"""kubectl with pods that run (on simulated nodes): logs, exec, attach, copies, port-forward, debug, run, events."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
from kubectl_cli import ESSENTIAL, NEWEST, Kubectl, check_golden

MakeNamespace = Callable[..., Kubectl]

TALKER = """
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers: [{name: first, image: busybox, command: [echo, from init]}]
  containers:
  - {name: a, image: busybox, command: [sh, -c, "echo one; echo two; sleep 10000"], env: [{name: COLOUR, value: blue}]}
  - {name: b, image: busybox, command: [sh, -c, "echo from b; sleep 10000"]}
"""
CRASHING = """
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec: {containers: [{name: c, image: busybox, command: [sh, -c, "echo boom; exit 2"]}]}
"""


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_logs(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl.apply(TALKER + "---" + CRASHING)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    assert kubectl("logs", "talker", "-c", "a") == "one\ntwo\n"
    assert kubectl("logs", "talker") == "one\ntwo\n"
    assert kubectl("logs", "talker", "-c", "a", "--tail=1") == "two\n"
    assert kubectl("logs", "talker", "-c", "first") == "from init\n"
    assert kubectl("logs", "talker", "-c", "a", "--since=1h", "--limit-bytes=4") == "one\n"
    stamped = kubectl("logs", "talker", "-c", "a", "--timestamps").splitlines()
    assert [line.partition(" ")[2] for line in stamped] == ["one", "two"]
    assert stamped[0].startswith("20")
    everything = kubectl("logs", "talker", "--all-containers", "--prefix").splitlines()
    assert sorted(everything) == [
        "[pod/talker/a] one",
        "[pod/talker/a] two",
        "[pod/talker/b] from b",
        "[pod/talker/first] from init",
    ]
    assert sorted(kubectl("logs", "-l", "app=talker", "--all-containers").splitlines()) == [
        "from b",
        "from init",
        "one",
        "two",
    ]
    following = kubectl.start("logs", "-f", "talker", "-c", "b")
    assert following.stdout is not None
    assert following.stdout.readline() == "from b\n"
    kubectl("wait", "pod/crash", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=30s")
    assert kubectl("logs", "crash", "--previous") == "boom\n"
    said = kubectl.refused("logs", "talker", "-c", "a", "--previous") + kubectl.refused("logs", "talker", "-c", "nope")
    said += kubectl.refused("logs", "nobody")
    kubectl("delete", "pod", "talker", "crash")
    assert following.communicate(timeout=30)[0] == ""
    assert following.returncode == 0
    if minor == NEWEST:
        check_golden("logs-refused", said, [kubectl.namespace])


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_exec_and_attach(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl.apply(TALKER)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    assert kubectl("exec", "talker", "-c", "a", "--", "echo", "hi") == "hi\n"
    assert "COLOUR=blue" in kubectl("exec", "talker", "--", "env")
    assert kubectl("exec", "-i", "talker", "-c", "b", "--", "cat", stdin="sent\n" * 1000) == "sent\n" * 1000
    failed = kubectl.run("exec", "talker", "-c", "a", "--", "sh", "-c", "exit 3")
    assert failed.returncode == 3
    assert failed.stderr == "command terminated with exit code 3\n"
    said = kubectl.refused("exec", "talker", "-c", "nope", "--", "true") + kubectl.refused("exec", "no", "--", "true")
    if minor == NEWEST:
        check_golden("exec-refused", said, [kubectl.namespace])
    attached = kubectl.start("attach", "talker", "-c", "a")
    kubectl("delete", "pod", "talker")
    attached.communicate(timeout=30)


def test_old_clients_exec_over_spdy(kubectl: Kubectl) -> None:
    kubectl.apply(TALKER)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    for sockets in ("true", "false"):
        said = kubectl(
            "exec", "-i", "talker", "--", "cat", stdin="both ways", KUBECTL_REMOTE_COMMAND_WEBSOCKETS=sockets
        )
        assert said == "both ways"


def test_a_terminal(kubectl: Kubectl) -> None:
    import os
    import pty

    kubectl.apply(TALKER)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    pid, terminal = pty.fork()
    if pid == 0:
        command = kubectl.command("exec", "-it", "talker", "-c", "a", "--", "cat")
        os.execve(command[0], command, kubectl.environment)
    os.write(terminal, b"typed\n")
    seen = b""
    while b"typed" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"\x04")
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(terminal)


def test_port_forward_reaches_the_pods_network(kubectl: Kubectl) -> None:
    kubectl.apply(TALKER)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    forwarding = kubectl.start("port-forward", "pod/talker", ":80")
    assert forwarding.stdout is not None
    port = int(forwarding.stdout.readline().split(":")[1].split()[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert connection.recv(1) == b""
    said = forwarding.communicate(timeout=30)[0]
    assert "error forwarding port 80" in said
    assert "connection refused" in said


def test_run_and_debug(kubectl: Kubectl) -> None:
    assert kubectl(
        "run", "-i", "--rm", "once", "--image=busybox", "--restart=Never", "--", "echo", "attached"
    ).startswith("attached\n")
    assert kubectl.run("get", "pod", "once").returncode == 1
    check_golden(
        "run-dry",
        kubectl("run", "dry", "--image=busybox", "--dry-run=client", "-o", "yaml", "--", "sleep", "1"),
        [kubectl.namespace],
    )
    kubectl("run", "idle", "--image=busybox", "--labels=x=y", "--env=A=b", "--port=80", "--expose")
    kubectl("wait", "pod/idle", "--for=condition=Ready", "--timeout=30s")
    kubectl("debug", "idle", "--image=busybox", "-c", "dbg", "--", "sleep", "10000")
    kubectl("wait", "pod/idle", "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.running}", "--timeout=30s")
    assert kubectl("exec", "idle", "-c", "dbg", "--", "echo", "hi") == "hi\n"
    kubectl(
        "debug", "idle", "--copy-to=copy", "--image=busybox", "--share-processes", "-c", "dbg", "--", "sleep", "10000"
    )
    kubectl("wait", "pod/copy", "--for=condition=Ready", "--timeout=30s")
    assert kubectl("get", "pod", "copy", "-o", "jsonpath={.spec.shareProcessNamespace}") == "true"
    kubectl("delete", "pod", "copy", "--now")
    kubectl("delete", "pod", "idle", "--grace-period=0", "--force")
    assert kubectl("get", "pods") == ""


def test_a_pod_as_it_is_described(kubectl: Kubectl) -> None:
    kubectl.apply(TALKER + "---" + CRASHING)
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    kubectl(
        "wait",
        "pod/crash",
        "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff",
        "--timeout=30s",
    )
    shown = kubectl("describe", "pod", "talker")
    check_golden("describe-pod", _without_node(shown), [kubectl.namespace])
    listed = kubectl("get", "pods", "-o", "wide")
    check_golden("get-pods", _without_node(listed))
    events = json.loads(kubectl("get", "events", "--field-selector=involvedObject.name=crash", "-o", "json"))["items"]
    assert {"Scheduled", "Pulled", "Created", "Started", "BackOff"} <= {event["reason"] for event in events}
    assert "pod/crash" in kubectl("get", "events")
    told = kubectl("events", "--for", "pod/crash", "--types=Warning")
    assert "Back-off restarting failed container c in pod crash_" in told


def _without_node(text: str) -> str:
    import re

    return re.sub(r"\b[a-z0-9-]+-[01](/[0-9.]+)?(?=\s)", "<node>", text)


def test_a_pod_that_fits_nowhere(kubectl: Kubectl) -> None:
    kubectl(
        "run",
        "huge",
        "--image=busybox",
        '--overrides={"spec":{"containers":[{"name":"huge","image":"busybox","resources":{"requests":{"cpu":"4000"}}}]}}',
    )
    kubectl("wait", "pod/huge", "--for=condition=PodScheduled=false", "--timeout=30s")
    message = kubectl("get", "pod", "huge", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}")
    # the node test drains a node meanwhile, so only the constant part is compared
    assert message.startswith("0/2 nodes are available: ")
    assert "Insufficient cpu" in message
    assert kubectl("get", "pod", "huge", "--no-headers").split()[2] == "Pending"
