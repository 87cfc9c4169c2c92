"""Log, exec, attach and port-forward of pods: what the node of a pod does for clients.

Each request is checked against the stored pod and turned into a path of its node's kubelet; kubelets.py sends it there.
The proxy paths are beside, in proxy.py.

Spec: Kubernetes API reference, Pod v1 core (read log; connect exec, attach, portforward); KEP-4006 (permission of
sessions over WebSockets).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from tiphys.api.kind import JsonObject
from tiphys.apiserver.kubelets import KubeletDialer
from tiphys.apiserver.pipeline import Authorizer, denial
from tiphys.apiserver.resources import Call, SubresourceHandler, require
from tiphys.apiserver.subresources.log import is_set, log_query
from tiphys.apiserver.subresources.proxy import proxy_handlers
from tiphys.base.errors import bad_request, method_not_allowed, not_found, service_unavailable
from tiphys.wire.message import Answer, Response

CREATE_FROM = (1, 35)
"""Kubernetes version from which `get` alone is not enough for a session over a WebSocket."""
_STREAM_OPTIONS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))


def kubelet_handlers(
    dialer: KubeletDialer | None, authorizer: Authorizer
) -> Mapping[tuple[str, str], SubresourceHandler]:
    """Return the handlers, by (resource, subresource). Without a dialer each refuses."""

    def dial() -> KubeletDialer:
        if dialer is None:
            raise service_unavailable("this API server runs without a network; it reaches no kubelet")
        return dialer

    async def log(call: Call) -> Answer:
        if call.info.verb != "get":
            raise method_not_allowed()
        query = log_query(call.request, call.info.name)
        pod = require(call, call.info.namespace)
        container = container_of(pod, call.request.param("container"))
        node = _node(call, pod)
        if node is None:
            return Response(200, b"", "text/plain")
        kubelet = dial().kubelet(node)
        if is_set(call.request, "insecureSkipTLSVerifyBackend"):
            kubelet = dial().insecure(kubelet)
        return await dial().text(call.request, kubelet, _path("containerLogs", pod, container, query))

    async def stream(call: Call) -> Answer:
        _check_may_create(call, authorizer)
        pod, request = require(call, call.info.namespace), call.request
        container = container_of(pod, request.param("container"))
        query: list[tuple[str, str]] = [("command", c) for c in request.query.get("command", ())]
        query += [(short, "1") for name, short in _STREAM_OPTIONS if is_set(request, name)]
        node = _require_node(call, pod)
        path = _path(call.info.subresource, pod, container, query)
        return await dial().session(request, dial().kubelet(node), path)

    async def portforward(call: Call) -> Answer:
        _check_may_create(call, authorizer)
        pod = require(call, call.info.namespace)
        node = _require_node(call, pod)
        ports = [("port", port) for port in call.request.query.get("ports", ())]
        return await dial().session(call.request, dial().kubelet(node), _path("portForward", pod, "", ports))

    return {
        ("pods", "log"): log,
        ("pods", "exec"): stream,
        ("pods", "attach"): stream,
        ("pods", "portforward"): portforward,
        **proxy_handlers(dial),
    }


def _check_may_create(call: Call, authorizer: Authorizer) -> None:
    """A session that begins with a GET, as WebSockets do, takes the permission to create one as well."""
    if call.info.verb == "create" or call.registry.kinds.kubernetes_version < CREATE_FROM:
        return
    info = msgspec.structs.replace(call.info, verb="create")
    decision = authorizer.authorize(call.user, info)
    if not decision.allowed:
        raise denial(call.user, info, decision.reason)


def _path(what: str, pod: JsonObject, container: str, query: list[tuple[str, str]]) -> str:
    metadata = pod["metadata"]
    parts = [what, metadata["namespace"], metadata["name"]] + ([container] if container else [])
    text = urlencode(query)
    return f"/{'/'.join(parts)}" + (f"?{text}" if text else "")


def container_of(pod: JsonObject, asked: str) -> str:
    """Return the container that is meant. Raises ApiError(400) in upstream's words.

    The annotation that names a default container is the client's business: kubectl reads it and asks for that one.
    """
    spec, name = pod["spec"], pod["metadata"]["name"]
    plain = [c["name"] for c in spec.get("containers") or ()]
    init = [c["name"] for c in spec.get("initContainers") or ()]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    if asked:
        if asked in (*plain, *init, *ephemeral):
            return asked
        raise bad_request(f"container {asked} is not valid for pod {name}")
    if len(plain) == 1:
        return str(plain[0])
    message = f"a container name must be specified for pod {name}"
    if plain:
        message += f", choose one of: [{' '.join(plain)}]"
    if plain and init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(message)


def _node(call: Call, pod: JsonObject) -> JsonObject | None:
    name = pod["spec"].get("nodeName")
    if not name:
        return None
    nodes = call.registry.kinds.resource("", "v1", "nodes")
    assert nodes is not None
    current = call.registry.current(nodes, "", name)
    if current is None:
        raise not_found("", "nodes", name)
    return current.obj


def _require_node(call: Call, pod: JsonObject) -> JsonObject:
    node = _node(call, pod)
    if node is None:
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    return node
