"""What holds the API server's event loop longest: one request or background task is a stall for all others.

Starts an API server of its own with many pods and sends it what is known to be heavy: lists in every form and media
type, watches with their initial state and of large objects, discovery and OpenAPI documents of a fresh server and after
a new CustomResourceDefinition, large definitions, big objects written and read in every way, deletion of a collection.
Prints a JSON line for each of the worst: milliseconds of the loop's own CPU in
one step (what the machine's other work cannot disturb), and of the wall clock.

Run: python benchmarks/loop_stalls.py [--pods 5000] [--worst 12]
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from benchmark_apiserver import HELD_S, Held, LoneServer, lone_apiserver
from benchmark_cluster import Target, insecure

NAMESPACE = "stalls"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CUSTOM = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
PARTIAL_ONE = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
PROTOBUF = "application/vnd.kubernetes.protobuf"
CBOR = "application/cbor"
YAML = "application/yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
INITIAL = "watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1"
TIMEOUT_S = 120.0


class Client:
    """One keep-alive connection."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        self._target, self._context, self._token = target, context, target.token
        self._connection = http.client.HTTPSConnection(urlsplit(target.url).netloc, context=context, timeout=TIMEOUT_S)

    def another(self) -> Client:
        return Client(self._target, self._context)

    def send(self, method: str, path: str, body: Any = None, *, accept: str = "", **headers: str) -> bytes:
        sent = {"Authorization": f"Bearer {self._token}", "Accept": accept or "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        self._connection.request(method, path, data, sent)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300 and answer.status != 403:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


def pod(number: int) -> dict[str, Any]:
    """Return a pod of 3.7 KB."""
    env = [{"name": f"VARIABLE_{n}", "value": "v" * 24} for n in range(20)]
    limits = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    container = {"name": "main", "image": "registry.example/app:v1", "env": env, "resources": limits}
    labels = {"app": "bench", "tenth": str(number % 10)}
    metadata = {"name": f"pod-{number:06d}", "labels": labels, "annotations": {"note": "x" * 400}}
    spec = {"schedulerName": "nobody", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def definition(number: int) -> dict[str, Any]:
    """Return a CustomResourceDefinition with a schema of some size."""
    fields = {f"field{n}": {"type": "object", "properties": {"a": {"type": "string"}}} for n in range(100)}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}
    names = {"plural": f"things{number}", "singular": f"thing{number}", "kind": f"Thing{number}"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "bench.example", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": f"things{number}.bench.example"}, "spec": spec}


def fill(server: LoneServer, pods: int, context: ssl.SSLContext) -> None:
    """Make the namespace and its pods."""
    client = Client(server.target, context)
    client.send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    client.send("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})

    def some(start: int) -> None:
        own = Client(server.target, context)
        for number in range(start, pods, 8):
            own.send("POST", PODS, pod(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))


def read_documents(client: Client) -> None:
    """Ask for everything that describes the API, as kubectl and Go operators do."""
    for path in ("/api", "/apis"):
        client.send("GET", path, accept=DISCOVERY)
    client.send("GET", "/openapi/v2")
    client.send("GET", "/openapi/v2", accept=OPENAPI_PROTOBUF)
    paths = json.loads(client.send("GET", "/openapi/v3"))["paths"]
    for about in paths.values():
        client.send("GET", about["serverRelativeURL"])


def load(client: Client) -> None:
    """Send the heavy requests, one after another: what is measured is each one's own hold of the loop."""
    read_documents(client)
    client.send("POST", CUSTOM, definition(1))
    read_documents(client)
    read_lists(client)
    client.send(
        "GET",
        f"/api/v1/namespaces/{NAMESPACE}/secrets/any",
        Impersonate_User="system:node:one",
        Impersonate_Group="system:nodes",
    )
    for number in range(2, 10):
        client.send("POST", CUSTOM, definition(number))
    define_largely(client)
    read_documents(client)
    big = {"metadata": {"name": "big"}, "data": {f"key-{n}": "y" * 1000 for n in range(1000)}}
    client.send("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", big)
    patch = {"data": {"key-1": "other"}}
    client.send("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/big", patch, Content_Type=MERGE)
    write_large(client)
    write_large_in_binary(client)
    watch_large(client)
    client.send("DELETE", f"{PODS}?labelSelector=tenth%3D3&gracePeriodSeconds=0")
    client.send("DELETE", f"{PODS}?gracePeriodSeconds=0")


def read_lists(client: Client) -> None:
    """List and watch the pods in every form."""
    revision = json.loads(client.send("GET", f"{PODS}?limit=1"))["metadata"]["resourceVersion"]
    client.send("PATCH", f"{PODS}/pod-000001", {"metadata": {"labels": {"a": "b"}}}, Content_Type=MERGE)
    for _ in range(2):
        client.send("GET", PODS)
        client.send("GET", PODS, Accept_Encoding="gzip")
        for accept in (
            TABLE,
            PARTIAL,
            YAML,
            PROTOBUF,
            CBOR,
            f"{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ):
            client.send("GET", PODS, accept=accept)
        client.send("GET", f"{PODS}?pretty=true")
    client.send("GET", f"{PODS}?labelSelector=tenth%3D3")
    client.send("GET", f"{PODS}?fieldSelector=status.phase%3DRunning")
    client.send("GET", f"{PODS}?fieldSelector=spec.nodeName%21%3Dany")
    client.send("GET", f"{PODS}?limit=500")
    client.send("GET", f"{PODS}?resourceVersion={revision}&resourceVersionMatch=Exact")
    client.send("GET", f"{PODS}?resourceVersion={revision}&resourceVersionMatch=Exact&limit=500")
    for accept in ("", TABLE, PARTIAL, PROTOBUF, CBOR):
        client.send("GET", f"{PODS}?{INITIAL}", accept=accept)
    client.send("GET", "/metrics")


def define_largely(client: Client) -> None:
    """Write definitions of half a megabyte, as some operators bring them, and objects of them."""
    leaf = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9-]*$"}}}
    fields = {f"field{n}": {"type": "object", "description": "x" * 200, "properties": {"b": leaf}} for n in range(1200)}
    large = definition(20)
    large["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = fields
    client.send("POST", CUSTOM, large)
    client.send(
        "PATCH", f"{CUSTOM}/{large['metadata']['name']}", {"metadata": {"labels": {"a": "b"}}}, Content_Type=MERGE
    )
    ruled = definition(21)
    spec = ruled["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for field in spec["properties"].values():
        field["x-kubernetes-validations"] = [{"rule": "!has(self.a) || self.a.size() < 9000", "message": "too long"}]
    client.send("POST", CUSTOM, ruled)
    applied = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"} | definition(22)
    applied["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = fields
    path = f"{CUSTOM}/{applied['metadata']['name']}?fieldManager=bench"
    for _ in range(2):
        client.send("PATCH", path, applied, Content_Type="application/apply-patch+yaml")
    for accept in (TABLE, YAML, PROTOBUF, CBOR):
        client.send("GET", CUSTOM, accept=accept)


def write_large(client: Client) -> None:
    """Send objects of about a megabyte with many fields, in every way that there is to write one."""
    maps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    many = {"metadata": {"name": "many"}, "data": {f"key-{n}": "y" * 6 for n in range(20_000)}}
    client.send("POST", maps, many)
    client.send("PATCH", f"{maps}/many", {"data": {"key-1": "z"}}, Content_Type=MERGE)
    client.send("PUT", f"{maps}/many", json.loads(client.send("GET", f"{maps}/many")))
    client.send("GET", f"{maps}/many", accept=YAML)
    client.send("GET", f"{maps}/many?pretty=true")
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": many["data"]}
    for _ in range(2):
        path = f"{maps}/applied?fieldManager=bench"
        client.send("PATCH", path, applied, Content_Type="application/apply-patch+yaml")
    operations = [{"op": "replace", "path": f"/data/key-{n}", "value": "w"} for n in range(5000)]
    client.send("PATCH", f"{maps}/many", operations, Content_Type="application/json-patch+json")
    large = pod(1_000_000)
    large["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": "x"} for n in range(9000)]
    client.send("POST", PODS, large)
    client.send("PATCH", f"{PODS}/pod-1000000", {"metadata": {"labels": {"a": "b"}}}, Content_Type=STRATEGIC)
    client.send("PATCH", f"{PODS}/pod-1000000/status", {"status": {"message": "b"}}, Content_Type=STRATEGIC)
    for numbers in (1, 21):
        things = f"/apis/bench.example/v1/namespaces/{NAMESPACE}/things{numbers}"
        fields = {f"field{n}": {"a": "x" * 8000} for n in range(100)}
        thing = {
            "apiVersion": "bench.example/v1",
            "kind": f"Thing{numbers}",
            "metadata": {"name": "large"},
            "spec": fields,
        }
        client.send("POST", things, thing)


def write_large_in_binary(client: Client) -> None:
    """Write and read a large object in protobuf and CBOR, and have it answered in every form."""
    maps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    for accept in (PROTOBUF, CBOR):
        body = client.send("GET", f"{maps}/many", accept=accept)
        client.send("PUT", f"{maps}/many", body, accept=accept, Content_Type=accept)
    for accept in (TABLE, PARTIAL_ONE, YAML, PROTOBUF, CBOR):
        patch = {"data": {"key-2": str(len(accept))}}
        client.send("PATCH", f"{maps}/many", patch, accept=accept, Content_Type=MERGE)
        client.send("GET", maps, accept=accept)
        client.send("GET", f"{maps}/many", accept=accept)
    client.send("PATCH", f"{maps}/many?pretty=true", {"data": {"key-2": "w"}}, Content_Type=MERGE)


def watch_large(client: Client) -> None:
    """Watch large objects in every form while they change: their state first, then a change."""
    maps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    writer = client.another()
    for accept in ("", TABLE, PARTIAL_ONE, PROTOBUF, CBOR):
        client.send("GET", f"{maps}?{INITIAL}", accept=accept)
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(client.send, "GET", f"{maps}?watch=1&timeoutSeconds=2", accept=accept)
            for number in range(4):
                patch = {"data": {"key-3": f"{accept}{number}"}}
                writer.send("PATCH", f"{maps}/many", patch, Content_Type=MERGE)
            watching.result()


def report(held: Held) -> None:
    print(
        json.dumps(
            {
                "benchmark": "loop_stalls",
                "held_ms": round(held.cpu_s * 1e3, 1),
                "wall_ms": round(held.wall_s * 1e3, 1),
                "too_long": held.cpu_s > HELD_S,
                "what": held.what,
            }
        ),
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--pods", type=int, default=5000)
    options.add_argument("--worst", type=int, default=12, help="how many to print")
    arguments = options.parse_args()
    context = insecure()
    with lone_apiserver() as server:
        fill(server, arguments.pods, context)
        server.held()
        load(Client(server.target, context))
        for held in server.held()[: arguments.worst]:
            report(held)


if __name__ == "__main__":
    main()
