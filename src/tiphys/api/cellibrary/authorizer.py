"""The authorizer library: what the user of a request, or a service account, may do.

A caller that offers `authorizer` to expressions binds `AuthorizerValue(ask)`, and `request_resource(ask, question)` to
`authorizer.requestResource`; `ask` answers one `Question` and is called by `check` only. A check costs so much that an
expression has room for two.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes authorizer library".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tiphys.api import names
from tiphys.api.cellibrary.costs import CHEAP, fixed
from tiphys.cel import types
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type

CHECK_COST = 350_000

AUTHORIZER = types.opaque("kubernetes.authorization.Authorizer")
PATH_CHECK = types.opaque("kubernetes.authorization.PathCheck")
GROUP_CHECK = types.opaque("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK = types.opaque("kubernetes.authorization.ResourceCheck")
DECISION = types.opaque("kubernetes.authorization.Decision")


@dataclass(frozen=True, slots=True)
class Question:
    """One access that is asked about. `path` for paths that are no resource; then the resource's fields are empty."""

    verb: str = ""
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""
    service_account: tuple[str, str] | None = None
    """(namespace, name) of the one who is asked about; None: the user of the request."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a question. `error` is "" if it could be decided."""

    allowed: bool
    reason: str = ""
    error: str = ""
    cel_type: ClassVar[Type] = DECISION


Ask = Callable[[Question], Decision]


@dataclass(frozen=True, slots=True)
class AuthorizerValue:
    """The variable `authorizer`."""

    ask: Ask
    service_account: tuple[str, str] | None = None
    cel_type: ClassVar[Type] = AUTHORIZER


@dataclass(frozen=True, slots=True)
class PathCheck:
    ask: Ask
    question: Question
    cel_type: ClassVar[Type] = PATH_CHECK


@dataclass(frozen=True, slots=True)
class GroupCheck:
    ask: Ask
    question: Question
    cel_type: ClassVar[Type] = GROUP_CHECK


@dataclass(frozen=True, slots=True)
class ResourceCheck:
    ask: Ask
    question: Question
    cel_type: ClassVar[Type] = RESOURCE_CHECK


def request_resource(ask: Ask, question: Question) -> ResourceCheck:
    """Return the value of `authorizer.requestResource`: the resource of the request itself."""
    return ResourceCheck(ask, question)


def _path(authorizer: AuthorizerValue, path: str) -> PathCheck:
    if not path.strip():
        raise EvaluationError("path must not be empty")
    return PathCheck(authorizer.ask, Question(path=path, service_account=authorizer.service_account))


def _group(authorizer: AuthorizerValue, group: str) -> GroupCheck:
    return GroupCheck(authorizer.ask, Question(group=group, service_account=authorizer.service_account))


def _service_account(authorizer: AuthorizerValue, namespace: str, name: str) -> AuthorizerValue:
    problems = names.validate_dns_subdomain(name)
    if problems:
        raise EvaluationError(f"Invalid service account name: [{' '.join(problems)}]")
    problems = names.validate_dns_label(namespace)
    if problems:
        raise EvaluationError(f"Invalid service account namespace: [{' '.join(problems)}]")
    return AuthorizerValue(authorizer.ask, (namespace, name))


def _resource(check: GroupCheck, resource: str) -> ResourceCheck:
    if not resource.strip():
        raise EvaluationError("resource must not be empty")
    return ResourceCheck(check.ask, replace(check.question, resource=resource))


def with_part(field: str) -> Callable[[ResourceCheck, str], ResourceCheck]:
    """Return the function that sets a field of a resource check's question."""

    def call(check: ResourceCheck, text: str) -> ResourceCheck:
        changed: dict[str, Any] = {field: text}
        return ResourceCheck(check.ask, replace(check.question, **changed))

    return call


def _check(check: PathCheck | ResourceCheck, verb: str) -> Decision:
    return check.ask(replace(check.question, verb=verb))


_S = types.STRING
_CHECKED = fixed(CHECK_COST)


def _member(name: str, overload: str, arguments: tuple[Type, ...], result: Type, call: Callable[..., Any]) -> Function:
    return Function(name, (Overload(overload, arguments, result, call, member=True, cost=CHEAP),))


LIBRARY: Library = (
    _member("path", "authorizer_path", (AUTHORIZER, _S), PATH_CHECK, _path),
    _member("group", "authorizer_group", (AUTHORIZER, _S), GROUP_CHECK, _group),
    _member("serviceAccount", "authorizer_serviceaccount", (AUTHORIZER, _S, _S), AUTHORIZER, _service_account),
    _member("resource", "groupcheck_resource", (GROUP_CHECK, _S), RESOURCE_CHECK, _resource),
    *(
        _member(name, f"resourcecheck_{name}", (RESOURCE_CHECK, _S), RESOURCE_CHECK, with_part(name))
        for name in ("subresource", "namespace", "name")
    ),
    Function(
        "check",
        (
            Overload("pathcheck_check", (PATH_CHECK, _S), DECISION, _check, member=True, cost=_CHECKED),
            Overload("resourcecheck_check", (RESOURCE_CHECK, _S), DECISION, _check, member=True, cost=_CHECKED),
        ),
    ),
    _member("allowed", "decision_allowed", (DECISION,), types.BOOL, lambda decision: decision.allowed),
    _member("reason", "decision_reason", (DECISION,), _S, lambda decision: decision.reason),
    _member("errored", "decision_errored", (DECISION,), types.BOOL, lambda decision: bool(decision.error)),
    _member("error", "decision_error", (DECISION,), _S, lambda decision: decision.error),
)
