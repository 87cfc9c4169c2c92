"""A webhook server that runs in a pod: what it is asked at a path decides how it answers. Standard library only.

It is not imported by tests: its text goes into an image. `/always-deny`, `/slow`, `/pods` and so on answer AdmissionReviews,
`/crdconvert` answers ConversionReviews, `/readyz` probes. What it was asked is printed, one JSON line a review.
"""

from __future__ import annotations

import argparse
import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
SLOW_S = 1.5
UNWANTED, KEY = "webhook-disallow", "webhook-e2e-test"


def allow() -> Json:
    return {"allowed": True}


def deny(message: str) -> Json:
    return {"allowed": False, "status": {"message": message}}


def change(*operations: Json) -> Json:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def add(path: str, value: Any) -> Json:
    return {"op": "add", "path": path, "value": value}


def judge_pod(request: Json) -> Json:
    pod = request["object"]
    labels = pod["metadata"].get("labels") or {}
    if labels.get(KEY) == "wait-forever":
        threading.Event().wait()
    reasons = []
    if any(container["name"] == UNWANTED for container in pod["spec"]["containers"]):
        reasons.append("the pod contains unwanted container name")
    if labels.get(KEY) == UNWANTED:
        reasons.append("the pod contains unwanted label")
    return deny("; ".join(reasons)) if reasons else allow()


def judge_attach(request: Json) -> Json:
    told = (request["operation"], request["resource"], request.get("subResource"), request["kind"]["kind"])
    expected = {"group": "", "version": "v1", "resource": "pods"}
    if told != ("CONNECT", expected, "attach", "PodAttachOptions"):
        return deny(f"this is no attach: {told}")
    options = request["object"]
    if request["name"] != "to-be-attached-pod" or not options.get("stdin") or options.get("container") != "container1":
        return allow()
    return deny("attaching to pod 'to-be-attached-pod' is not allowed")


def judge_data(request: Json, what: str) -> Json:
    if request["operation"] == "DELETE":
        held = (request["oldObject"].get("data") or {}).get(KEY) == "webhook-nondeletable"
        return deny(f"the {what} cannot be deleted because it contains unwanted key and value") if held else allow()
    unwanted = (request["object"].get("data") or {}).get(KEY) == UNWANTED
    return (
        deny(f"the {what} contains unwanted {'key and value' if what == 'configmap' else 'data'}")
        if unwanted
        else allow()
    )


def judge_definition(request: Json) -> Json:
    unwanted = (request["object"]["metadata"].get("labels") or {}).get(KEY) == UNWANTED
    return deny("the crd contains unwanted label") if unwanted else allow()


def change_data(request: Json) -> Json:
    data = request["object"].get("data") or {}
    operations = []
    if data.get("mutation-start") == "yes":
        operations.append(add("/data/mutation-stage-1", "yes"))
    if data.get("mutation-stage-1") == "yes":
        operations.append(add("/data/mutation-stage-2", "yes"))
    return change(*operations) if operations else allow()


def change_pod(request: Json) -> Json:
    if request["object"]["metadata"].get("name") != "webhook-to-be-mutated":
        return allow()
    container = {"name": "webhook-added-init-container", "image": "webhook-added-image", "resources": {}}
    return change(add("/spec/initContainers", [container]))


def sleep_first(request: Json) -> Json:
    time.sleep(SLOW_S)
    return allow()


def count(request: Json) -> Json:
    """Tell in a label how often this webhook was asked about the object."""
    labels = request["object"]["metadata"].get("labels") or {}
    number = str(int(labels.get("asked", "0")) + 1)
    return change(add("/metadata/labels", {**labels, "asked": number}))


def add_label_once(request: Json) -> Json:
    labels = request["object"]["metadata"].get("labels") or {}
    return allow() if "second" in labels else change(add("/metadata/labels", {**labels, "second": "yes"}))


ADMISSION = {
    "/always-deny": lambda request: deny("this webhook denies all requests"),
    "/add-label": lambda request: change(add("/metadata/labels", {"added-label": "yes"})),
    "/pods": judge_pod,
    "/pods/attach": judge_attach,
    "/configmaps": lambda request: judge_data(request, "configmap"),
    "/custom-resource": lambda request: judge_data(request, "custom resource"),
    "/crd": judge_definition,
    "/mutating-configmaps": change_data,
    "/mutating-custom-resource": change_data,
    "/mutating-pods": change_pod,
    "/slow": sleep_first,
    "/count": count,
    "/add-label-once": add_label_once,
}


def convert(obj: Json, wanted: str) -> Json:
    """Between v1, which has `hostPort`, and v2, which has `host` and `port`."""
    made = {**obj, "apiVersion": wanted}
    if wanted.endswith("/v2"):
        if "hostPort" in made:
            made["host"], made["port"] = made.pop("hostPort").split(":")
    elif "host" in made or "port" in made:
        made["hostPort"] = f"{made.pop('host', '')}:{made.pop('port', '')}"
    return made


def review_conversion(request: Json) -> Json:
    objects = [convert(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
    return {"convertedObjects": objects, "result": {"status": "Success"}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/readyz" else 404, b"ok")

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"] != "application/json":
            self.answer(400, b"not JSON")
            return
        review = json.loads(body)
        request = review["request"]
        judge = review_conversion if path == "/crdconvert" else ADMISSION[path]
        print(json.dumps({"path": self.path, "user": (request.get("userInfo") or {}).get("username")}), flush=True)
        review["response"] = {"uid": request["uid"], **judge(request)}
        del review["request"]
        self.answer(200, json.dumps(review).encode(), "application/json")

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls-cert-file", required=True)
    parser.add_argument("--tls-private-key-file", required=True)
    parser.add_argument("--port", type=int, default=443)
    given = parser.parse_args()
    server = ThreadingHTTPServer(("", given.port), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.tls_cert_file, given.tls_private_key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
