"""What a request asks for, read from its method and path alone.

Authorization, flow control, audit and routing all decide on this record, so they can never disagree. Pure.

Spec: Kubernetes API concepts, "Resource URIs" and "API verbs"; authorization overview, "Determine the request verb".
"""

from __future__ import annotations

import msgspec

from tiphys.wire.message import Request

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES_WITH_PATH = frozenset({"proxy"})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


class RequestInfo(msgspec.Struct, frozen=True, gc=False):
    """`is_resource` False leaves everything but `verb` (the method in lower case) and `path` empty."""

    is_resource: bool
    verb: str
    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """The path behind a proxy subresource, without the leading slash."""


def parse_request_info(request: Request) -> RequestInfo:
    """Return what the request asks for; a path that names no resource is a non-resource request."""
    method, path = request.method, request.path
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(False, method.lower(), path)
    verb = _VERBS.get(method, "")  # other methods have none: only who may do everything may send them to a proxy
    if parts[0] == "watch" and len(parts) > 1 and verb == "get":
        verb, parts = "watch", parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, parts = parts[1], parts[2:]
    elif parts[0] == "namespaces" and len(parts) > 1:
        # a request to the Namespace object itself is also a request within that namespace
        namespace = parts[1]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    rest = ""
    if len(parts) > 3:
        if subresource not in _SUBRESOURCES_WITH_PATH:
            subresource = "/".join(parts[2:])
        else:
            rest = "/".join(parts[3:])
            if path.endswith("/"):
                rest += "/"
    verb = _collection_verb(request, verb, name)
    if not name and verb in ("list", "watch") and "metadata.name" in request.raw_query:
        name = _selected_name(request)
    return RequestInfo(True, verb, path, group, version, namespace, resource, name, subresource, rest)


def _collection_verb(request: Request, verb: str, name: str) -> str:
    if verb == "delete" and not name:
        return "deletecollection"
    if verb != "get":
        return verb
    if not name:
        watching = "watch" in request.raw_query and request.param("watch", "0") in ("1", "true", "True", "")
        return "watch" if watching else "list"
    return "get"


def _selected_name(request: Request) -> str:
    """A list or watch of exactly one name is authorized like a get of it (kubelets watch single Secrets so)."""
    terms = [term.partition("=") for term in request.param("fieldSelector").split(",")]
    names = [value.lstrip("=") for key, _, value in terms if key == "metadata.name"]
    return names[0] if len(names) == 1 else ""
