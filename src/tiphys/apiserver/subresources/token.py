"""TokenRequest: a service account's token on demand.

Spec: Kubernetes API reference, TokenRequest v1 authentication.k8s.io; "Managing Service Accounts".
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.apiserver.bodyadmission import TOKEN_REQUEST, admit_body
from tiphys.apiserver.nodeauthorizer import NODE_PREFIX
from tiphys.apiserver.resources import Call, SubresourceHandler, require, warning_headers
from tiphys.apiserver.tokens import Bound, Tokens
from tiphys.apiserver.user import NODES
from tiphys.base.clock import format_time
from tiphys.base.errors import Cause, bad_request, conflict, forbidden, invalid, method_not_allowed, not_found
from tiphys.wire.message import Answer, Response

SHORTEST_S = 600
LONGEST_S = 1 << 32
DEFAULT_S = 3600
_BINDABLE = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


def token_handler(tokens: Tokens, audiences: tuple[str, ...]) -> SubresourceHandler:
    """Return the handler of serviceaccounts/token."""

    async def handle(call: Call) -> Answer:
        if call.info.verb != "create":
            raise method_not_allowed()
        kind = call.registry.kinds.by_kind("authentication.k8s.io", "v1", "TokenRequest")
        assert kind is not None
        context = call.context()
        body = call.body(kind, context)
        await admit_body(call, "CREATE", body, context, TOKEN_REQUEST)
        spec: dict[str, Any] = body.get("spec") or {}
        lifetime_s = DEFAULT_S if spec.get("expirationSeconds") is None else spec["expirationSeconds"]
        _check_lifetime(lifetime_s, call.info.name)
        account = require(call, call.info.namespace)
        _check_node(call, spec.get("boundObjectRef") or {})
        bound = _bound_objects(call, spec.get("boundObjectRef") or {})
        wanted = tuple(spec.get("audiences") or audiences)
        token, expires_s = tokens.issue(call.info.namespace, account, wanted, lifetime_s, bound)
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": call.info.name,
                "namespace": call.info.namespace,
                "creationTimestamp": call.registry.now(),
            },
            "spec": {
                "audiences": list(wanted),
                "expirationSeconds": lifetime_s,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": format_time(expires_s)},
        }
        return Response(201, orjson.dumps(answer), headers=warning_headers(context.warnings))

    return handle


def _check_lifetime(lifetime_s: Any, name: str) -> None:
    if isinstance(lifetime_s, bool) or not isinstance(lifetime_s, int):
        raise bad_request("spec.expirationSeconds must be an integer")
    detail = ""
    if lifetime_s < SHORTEST_S:
        detail = "may not specify a duration less than 10 minutes"
    elif lifetime_s > LONGEST_S:
        detail = "may not specify a duration larger than 2^32 seconds"
    if detail:
        cause = Cause("FieldValueInvalid", "spec.expirationSeconds", f"Invalid value: {lifetime_s}: {detail}")
        raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])


def _check_node(call: Call, ref: dict[str, Any]) -> None:
    """A kubelet gets tokens for the pods on its own node only (admission plugin NodeRestriction). Raises ApiError(403)."""
    user = call.user
    if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
        return
    why = "node requested token not bound to a pod"
    if ref.get("kind") == "Pod":
        pods = call.registry.kinds.resource("", "v1", "pods")
        assert pods is not None
        pod = call.registry.current(pods, call.info.namespace, ref.get("name", ""))
        if pod is not None and pod.obj["spec"].get("nodeName") == user.name.removeprefix(NODE_PREFIX):
            return
        why = "node requested token bound to a pod scheduled on a different node"
    raise forbidden("", "serviceaccounts", call.info.name, why)


def _bound_objects(call: Call, ref: dict[str, Any]) -> list[Bound]:
    """Return what the token is to be bound to; a pod's node comes along."""
    if not ref:
        return []
    kind_name, name = ref.get("kind", ""), ref.get("name", "")
    plural = _BINDABLE.get(kind_name)
    if plural is None:
        raise bad_request(f"cannot bind token for serviceaccount to object {ref.get('apiVersion')}, Kind={kind_name}")
    kind = call.registry.kinds.resource("", "v1", plural)
    assert kind is not None
    current = call.registry.current(kind, call.info.namespace if kind.namespaced else "", name)
    if current is None:
        raise not_found("", plural, name)
    uid = current.obj["metadata"]["uid"]
    if ref.get("uid") and ref["uid"] != uid:
        why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record ({uid})"
        raise conflict("", plural, name, why)
    bound = [Bound(kind_name, name, uid)]
    if kind_name == "Pod":
        spec = current.obj["spec"]
        account = spec.get("serviceAccountName") or "default"
        if account != call.info.name:
            raise bad_request(
                f"cannot bind token for serviceaccount {call.info.name!r} to pod running with different "
                f"serviceaccount name."
            )
        node = _node_of(call, spec.get("nodeName") or "")
        if node is not None:
            bound.append(node)
    return bound


def _node_of(call: Call, name: str) -> Bound | None:
    nodes = call.registry.kinds.resource("", "v1", "nodes")
    current = call.registry.current(nodes, "", name) if nodes is not None and name else None
    return None if current is None else Bound("Node", name, current.obj["metadata"]["uid"])
