"""Acting as somebody else: what the Impersonate-* headers ask for, and whether the requester may.

Every part (the user or service account, each group, the uid, each value of an extra key) is authorized by itself
against the real user. The pipeline hands in a request that has such headers and goes on with the user that comes out.
Invariant: who is impersonated was allowed part by part; nothing of the real user remains.

Spec: Kubernetes documentation, "Authenticating: user impersonation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

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
