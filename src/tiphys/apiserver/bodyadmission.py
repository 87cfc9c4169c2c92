"""Admission of requests whose body is not the object that they change: scales, evictions, bindings, tokens, reviews, and
the options of connections (exec, attach, port-forward, proxy).

Webhooks and policies see that body; built-in plugins see the write that comes of it, if any, through the registry.
Without a webhook or policy in force nothing is done here at all.

DIFFERS: what a mutating webhook makes of the options of a CONNECT is checked by the webhooks after it and then not used:
the connection is made as the client asked.
Spec: Kubernetes documentation, "Dynamic Admission Control" (CONNECT operations, subresources); API reference,
PodExecOptions and its like, core v1.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import AdmissionOperation, Attributes, Body
from tiphys.apiserver.registry import WriteContext
from tiphys.apiserver.resources import Call, SubresourceHandler
from tiphys.wire.message import Answer

SCALE = Body("autoscaling", "v1", "Scale")
EVICTION = Body("policy", "v1", "Eviction")
BINDING = Body("", "v1", "Binding")
TOKEN_REQUEST = Body("authentication.k8s.io", "v1", "TokenRequest")

_CONNECT_OPTIONS: Mapping[tuple[str, str], str] = {
    ("pods", "exec"): "PodExecOptions",
    ("pods", "attach"): "PodAttachOptions",
    ("pods", "portforward"): "PodPortForwardOptions",
    ("pods", "proxy"): "PodProxyOptions",
    ("nodes", "proxy"): "NodeProxyOptions",
    ("services", "proxy"): "ServiceProxyOptions",
}
_STREAMS = ("stdin", "stdout", "stderr", "tty")


async def admit_body(
    call: Call,
    operation: AdmissionOperation,
    obj: JsonObject,
    context: WriteContext,
    body: Body | None = None,
    *,
    old: JsonObject | None = None,
) -> None:
    """Let webhooks and policies change `obj` in place or refuse it. `body` None: it is of the request's own kind.

    Raises ApiError.
    """
    admission = call.registry.admission
    if not admission.looks_at_bodies():
        return
    info, metadata = call.info, obj.get("metadata") or {}
    attributes = Attributes(
        operation,
        call.kind,
        info.namespace if call.kind.namespaced else "",
        info.name or metadata.get("name") or "",
        call.user,
        obj,
        old,
        info.subresource,
        context.dry_run,
        context.warnings,
        requested=call.kind,
        body=body,
        parameters=context.parameters,
        deadline_s=context.deadline_s,
        audit=call.request.notes,
    )
    await admission.mutate(attributes)
    await admission.validate(attributes)


def admitting_connections(
    handlers: Mapping[tuple[str, str], SubresourceHandler],
) -> Mapping[tuple[str, str], SubresourceHandler]:
    """Return the handlers, those that connect to a pod, node or service behind webhooks and policies."""
    return {key: _admitting(handler, _CONNECT_OPTIONS.get(key, "")) for key, handler in handlers.items()}


def _admitting(handler: SubresourceHandler, kind: str) -> SubresourceHandler:
    if not kind:
        return handler

    async def handle(call: Call) -> Answer:
        if call.registry.admission.looks_at_bodies():
            options: JsonObject = {"kind": kind, "apiVersion": "v1", **_options(call)}
            await admit_body(call, "CONNECT", options, WriteContext(call.user), Body("", "v1", kind))
        return await handler(call)

    return handle


def _options(call: Call) -> JsonObject:
    """Return the parameters of a connection as its options object has them."""
    request, subresource = call.request, call.info.subresource
    if subresource == "proxy":
        return {"path": f"/{call.info.rest}"}
    if subresource == "portforward":
        ports = [int(port) for port in request.query.get("ports", ()) if port.isdigit()]
        return {"ports": ports} if ports else {}
    options: JsonObject = {name: True for name in _STREAMS if request.param(name) in ("true", "1")}
    if request.param("container"):
        options["container"] = request.param("container")
    if subresource == "exec":
        options["command"] = list(request.query.get("command", ()))
    return options
