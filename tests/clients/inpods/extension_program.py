"""An extension API server that runs in a pod, as the sample of upstream is one. Standard library only.

It is not imported by tests: its text goes into an image. Before it is ready it reads how front proxies are believed, and
its informers have the cluster's namespaces, webhook configurations, policies and priority levels, as servers made with
upstream's library do. Who asks it is told by a front proxy or by a TokenReview; who may do what is told by
SubjectAccessReviews. Objects are kept in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
GROUP, VERSION = "wardle.example.com", "v1alpha1"
ROOT = f"/apis/{GROUP}/{VERSION}"
SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TRUST = "extension-apiserver-authentication"
TRUST_PATH = "/api/v1/namespaces/kube-system/configmaps"
JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
STREAM = f"{PROTOBUF};stream=watch,{PROTOBUF},{JSON};stream=watch,{JSON}"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
INFORMERS = (
    (f"{TRUST_PATH}?fieldSelector=metadata.name%3D{TRUST}&", JSON),
    ("/api/v1/namespaces?", STREAM),
    (f"{ADMISSION}/mutatingwebhookconfigurations?", STREAM),
    (f"{ADMISSION}/validatingwebhookconfigurations?", JSON),
    (f"{ADMISSION}/validatingadmissionpolicies?", STREAM),
    (f"{ADMISSION}/validatingadmissionpolicybindings?", JSON),
    (f"{ADMISSION}/mutatingadmissionpolicies?", JSON),
    (f"{ADMISSION}/mutatingadmissionpolicybindings?", STREAM),
    ("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas?", STREAM),
    ("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations?", STREAM),
)
WATCH_LIST = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true"
END_OF_LIST = b"k8s.io/initial-events-end"
RESOURCES: list[Json] = [
    {"name": "fischers", "singularName": "fischer", "namespaced": False, "kind": "Fischer"},
    {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "shortNames": ["fl"]},
]
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Cluster:
    """The API server that this one belongs to, reached through its Service with the pod's own token."""

    def __init__(self) -> None:
        self._where = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
        self._context = ssl.create_default_context(cafile=SECRETS / "ca.crt")

    def send(self, method: str, path: str, body: Any = None, accept: str = JSON) -> http.client.HTTPResponse:
        """Return an answer whose body is still to be read; its connection ends with it."""
        connection = http.client.HTTPSConnection(*self._where, context=self._context, timeout=600)
        headers = {"Authorization": f"Bearer {(SECRETS / 'token').read_text()}", "Accept": accept}
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {**headers, **({"Content-Type": JSON} if body else {})})
        answer = connection.getresponse()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.read().decode()}")
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> Json:
        made: Json = json.load(self.send(method, path, body))
        return made


class Informer(threading.Thread):
    """Reads a watch that begins with a list; `synced` when the list is over."""

    def __init__(self, cluster: Cluster, path: str, accept: str) -> None:
        super().__init__(daemon=True, name=path)
        self.synced = threading.Event()
        self.count = 0
        self._cluster, self._path, self._accept = cluster, path, accept

    def run(self) -> None:
        answer = self._cluster.send("GET", f"{self._path}{WATCH_LIST}", accept=self._accept)
        binary = answer.headers["Content-Type"].startswith(PROTOBUF)
        while data := answer.read(int.from_bytes(answer.read(4), "big")) if binary else answer.readline():
            if END_OF_LIST in data:
                self.synced.set()
            else:
                self.count += 1


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


AUTHENTICATED = "system:authenticated"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Trust:
    """Who is believed about who asks: read from the cluster's ConfigMap."""

    def __init__(self, cluster: Cluster) -> None:
        self.data: dict[str, str] = cluster.ask("GET", f"{TRUST_PATH}/{TRUST}")["data"]
        self._proxies = _names_of_authorities(self.data["requestheader-client-ca-file"])

    def told(self, name: str) -> list[str]:
        values: list[str] = json.loads(self.data[f"requestheader-{name}"])
        return values

    def is_front_proxy(self, certificate: Any) -> bool:
        if not certificate:
            return False
        subject, issuer = (_common_name(certificate[part]) for part in ("subject", "issuer"))
        return issuer in self._proxies and subject in self.told("allowed-names")


def _common_name(name: Any) -> str:
    return next((value for rdn in name for key, value in rdn if key == "commonName"), "")


def _names_of_authorities(pem: str) -> set[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return {_common_name(one["subject"]) for one in context.get_ca_certs()}


class Store:
    """Objects by resource, namespace and name, and who watches them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.revision = 1
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.watchers: list[tuple[str, str, queue.Queue[Json]]] = []

    def write(self, kind: str, key: tuple[str, str, str], obj: Json) -> Json:
        with self.lock:
            self.revision += 1
            obj["metadata"]["resourceVersion"] = str(self.revision)
            if kind == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = obj
            for resource, namespace, waiting in self.watchers:
                if resource == key[0] and namespace in ("", key[1]):
                    waiting.put({"type": kind, "object": obj})
        return obj

    def select(self, resource: str, namespace: str) -> list[Json]:
        with self.lock:
            return [o for (r, n, _), o in sorted(self.objects.items()) if r == resource and namespace in ("", n)]


class Failure(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status |= {"code": code, "reason": reason, "message": message}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster
    trust: Trust
    store: Store
    informers: list[Informer]

    def do(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            length = int(self.headers.get("Content-Length") or 0)
            body = (
                self.rfile.read(length) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self.chunks()
            )
            self.serve(url.path, body)
        except Failure as error:
            self.answer(error.status["code"], error.status)

    do_GET = do_POST = do_PUT = do_DELETE = do

    def chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def serve(self, path: str, body: bytes) -> None:
        if path in ("/readyz", "/livez", "/healthz"):
            waiting = [informer.name for informer in self.informers if not informer.synced.is_set()]
            self.answer(500 if waiting else 200, {"waiting": waiting})
            return
        user = self.user()
        if path.startswith(f"{ROOT}/"):
            parts = path.removeprefix(f"{ROOT}/").split("/")
            namespace = parts[1] if parts[0] == "namespaces" and len(parts) > 2 else ""
            resource, _, name = "/".join(parts[2:] if namespace else parts).partition("/")
            self.authorize(user, resource, namespace, name)
            self.serve_objects(user, resource, namespace, name, body)
        else:
            self.authorize(user, "", "", "", path)
            self.serve_documents(path)

    def user(self) -> User:
        """Return who asks: a front proxy says it, or a token that the cluster reviews."""
        if self.trust.is_front_proxy(self.connection.getpeercert()):
            name = next((value for h in self.trust.told("username-headers") if (value := self.headers.get(h))), "")
            groups = [g for h in self.trust.told("group-headers") for g in self.headers.get_all(h) or ()]
            prefix = self.trust.told("extra-headers-prefix")[0].lower()
            extra: dict[str, list[str]] = {}
            for header, value in self.headers.items():
                if header.lower().startswith(prefix):
                    extra.setdefault(header.lower().removeprefix(prefix), []).append(value)
            uid = next((value for h in self.trust.told("uid-headers") if (value := self.headers.get(h))), "")
            return User(name, (*groups, *(() if AUTHENTICATED in groups else (AUTHENTICATED,))), uid, extra)
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return ANONYMOUS
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        told = self.cluster.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
        if not told.get("authenticated"):
            raise Failure(401, "Unauthorized", "Unauthorized")
        return User(told["user"]["username"], tuple(told["user"]["groups"]))

    def authorize(self, user: User, resource: str, namespace: str, name: str, path: str = "") -> None:
        if "system:masters" in user.groups:
            return
        collection = {"GET": "watch" if self.query.get("watch") else "list", "DELETE": "deletecollection"}
        verb = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}[self.command]
        spec: Json = {"user": user.name, "groups": list(user.groups), "uid": user.uid, "extra": user.extra}
        if path:
            spec["nonResourceAttributes"] = {"path": path, "verb": "get"}
        else:
            spec["resourceAttributes"] = {
                "group": GROUP,
                "version": VERSION,
                "resource": resource,
                "namespace": namespace,
                "name": name,
                "verb": verb if name else collection.get(self.command, verb),
            }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        told = self.cluster.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]
        if not told.get("allowed"):
            raise Failure(403, "Forbidden", f'{resource or path} is forbidden: User "{user.name}" may not')

    def serve_documents(self, path: str) -> None:
        if path == "/apis" and "as=APIGroupDiscoveryList" in self.headers.get("Accept", ""):
            self.answer(200, aggregated(), f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        elif path in DOCUMENTS:
            self.answer(200, DOCUMENTS[path]())
        else:
            raise Failure(404, "NotFound", "the server could not find the requested resource")

    def serve_objects(self, user: User, resource: str, namespace: str, name: str, body: bytes) -> None:
        kind = next((one["kind"] for one in RESOURCES if one["name"] == resource), "")
        if not kind:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        if not name and self.command == "GET" and self.query.get("watch"):
            self.watch(resource, namespace)
        elif not name and self.command == "GET":
            head = {"kind": f"{kind}List", "apiVersion": f"{GROUP}/{VERSION}"}
            metadata = {"resourceVersion": str(self.store.revision)}
            self.answer(200, {**head, "metadata": metadata, "items": self.store.select(resource, namespace)})
        elif not name and self.command == "POST":
            obj = json.loads(body)
            obj["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": namespace}
            obj["status"] = {"madeBy": user.name, "bytes": len(body)}
            key = (resource, namespace, obj["metadata"]["name"])
            if key in self.store.objects:
                raise Failure(409, "AlreadyExists", f'{resource}.{GROUP} "{key[2]}" already exists')
            self.answer(201, self.store.write("ADDED", key, obj))
        else:
            key = (resource, namespace, name)
            if key not in self.store.objects:
                raise Failure(404, "NotFound", f'{resource}.{GROUP} "{name}" not found')
            if self.command == "DELETE":
                self.store.write("DELETED", key, self.store.objects[key])
                self.answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
            elif self.command == "PUT":
                self.answer(200, self.store.write("MODIFIED", key, json.loads(body)))
            else:
                self.answer(200, self.store.objects[key])

    def watch(self, resource: str, namespace: str) -> None:
        waiting: queue.Queue[Json] = queue.Queue()
        with self.store.lock:
            for obj in self.store.select(resource, namespace):
                waiting.put({"type": "ADDED", "object": obj})
            self.store.watchers.append((resource, namespace, waiting))
        self.send_response(200)
        self.send_header("Content-Type", JSON)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            line = json.dumps(waiting.get()).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()

    def answer(self, status: int, body: Any, kind: str = JSON) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


def aggregated() -> Json:
    resources = [
        {
            "resource": one["name"],
            "responseKind": {"group": GROUP, "version": VERSION, "kind": one["kind"]},
            "scope": "Namespaced" if one["namespaced"] else "Cluster",
            "singularResource": one["singularName"],
            "verbs": VERBS,
            **({"shortNames": one["shortNames"]} if "shortNames" in one else {}),
        }
        for one in RESOURCES
    ]
    version = {"version": VERSION, "resources": resources, "freshness": "Current"}
    item = {"metadata": {"name": GROUP}, "versions": [version]}
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [item]}


def group() -> Json:
    version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version}


def resource_list() -> Json:
    resources = [{**one, "verbs": VERBS} for one in RESOURCES]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}", "resources": resources}


def openapi(prefix: str) -> Json:
    """Return paths and schemas, whose references begin with `prefix`."""
    schemas = {}
    paths = {}
    for one in RESOURCES:
        gvk = {"group": GROUP, "version": VERSION, "kind": one["kind"]}
        spec = {
            "type": "object",
            "description": f"What a {one['kind']} is to be.",
            "properties": {"size": {"type": "string"}},
        }
        properties: Json = {key: {"type": "string"} for key in ("apiVersion", "kind")}
        properties |= {"metadata": {"type": "object"}, "spec": spec}
        name = f"com.example.wardle.{VERSION}.{one['kind']}"
        schemas[name] = {"type": "object", "properties": properties, "x-kubernetes-group-version-kind": [gvk]}
        within = "/namespaces/{namespace}" if one["namespaced"] else ""
        ok = {"description": "OK", "schema": {"$ref": f"{prefix}{name}"}}
        action = {"x-kubernetes-action": "list", "x-kubernetes-group-version-kind": gvk, "responses": {"200": ok}}
        paths[f"{ROOT}{within}/{one['name']}"] = {"get": action}
    return {"info": {"title": "sample", "version": "v0"}, "paths": paths, "schemas": schemas}


def openapi_v2() -> Json:
    document = openapi("#/definitions/")
    return {"swagger": "2.0", "definitions": document.pop("schemas"), **document}


def openapi_v3() -> Json:
    document = openapi("#/components/schemas/")
    return {"openapi": "3.0.0", "components": {"schemas": document.pop("schemas")}, **document}


DOCUMENTS = {
    "/apis": lambda: {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]},
    f"/apis/{GROUP}": group,
    ROOT: resource_list,
    "/openapi/v2": openapi_v2,
    "/openapi/v3": lambda: {"paths": {ROOT.lstrip("/"): {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=AB"}}},
    f"/openapi/v3{ROOT}": openapi_v3,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls-cert-file", required=True)
    parser.add_argument("--tls-private-key-file", required=True)
    parser.add_argument("--port", type=int, default=443)
    given = parser.parse_args()
    Handler.cluster = Cluster()
    Handler.trust = trust = Trust(Handler.cluster)
    Handler.store = Store()
    Handler.informers = [Informer(Handler.cluster, path, accept) for path, accept in INFORMERS]
    for informer in Handler.informers:
        informer.start()
    server = ThreadingHTTPServer(("", given.port), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.tls_cert_file, given.tls_private_key_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=trust.data["requestheader-client-ca-file"] + trust.data["client-ca-file"])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
