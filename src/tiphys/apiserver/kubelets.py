"""How the API server reaches kubelets: address and port of each node, and answers that it says itself.

The sessions are bytes that pass (backends.py); the kubelet speaks WebSocket and SPDY itself.

Spec: Kubernetes documentation, "Control plane to node communication".
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace

from tiphys.api.kind import JsonObject
from tiphys.apiserver.backends import Backends, Target, is_upgrade, passed_headers, relay, unreachable
from tiphys.base.errors import ApiError, bad_request, internal
from tiphys.wire.http_client import StreamedAnswer
from tiphys.wire.message import Answer, Request, Response

HEAD_TIMEOUT_S = 30.0
ADDRESS_TYPES = ("InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS")
"""Which of a node's addresses is taken: the first of these."""
KUBELET_PORT = 10250
"""Of a node that does not tell another."""


class KubeletDialer(Backends):
    """Makes targets and keeps connection pools. `tls` holds the client certificate that kubelets accept; `insecure_tls`
    makes a context with the same one that accepts any kubelet."""

    def __init__(self, tls: ssl.SSLContext | None, insecure_tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        super().__init__()
        self._tls = tls
        self._make_insecure = insecure_tls
        self._insecure: ssl.SSLContext | None = None
        self._unverified: ssl.SSLContext | None = None

    def kubelet(self, node: JsonObject) -> Target:
        """Return the target of a node's kubelet. Raises ApiError when the node tells no address: it has not registered
        itself yet."""
        status, name = node.get("status") or {}, node["metadata"]["name"]
        addresses = {a.get("type"): a.get("address", "") for a in status.get("addresses") or ()}
        address = next((addresses[kind] for kind in ADDRESS_TYPES if addresses.get(kind)), "")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or KUBELET_PORT
        if not address:
            raise internal("no preferred addresses found; known addresses: []")
        return Target(address, port, self._tls, name)

    def insecure(self, target: Target) -> Target:
        """Return the same kubelet, reached whatever its certificate says."""
        if self._insecure is None and self._make_insecure is not None:
            self._insecure = self._make_insecure()
        return replace(target, tls=self._insecure or target.tls)

    def unverified(self, scheme: str) -> ssl.SSLContext | None:
        """Return the context of TLS to a pod: encrypted, but nobody vouches for the certificate of a pod, as upstream
        has it. None for other schemes than https."""
        if scheme != "https":
            return None
        if self._unverified is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self._unverified = context
        return self._unverified

    async def session(self, request: Request, target: Target, path: str) -> Answer:
        """Ask a kubelet for exec, attach or port-forward. Its refusal is told as a failure of this server."""
        try:
            if not is_upgrade(request):
                raise bad_request("Upgrade request required")
            answer = await self.upgrade(request, target, path, passed_headers(request))
        except (OSError, TimeoutError) as error:
            raise unreachable(target, error) from error
        if isinstance(answer, Response) and answer.status >= 400 and answer.content_type != "application/json":
            text = answer.body_bytes().decode("utf-8", "replace").strip()
            if answer.status == 400:
                raise bad_request(text)
            raise ApiError(answer.status, "", text or f"the kubelet answered {answer.status}")
        return answer

    async def text(self, request: Request, target: Target, path: str) -> Answer:
        """Answer with a kubelet's text, such as a log. What it refuses is raised as ApiError, because its words are
        meant for the client of the API server."""
        try:
            headers = passed_headers(request)
            answer = await self.pool(target).exchange("GET", path, headers, timeout_s=HEAD_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise unreachable(target, error) from error
        if answer.status >= 300:
            raise await _refusal(answer)
        return await relay(request, answer)


async def _refusal(answer: StreamedAnswer) -> ApiError:
    try:
        text = (await answer.read_all()).decode("utf-8", "replace").strip()
    finally:
        answer.close()
    if answer.status == 400:
        return bad_request(text)
    return ApiError(answer.status, "NotFound", text) if answer.status == 404 else internal(text)
