"""The proxy paths of nodes, pods and services: `.../proxy` and everything below it is the backend's.

Each request is checked against the stored objects, which say where it goes; backends.py sends it there. Names are
`[scheme:]name[:port]`. A service's endpoints are proxied to only when they are pods, so that nobody reaches any address
that they care to write into an endpoint.

Spec: Kubernetes API reference, Pod, Service and Node v1 core "proxy operations"; "Access Services Running on Clusters".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from tiphys.api.kind import JsonObject
from tiphys.apiserver.backends import Target, passed_headers
from tiphys.apiserver.endpoints import ready_endpoints, slices_of
from tiphys.apiserver.kubelets import KubeletDialer
from tiphys.apiserver.resources import Call, SubresourceHandler
from tiphys.base.errors import ApiError, bad_request, not_found, service_unavailable
from tiphys.wire.message import Answer, Request, Response

_SCHEMES = ("", "http", "https")
_DEFAULT_PORTS = {"": 80, "http": 80, "https": 443}
_PATH_SAFE = "$&+,/:;=@~"
"""What a path may hold unescaped."""


def proxy_handlers(dial: Callable[[], KubeletDialer]) -> Mapping[tuple[str, str], SubresourceHandler]:
    """Return the handlers, by (resource, subresource). `dial` gives the dialer or raises ApiError."""

    async def node_proxy(call: Call) -> Answer:
        scheme, name, port = split_name(call.info.name, "node")
        kubelet = dial().kubelet(_stored(call, "nodes", name))
        if not port or port == str(kubelet.port):
            return await _forward(call, dial(), kubelet)
        return await _forward(call, dial(), Target(kubelet.address, _number(port), dial().unverified(scheme)))

    async def pod_proxy(call: Call) -> Answer:
        scheme, name, port = split_name(call.info.name, "pod")
        pod = _stored(call, "pods", name)
        address = (pod.get("status") or {}).get("podIP") or ""
        if not _is_global(address):
            raise bad_request("address not allowed")
        number = _pod_port(pod, port) or _DEFAULT_PORTS[scheme]
        return await _forward(call, dial(), Target(address, number, dial().unverified(scheme)))

    async def service_proxy(call: Call) -> Answer:
        scheme, name, port = split_name(call.info.name, "service")
        service = _stored(call, "services", name)
        address, number = _endpoint(call, service, port)
        return await _forward(call, dial(), Target(address, number, dial().unverified(scheme)))

    return {
        ("pods", "proxy"): pod_proxy,
        ("nodes", "proxy"): node_proxy,
        ("services", "proxy"): service_proxy,
    }


def split_name(text: str, what: str) -> tuple[str, str, str]:
    """Split `[scheme:]name[:port]`. Raises ApiError(400)."""
    parts = text.split(":")
    scheme, name, port = "", parts[0], ""
    if len(parts) == 2:
        port = parts[1]
    elif len(parts) > 2:
        scheme, name, port = parts[:3]
    if len(parts) > 3 or not name or scheme not in _SCHEMES:
        raise bad_request(f'invalid {what} request "{text}"')
    return scheme, name, port


async def _forward(call: Call, dialer: KubeletDialer, target: Target) -> Answer:
    request, path = call.request, proxied_path(call)
    if not path and request.method in ("GET", "HEAD"):
        query = f"?{request.raw_query}" if request.raw_query else ""
        return Response(301, b"", "", [("Location", f"{request.path}/{query}")])
    from tiphys.apiserver.linkrewrite import Links

    prefix = request.path.removesuffix(path) if path else request.path
    host = request.headers.get("host", "")
    forwarded = [("X-Forwarded-Uri", quote(prefix + (path or ""), safe=_PATH_SAFE))]
    headers = passed_headers(request, *([("Host", host)] if host else []), *forwarded)
    return await dialer.forward(
        request, target, _encoded(request, path), headers=headers, links=Links(prefix.rstrip("/"), host, target.host)
    )


def proxied_path(call: Call) -> str:
    """Return the decoded path behind `/proxy`, "" if there is not even a slash."""
    path = f"/{call.info.rest}" if call.info.rest else ""
    if call.request.path.endswith("/") and not path.endswith("/"):
        path += "/"
    return path


def _encoded(request: Request, path: str) -> str:
    query = f"?{request.raw_query}" if request.raw_query else ""
    return f"{quote(path, safe=_PATH_SAFE) or '/'}{query}"


def _number(port: str) -> int:
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise bad_request(f"invalid port {port!r}: want a number from 1 to 65535")
    return int(port)


def _is_global(address: str) -> bool:
    """Tell whether an address may be a pod's: no loopback, link-local, multicast or unspecified one."""
    from ipaddress import ip_address

    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def _stored(call: Call, plural: str, name: str) -> JsonObject:
    kind = call.registry.kinds.resource("", "v1", plural)
    assert kind is not None
    current = call.registry.current(kind, call.info.namespace if kind.namespaced else "", name)
    if current is None:
        raise not_found("", plural, name)
    return current.obj


def _pod_port(pod: JsonObject, port: str) -> int | None:
    """Return the port that is asked for, else the first that a container declares, None if none does."""
    if port.isdigit():
        return _number(port)
    for container in pod["spec"].get("containers") or ():
        for item in container.get("ports") or ():
            if not port or item.get("name") == port:
                return int(item["containerPort"])
    if port:
        raise bad_request(f"pod {pod['metadata']['name']} has no port named {port}")
    return None


def _endpoint(call: Call, service: JsonObject, port: str) -> tuple[str, int]:
    """Return address and port of a ready pod behind a service port, given by name or number ("" for the unnamed)."""
    name = service["metadata"]["name"]
    if port.isdigit():
        chosen = [p for p in service["spec"].get("ports") or () if str(p["port"]) == port]
        if not chosen:
            raise service_unavailable(f'no service port {port} found for service "{name}"')
        port = chosen[0].get("name") or ""
    kind = call.registry.kinds.resource("discovery.k8s.io", "v1", "endpointslices")
    assert kind is not None
    slices = call.registry.cache.resource(kind.storage_prefix())
    found = [
        address
        for part in slices_of(slices, call.info.namespace, name)
        for address, endpoint in ready_endpoints(part, port)
        if _is_pod(call, address[0], endpoint)
    ]
    if not found:
        raise service_unavailable(f'no endpoints available for service "{call.info.name}"')
    return found[call.registry.randomness.integer(0, len(found) - 1)]


def _is_pod(call: Call, address: str, endpoint: JsonObject) -> bool:
    """Tell whether an endpoint is a pod of that address."""
    target = endpoint.get("targetRef") or {}
    if target.get("kind") != "Pod":
        return False
    try:
        pod = _stored(call, "pods", target.get("name") or "")
    except ApiError:
        return False
    status = pod.get("status") or {}
    known = {status.get("podIP"), *(each.get("ip") for each in status.get("podIPs") or ())}
    return address in known
