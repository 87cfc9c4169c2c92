"""kubectl cordons, drains, taints and describes nodes: one test at a time, because all share the nodes."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator

import pytest
from kubectl_cli import Kubectl, check_golden
from live_cluster import LiveCluster


@pytest.fixture
def node(kubectl: Kubectl, cluster: LiveCluster) -> Iterator[str]:
    """Give the name of the second node, to one test at a time (xdist's groups do nothing with this pytest)."""
    names = kubectl("get", "nodes", "-o", "name").split()
    with open(cluster.home / "node.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield sorted(names)[-1].partition("/")[2]


def test_cordon_and_drain(kubectl: Kubectl, node: str) -> None:
    pinned = json.dumps({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 1}})
    kubectl("run", "bare", "--image=busybox", f"--overrides={pinned}")
    kubectl("wait", "pod/bare", "--for=condition=Ready", "--timeout=30s")
    only = "--pod-selector=run=bare"
    try:
        said = kubectl("cordon", node)
        said += kubectl("get", "node", node, "--no-headers", "-o", "custom-columns=U:.spec.unschedulable")
        said += kubectl.refused("drain", node, "--ignore-daemonsets", "--timeout=20s", only)
        done = kubectl.run("drain", node, "--ignore-daemonsets", "--force", "--timeout=60s", only)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
        assert kubectl("get", "pod", "bare", "--ignore-not-found") == ""
    finally:
        said += kubectl("uncordon", node)
    check_golden("drain", said, [kubectl.namespace, node])


def test_a_budget_holds_a_drain(kubectl: Kubectl, node: str) -> None:
    kubectl("create", "deployment", "web", "--image=nginx")
    kubectl("patch", "deployment", "web", "-p", json.dumps({"spec": {"template": {"spec": {"nodeName": node}}}}))
    kubectl("create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=1")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "pdb/web", "--for=jsonpath={.status.currentHealthy}=1", "--timeout=30s")
    try:
        done = kubectl.run("drain", node, "--ignore-daemonsets", "--timeout=2s", "--pod-selector=app=web")
    finally:
        kubectl("uncordon", node)
    assert done.returncode == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget." in done.stderr


def test_taints_and_labels(kubectl: Kubectl, node: str) -> None:
    key = f"example.com/{kubectl.namespace}"
    said = kubectl("taint", "node", node, f"{key}=x:PreferNoSchedule")
    said += kubectl.refused("taint", "node", node, f"{key}=x:PreferNoSchedule")
    said += kubectl("taint", "node", node, f"{key}=y:PreferNoSchedule", "--overwrite")
    said += kubectl("taint", "node", node, f"{key}-")
    said += kubectl("label", "node", node, f"{key}=z") + kubectl("get", "nodes", "-l", f"{key}=z", "-o", "name")
    said += kubectl("label", "node", node, f"{key}-")
    check_golden("taint", said, [kubectl.namespace, node])


def test_a_node_as_it_is_described(kubectl: Kubectl, node: str) -> None:
    shown = kubectl("describe", "node", node)
    before, _, behind = shown.partition("Non-terminated Pods:")
    assert "Allocated resources:" in behind
    before = re.sub(r"(?m)^Taints:.*$", "Taints:  <taints>", before)
    check_golden("describe-node", before, [node])
    status = json.dumps({"status": {"capacity": {"example.com/dongle": "2"}}})
    assert "patched" in kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", status)
    shown = kubectl("get", "nodes", "-o", "wide", "--no-headers").splitlines()
    assert len(shown) == 2
    assert all(" Ready" in line for line in shown)
