"""kubectl writes and reads objects that nothing runs: create, apply, patch, edit, label, get, describe, delete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kubectl_cli import ESSENTIAL, NEWEST, Kubectl, check_golden

MakeNamespace = Callable[..., Kubectl]

SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {a: "1", b: "2"}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
PAUSED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: paused, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1.20", ports: [{containerPort: 80}]}]}
"""


def test_generators(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("content\n")
    (tmp_path / "vars.env").write_text("X=1\nY=2\n")
    name = kubectl.namespace
    cluster_wide = f"wide-{name}"
    commands = [
        ["configmap", "literals", "--from-literal=a=b", "--from-literal=c=d"],
        ["configmap", "file", f"--from-file={tmp_path / 'file.txt'}"],
        ["secret", "generic", "plain", f"--from-env-file={tmp_path / 'vars.env'}"],
        ["secret", "docker-registry", "pull", "--docker-server=r", "--docker-username=u", "--docker-password=p"],
        ["serviceaccount", "robot"],
        ["role", "reader", "--verb=get,list", "--resource=pods,configmaps"],
        ["rolebinding", "reader", "--role=reader", f"--serviceaccount={name}:robot"],
        ["clusterrole", cluster_wide, "--verb=get", "--non-resource-url=/metrics"],
        ["clusterrolebinding", cluster_wide, f"--clusterrole={cluster_wide}", "--user=jane"],
        ["quota", "limits", "--hard=pods=20,secrets=30"],
        ["poddisruptionbudget", "budget", "--selector=app=web", "--min-available=1"],
        ["priorityclass", cluster_wide, "--value=1000", "--description=of a test"],
        ["cronjob", "nightly", "--image=busybox", "--schedule=0 3 * * *", "--", "true"],
        ["job", "by-hand", "--from=cronjob/nightly"],
        ["ingress", "front", "--rule=example.com/path=web:80,tls=cert", "--class=none"],
        ["service", "clusterip", "inside", "--tcp=5678:8080"],
        ["service", "clusterip", "headless", "--clusterip=None"],
        ["service", "nodeport", "outside", "--tcp=5678:8080"],
        ["service", "loadbalancer", "balanced", "--tcp=5678:8080"],
        ["service", "externalname", "elsewhere", "--external-name=example.com"],
        ["deployment", "idle", "--image=busybox", "--replicas=0", "--port=80", "--", "sleep", "infinity"],
    ]
    said = "".join(kubectl("create", *command) for command in commands)
    check_golden("create", said, [name])
    kinds = "configmap,secret,serviceaccount,role,rolebinding,poddisruptionbudget,cronjob,ingress,service,deployment"
    check_golden("get-created", kubectl("get", kinds), [name])
    kubectl("wait", "deployment/idle", "--for=condition=Available", "--timeout=30s")
    shown = "configmap/literals,secret/plain,serviceaccount/robot,role/reader,rolebinding/reader,cronjob/nightly"
    shown += ",ingress/front,service/inside,service/headless,service/outside,service/elsewhere"
    shown += ",poddisruptionbudget/budget,deployment/idle"
    for thing in shown.split(","):
        check_golden(f"describe-{thing.replace('/', '-')}", kubectl("describe", thing), [name])
    wide = kubectl("describe", "clusterrole", cluster_wide) + kubectl("describe", "clusterrolebinding", cluster_wide)
    check_golden("describe-cluster-wide", wide + kubectl("describe", "priorityclass", cluster_wide), [name])
    kubectl("delete", "clusterrole,clusterrolebinding,priorityclass", cluster_wide)


def test_refusals_in_upstreams_words(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "there")
    refusals = [
        kubectl.refused("create", "configmap", "there"),
        kubectl.refused("create", "configmap", "Bad_Name"),
        kubectl.refused("get", "nothing"),
        kubectl.refused("get", "pod", "nothing"),
        kubectl.refused("delete", "configmap", "nothing"),
        kubectl.refused("create", "-f", "-", stdin=PAUSED.replace("replicas: 0", "replicas: many")),
        kubectl.refused("create", "-f", "-", stdin=PAUSED.replace("replicas: 0", "replcas: 0")),
        kubectl.refused("create", "-f", "-", stdin=PAUSED.replace("{app: web}}\n    spec", "{app: other}}\n    spec")),
        kubectl.refused("create", "-f", "-", stdin=SETTINGS.replace("ConfigMap", "ConfigMop")),
        kubectl.refused("get", "pods", "--field-selector=spec.nonsense=1"),
        kubectl.refused("get", "pods", "-l", "a=b=c"),
        kubectl.refused("create", "namespace", kubectl.namespace),
        kubectl.refused("create", "configmap", "x", "--namespace", "nowhere"),
        kubectl.refused("delete", "namespace", "default"),
        kubectl.refused("delete", "namespace", "kube-system"),
    ]
    check_golden("refusals", "".join(refusals), [kubectl.namespace])


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_apply_prune_diff_and_dry_run(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    everything = f"{SETTINGS}---{SERVICE}---{PAUSED}"
    said = kubectl.apply(everything, "--dry-run=server")
    assert kubectl.run("get", "configmap", "settings").returncode == 1
    said += kubectl.apply(everything, "--dry-run=client")
    said += kubectl.apply(everything)
    said += kubectl.apply(everything)
    assert kubectl.run("diff", "-f", "-", stdin=everything).returncode == 0
    changed = everything.replace('b: "2"', 'c: "3"').replace("nginx:1.20", "nginx:1.21")
    difference = kubectl.run("diff", "-f", "-", stdin=changed)
    assert difference.returncode == 1
    lines = [line for line in difference.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert sorted(lines) == [
        "+      - image: nginx:1.21",
        '+  c: "3"',
        "+  generation: 2",
        "-      - image: nginx:1.20",
        '-  b: "2"',
        "-  generation: 1",
    ]
    said += kubectl.apply(changed)
    assert json.loads(kubectl("get", "configmap", "settings", "-o", "jsonpath={.data}")) == {"a": "1", "c": "3"}
    said += kubectl("apply", "view-last-applied", "configmap/settings")
    allowed = "--prune-allowlist=core/v1/ConfigMap"
    said += kubectl.apply(f"{SERVICE}---{PAUSED}", "--prune", "-l", "app=web", allowed)
    check_golden("apply", said, [kubectl.namespace])


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_server_side_apply(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    said = kubectl.apply(PAUSED, "--server-side")
    said += kubectl("set", "image", "deployment/paused", "c=nginx:1.22")
    said += kubectl.refused("apply", "--server-side", "-f", "-", stdin=PAUSED)
    said += kubectl.apply(PAUSED, "--server-side", "--force-conflicts")
    said += kubectl.apply(PAUSED.replace("1.20", "1.20"), "--server-side", "--field-manager=other")
    said += kubectl.refused(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=PAUSED.replace("1.20", "1.23")
    )
    if minor == NEWEST:
        check_golden("apply-server-side", said)
        fields = kubectl("get", "deployment", "paused", "-o", "yaml", "--show-managed-fields")
        check_golden("managed-fields", fields[fields.index("managedFields") : fields.index("  name: paused")])
    client_side = kubectl.apply(SETTINGS) + kubectl.apply(SETTINGS.replace('"1"', '"9"'), "--server-side")
    assert client_side == "configmap/settings created\nconfigmap/settings serverside-applied\n"


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_replace_patch_and_edit(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl.apply(f"{SETTINGS}---{PAUSED}---{SERVICE}")
    kubectl("replace", "-f", "-", stdin=SETTINGS.replace('"2"', '"3"'))
    kubectl("replace", "--force", "-f", "-", stdin=SETTINGS.replace('"2"', '"4"'))
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.b}") == "4"
    patches = [
        ["deployment", "paused", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"x"}]}}}}'],
        ["deployment", "paused", "--type=merge", "-p", '{"metadata":{"labels":{"x":"y"}}}'],
        ["deployment", "paused", "--type=json", "-p", '[{"op":"add","path":"/spec/minReadySeconds","value":3}]'],
        ["service", "web", "-p", '{"spec":{"ports":[{"port":443,"name":"https"}]}}'],
    ]
    for patch in patches:
        kubectl("patch", *patch)
    names = kubectl("get", "deployment", "paused", "-o", "jsonpath={.spec.template.spec.containers[*].name}")
    assert sorted(names.split()) == ["c", "d"]
    assert kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[*].port}") in ("80 443", "443 80")
    kubectl("patch", "deployment", "paused", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":0}}')
    edited = kubectl("edit", "configmap", "settings", EDITOR="sed -i s/b:.*/b:\\ nine/")
    assert edited == "configmap/settings edited\n"
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.b}") == "nine"
    assert kubectl("edit", "configmap", "settings", EDITOR="true") == ""
    refused = kubectl.refused("edit", "deployment", "paused", EDITOR="sed -i s/replicas:.*/replicas:\\ -2/")
    assert 'deployments.apps "paused" is invalid' in refused


def test_patch_refusals(kubectl: Kubectl) -> None:
    kubectl.apply(PAUSED)
    patch = ["patch", "deployment", "paused"]
    refusals = [
        kubectl.refused(*patch, "-p", '{"spec":{"replicas":"x"}}'),
        kubectl.refused(*patch, "--type=json", "-p", '[{"op":"remove","path":"/spec/nothing"}]'),
        kubectl.refused(*patch, "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":7}]'),
        kubectl.refused(*patch, "-p", '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'),
        kubectl.refused(*patch, "--type=merge", "-p", '{"metadata":{"resourceVersion":"1"}}'),
        kubectl.refused(*patch, "-p", '{"metadata":{"uid":"other"}}'),
        kubectl.refused("patch", "deployment", "none", "-p", "{}"),
    ]
    check_golden("patch-refusals", "".join(refusals), [kubectl.namespace])


def test_label_and_annotate(kubectl: Kubectl) -> None:
    kubectl.apply(SETTINGS)
    said = kubectl("label", "configmap", "settings", "tier=front")
    said += kubectl.refused("label", "configmap", "settings", "tier=back")
    said += kubectl("label", "configmap", "settings", "tier=back", "--overwrite")
    said += kubectl("label", "configmap", "settings", "tier-")
    said += kubectl.refused("label", "configmap", "settings", "tier=not valid")
    said += kubectl("annotate", "configmap", "settings", "note=this and that")
    said += kubectl("annotate", "configmap", "settings", "note-")
    check_golden("label-annotate", said)


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_get_in_every_form(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    kubectl.apply(f"{SETTINGS}---{SERVICE}---{PAUSED}")
    columns = "custom-columns=NAME:.metadata.name,PORT:.spec.ports[0].port"
    said = kubectl("get", "configmap,service,deployment")
    said += kubectl("get", "deployment,service", "-o", "wide")
    said += kubectl("get", "service", "web", "-o", "name")
    said += kubectl("get", "service", "web", "-o", columns)
    said += kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[0].targetPort}") + "\n"
    said += kubectl("get", "configmap", "-l", "app=web", "--show-labels", "--no-headers")
    said += kubectl("get", "configmap", "-l", "app in (web,db),tier notin (x)", "-L", "app")
    said += kubectl("get", "configmap", "--field-selector=metadata.name=settings", "-o", "name")
    said += kubectl("get", "configmap,service", "-o", "go-template={{range .items}}{{.metadata.name}} {{end}}") + "\n"
    said += kubectl("get", "configmap", "--sort-by=.metadata.name", "-o", "name")
    said += kubectl("get", "deployment", "paused", "--subresource=scale")
    check_golden("get", said, [kubectl.namespace])
    assert kubectl.namespace in kubectl("get", "configmap", "-A")
    got = json.loads(kubectl("get", "configmap", "settings", "-o", "json"))
    assert list(got) == ["apiVersion", "data", "kind", "metadata"]
    assert kubectl("get", "pods") == ""
    assert "No resources found in" in kubectl.run("get", "pods").stderr
    raw = kubectl("get", "deployment", "paused", "-o", "yaml")
    kubectl("delete", "deployment", "paused")
    kubectl.apply(raw.partition("status:")[0])
    assert json.loads(kubectl("get", "configmaps", "--chunk-size=1", "-o", "json"))["kind"] == "List"


def test_watching(kubectl: Kubectl) -> None:
    watching = kubectl.start("get", "configmap", "-l", "app=web", "-w", "--output-watch-events")
    assert watching.stdout is not None
    try:
        kubectl.apply(SETTINGS)
        lines = [watching.stdout.readline().split()[:2] for _ in range(2)]
        assert lines == [["EVENT", "NAME"], ["ADDED", "settings"]]
        kubectl("label", "configmap", "settings", "x=y")
        assert watching.stdout.readline().split()[:2] == ["MODIFIED", "settings"]
        kubectl("delete", "configmap", "settings")
        assert watching.stdout.readline().split()[:2] == ["DELETED", "settings"]
    finally:
        watching.kill()
        watching.communicate()


def test_wait(kubectl: Kubectl) -> None:
    kubectl.apply(f"{SETTINGS}---{PAUSED}")
    assert kubectl("wait", "deployment/paused", "--for=condition=Available") == "deployment.apps/paused condition met\n"
    assert "condition met" in kubectl("wait", "configmap/settings", "--for=jsonpath={.data.a}=1")
    assert "timed out" in kubectl.refused("wait", "configmap/settings", "--for=jsonpath={.data.a}=2", "--timeout=1s")
    waiting = kubectl.start("wait", "configmap/settings", "--for=delete", "--timeout=20s")
    kubectl("delete", "configmap", "settings")
    # it says nothing when the object was gone before it looked
    assert waiting.communicate(timeout=30)[0] in ("", "configmap/settings condition met\n")
    assert waiting.returncode == 0


def test_delete_in_every_way(kubectl: Kubectl) -> None:
    for name in ("one", "two", "three"):
        kubectl("create", "configmap", name)
        kubectl("label", "configmap", name, "set=x")
    said = kubectl("delete", "configmap", "one", "--dry-run=server")
    said += kubectl("delete", "configmap", "one", "--wait=false")
    said += kubectl("delete", "configmap", "nothing", "--ignore-not-found")
    said += kubectl("delete", "configmap", "-l", "set=x")
    said += kubectl("delete", "configmap", "--all")
    kubectl.apply(SETTINGS)
    kubectl("patch", "configmap", "settings", "-p", '{"metadata":{"finalizers":["example.com/held"]}}')
    kubectl("delete", "configmap", "settings", "--wait=false")
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.metadata.deletionTimestamp}")
    kubectl("patch", "configmap", "settings", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("wait", "configmap/settings", "--for=delete", "--timeout=10s")
    check_golden("delete", said, [kubectl.namespace])


def test_a_namespace_goes_with_what_is_in_it(kubectl: Kubectl) -> None:
    kubectl.apply(f"{SETTINGS}---{SERVICE}---{PAUSED}")
    kubectl("delete", "namespace", kubectl.namespace, "--timeout=30s")
    assert "NotFound" in kubectl.refused("get", "namespace", kubectl.namespace)


def test_certificates(kubectl: Kubectl, tmp_path: Path) -> None:
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    request = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
    names = [f"{which}-{kubectl.namespace}" for which in ("good", "bad")]
    for name in names:
        kubectl.apply(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\n"
            f"metadata: {{name: {name}}}\nspec: {{request: {request}, usages: [client auth],"
            " signerName: example.com/signer}\n"
        )
    said = kubectl("certificate", "approve", names[0]) + kubectl("certificate", "deny", names[1])
    said += kubectl("get", "csr", *names)
    kubectl("delete", "csr", *names)
    check_golden("certificate", said, [kubectl.namespace])
