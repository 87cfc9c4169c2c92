"""Log, exec, attach and port-forward of pods, and the proxy paths of nodes, pods and services.

Each request is checked against the stored objects, turned into a path of a kubelet (or an address of a pod), and
forwarded as bytes by kubelets.py.

Spec: Kubernetes API reference, Pod v1 core "proxy operations"; "Access Services Running on Clusters".
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import urlencode

from tiphys.api.kind import JsonObject
from tiphys.apiserver.kubelets import KubeletDialer, Target
from tiphys.apiserver.resources import Call, SubresourceHandler, require
from tiphys.base.errors import ApiError, bad_request, internal, method_not_allowed, service_unavailable
from tiphys.wire.message import Answer, Response

_LOG_OPTIONS = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
)
_STREAM_OPTIONS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def kubelet_handlers(dialer: KubeletDialer | None) -> Mapping[tuple[str, str], SubresourceHandler]:
    """Return the handlers, by (resource, subresource). Without a dialer each refuses."""

    def dial() -> KubeletDialer:
        if dialer is None:
            raise service_unavailable("this API server runs without a network; it reaches no kubelet")
        return dialer

    async def log(call: Call) -> Answer:
        if call.info.verb != "get":
            raise method_not_allowed()
        pod = require(call, call.info.namespace)
        container = _container(pod, call.request.param("container"))
        query = {name: call.request.param(name) for name in _LOG_OPTIONS if call.request.param(name)}
        _check_log_options(query)
        node = _node(call, pod)
        if node is None:
            return Response(200, b"", "text/plain")
        path = _path("containerLogs", pod, container, query)
        return await dial().forward(call.request, dial().kubelet(node), path, checked=True)

    async def stream(call: Call) -> Answer:
        pod, request = require(call, call.info.namespace), call.request
        container = _container(pod, request.param("container"))
        phase = (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            raise internal(f"cannot exec into a container in a completed pod; current phase is {phase}")
        query: list[tuple[str, str]] = [("command", c) for c in request.query.get("command", ())]
        query += [(short, "1") for name, short in _STREAM_OPTIONS if request.param(name) in ("true", "1")]
        node = _require_node(call, pod)
        path = _path(call.info.subresource, pod, container, query)
        return await dial().forward(request, dial().kubelet(node), path)

    async def portforward(call: Call) -> Answer:
        pod = require(call, call.info.namespace)
        node = _require_node(call, pod)
        ports = [("port", port) for port in call.request.query.get("ports", ())]
        return await dial().forward(call.request, dial().kubelet(node), _path("portForward", pod, "", ports))

    async def node_proxy(call: Call) -> Answer:
        scheme, name, port = _proxy_name(call.info.name)
        target = _on_port(dial().kubelet(_stored(call, "nodes", name)), scheme, port)
        return await dial().forward(call.request, target, _rest(call))

    async def pod_proxy(call: Call) -> Answer:
        scheme, name, port = _proxy_name(call.info.name)
        pod = _stored(call, "pods", name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise service_unavailable(f"address not allowed: pod {name} has no address yet")
        number = _pod_port(pod, port)
        return await dial().forward(call.request, Target(address, number, _unverified(scheme)), _rest(call))

    async def service_proxy(call: Call) -> Answer:
        scheme, name, port = _proxy_name(call.info.name)
        service = _stored(call, "services", name)
        address, number = _endpoint(call, service, port)
        return await dial().forward(call.request, Target(address, number, _unverified(scheme)), _rest(call))

    return {
        ("pods", "log"): log,
        ("pods", "exec"): stream,
        ("pods", "attach"): stream,
        ("pods", "portforward"): portforward,
        ("pods", "proxy"): pod_proxy,
        ("nodes", "proxy"): node_proxy,
        ("services", "proxy"): service_proxy,
    }


def _path(what: str, pod: JsonObject, container: str, query: object) -> str:
    metadata = pod["metadata"]
    parts = [what, metadata["namespace"], metadata["name"]] + ([container] if container else [])
    text = urlencode(query, doseq=True) if query else ""  # type: ignore[arg-type]
    return f"/{'/'.join(parts)}" + (f"?{text}" if text else "")


def _container(pod: JsonObject, asked: str) -> str:
    """Return the container that is meant. Raises ApiError(400) in upstream's words."""
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
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if default in plain:
        return str(default)
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(plain)}]"
    if init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(message)


def _check_log_options(query: Mapping[str, str]) -> None:
    for name in ("tailLines", "sinceSeconds", "limitBytes"):
        value = query.get(name)
        if value is None:
            continue
        least = 0 if name == "tailLines" else 1
        if not value.lstrip("-").isdigit() or int(value) < least:
            detail = f"must be greater than or equal to {least}" if least == 0 else "must be greater than 0"
            raise ApiError(
                422,
                "Invalid",
                f'PodLogOptions "" is invalid: {name}: Invalid value: {value}: {detail}',
                details={
                    "kind": "PodLogOptions",
                    "causes": [
                        {
                            "reason": "FieldValueInvalid",
                            "message": f"Invalid value: {value}: {detail}",
                            "field": name,
                        }
                    ],
                },
            )


def _node(call: Call, pod: JsonObject) -> JsonObject | None:
    name = pod["spec"].get("nodeName")
    if not name:
        return None
    nodes = call.registry.kinds.resource("", "v1", "nodes")
    assert nodes is not None
    current = call.registry.current(nodes, "", name)
    if current is None:
        raise internal(f'node "{name}" of pod {pod["metadata"]["name"]} is not in the cluster any more')
    return current.obj


def _require_node(call: Call, pod: JsonObject) -> JsonObject:
    node = _node(call, pod)
    if node is None:
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    return node


def _rest(call: Call) -> str:
    query = f"?{call.request.raw_query}" if call.request.raw_query else ""
    return f"/{call.info.rest}{query}"


def _proxy_name(text: str) -> tuple[str, str, str]:
    """Split `[scheme:]name[:port]`."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0], parts[1], parts[2]
    raise bad_request(f"invalid proxy name {text!r}: want [scheme:]name[:port]")


def _on_port(kubelet: Target, scheme: str, port: str) -> Target:
    """Return the kubelet, or another server of its node, for whose certificate nobody vouches."""
    if not port or port == str(kubelet.port):
        return kubelet
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise bad_request(f"invalid port {port!r}: want a number from 1 to 65535")
    return Target(kubelet.address, int(port), _unverified(scheme))


def _unverified(scheme: str) -> ssl.SSLContext | None:
    """TLS to a pod: encrypted, but nobody vouches for the certificate of a pod, as upstream has it."""
    if scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _stored(call: Call, plural: str, name: str) -> JsonObject:
    kind = call.registry.kinds.resource("", "v1", plural)
    assert kind is not None
    current = call.registry.current(kind, call.info.namespace, name)
    if current is None:
        raise ApiError(404, "NotFound", f'{plural} "{name}" not found', details={"name": name, "kind": plural})
    return current.obj


def _pod_port(pod: JsonObject, port: str) -> int:
    if port.isdigit():
        return int(port)
    for container in pod["spec"].get("containers") or ():
        for item in container.get("ports") or ():
            if not port or item.get("name") == port:
                return int(item["containerPort"])
    if port:
        raise bad_request(f"pod {pod['metadata']['name']} has no port named {port}")
    return 80


def _endpoint(call: Call, service: JsonObject, port: str) -> tuple[str, int]:
    """Return a ready address behind a service port, given by name or number ("" for a single port)."""
    name, ports = service["metadata"]["name"], service["spec"].get("ports") or []
    chosen = [p for p in ports if port in (p.get("name", ""), str(p["port"])) or (not port and len(ports) == 1)]
    if not chosen:
        raise service_unavailable(f'no service port "{port}" found for service "{name}"')
    port_name = chosen[0].get("name", "")
    kind = call.registry.kinds.resource("discovery.k8s.io", "v1", "endpointslices")
    assert kind is not None
    for cached in call.registry.cache.resource(kind.storage_prefix()).objects(call.info.namespace):
        if cached.labels.get("kubernetes.io/service-name") != name:
            continue
        slice_ = cached.decode()
        numbers = [p["port"] for p in slice_.get("ports") or () if (p.get("name") or "") == port_name]
        for endpoint in slice_.get("endpoints") or ():
            if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                return endpoint["addresses"][0], int(numbers[0])
    raise service_unavailable(f'no endpoints available for service "{name}"')
