"""kubectl's rarer verbs and flags, by golden files; the common ones are tested beside the objects that they work on."""

from __future__ import annotations

import http.client
import json
import re
import socket
from pathlib import Path

from kubectl_cli import Kubectl, check_golden

HERE = Path(__file__).parent
ONE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, labels: {set: x}}\ndata: {a: '1'}\n"
TWO = ONE.replace("one", "two")
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1"}, {name: d, image: "nginx:1"}]}
"""
CLUSTER_WIDE = (
    "persistentvolume,ingressclass,clusterrole,csidriver,storageclass,volumeattachment,volumeattributesclass,"
    "runtimeclass,deviceclass"
)


def test_every_kind_is_described(kubectl: Kubectl) -> None:
    text = (HERE / "every_kind.yaml").read_text().replace("NAME", kubectl.namespace)
    try:
        said = kubectl("create", "-f", "-", stdin=text)
        kubectl("wait", "quota/sample", "--for=jsonpath={.status.used.pods}=0", "--timeout=30s")
        kubectl("wait", f"pv/{kubectl.namespace}", "--for=jsonpath={.status.phase}", "--timeout=30s")
        shown = kubectl("describe", "-f", "-", stdin=text)
    finally:
        kubectl("delete", CLUSTER_WIDE, kubectl.namespace, "--ignore-not-found", "--wait=false")
    shown = re.sub(r"(Resource Version: +)\d+", r"\1<revision>", shown)
    shown = re.sub(r"(?m)^(Created on: +).*", r"\1<time>", shown)
    shown = re.sub(r"(?m)^Status:( +)(Pending|Available)$", r"Status:\1<phase>", shown)
    check_golden("describe-every-kind", said + shown, [kubectl.namespace])


def test_what_was_applied_last(kubectl: Kubectl) -> None:
    said = kubectl.apply(WEB) + kubectl("apply", "set-last-applied", "-f", "-", stdin=WEB)
    said += kubectl("create", "-f", "-", stdin=ONE)
    said += kubectl.refused("apply", "set-last-applied", "-f", "-", stdin=ONE)
    said += kubectl("apply", "set-last-applied", "--create-annotation", "-f", "-", stdin=ONE)
    said += kubectl("apply", "edit-last-applied", "deployment/web", EDITOR="sed -i s/replicas:.*/replicas:\\ 3/")
    said += kubectl("apply", "view-last-applied", "deployment/web")
    said += kubectl.run("apply", "view-last-applied", "serviceaccount/default").stderr
    check_golden("last-applied", said, [kubectl.namespace])


def test_pruning_by_an_apply_set(kubectl: Kubectl) -> None:
    def apply(text: str, *more: str) -> str:
        done = kubectl.run("apply", "-f", "-", "--prune", *more, stdin=text, KUBECTL_APPLYSET="true")
        return done.stdout + done.stderr

    both = f"{ONE}---\n{TWO}"
    said = apply(both, "--applyset=mine", "--server-side") + apply(both, "--applyset=mine", "--server-side")
    said += apply(ONE, "--applyset=mine", "--server-side", "--dry-run=server")
    said += apply(ONE, "--applyset=mine", "--server-side")
    said += kubectl("get", "secret", "mine", "-o", "jsonpath={.metadata.annotations}{'\\n'}")
    said += kubectl("get", "configmap", "-l", "applyset.kubernetes.io/part-of", "-o", "name")
    said += apply(both, "-l", "set=x", "--prune-allowlist=core/v1/ConfigMap")
    said += apply(TWO, "-l", "set=x", "--prune-allowlist=core/v1/ConfigMap")
    said = re.sub(r"kubectl/v[\d.]+", "kubectl/<version>", said)
    check_golden("apply-set", said, [kubectl.namespace])


def test_roles_are_reconciled(kubectl: Kubectl) -> None:
    text = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r, namespace: NAMESPACE}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: b, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects: [{kind: ServiceAccount, name: a, namespace: NAMESPACE}]
""".replace("NAMESPACE", kubectl.namespace)
    said = kubectl("auth", "reconcile", "-f", "-", stdin=text)
    changed = text.replace("[get]", "[list]").replace("name: a,", "name: c,")
    said += kubectl("auth", "reconcile", "-f", "-", stdin=changed)
    removing = ("--remove-extra-subjects", "--remove-extra-permissions")
    said += kubectl("auth", "reconcile", *removing, "-f", "-", stdin=changed)
    said += kubectl("auth", "reconcile", "-f", "-", stdin=changed.replace("kind: Role, name: r", "kind: Role, name: s"))
    said += kubectl("get", "rolebinding", "b", "-o", "wide", "--no-headers")
    check_golden("reconcile", said, [kubectl.namespace])


def test_set_changes_one_thing(kubectl: Kubectl) -> None:
    kubectl.apply(WEB)
    kubectl("create", "rolebinding", "viewers", "--clusterrole=view", "--user=jane")
    said = kubectl("set", "image", "deployment/web", "*=nginx:2", "--dry-run=server")
    said += kubectl("set", "image", "deployment/web", "c=nginx:2") + kubectl.refused(
        "set", "image", "deployment/web", "x=y"
    )
    said += kubectl("set", "env", "deployment/web", "A=b", "-c", "c") + kubectl("set", "env", "deployment/web", "A-")
    said += kubectl("set", "resources", "deployment/web", "-c=c", "--requests=cpu=10m", "--limits=cpu=1,memory=1Gi")
    said += kubectl("set", "subject", "rolebinding/viewers", "--group=all", "--serviceaccount=x:y")
    said += kubectl("set", "serviceaccount", "deployment/web", "robot")
    spec = json.loads(kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec}"))
    said += json.dumps(spec, indent=1, sort_keys=True) + "\n"
    said += kubectl("get", "rolebinding", "viewers", "-o", "wide", "--no-headers")
    check_golden("set", said, [kubectl.namespace])


def test_refusals_of_each_verb(kubectl: Kubectl) -> None:
    kubectl.apply(ONE)
    refusals = [
        ["cordon", "none"],
        ["drain", "none"],
        ["taint", "nodes", "none", "a=b:NoSchedule"],
        ["certificate", "approve", "none"],
        ["exec", "none", "--", "true"],
        ["attach", "none"],
        ["logs", "none"],
        ["port-forward", "pod/none", "80"],
        ["cp", "none:/x", "/nowhere"],
        ["debug", "none", "--image=x"],
        ["edit", "configmap", "none"],
        ["expose", "service", "none"],
        ["autoscale", "deployment/none", "--max=2"],
        ["scale", "configmap/one", "--replicas=1"],
        ["rollout", "status", "deployment/none"],
        ["rollout", "undo", "configmap/one"],
        ["set", "image", "configmap/one", "a=b"],
        ["annotate", "configmap", "one", "a=b", "--resource-version=1"],
        ["patch", "configmap", "one", "--subresource=status", "-p", "{}"],
        ["get", "configmap", "one", "--subresource=status"],
        ["wait", "--for=condition=Ready", "pod", "-l", "none=none"],
        ["wait", "--for=create", "configmap/none", "--timeout=100ms"],
        ["create", "token", "none"],
        ["create", "token", "default", "--duration=1m"],
        ["create", "quota", "q", "--hard=pods=1", "--scopes=Bogus"],
        ["create", "cronjob", "c", "--image=x", "--schedule=never"],
        ["create", "role", "r", "--verb=get", "--resource=nothings.example.com"],
        ["create", "clusterrolebinding", "cluster-admin", "--clusterrole=none", "--user=u"],
        ["delete", "configmap", "one", "none"],
        ["get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/pods/none"],
        ["explain", "nothings"],
        ["explain", "pods.spec.nothing"],
        ["top", "pod"],
    ]
    said = "".join(f"$ {' '.join(words)}\n{kubectl.refused(*words)}" for words in refusals)
    check_golden("refusals-of-verbs", said, [kubectl.namespace])


def test_explanations_in_the_older_form(kubectl: Kubectl) -> None:
    form = "--output=plaintext-openapiv2"
    said = kubectl("explain", "replicasets.spec", "--recursive", form)
    said = "\n".join(said.splitlines()[:24]) + "\n" + kubectl("explain", "replicasets.spec.replicas", form)
    check_golden("explain-openapiv2", said)


def test_output_forms(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(f"{ONE}---\n{TWO}")
    (tmp_path / "columns").write_text("NAME           A\nmetadata.name  data.a\n")
    (tmp_path / "template").write_text("{{range .items}}{{.metadata.name}};{{end}}\n")
    get = ("get", "configmap", "-l", "set=x")
    said = kubectl(*get, "-o", f"custom-columns-file={tmp_path / 'columns'}")
    said += kubectl(*get, "-o", f"go-template-file={tmp_path / 'template'}")
    said += kubectl(*get, "-o", "jsonpath-as-json={.items[*].data}")
    said += kubectl(*get, "-o", "jsonpath={range .items[*]}{.metadata.name}{'\\t'}{.data.a}{'\\n'}{end}")
    said += kubectl(*get, "--sort-by=.metadata.name", "--show-kind", "--show-labels")
    said += kubectl(*get, "--server-print=false") + kubectl("get", "configmap", "one", "--output=kyaml")
    said += kubectl.run("get", "configmap/one", "configmap/none", "--ignore-not-found").stdout
    said += kubectl("delete", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/configmaps/two").strip() + "\n"
    said += kubectl("delete", "configmap", "--field-selector=metadata.name=one", "-o", "name")
    said = re.sub(r'(resourceVersion"?: ")\d+', r"\1<revision>", said)
    check_golden("output-forms", said, [kubectl.namespace])


def test_taking_the_last_label_away_leaves_nothing(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "bare")
    for verb in ("label", "annotate"):
        kubectl(verb, "configmap", "bare", "a=b")
        kubectl(verb, "configmap", "bare", "a-")
    assert json.loads(kubectl("get", "configmap", "bare", "-o", "json"))["metadata"].keys() == {
        "creationTimestamp", "name", "namespace", "resourceVersion", "uid",
    }  # fmt: skip
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bare}\n"
    assert kubectl("diff", "-f", "-", stdin=manifest) == ""


def test_a_debugger_of_a_node(kubectl: Kubectl) -> None:
    node = kubectl("get", "nodes", "-o", "name").split()[0].partition("/")[2]
    said = kubectl.run("debug", f"node/{node}", "--image=busybox", "--profile=sysadmin", "--", "sleep", "1000").stdout
    name = kubectl("get", "pods", "-o", "name").strip()
    kubectl("wait", name, "--for=condition=Ready", "--timeout=30s")
    spec = json.loads(kubectl("get", name, "-o", "json"))["spec"]
    assert (spec["nodeName"], spec["hostNetwork"], spec["hostPID"], spec["hostIPC"]) == (node, True, True, True)
    assert spec["containers"][0]["securityContext"] == {"privileged": True}
    assert name.partition("/")[2] in said
    kubectl("delete", name, "--now")


def test_the_state_of_a_cluster_in_one_dump(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("run", "talker", "--image=busybox", "--", "sleep", "1000")
    kubectl("wait", "pod/talker", "--for=condition=Ready", "--timeout=30s")
    dump = ("cluster-info", "dump", f"--namespaces={kubectl.namespace}")
    said = kubectl(*dump, f"--output-directory={tmp_path}")
    assert said == f"Cluster info dumped to {tmp_path}\n"
    files = {str(path.relative_to(tmp_path)).replace(kubectl.namespace, "ns") for path in tmp_path.rglob("*.*")}
    kinds = ("daemonsets", "deployments", "events", "pods", "replicasets", "replication-controllers", "services")
    assert files == {"nodes.json", "ns/talker/logs.txt", *(f"ns/{kind}.json" for kind in kinds)}


def test_a_proxy_on_a_socket(kubectl: Kubectl, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    serving = kubectl.start("proxy", f"--unix-socket={path}")
    assert serving.stdout is not None
    assert serving.stdout.readline() == f"Starting to serve on {path}\n"
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(path))
    connection.request("GET", "/api/")
    assert json.load(connection.getresponse())["versions"] == ["v1"]
    connection.close()
    serving.kill()
    serving.communicate()
