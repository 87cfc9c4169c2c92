"""Reviews: questions about who somebody is and what they may do, answered and not stored.

Spec: Kubernetes API reference, authentication.k8s.io and authorization.k8s.io; "Checking API Access".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tiphys.api.kind import Context, JsonObject
from tiphys.apiserver.authentication import RequestAuthenticator
from tiphys.apiserver.bodyadmission import admit_body
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.rbac import RbacAuthorizer
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.resources import Call, SubresourceHandler
from tiphys.apiserver.tokens import BadToken
from tiphys.apiserver.user import User
from tiphys.base.errors import bad_request, invalid
from tiphys.wire.message import Answer, Response

_WITHOUT_EMPTY_TIMES = (1, 34)
"""The first version whose answers leave out a creation time that is not set; those before say null."""


def review_handlers(
    authenticator: RequestAuthenticator, authorizer: Authorizer, rbac: RbacAuthorizer, audiences: tuple[str, ...]
) -> Mapping[tuple[str, str], SubresourceHandler]:
    """Return the handlers of the virtual kinds, by (group, plural)."""

    async def subject_access(call: Call) -> Answer:
        review = await _review(call)
        spec = review.get("spec") or {}
        user = User(
            spec.get("user") or "",
            tuple(spec.get("groups") or ()),
            spec.get("uid") or "",
            {key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
        )
        return _answer(call, review, _decide(authorizer, user, spec))

    async def self_subject_access(call: Call) -> Answer:
        review = await _review(call)
        return _answer(call, review, _decide(authorizer, call.user, review.get("spec") or {}))

    async def self_subject_rules(call: Call) -> Answer:
        review = await _review(call)
        namespace = (review.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        rules = [rule for grant in rbac.grants(call.user, namespace) for rule in grant.rule_objects]
        resource = [_only(r, "verbs", "apiGroups", "resources", "resourceNames") for r in rules if r.get("resources")]
        other = [_only(r, "verbs", "nonResourceURLs") for r in rules if r.get("nonResourceURLs")]
        status = {"resourceRules": resource, "nonResourceRules": other, "incomplete": False}
        return _answer(call, review, status)

    async def self_subject(call: Call) -> Answer:
        review = await _review(call)
        review["metadata"] = {"creationTimestamp": call.registry.now()}
        return _answer(call, review, {"userInfo": call.user.info()})

    async def token_review(call: Call) -> Answer:
        review = await _review(call, _require_token)
        spec = review.get("spec") or {}
        wanted = frozenset(spec.get("audiences") or audiences)
        try:
            user, matched = authenticator.check_token(spec["token"], wanted)
        except BadToken as error:
            return _answer(call, review, {"user": {}, "error": str(error)})
        return _answer(call, review, {"authenticated": True, "user": user.info(), "audiences": list(matched)})

    return {
        ("authorization.k8s.io", "subjectaccessreviews"): subject_access,
        ("authorization.k8s.io", "localsubjectaccessreviews"): subject_access,
        ("authorization.k8s.io", "selfsubjectaccessreviews"): self_subject_access,
        ("authorization.k8s.io", "selfsubjectrulesreviews"): self_subject_rules,
        ("authentication.k8s.io", "selfsubjectreviews"): self_subject,
        ("authentication.k8s.io", "tokenreviews"): token_review,
    }


def _require_token(review: JsonObject) -> None:
    if not (review.get("spec") or {}).get("token"):
        raise bad_request("token is required for TokenReview in authentication")


async def _review(call: Call, check: Callable[[JsonObject], None] | None = None) -> JsonObject:
    """Return the question, admitted and valid. `check` looks at it first."""
    kind, context = call.kind, call.context()
    review = call.body(kind, context)
    if check is not None:
        check(review)
    if kind.namespaced:
        review.setdefault("metadata", {}).setdefault("namespace", call.info.namespace)
    await admit_body(call, "CREATE", review, context)
    causes = kind.strategy.validate(review, Context(call.user.name, call.registry.now()))
    if causes:
        raise invalid(kind.group, kind.kind, "", causes)
    return review


def _answer(call: Call, review: JsonObject, status: JsonObject) -> Response:
    review["status"] = status
    metadata = review.setdefault("metadata", {})
    if call.registry.kinds.kubernetes_version < _WITHOUT_EMPTY_TIMES:
        metadata.setdefault("creationTimestamp", None)
    return call.reads.render_object(call.kind, review, call.request, status=201)


def _decide(authorizer: Authorizer, user: User, spec: Mapping[str, Any]) -> JsonObject:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None:
        info = RequestInfo(
            True,
            resource.get("verb") or "",
            "",
            resource.get("group") or "",
            resource.get("version") or "",
            resource.get("namespace") or "",
            resource.get("resource") or "",
            resource.get("name") or "",
            resource.get("subresource") or "",
        )
    else:
        assert path is not None
        info = RequestInfo(False, path.get("verb") or "", path.get("path") or "")
    decision = authorizer.authorize(user, info)
    status: JsonObject = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


def _only(rule: Mapping[str, Any], *keys: str) -> JsonObject:
    return {key: rule[key] for key in _present(rule, keys)}


def _present(rule: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if rule.get(key)]
