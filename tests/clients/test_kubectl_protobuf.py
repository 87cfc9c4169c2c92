"""kubectl's typed clients speak protobuf: what they read and write is what they read and write in JSON.

kubectl since 1.33 asks for protobuf wherever its code is typed (describe, create VERB, drain, run). To compare, a proxy
between it and the API server takes protobuf out of the Accept header, so the same client gets JSON.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from kubectl_cli import Kubectl, masked

from tiphys.api.protobuf import decode_protobuf, encode_object

PROTOBUF = "application/vnd.kubernetes.protobuf"
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "host")


class Exchange(NamedTuple):
    """One request that passed: content types of what was sent and of the answer, and what was sent."""

    method: str
    sent: str
    answered: str
    body: bytes


class Stripping(BaseHTTPRequestHandler):
    """Passes requests on to `kubectl proxy`, without protobuf in Accept if the server says so."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        if server.strips:
            headers["Accept"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", server.behind, timeout=30)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        sent, answered = self.headers.get("Content-Type", ""), answer.getheader("Content-Type", "")
        server.seen.append(Exchange(self.command, sent, answered, body))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def through_proxy(kubectl: Kubectl, strips: bool) -> Iterator[tuple[Kubectl, list[Exchange]]]:
    """Give a kubectl that talks through the proxy, and a list of what passes."""
    behind = kubectl.start("proxy", "--port=0")
    assert behind.stdout is not None
    found = re.search(r":(\d+)", behind.stdout.readline())
    assert found is not None
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Stripping)
    server.daemon_threads = True
    server.behind, server.strips, server.seen = int(found[1]), strips, []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        port = server.server_address[1]
        flags = (f"--server=http://127.0.0.1:{port}",)
        yield Kubectl(kubectl.binary, kubectl.environment, kubectl.namespace, flags), server.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        behind.terminate()
        behind.communicate()


def test_descriptions_are_the_same_in_protobuf_and_json(kubectl: Kubectl) -> None:
    kubectl.apply(OBJECTS.replace("NAMESPACE", kubectl.namespace))
    kubectl("wait", "--for=condition=Ready", "pod/rich", "--timeout=30s")
    described = {}
    for strips in (False, True):
        with through_proxy(kubectl, strips) as (client, seen):
            for what in DESCRIBED:
                text = client("describe", *what.replace("NAMESPACE", kubectl.namespace).split())
                described[what, strips] = masked(text)
            answered = [exchange.answered for exchange in seen if exchange.method == "GET"]
            assert (PROTOBUF in answered) is not strips
    kubectl("delete", "pv,csinode,storageclass,priorityclass,clusterrole", "-l", f"test={kubectl.namespace}")
    for what in DESCRIBED:
        assert described[what, False] == described[what, True]


@pytest.mark.parametrize(
    "arguments",
    [
        "deployment made --image=nginx:1 --replicas=3 --port=80",
        "job made --image=busybox -- date",
        "cronjob made --image=busybox --schedule=@daily -- date",
        "service nodeport made --tcp=80:8080",
        "service externalname made --external-name=example.com",
        "ingress made --rule=example.com/a*=made:http,tls=secret --class=nginx",
        "poddisruptionbudget made --selector=app=a --min-available=50%",
        "quota made --hard=cpu=1500m,pods=7 --scopes=BestEffort",
        "role made --verb=get,list --resource=pods,deployments.apps --resource-name=x",
        "rolebinding made --role=made --serviceaccount=a:b --group=g",
        "configmap made --from-literal=a=b",
        "secret generic made --from-literal=a=ä",
        "serviceaccount made",
    ],
)
def test_what_is_created_in_protobuf_is_what_is_created_in_json(kubectl: Kubectl, arguments: str) -> None:
    kind = arguments.split()[0]
    with through_proxy(kubectl, strips=False) as (client, seen):
        client("create", *arguments.split())
        [created] = [exchange for exchange in seen if exchange.method == "POST"]
        assert (created.sent, created.answered) == (PROTOBUF, PROTOBUF)
    # Go's own bytes are ours, to the last one.
    assert encode_object(decode_protobuf(created.body)) == created.body
    by_protobuf = essence(kubectl("get", kind, "made", "-o", "json", "--show-managed-fields"))
    manifest = kubectl("create", "--dry-run=client", "-o", "json", *arguments.split())
    kubectl("delete", kind, "made", "--cascade=foreground")
    kubectl("create", "-f", "-", "--field-manager=kubectl-create", stdin=manifest)
    assert essence(kubectl("get", kind, "made", "-o", "json", "--show-managed-fields")) == by_protobuf


def test_other_typed_bodies_are_byte_for_byte_ours(kubectl: Kubectl) -> None:
    unique = f"x-{kubectl.namespace}"
    with through_proxy(kubectl, strips=False) as (client, seen):
        client("auth", "can-i", "get", "pods", "--subresource=log")
        client("auth", "can-i", "get", "/healthz")
        client("auth", "whoami")
        client("create", "token", "default", "--duration=11m", "--audience=a")
        client("create", "clusterrole", unique, "--verb=get", "--non-resource-url=/x")
        client("create", "clusterrolebinding", unique, f"--clusterrole={unique}", "--user=u", "--group=g")
        client("create", "priorityclass", unique, "--value=-7", "--preemption-policy=Never")
        client("create", "namespace", unique)
    bodies = [exchange.body for exchange in seen if exchange.body and exchange.sent == PROTOBUF]
    kinds = {decode_protobuf(body)["kind"] for body in bodies}
    kubectl("delete", f"clusterrole/{unique}", f"clusterrolebinding/{unique}", f"priorityclass/{unique}")
    kubectl("delete", "namespace", unique, "--wait=false")
    wanted = (
        "SelfSubjectAccessReview SelfSubjectReview TokenRequest ClusterRole ClusterRoleBinding PriorityClass Namespace"
    )
    assert kinds >= {*wanted.split()}
    for body in bodies:
        assert encode_object(decode_protobuf(body)) == body


def test_dynamic_clients_that_prefer_cbor_get_it(kubectl: Kubectl) -> None:
    """client-go's dynamic client speaks CBOR where its features are switched on: kubectl's wait and delete use it."""
    features = {f"KUBE_FEATURE_Clients{name}CBOR": "true" for name in ("Allow", "Prefer")}
    kubectl("create", "deployment", "web", "--image=nginx")
    waited = kubectl.run("wait", "--for=condition=Available", "deployment/web", "--timeout=30s", "-v=8", **features)
    assert waited.stdout == "deployment.apps/web condition met\n"
    assert "Content-Type: application/cbor-seq" in waited.stderr
    deleted = kubectl.run("delete", "deployment", "web", "--timeout=30s", "-v=8", **features)
    assert deleted.returncode == 0 and "Content-Type: application/cbor\n" in deleted.stderr


def essence(text: str) -> Any:
    """Return an object without what differs between two creations, and without what controllers write."""
    obj = json.loads(text)
    metadata = obj["metadata"]
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "annotations"):
        metadata.pop(name, None)
    metadata["managedFields"] = [
        {**entry, "time": ""} for entry in metadata.get("managedFields", ()) if entry["manager"] == "kubectl-create"
    ]
    obj.pop("status", None)
    text = json.dumps(obj, sort_keys=True)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>", text)
    text = re.sub(r'"nodePort": \d+', '"nodePort": 0', text)
    return json.loads(re.sub(r"\b10\.\d+\.\d+\.\d+\b", "<ip>", text))


DESCRIBED = (
    "pod rich",
    "service rich",
    "deployment rich",
    "statefulset rich",
    "hpa rich",
    "ingress rich",
    "networkpolicy rich",
    "pdb rich",
    "quota rich",
    "limitrange rich",
    "pvc rich",
    "cronjob rich",
    "secret rich",
    "configmap rich",
    "serviceaccount default",
    "rolebinding rich",
    "pv rich-NAMESPACE",
    "storageclass rich-NAMESPACE",
    "priorityclass rich-NAMESPACE",
    "clusterrole rich-NAMESPACE",
    "csinode rich-NAMESPACE",
    "namespace NAMESPACE",
    "endpointslices",
)
OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: rich, labels: {app: rich, z: "1"}, annotations: {a: b, text: "ä €"}}
spec:
  hostNetwork: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 0, supplementalGroups: [1, 70000], sysctls: [{name: net.ipv4.ip_local_port_range, value: "1 2"}]}
  affinity:
    nodeAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 7
        preference: {matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: h, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: rich}}}]
  tolerations: [{operator: Exists, tolerationSeconds: 0, effect: NoExecute, key: k}]
  hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]
  dnsConfig: {options: [{name: ndots, value: "2"}], searches: [example.com]}
  initContainers:
  - {name: first, image: busybox, command: [sleep, "0"]}
  containers:
  - name: c
    image: nginx
    args: [a, ""]
    ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]
    env:
    - {name: PLAIN, value: ""}
    - {name: FIELD, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: RESOURCE, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: MAP, valueFrom: {configMapKeyRef: {name: none, key: k, optional: true}}}
    envFrom: [{prefix: P_, configMapRef: {name: rich}}]
    resources: {limits: {cpu: 1500m, memory: 1Gi}, requests: {cpu: 100m}}
    livenessProbe: {httpGet: {path: /, port: http, httpHeaders: [{name: X, value: v}]}, failureThreshold: 9, initialDelaySeconds: 900}
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 3}
    startupProbe: {tcpSocket: {port: 80}}
    lifecycle: {preStop: {exec: {command: [sleep, "0"]}}}
    volumeMounts: [{name: empty, mountPath: /e, subPath: x}, {name: secret, mountPath: /s, readOnly: true}]
  volumes:
  - {name: empty, emptyDir: {medium: Memory, sizeLimit: 10Mi}}
  - {name: secret, secret: {secretName: rich, defaultMode: 256, items: [{key: a, path: b, mode: 511}]}}
  - {name: down, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: host, hostPath: {path: /tmp, type: Directory}}
---
apiVersion: v1
kind: Service
metadata: {name: rich}
spec:
  type: NodePort
  selector: {app: rich}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 33}}
  externalIPs: [1.2.3.4]
  ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 53, protocol: UDP, targetPort: 5353}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rich}
spec:
  replicas: 0
  minReadySeconds: 3
  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 0}}
  selector: {matchLabels: {app: d}}
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, image: nginx}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rich}
spec:
  replicas: 0
  serviceName: rich
  updateStrategy: {rollingUpdate: {partition: 2}}
  selector: {matchExpressions: [{key: app, operator: In, values: [s]}]}
  template: {metadata: {labels: {app: s}}, spec: {containers: [{name: c, image: nginx}]}}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: rich}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: rich}
  minReplicas: 1
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0, policies: [{type: Percent, value: 10, periodSeconds: 60}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: rich}
spec:
  tls: [{hosts: [a.example.com], secretName: rich}]
  defaultBackend: {service: {name: rich, port: {number: 80}}}
  rules: [{host: a.example.com, http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: rich, port: {name: a}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: rich}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}, {port: http}]}, {}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: rich}
spec: {maxUnavailable: 30%, selector: {matchLabels: {app: d}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: rich}
spec: {hard: {cpu: "100", requests.memory: 10Gi, pods: "50"}, scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: Exists}]}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: rich}
spec: {limits: [{type: PersistentVolumeClaim, max: {storage: 5Gi}, min: {storage: 1Mi}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: rich}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 1Gi}}, volumeMode: Block}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: rich}
spec:
  schedule: "0 0 1 1 *"
  suspend: true
  startingDeadlineSeconds: 0
  jobTemplate: {spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: rich}
data: {a: AAH/, empty: ""}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: rich}
data: {k: v, long: "line\\nline"}
binaryData: {b: AAH/}
immutable: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rich}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: User, name: u, apiGroup: rbac.authorization.k8s.io}, {kind: ServiceAccount, name: s, namespace: ns}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: rich-NAMESPACE, labels: {test: NAMESPACE}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany, ReadOnlyMany]
  storageClassName: none
  csi: {driver: d, volumeHandle: h, volumeAttributes: {a: b}}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: k, operator: Exists}]}]}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: rich-NAMESPACE, labels: {test: NAMESPACE}}
provisioner: none
parameters: {a: b}
allowVolumeExpansion: false
mountOptions: [ro]
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: rich-NAMESPACE, labels: {test: NAMESPACE}}
value: -5
description: low
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: rich-NAMESPACE, labels: {test: NAMESPACE}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get], resourceNames: [a]}, {nonResourceURLs: [/x], verbs: ["*"]}]
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: rich-NAMESPACE, labels: {test: NAMESPACE}}
spec: {drivers: [{name: d, nodeID: id, topologyKeys: [a], allocatable: {count: 0}}]}
"""
