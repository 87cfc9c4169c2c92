"""Upstream's conformance tests of kubectl, command by command, with the oldest and the newest kubectl.

Those of files, streams and ports are in test_kubectl_real.py; here pods run on simulated nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from custom_kinds import CustomKind
from kubectl_cli import ESSENTIAL, NEWEST, Kubectl

MakeNamespace = Callable[..., Kubectl]
MINORS = (ESSENTIAL[0], NEWEST)

PRIMARY = """
apiVersion: v1
kind: ReplicationController
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec:
  replicas: 1
  selector: {app: agnhost, role: primary}
  template:
    metadata: {labels: {app: agnhost, role: primary}}
    spec:
      containers: [{name: agnhost-primary, image: busybox, ports: [{name: agnhost-server, containerPort: 6379}]}]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec: {ports: [{port: 6379, targetPort: agnhost-server}], selector: {app: agnhost, role: primary}}
"""


def check_lines(shown: str, required: list[list[str]]) -> None:
    """Each entry is a beginning of a line and what stands in that line or one after it, as upstream looks for it."""
    rest = iter(shown.splitlines())
    for beginning, *words in required:
        line = next((line for line in rest if beginning in line), None)
        assert line is not None, f"no line with {beginning!r} after the ones before in:\n{shown}"
        for word in words:
            assert word in line, f"{word!r} is not in {line!r}"


@pytest.mark.parametrize("minor", MINORS)
def test_describe_a_controller_its_pod_and_its_service(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl("create", "-f", "-", stdin=PRIMARY)
    kubectl("create", "-f", "-", stdin=SERVICE)
    kubectl("wait", "rc/agnhost-primary", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=30s")
    pod = kubectl("get", "pods", "-l", "app=agnhost,role=primary", "-o", "name").strip()
    namespace = kubectl.namespace
    check_lines(
        kubectl("describe", pod),
        [
            ["Name:", "agnhost-primary-"], ["Namespace:", namespace], ["Node:"], ["Labels:", "app=agnhost"],
            ["role=primary"], ["Annotations:"], ["Status:", "Running"], ["IP:"],
            ["Controlled By:", "ReplicationController/agnhost-primary"], ["Image:", "busybox"],
            ["State:", "Running"], ["QoS Class:", "BestEffort"],
        ],
    )  # fmt: skip
    check_lines(
        kubectl("describe", "rc", "agnhost-primary"),
        [
            ["Name:", "agnhost-primary"], ["Namespace:", namespace], ["Selector:", "app=agnhost,role=primary"],
            ["Labels:", "app=agnhost"], ["role=primary"], ["Annotations:"], ["Replicas:", "1 current", "1 desired"],
            ["Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"], ["Pod Template:"],
            ["Image:", "busybox"], ["Events:"],
        ],
    )  # fmt: skip
    check_lines(
        kubectl("describe", "service", "agnhost-primary"),
        [
            ["Name:", "agnhost-primary"], ["Namespace:", namespace], ["Labels:", "app=agnhost"], ["role=primary"],
            ["Annotations:"], ["Selector:", "app=agnhost", "role=primary"], ["Type:", "ClusterIP"], ["IP:"],
            ["Port:", "<unset>", "6379/TCP"], ["Endpoints:"], ["Session Affinity:", "None"],
        ],
    )  # fmt: skip
    check_lines(kubectl("describe", "namespace", namespace), [["Name:", namespace], ["Labels:"], ["Status:", "Active"]])
    node = kubectl("get", pod, "-o", "jsonpath={.spec.nodeName}")
    check_lines(
        kubectl("describe", "node", node),
        [
            ["Name:", node], ["Labels:"], ["Annotations:"], ["CreationTimestamp:"], ["Conditions:"],
            ["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"], ["Addresses:"],
            ["Capacity:"], ["Kernel Version:"], ["OS Image:"], ["Container Runtime Version:"], ["Kubelet Version:"],
            ["Pods:"],
        ],
    )  # fmt: skip


def test_expose_what_is_there(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=PRIMARY)
    kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
    kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
    for name, port in (("rm2", 1234), ("rm3", 2345)):
        kubectl("wait", f"endpoints/{name}", "--for=jsonpath={.subsets[0].ports[0].port}=6379", "--timeout=30s")
        spec = json.loads(kubectl("get", "service", name, "-o", "json"))["spec"]
        assert [(p["port"], p["targetPort"]) for p in spec["ports"]] == [(port, 6379)]


@pytest.mark.parametrize("minor", MINORS)
def test_one_pod_from_run_to_delete(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    run = ("run", "httpd", "--image=httpd:1", "--pod-running-timeout=2m0s", "--labels=run=httpd")
    kubectl(*run)
    pod = json.loads(kubectl("get", "pod", "httpd", "-o", "json"))
    assert (pod["spec"]["containers"][0]["image"], pod["spec"]["restartPolicy"]) == ("httpd:1", "Always")
    kubectl("wait", "pod/httpd", "--for=condition=Ready", "--timeout=30s")
    kubectl("label", "pods", "httpd", "testing-label=testing-label-value")
    assert "testing-label-value" in kubectl("get", "pod", "httpd", "-L", "testing-label")
    kubectl("label", "pods", "httpd", "testing-label-")
    assert "testing-label-value" not in kubectl("get", "pod", "httpd", "-L", "testing-label")
    kubectl("patch", "pod", "httpd", "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    assert kubectl("get", "pod", "httpd", "-o", "jsonpath={.metadata.annotations.x}") == "y"
    for told in (("--dry-run=server",), ()):
        changed = kubectl("get", "pod", "httpd", "-o", "json").replace("httpd:1", "busybox:1")
        kubectl("replace", "-f", "-", *told, stdin=changed)
        image = kubectl("get", "pod", "httpd", "-o", "jsonpath={.spec.containers[0].image}")
        assert image == ("httpd:1" if told else "busybox:1")
    template = (
        '{{if (exists . "status" "containerStatuses")}}{{range .status.containerStatuses}}'
        '{{if (and (eq .name "httpd") (exists . "state" "running"))}}true{{end}}{{end}}{{end}}'
    )
    assert kubectl("get", "pods", "httpd", "-o", "template", f"--template={template}") == "true"
    kubectl("delete", "--grace-period=0", "--force", "pod", "httpd")
    assert kubectl("get", "pods", "-l", "run=httpd", "--no-headers") == ""


@pytest.mark.parametrize("minor", MINORS)
def test_a_difference_is_found(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl("create", "deployment", "httpd", "--image=httpd:1", "--replicas=0")
    live = kubectl("get", "deployment", "httpd", "-o", "json")
    assert kubectl.run("diff", "-f", "-", stdin=live).returncode == 0
    found = kubectl.run("diff", "-f", "-", stdin=live.replace("httpd:1", "busybox:1"))
    assert found.returncode == 1
    assert [line for line in found.stdout.splitlines() if "image:" in line] == [
        "-      - image: httpd:1",
        "+      - image: busybox:1",
    ]


def test_scaling_a_controller(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=PRIMARY.replace("replicas: 1", "replicas: 2"))
    names = (
        "get",
        "pods",
        "-l",
        "app=agnhost",
        "-o",
        "template",
        "--template={{range .items}}{{.metadata.name}} {{end}}",
    )
    for count in (2, 1, 2):
        kubectl("scale", "rc", "agnhost-primary", f"--replicas={count}", "--timeout=1m")
        ready = f"--for=jsonpath={{.status.readyReplicas}}={count}"
        kubectl("wait", "rc/agnhost-primary", ready, "--timeout=30s")
        assert len(kubectl(*names).split()) >= count
    kubectl("delete", "--grace-period=0", "--force", "-f", "-", stdin=PRIMARY)
    assert kubectl("get", "rc,svc", "-l", "app=agnhost", "--no-headers") == ""


@pytest.mark.parametrize("minor", MINORS)
def test_custom_resources_are_checked_before_they_are_written(
    make_namespace: MakeNamespace, define: Callable[[CustomKind], CustomKind], unique: str, minor: str
) -> None:
    kubectl = make_namespace(minor)
    bars = {
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    }
    spec = {"type": "object", "properties": {"bars": bars}}
    kind = define(
        CustomKind(f"{unique}.example.com", f"{unique}s", schema={"type": "object", "properties": {"spec": spec}})
    )
    text = f"apiVersion: {kind.group}/v1\nkind: {kind.kind}\nmetadata: {{name: test-cr}}\n"
    good = f"{text}spec: {{bars: [{{name: test-bar}}]}}\n"
    for verb in ("create", "apply"):
        kubectl(verb, "-f", "-", stdin=good)
        kubectl("delete", kind.name, "test-cr")
        unknown = kubectl.refused(verb, "--validate=true", "-f", "-", stdin=good + "extra: 1\n")
        assert 'unknown field "extra"' in unknown
        missing = kubectl.refused(verb, "--validate=true", "-f", "-", stdin=good.replace("name: test-bar", "age: '10'"))
        assert 'unknown field "spec.bars[0].age"' in missing
        metadata = good.replace("{name: test-cr}", "{name: test-cr, unknownMeta: foo}")
        assert 'unknown field "metadata.unknownMeta"' in kubectl.refused(
            verb, "--validate=true", "-f", "-", stdin=metadata
        )
        assert "created" in kubectl(verb, "--validate=false", "-f", "-", stdin=good + "extra: 1\n")
        kubectl("delete", kind.name, "test-cr")
