"""What the expressions of admission read: object, oldObject, request, params, namespaceObject, authorizer.

Policies and match conditions of webhooks evaluate over the same `Inputs`, made once for a request and the version that
a policy matched. A field that Go would leave out when it is empty (`request.subResource`) is absent here too.

Spec: Kubernetes documentation, "Validating Admission Policy" (variables of validation expressions); API reference,
AdmissionRequest v1 admission.k8s.io.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from tiphys.api.admissionexpressions import NAMESPACE_METADATA_FIELDS
from tiphys.api.cellibrary.authorizer import AuthorizerValue, Decision, Question, request_resource
from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.rulematching import is_namespace, namespace_of
from tiphys.apiserver.user import User, service_account_user
from tiphys.apiserver.webhooks.review import shown_object
from tiphys.base.errors import not_found

ANSWER_S = 10.0
"""How long an expression in another thread waits for an authorizer."""


class Inputs:
    """The variables of one request, but for params. `obj` and `old` are in the version of `matched`."""

    def __init__(
        self,
        attributes: Attributes,
        matched: Kind,
        obj: JsonObject | None,
        old: JsonObject | None,
        namespaces: ResourceCache,
        authorizer: Authorizer,
        *,
        mutating: bool = False,
    ) -> None:
        self.base = obj
        """The object itself; expressions see it without what it gets only when it is stored."""
        ask = _asker(authorizer, attributes.user)
        self._bindings: dict[str, Any] = {
            "object": shown_object(obj, attributes, mutating=mutating, is_old=False),
            "oldObject": shown_object(old, attributes, mutating=mutating, is_old=True),
            "request": request_value(attributes, matched, mutating=mutating),
            "namespaceObject": namespace_value(attributes, namespaces),
            "authorizer": AuthorizerValue(ask),
            "authorizer.requestResource": request_resource(ask, _own_question(attributes)),
        }

    def bindings(self, params: JsonObject | None = None) -> dict[str, Any]:
        """Return the variables by name."""
        return {**self._bindings, "params": params}


def request_value(attributes: Attributes, matched: Kind, *, mutating: bool = False) -> JsonObject:
    """Return the variable `request`. While the object may still be changed, a generated name is not told."""
    requested, body = attributes.requested_kind, attributes.body
    request: JsonObject = {
        "kind": _kind(matched) if body is None else body._asdict(),
        "resource": _resource(matched),
        "requestKind": _kind(requested) if body is None else body._asdict(),
        "requestResource": _resource(requested),
        "operation": attributes.operation,
        "userInfo": attributes.user.info(),
        "dryRun": attributes.dry_run,
        "options": attributes.options or None,
    }
    told = {
        "subResource": attributes.subresource,
        "requestSubResource": attributes.subresource,
        "name": "" if mutating and attributes.name_is_generated else attributes.told_name,
        "namespace": namespace_of(attributes),
    }
    request.update((field, text) for field, text in told.items() if text)
    return request


def _kind(kind: Kind) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _resource(kind: Kind) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "resource": kind.plural}


def namespace_value(attributes: Attributes, namespaces: ResourceCache) -> JsonObject | None:
    """Return the variable `namespaceObject`, None for objects in no namespace. Raises ApiError(404)."""
    if not attributes.namespace or is_namespace(attributes):
        return None
    cached = namespaces.get("", attributes.namespace)
    if cached is None:
        raise not_found("", "namespaces", attributes.namespace)
    obj = cached.decode()
    metadata = {key: value for key, value in obj["metadata"].items() if key in NAMESPACE_METADATA_FIELDS}
    return {"metadata": metadata, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}}


def _own_question(attributes: Attributes) -> Question:
    kind = attributes.requested_kind
    return Question(
        group=kind.group,
        resource=kind.plural,
        subresource=attributes.subresource,
        namespace=namespace_of(attributes),
        name=attributes.told_name,
    )


def _asker(authorizer: Authorizer, user: User) -> Callable[[Question], Decision]:
    """Return what answers an expression's questions, in the event loop's thread wherever the expression runs."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def decide(question: Question) -> Decision:
        who = user
        if question.service_account is not None:
            who = service_account_user(*question.service_account, "", {})
        decision = authorizer.authorize(who, _request_info(question))
        return Decision(decision.allowed, decision.reason)

    async def decide_at_home(question: Question) -> Decision:
        return decide(question)

    def ask(question: Question) -> Decision:
        if threading.get_ident() == home:
            return decide(question)
        return asyncio.run_coroutine_threadsafe(decide_at_home(question), loop).result(ANSWER_S)

    return ask


def _request_info(question: Question) -> RequestInfo:
    """Return a question of an expression as authorizers take it. Selectors decide nothing in RBAC."""
    if question.path:
        return RequestInfo(False, question.verb, question.path)
    return RequestInfo(
        True,
        question.verb,
        "",
        question.group,
        "*",
        question.namespace,
        question.resource,
        question.name,
        question.subresource,
    )
