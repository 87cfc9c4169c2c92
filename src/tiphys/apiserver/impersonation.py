"""Acting as somebody else: what the Impersonate-* headers ask for, and whether the requester may.

Every part (the user or service account, each group, the uid, each value of an extra key) is authorized by itself
against the real user. The pipeline hands in a request that has such headers and goes on with the user that comes out.
Invariant: who is impersonated was allowed part by part; nothing of the real user remains.

From 1.36 on a user may be allowed to act as somebody for some verbs only (`constrained`): both who it is and what is done
need leave then. Who has not both still needs the unlimited one.

Spec: Kubernetes documentation, "User impersonation" (constrained impersonation); KEP-5284.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import (
    ANONYMOUS,
    AUTHENTICATED,
    SERVICE_ACCOUNT_PREFIX,
    UNAUTHENTICATED,
    User,
)
from tiphys.base.errors import bad_request

USER = "impersonate-user"
GROUP = "impersonate-group"
UID = "impersonate-uid"
EXTRA_PREFIX = "impersonate-extra-"
GROUP_NAME = "authentication.k8s.io"
NODE_PREFIX = "system:node:"
NODES = "system:nodes"
NODE_NAME = "authentication.kubernetes.io/node-name"
CONSTRAINED_SINCE = (1, 36)


class Part(NamedTuple):
    """One thing that is impersonated, as a reference to an object that does not exist."""

    kind: str
    name: str
    namespace: str = ""
    key: str = ""

    def info(self) -> RequestInfo:
        """Return what must be allowed."""
        resource = {"ServiceAccount": "serviceaccounts", "User": "users", "Group": "groups", "UID": "uids"}
        group = GROUP_NAME if self.kind in ("UID", "UserExtra") else ""
        plural = resource.get(self.kind, "userextras")
        return RequestInfo(True, "impersonate", "", group, "v1", self.namespace, plural, self.name, self.key)

    def __str__(self) -> str:
        version = f"{GROUP_NAME}/v1" if self.kind in ("UID", "UserExtra") else ""
        return f"{{{self.kind} {self.namespace} {self.name}  {version}  {self.key}}}"


def is_impersonating(headers: Mapping[str, str]) -> bool:
    """Return whether a request asks to act as somebody else."""
    return USER in headers or GROUP in headers or UID in headers


def impersonate(headers: Mapping[str, str], check: Callable[[RequestInfo], None]) -> User:
    """Return the user that a request acts as. `check` raises when the requester may not; raises 400 without a user."""
    parts = list(_parts(headers))
    if not headers.get(USER):
        raise bad_request(f"requested [{' '.join(map(str, parts))}] without impersonating a user")
    for part in parts:
        check(part.info())
    groups = [part.name for part in parts if part.kind == "Group"]
    extra: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part.kind == "UserExtra":
            extra[part.key] = (*extra.get(part.key, ()), part.name)
    name = headers[USER]
    if not groups and parts[0].kind == "ServiceAccount":
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{parts[0].namespace}"]
    if name == ANONYMOUS:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    return User(name, tuple(groups), headers.get(UID, ""), extra)


def constrained(
    headers: Mapping[str, str], user: User, request: RequestInfo, allows: Callable[[RequestInfo], bool]
) -> User | None:
    """Return the user that a request may act as for what it does, None if it may not by these rules."""
    parts = list(_parts(headers))
    for mode, checks in _modes(headers.get(USER, ""), parts, user):
        on = msgspec.structs.replace(request, verb=f"impersonate-on:{mode}:{request.verb}")
        if all(allows(info) for info in checks) and allows(on):
            acting = impersonate(headers, lambda info: None)
            return User(acting.name, (NODES, AUTHENTICATED)) if mode.endswith("-node") else acting
    return None


def _modes(name: str, parts: list[Part], user: User) -> Iterator[tuple[str, list[RequestInfo]]]:
    """Yield the ways in which somebody may be impersonated, each with what must be allowed of who it is."""
    if name.startswith(NODE_PREFIX):
        if len(parts) == 1:  # groups and the like do not go with a node
            node = name.removeprefix(NODE_PREFIX)
            if user.name.startswith(SERVICE_ACCOUNT_PREFIX) and user.extra.get(NODE_NAME) == (node,):
                yield "associated-node", [_identity("impersonate:associated-node", "nodes", node)]
            yield "arbitrary-node", [_identity("impersonate:arbitrary-node", "nodes", node)]
    elif name.startswith(SERVICE_ACCOUNT_PREFIX):
        if len(parts) == 1 and parts[0].kind == "ServiceAccount":
            account = parts[0]
            yield (
                "serviceaccount",
                [_identity("impersonate:serviceaccount", "serviceaccounts", account.name, account.namespace)],
            )
    elif name:
        verb = "impersonate:user-info"
        yield "user-info", [msgspec.structs.replace(part.info(), verb=verb, group=GROUP_NAME) for part in parts]


def _identity(verb: str, plural: str, name: str, namespace: str = "") -> RequestInfo:
    return RequestInfo(True, verb, "", GROUP_NAME, "v1", namespace, plural, name)


def _parts(headers: Mapping[str, str]) -> Iterator[Part]:
    """Yield what is asked for, in the order in which it is checked. Values of a repeated header are lines."""
    user = headers.get(USER, "")
    if user:
        namespace, _, name = user.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
        is_account = user.startswith(SERVICE_ACCOUNT_PREFIX) and namespace and name and ":" not in name
        yield Part("ServiceAccount", name, namespace) if is_account else Part("User", user)
    for group in headers[GROUP].split("\n") if GROUP in headers else ():
        yield Part("Group", group)
    for header, values in headers.items():
        if header.startswith(EXTRA_PREFIX):
            for value in values.split("\n"):
                yield Part("UserExtra", value, key=unquote(header.removeprefix(EXTRA_PREFIX)))
    if headers.get(UID):
        yield Part("UID", headers[UID])
