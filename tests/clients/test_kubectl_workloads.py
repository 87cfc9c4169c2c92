"""kubectl drives workloads: rollouts, scaling, exposing, autoscaling, jobs, disruption, cascades."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from kubectl_cli import ESSENTIAL, NEWEST, Kubectl, check_golden

MakeNamespace = Callable[..., Kubectl]


def image_of(kubectl: Kubectl, what: str) -> str:
    return kubectl("get", what, "-o", "jsonpath={.spec.template.spec.containers[0].image}")


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_rollout_from_first_to_last(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl("create", "deployment", "web", "--image=nginx:1", "--replicas=2")
    done = kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert done.endswith('deployment "web" successfully rolled out\n')
    kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=first")
    kubectl("set", "image", "deployment/web", "nginx=nginx:2")
    kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=second")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    said = kubectl("rollout", "history", "deployment/web")
    said += kubectl("rollout", "history", "deployment/web", "--revision=2")
    said += kubectl("rollout", "undo", "deployment/web", "--dry-run=server").partition(" ")[0] + "\n"
    said += kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert image_of(kubectl, "deployment/web") == "nginx:1"
    said += kubectl("rollout", "history", "deployment/web")
    said += kubectl("rollout", "undo", "deployment/web", "--to-revision=2")
    assert image_of(kubectl, "deployment/web") == "nginx:2"
    said += kubectl("rollout", "pause", "deployment/web")
    said += kubectl.refused("rollout", "pause", "deployment/web")
    said += kubectl.refused("rollout", "undo", "deployment/web")
    said += kubectl.refused("rollout", "restart", "deployment/web")
    said += kubectl("set", "resources", "deployment/web", "--limits=cpu=200m,memory=64Mi")
    said += kubectl("rollout", "resume", "deployment/web")
    said += kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    check_golden("rollout", said, [kubectl.namespace])
    pods = json.loads(kubectl("get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "json"))
    running = [p for p in pods["items"] if not p["metadata"].get("deletionTimestamp")]
    assert len(running) == 2
    assert all(p["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "200m" for p in running)


def test_rollouts_of_other_kinds(kubectl: Kubectl) -> None:
    kubectl.apply(SETS)
    for kind in ("statefulset", "daemonset"):
        kubectl("rollout", "status", f"{kind}/set", "--timeout=60s")
        kubectl("set", "image", f"{kind}/set", "c=nginx:2")
        kubectl("rollout", "status", f"{kind}/set", "--timeout=60s")
        assert len(kubectl("rollout", "history", f"{kind}/set").splitlines()) == 5
        kubectl("rollout", "undo", f"{kind}/set")
        kubectl("rollout", "status", f"{kind}/set", "--timeout=60s")
        assert image_of(kubectl, f"{kind}/set") == "nginx:1"
        kubectl("rollout", "restart", f"{kind}/set")
        kubectl("rollout", "status", f"{kind}/set", "--timeout=60s")
    names = kubectl("get", "pods", "-l", "app=stateful", "-o", "name")
    assert names == "pod/set-0\npod/set-1\n"
    check_golden("get-sets", kubectl("get", "statefulset,daemonset", "-o", "wide"))


SETS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  replicas: 2
  serviceName: set
  selector: {matchLabels: {app: stateful}}
  template:
    metadata: {labels: {app: stateful}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "nginx:1"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: set}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "nginx:1"}]}
"""


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_scale_expose_and_autoscale(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl("create", "deployment", "web", "--image=nginx", "--port=80")
    said = kubectl("scale", "deployment/web", "--replicas=3")
    said += kubectl.refused("scale", "deployment/web", "--replicas=1", "--current-replicas=9")
    said += kubectl("scale", "deployment/web", "--replicas=2", "--current-replicas=3")
    said += kubectl("expose", "deployment", "web", "--target-port=8080", "--type=NodePort")
    said += kubectl("set", "selector", "service", "web", "app=web")
    said += kubectl("set", "env", "deployment/web", "COLOUR=blue")
    said += kubectl("set", "env", "deployment/web", "--list")
    said += kubectl("set", "serviceaccount", "deployment/web", "default")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl(
        "wait",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "--for=jsonpath={.endpoints[1].conditions.ready}=true",
    )
    if minor == NEWEST:
        said += kubectl("autoscale", "deployment/web", "--min=1", "--max=3", "--cpu=80%")
        said += kubectl("get", "hpa") + kubectl("describe", "service", "web") + kubectl("describe", "hpa", "web")
        check_golden("scale-expose", said, [kubectl.namespace])


def test_cascades(kubectl: Kubectl) -> None:
    for name in ("orphans", "foreground", "background"):
        kubectl("create", "deployment", name, "--image=nginx")
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    kubectl("delete", "deployment", "orphans", "--cascade=orphan")
    kubectl("delete", "deployment", "foreground", "--cascade=foreground", "--timeout=60s")
    assert kubectl("get", "replicaset,pod", "-l", "app=foreground") == ""
    kubectl("delete", "deployment", "background")
    kubectl("wait", "pod", "-l", "app=background", "--for=delete", "--timeout=60s")
    left = json.loads(kubectl("get", "replicaset,pod", "-l", "app=orphans", "-o", "json"))["items"]
    assert sorted(item["kind"] for item in left) == ["Pod", "ReplicaSet"]
    kubectl("delete", "replicaset,pod", "-l", "app=orphans", "--grace-period=1")


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_jobs(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl("create", "job", "good", "--image=busybox", "--", "echo", "done")
    kubectl.apply(FAILING)
    kubectl("wait", "job/good", "--for=condition=Complete", "--timeout=30s")
    kubectl("wait", "job/bad", "--for=condition=Failed", "--timeout=30s")
    assert kubectl("logs", "job/good") == "done\n"
    said = kubectl("get", "jobs") + kubectl("describe", "job", "good") + kubectl("describe", "job", "bad")
    if minor == NEWEST:
        check_golden("jobs", _unnumbered(said), [kubectl.namespace])
    kubectl("delete", "jobs", "--all")
    kubectl("wait", "pods", "--all", "--for=delete", "--timeout=30s")


def _unnumbered(text: str) -> str:
    import re

    return re.sub(r"\b(good|bad)-[a-z0-9]{5}\b", r"\1-<id>", text)


FAILING = """
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {tiphys.dev/simulate-exit: "3"}}
    spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}
"""
