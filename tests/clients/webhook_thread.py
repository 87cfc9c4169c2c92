"""A webhook of the standard library's HTTP server, in a thread, over TLS: test support of this folder."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tiphys.wire.tls import create_ca, issue

Decide = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(path, request of the review) -> response, without its uid."""


class ThreadedWebhook:
    """A running webhook. `client_config(path)` goes into a configuration; `requests` is what it was asked."""

    def __init__(self, port: int, ca: bytes, requests: list[dict[str, Any]]) -> None:
        self.port = port
        self.requests = requests
        self._ca = ca

    def client_config(self, path: str) -> dict[str, str]:
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": base64.b64encode(self._ca).decode()}


@contextmanager
def threaded_webhook(decide: Decide) -> Iterator[ThreadedWebhook]:
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(review["request"])
            response = decide(self.path.partition("?")[0], review["request"])
            response = {"uid": review["request"]["uid"], "allowed": True, **response}
            body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    ca = create_ca("webhooks")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "tls.crt"), Path(folder, "tls.key")
        issue(ca, "hook", ip_addresses=["127.0.0.1"], server=True).write(*files)
        context.load_cert_chain(*files)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="webhook")
    thread.start()
    try:
        yield ThreadedWebhook(server.server_address[1], ca.certificate, requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def patch_of(*operations: dict[str, Any]) -> dict[str, Any]:
    """Return the response that changes the object."""
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


def refusal(message: str) -> dict[str, Any]:
    """Return the response that refuses."""
    return {"allowed": False, "status": {"message": message}}
